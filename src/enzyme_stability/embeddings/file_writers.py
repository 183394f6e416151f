"""Write embeddings to HDF5, Parquet, PyTorch, safetensors or NumPy; a file gets its name only when it is complete."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from enzyme_stability.embeddings.file_readers import METADATA_KEY
from enzyme_stability.embeddings.hdf5 import hdf5_sink
from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError

FORMAT_OF_SUFFIX = {
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".parquet": "Parquet",
    ".pt": "PyTorch",
    ".safetensors": "safetensors",
    ".npy": "NumPy",
}
"""Formats of embeddings by the suffix of the file."""

_ROW_GROUP_ROWS = 1000

_Write = Callable[[Sequence[str], Sequence[np.ndarray]], None]
_Sink = AbstractContextManager[_Write]
_Save = Callable[[Path, Sequence[str], np.ndarray], None]


class EmbeddingWriter:
    """Takes the embeddings of one file; made by ``open_embedding_writer``."""

    def __init__(self, write: _Write, path: Path, shape: tuple[int | None, ...]) -> None:
        self._write = write
        self._path = path
        self._shape = shape

    def write(self, ids: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        """Append embeddings.

        Args:
            ids: Names of the proteins; they may repeat.
            arrays: The embedding of each: (width,), or (residues, width) where the file takes residues.

        Raises:
            DataError: A number is not finite, an id cannot be written in this format, or the disk is full.
            ValueError: An array has another shape, or there is another number of them.
        """
        rows = []
        for name, array in zip(ids, arrays, strict=True):
            if len(array.shape) != len(self._shape) or array.shape[-1] != self._shape[-1] or not array.size:
                raise ValueError(f"the embedding of {name} has shape {array.shape}, the file takes {self._shape}")
            if not np.isfinite(array).all():
                raise DataError(f"{self._path}: the embedding of {name} is not finite; compute it in float32")
            rows.append(np.ascontiguousarray(array, dtype=np.float32))
        with _explained(self._path):
            self._write(ids, rows)


@contextmanager
def open_embedding_writer(
    path: str | Path, width: int, metadata: Mapping[str, Any], pooling: Literal["mean", "residues"] = "mean"
) -> Iterator[EmbeddingWriter]:
    """Open a file of embeddings for writing; its suffix decides on the format.

    - ``.h5``, ``.hdf5``: one dataset for each protein, (width,) or (residues, width); ids and metadata are attributes.
    - ``.parquet``: columns ``id`` and ``embedding``, which holds lists of float32; metadata in the schema.
    - ``.safetensors``: a tensor ``embeddings``, (proteins, width); ids and metadata in the header.
    - ``.pt`` and ``.npy``: the matrix alone, (proteins, width), without ids and metadata.

    A file is written under a hidden name beside its target and renamed at the end. After an exception, or a kill, the
    target is as it was before.

    Args:
        path: The file.
        width: Numbers in a vector.
        metadata: What the embeddings are: model, revision, layer and so on; JSON values.
        pooling: ``mean`` for one vector a protein, ``residues`` for one a residue, which HDF5 alone can hold.

    Yields:
        The writer.

    Raises:
        ConfigError: Residues are to be written to another format than HDF5.
        DataError: The suffix names no format, or the file cannot be written. The message says what to do.
        MissingDependencyError: The package for the format is not installed.
    """
    path = Path(path)
    kind = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"{path}: the suffix {path.suffix!r} names no format; take one of {', '.join(FORMAT_OF_SUFFIX)}"
        )
    if pooling == "residues" and kind != "HDF5":
        raise ConfigError(f"{path}: {kind} takes one vector a protein; write those of residues to an .h5 file")
    with _beside(path) as hidden, ExitStack() as stack:
        with _explained(path):
            write = stack.enter_context(_sink(kind, hidden, width, {"pooling": pooling, **metadata}))
        try:
            yield EmbeddingWriter(write, path, (width,) if pooling == "mean" else (None, width))
        except BaseException:
            with suppress(Exception):  # the first error tells more than those of closing half a file
                stack.pop_all().__exit__(*sys.exc_info())
            raise
        with _explained(path):
            stack.close()


def _sink(kind: str, path: Path, width: int, metadata: Mapping[str, Any]) -> _Sink:
    match kind:
        case "HDF5":
            return hdf5_sink(path, metadata)
        case "Parquet":
            return _parquet_sink(path, width, metadata)
        case "PyTorch":
            return _matrix_sink(path, width, _torch_save())
        case "safetensors":
            return _matrix_sink(path, width, _safetensors_save(metadata))
        case _:
            return _matrix_sink(path, width, _numpy_save)


@contextmanager
def _parquet_sink(path: Path, width: int, metadata: Mapping[str, Any]) -> Iterator[_Write]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Writing Parquet", "parquet") from error
    schema = pa.schema(
        [("id", pa.string()), ("embedding", pa.list_(pa.float32()))],
        metadata={METADATA_KEY: json.dumps(dict(metadata))},
    )
    names: list[str] = []
    rows: list[np.ndarray] = []

    def flush() -> None:
        ends = pa.array(np.arange(0, width * len(rows) + 1, width, dtype=np.int32))
        lists = pa.ListArray.from_arrays(ends, np.concatenate(rows))
        writer.write_batch(pa.record_batch([pa.array(names, pa.string()), lists], schema=schema))
        names.clear()
        rows.clear()

    def write(ids: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        names.extend(ids)
        rows.extend(arrays)
        if len(rows) >= _ROW_GROUP_ROWS:
            flush()

    with pq.ParquetWriter(path, schema) as writer:
        yield write
        if rows:
            flush()


@contextmanager
def _matrix_sink(path: Path, width: int, save: _Save) -> Iterator[_Write]:
    """For formats whose header says how many rows there are: they wait in a nameless file until that is known."""
    names: list[str] = []

    def write(ids: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        names.extend(ids)
        for array in arrays:
            rows.write(array.tobytes())

    with tempfile.TemporaryFile(dir=path.parent) as rows:
        yield write
        rows.flush()
        shape = (len(names), width)
        save(path, names, np.memmap(rows, np.float32, "c", shape=shape) if names else np.empty(shape, np.float32))


def _torch_save() -> _Save:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("Writing PyTorch files", "plm") from error

    def save(path: Path, _ids: Sequence[str], matrix: np.ndarray) -> None:
        with path.open("wb") as file:  # by its name, torch would write that name into the file
            torch.save(torch.from_numpy(matrix), file)

    return save


def _safetensors_save(metadata: Mapping[str, Any]) -> _Save:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingDependencyError("Writing safetensors", "plm") from error

    def save(path: Path, ids: Sequence[str], matrix: np.ndarray) -> None:
        header = {"ids": json.dumps(list(ids)), METADATA_KEY: json.dumps(dict(metadata))}
        try:
            save_file({"embeddings": matrix}, path, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    return save


def _numpy_save(path: Path, _ids: Sequence[str], matrix: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, matrix, allow_pickle=False)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden name in the folder of a file; what is there at the end becomes the file."""
    with _explained(path):
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file; give the name of one")
        if path.exists() and not os.access(path, os.W_OK):
            raise DataError(f"{path} is write-protected; choose another name")
        final = path.resolve()
        hidden = final.with_name(f".{final.name[:40]}.{secrets.token_hex(4)}.tmp")
        hidden.touch(exist_ok=False)
    try:
        with _explained(path):
            if final.exists():
                shutil.copymode(final, hidden)
        yield hidden
        with _explained(path):
            hidden.replace(final)
    finally:
        hidden.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: {_ADVICE.get(number or 0, f'it cannot be written: {reason}')}") from error


_ADVICE = {
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "the folder does not exist; create it first",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
}
