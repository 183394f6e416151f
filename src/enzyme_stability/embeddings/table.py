"""Embeddings of many proteins as one matrix, and what must hold for every file they are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from enzyme_stability.errors import DataError


@dataclass(frozen=True)
class EmbeddingTable:
    """One vector for each protein.

    Attributes:
        ids: Name of each protein, ``embedding_<n>`` counted from 1 where the file has no names.
        vectors: float32 (proteins, width), every number finite.
        metadata: What the file says of its embeddings, such as ``model``, ``layer`` and ``pooling``; may be empty.
    """

    ids: list[str]
    vectors: np.ndarray
    metadata: dict[str, Any]

    def select(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors of some proteins, in the order of ``ids``, shape (n, width).

        Raises:
            DataError: A protein is not in the table, or is there twice with different vectors.
        """
        place: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            first = place.setdefault(name, row)
            if first != row and not np.array_equal(self.vectors[first], self.vectors[row]):
                raise DataError(f"two proteins are called {name}; give each a name of its own")
        if absent := [name for name in ids if name not in place]:
            raise DataError(f"{len(absent):,} of {len(ids):,} proteins have no embedding, such as {absent[0]}")
        vectors: np.ndarray = self.vectors[[place[name] for name in ids]]
        return vectors


class Found(NamedTuple):
    """What a file holds, before it is checked: a matrix, or one vector for each record, and the names if it has any."""

    vectors: np.ndarray | Sequence[np.ndarray]
    ids: Sequence[str] | None = None
    metadata: dict[str, Any] | None = None


def checked_table(path: Path, found: Found) -> EmbeddingTable:
    """The table of a file.

    Raises:
        DataError: The file is empty, or its vectors have other shapes, other types or numbers that are not finite.
    """
    vectors, ids, metadata = found
    matrix = _matrix(path, vectors) if isinstance(vectors, np.ndarray) else _stacked(path, vectors, ids)
    if ids is not None and len(ids) != len(matrix):
        raise DataError(f"{path} has {len(ids)} ids for {len(matrix)} embeddings; write it again")
    names = _names(ids, len(matrix))
    for row in np.flatnonzero(~np.isfinite(matrix).all(axis=1))[:1]:
        wrong = int((~np.isfinite(matrix[row])).sum())
        raise DataError(
            f"{path}, record {names[row]}: {wrong} of {matrix.shape[1]} numbers are not finite as float32; "
            "compute this embedding again or leave it out"
        )
    return EmbeddingTable(names, matrix, metadata or {})


def check_type(path: Path, record: str, found: object, floating: bool) -> None:
    """Refuse what is not of a floating-point type: numbers that are no embedding would be taken for one.

    Raises:
        DataError: ``floating`` is false.
    """
    if not floating:
        raise DataError(f"{path}, {record}: values of type {found} were found, expected floating-point numbers")


def _matrix(path: Path, vectors: np.ndarray) -> np.ndarray:
    if vectors.ndim != 2:
        raise DataError(
            f"{path}: an array of shape {vectors.shape} was found, expected a matrix with one row for each protein"
        )
    if vectors.size == 0:
        raise DataError(f"{path} holds no embeddings: its matrix has shape {vectors.shape}")
    check_type(path, "the matrix", vectors.dtype, np.issubdtype(vectors.dtype, np.floating))
    return _float32(vectors)


def _stacked(path: Path, vectors: Sequence[np.ndarray], ids: Sequence[str] | None) -> np.ndarray:
    if not vectors:
        raise DataError(f"{path} holds no embeddings")
    names = _names(ids, len(vectors))
    for name, vector in zip(names, vectors, strict=True):
        if vector.ndim != 1 or vector.size == 0:
            raise DataError(f"{path}, record {name}: shape {vector.shape} was found, expected one vector for a protein")
        check_type(path, f"record {name}", vector.dtype, np.issubdtype(vector.dtype, np.floating))
        if vector.size != vectors[0].size:
            raise DataError(
                f"{path}, record {name}: {vector.size} numbers were found, expected {vectors[0].size} as in record "
                f"{names[0]}; one file takes embeddings of one model"
            )
    return np.stack([_float32(vector) for vector in vectors])


def _names(ids: Sequence[str] | None, count: int) -> list[str]:
    return list(ids) if ids is not None else [f"embedding_{number}" for number in range(1, count + 1)]


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused as such
        return np.ascontiguousarray(values, dtype=np.float32)
