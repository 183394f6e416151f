"""Embeddings in a file that a stranger sent: looked over before any of it is unpacked into memory.

The readers of ``embeddings`` never run anything in a file. What is checked here is that a small file cannot claim
endless memory or time, and that HDF5 does not lead to other files of the machine.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickletools import genops, markobject, stackslice
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.errors import DataError, EnzymeStabilityError, MissingDependencyError, TooLargeError

if TYPE_CHECKING:
    import h5py

_SAFETENSORS_HEADER = 4 << 20
_TORCH_INDEX = 8 << 20
_HDF5_TEXT = 16 << 20
_TORCH_NAMES = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"}
_TORCH_STORAGE = re.compile("torch (BFloat16|Double|Float|Half)Storage")
_TORCH_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINUNICODE"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("BININT", "BININT1", "BININT2", "LONG1", "NONE", "NEWTRUE", "NEWFALSE"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}
_TORCH_SHARED = {"BINUNICODE", "GLOBAL", "REDUCE"}
_TORCH_NESTED = 2


def check_embeddings(path: Path, largest: int) -> None:
    """Refuse a file that no honest program wrote, or that needs too much memory.

    Args:
        path: The file.
        largest: Bytes that the numbers in it may take.

    Raises:
        DataError: The file is of another format, damaged, or not a plain one of its format.
        TooLargeError: It holds too much.
        MissingDependencyError: The package for the format is not installed.
    """
    with path.open("rb") as file:
        head = file.read(16)
    safetensors = _check_safetensors if head[8:9] == b"{" else None
    check = next((check for magic, check in _CHECKS.items() if head.startswith(magic)), safetensors)
    if check is None:
        raise DataError("the file holds no embeddings: send HDF5, PyTorch, safetensors or NumPy, not compressed")
    try:
        check(path, largest)
    except EnzymeStabilityError:
        raise
    except MemoryError:
        raise TooLargeError("the file holds more than fits into memory: split it") from None
    except Exception as error:  # the libraries raise whatever a damaged file leads them to
        raise DataError("the file is damaged: copy or write it again") from error


def _check_parquet(path: Path, largest: int) -> None:
    del path, largest
    # A page of a few bytes may stand for any number of values, and its own account of it need not be true.
    raise DataError("the file is Parquet, which is not taken here: send HDF5, PyTorch, safetensors or NumPy")


def _check_numpy(path: Path, largest: int) -> None:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # reads the header alone, and needs the file to be so long
    except ValueError as error:
        raise DataError("the file is damaged, or no plain array of numbers: write it with numpy.save") from error
    if array.dtype.kind != "f":
        raise DataError(f"the file: values of type {array.dtype} were found, expected floating-point numbers")
    _check_size(array.size * 4, largest)  # all is turned into float32


def _check_safetensors(path: Path, largest: int) -> None:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MissingDependencyError("Reading safetensors", "plm") from error
    _check_size(2 * path.stat().st_size, largest)
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _SAFETENSORS_HEADER:
            raise TooLargeError("the file names too many tensors: save one tensor 'embeddings'")
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        if len(names) > 1 and any(file.get_slice(name).get_dtype() == "BF16" for name in names):
            raise DataError("the file holds several tensors of bfloat16: save them as float32, or as one tensor")


def _check_torch(path: Path, largest: int) -> None:
    _check_size(2 * path.stat().st_size, largest)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # Two readers of zip may disagree about what is there twice or lies packed.
        plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not plain or len({member.filename.casefold() for member in members}) < len(members):
            raise DataError("the file is a zip archive that PyTorch did not write: save it with torch.save")
        _check_size(sum(member.file_size for member in members), path.stat().st_size)
        for member in members:
            if member.filename.casefold().endswith("data.pkl"):
                if member.file_size > _TORCH_INDEX:
                    raise TooLargeError("the file names too many tensors: save one tensor for all proteins")
                _check_torch_index(archive.read(member))


def _check_torch_index(index: bytes) -> None:
    """Read what a file would have PyTorch do, without doing it: put tensors together, and no more.

    PyTorch's own restricted loading still makes byte strings of any length, and texts and tuples that refer to
    themselves often enough to keep it busy for ever.
    """
    nesting: list[int | None] = []  # of what lies on the stack: tuples in tuples; None is a mark
    shared: dict[int, bool] = {}
    before = ""
    for opcode, given, _ in genops(index):
        name, argument = opcode.name, given or 0
        if name == "GLOBAL":
            allowed = argument in _TORCH_NAMES or _TORCH_STORAGE.fullmatch(str(argument)) is not None
        elif name.endswith("PUT"):
            shared[int(argument)] = before in _TORCH_SHARED
            continue
        else:
            allowed = name in _TORCH_OPCODES and (not name.endswith("GET") or shared.get(int(argument), False))
        inside = _taken(nesting, opcode.stack_before)
        level = 1 + max(inside, default=0) if "TUPLE" in name else 0
        if not allowed or level > _TORCH_NESTED:
            raise DataError("the file holds more than tensors: save a tensor, or a dictionary from ids to vectors")
        nesting.extend(None if kind is markobject else level for kind in opcode.stack_after)
        before = name


def _taken(stack: list[int | None], kinds: list[Any]) -> list[int]:
    """Take from the stack what an instruction takes."""
    taken: list[int] = []
    if stackslice in kinds:
        while (level := stack.pop()) is not None:
            taken.append(level)
        kinds = kinds[: kinds.index(markobject)]
    for _ in kinds:
        taken.append(stack.pop() or 0)
    return taken


def _check_hdf5(path: Path, largest: int) -> None:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("Reading HDF5", "plm") from error
    with h5py.File(path, "r") as file:
        look = _Hdf5Look(file, largest)
        look.at_texts(file, list(file.attrs))
        links: list[tuple[str, object]] = []
        file.visititems_links(lambda name, link: links.append((name, link)))  # h5py lets no error out of a visit
        for name, link in links:
            look.at_link(name, link)


class _Hdf5Look:
    """Adds up what a reader of an HDF5 file would take into memory."""

    def __init__(self, file: h5py.File, largest: int) -> None:
        self._file = file
        self._largest = largest
        self._numbers = self._text = 0
        self._places: set[int] = set()

    def at_link(self, name: str, link: object) -> None:
        import h5py

        if not isinstance(link, h5py.HardLink):
            raise DataError("the file holds a link, which may lead to another file: write it again with the numbers")
        place = int(self._file.id.links.get_info(name.encode()).u)
        if place in self._places:  # read as often as it is named, a small file would become any size
            raise DataError("the file holds the same numbers under several names: write each protein once")
        self._places.add(place)
        item = self._file[name]
        if isinstance(item, h5py.Dataset):
            values = max(item.size or 0, math.prod(item.chunks or (0,)))
            self._numbers += values * max(item.dtype.itemsize, 4)
            _check_size(self._numbers, self._largest)
            self.at_texts(item, [name for name in ("original_id",) if name in item.attrs])

    def at_texts(self, item: h5py.File | h5py.Dataset, names: list[str]) -> None:
        for name in names:
            attribute = item.attrs.get_id(name)
            if attribute.dtype.hasobject and attribute.shape != ():
                raise DataError(f"the file: the attribute {name!r:.40} is a list of texts, where one text is taken")
            self._text += len(str(item.attrs[name]))
            _check_size(self._text, _HDF5_TEXT)


def _check_size(size: int, largest: int) -> None:
    if size > largest:
        raise TooLargeError(f"the file holds more than the {largest:,} bytes taken here: split it")


_CHECKS: dict[bytes, Callable[[Path, int], None]] = {
    b"\x89HDF\r\n\x1a\n": _check_hdf5,
    b"\x93NUMPY": _check_numpy,
    b"PAR1": _check_parquet,
    b"PK\x03\x04": _check_torch,
}
