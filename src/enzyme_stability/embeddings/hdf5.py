"""Embeddings in HDF5 as bio_embeddings and biotrainer exchange them: one dataset for each protein.

The true name of a protein is the attribute ``original_id`` of its dataset, for a key cannot be any text. What is common
to all embeddings are attributes of the file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.embeddings.table import Found, check_type
from enzyme_stability.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    import h5py
    from _typeshed import ReadableBuffer as Buffer

_MATRIX_NAMES = {"embedding", "embeddings"}


@contextmanager
def hdf5_sink(
    path: Path, metadata: Mapping[str, Any]
) -> Iterator[Callable[[Sequence[str], Sequence[np.ndarray]], None]]:
    """Open a new file; yields the function that appends one dataset for each id.

    Raises:
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("Writing HDF5", "plm") from error

    keys: dict[str, int] = {}

    def write(ids: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        for name, array in zip(ids, arrays, strict=True):
            file.create_dataset(_free_key(name, keys), data=array).attrs["original_id"] = name
            stream.check()

    with _Stream(path, "w+") as stream:
        with h5py.File(stream, "w", track_order=True) as file:
            for name, value in metadata.items():
                if value is not None:
                    file.attrs[name] = value if isinstance(value, str | bool | int | float) else json.dumps(value)
            yield write
        stream.check()


def read_hdf5(path: Path) -> Found:
    """Read a file, one by another tool too; the matrix of a protein is averaged over its residues.

    Datasets without ``original_id`` go by their key. A file with a single matrix called ``embeddings`` is taken for one
    row a protein.

    Raises:
        DataError: A dataset cannot hold an embedding.
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("Reading HDF5", "plm") from error
    with h5py.File(path, "r", locking="best-effort") as file:
        metadata = {name: _plain(value) for name, value in file.attrs.items()}
        ids: list[str] = []
        vectors: list[np.ndarray] = []
        for key, dataset in _datasets(path, file):
            _check(path, key, dataset)
            original = dataset.attrs.get("original_id")
            values: np.ndarray = dataset[()]
            if len(file) == 1 and key in _MATRIX_NAMES and values.ndim == 2 and original is None:
                return Found(values, None, metadata)
            if values.ndim == 2:
                if len(values) > 1:
                    metadata["pooling"] = "mean of residues"
                values = values.mean(axis=0, dtype=np.float64)
            ids.append(key if original is None else str(_plain(original)))
            vectors.append(values)
        return Found(vectors, ids, metadata)


class _Stream(io.FileIO):
    """A file that keeps its first error to itself.

    HDF5 does not survive an error in its own writing: with a full disk it ends the process when that exits.
    """

    _problem: OSError | None = None

    def check(self) -> None:
        """Raise the error that was kept."""
        if self._problem:
            raise self._problem

    def write(self, data: Buffer, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with self._kept():
            while left:
                left = left[super().write(left) :]
        return size

    def truncate(self, size: int | None = None, /) -> int:
        with self._kept():
            return super().truncate(size)
        return size or 0

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._problem = self._problem or error


def _free_key(name: str, keys: dict[str, int]) -> str:
    """A key that is not in use, noted in ``keys``; no slash, no empty name and no dot alone may be one in HDF5."""
    key = base = name.replace("/", "_") if name.strip(".") else f"_{name}"
    while key in keys:
        keys[base] += 1
        key = f"{base}__{keys[base]}"
    keys[key] = 1
    return key


def _datasets(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets in the order of the file; those in a group belong to ids with a slash."""
    import h5py

    for key in file:
        if file.get(key, getclass=True, getlink=True) is h5py.ExternalLink:
            raise DataError(f"{path}, record {key}: its numbers are in another file; copy them into this one")
        item = file[key]
        if isinstance(item, h5py.Group):
            names: list[str] = []
            item.visit(names.append)  # each object once, and none of another file
            inside = ((f"{key}/{name}", item[name]) for name in names)
            yield from (pair for pair in inside if isinstance(pair[1], h5py.Dataset))
        else:
            yield key, item


def _check(path: Path, key: str, dataset: h5py.Dataset) -> None:
    if not hasattr(dataset, "shape") or dataset.shape is None or dataset.ndim not in {1, 2} or 0 in dataset.shape:
        raise DataError(
            f"{path}, record {key}: shape {getattr(dataset, 'shape', None)} was found, expected the vector of a "
            "protein or a matrix with one row for each residue"
        )
    check_type(path, f"record {key}", dataset.dtype, np.issubdtype(dataset.dtype, np.floating))
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{path}, record {key}: its numbers are in another file; copy them into this one")
    if dataset.id.get_storage_size() == 0:  # reading would make up zeros, as many as the file claims to have
        raise DataError(f"{path}, record {key}: the numbers were never written; write the file again")


def _plain(value: object) -> object:
    match value:
        case np.generic() | np.ndarray():
            return _plain(value.tolist())
        case bytes():
            return value.decode(errors="replace")
    return value
