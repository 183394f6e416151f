"""Embeddings that were computed once are kept in a folder, one SQLite file for each embedding space.

A store saves time and must never cost a run: what is damaged in it is computed again, and where nothing can be saved
the run goes on without.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from enzyme_stability.embeddings.database import is_damage, move_aside, open_database, open_to_read
from enzyme_stability.errors import ConfigError

Report = Callable[[str], None]
"""Called with one sentence about what a person should know."""

_CELLS = "dtype, shape, checksum, data"
_KEYS_PER_QUERY = 500  # below 999, the least that a build of SQLite takes
_LARGEST_BLOB_BYTES = 900_000_000  # SQLite takes a row of 1e9 bytes
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Everything that decides which numbers a chain gets; embeddings of two spaces must not be mixed.

    Attributes:
        model: Name of the protein language model.
        revision: Fingerprint of its weights.
        layer: Hidden layer, -1 for the last.
        pooling: ``mean``, one vector for a chain, or ``residues``, one for each residue.
        dtype: Precision in which the model ran.
        window: Residues that the model sees at once.
        overlap: Residues that two neighbouring windows share.
        policy: What is done about residues that are not standard.
    """

    model: str
    revision: str
    layer: int
    pooling: Literal["mean", "residues"]
    dtype: Literal["float32", "bfloat16"]
    window: int
    overlap: int
    policy: str

    @property
    def json(self) -> str:
        """The fields as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the fields."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:12]

    @property
    def file_name(self) -> str:
        """Name of the file in the folder of the store."""
        slug = re.sub(r"[^A-Za-z0-9_]+", "-", self.model)[-60:].strip("-")
        return f"{slug or 'model'}-{self.key}.sqlite"


def store_folder() -> Path:
    """Where embeddings are kept where nobody names a folder.

    That is ``ENZYME_STABILITY_STORE``, or else ``enzyme-stability/embeddings`` in the cache folder of the user.

    Raises:
        ConfigError: There is no home folder to put it in.
    """
    try:
        if chosen := os.environ.get("ENZYME_STABILITY_STORE"):
            return Path(chosen).expanduser()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise ConfigError(
            "there is no home folder to keep embeddings in; set ENZYME_STABILITY_STORE to a folder"
        ) from None
    return cache / "enzyme-stability" / "embeddings"


class EmbeddingStore:
    """The embeddings of one space; may be used by several threads and processes at once, forked ones included.

    Args:
        folder: Folder of the store, made where it is missing.
        space: What the embeddings are of.
        storage_dtype: Precision in which ``put`` keeps numbers. ``float16`` halves the file; an array with numbers
            beyond its range is kept in float32. Rows kept in a lower precision than this one count as missing.
        read_only: Save nothing, change nothing.
        report: Called once for each thing that goes wrong; by default it is a warning.

    Attributes:
        path: The file.
        writable: Whether ``put`` saves. Turns false for good when the disk is full or write-protected.

    Raises:
        ArtifactError: The file holds embeddings of another space.
    """

    def __init__(
        self,
        folder: Path,
        space: EmbeddingSpace,
        *,
        storage_dtype: Literal["float16", "float32"] = "float32",
        read_only: bool = False,
        report: Report | None = None,
    ) -> None:
        self.space = space
        self.path = Path(folder).absolute() / space.file_name
        self.writable = not read_only
        self._storage_dtype = storage_dtype
        self._accepted = ("float32",) if storage_dtype == "float32" else ("float16", "float32")
        self._report = report or _warn
        self._reported: set[str] = set()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        with _LOCK:
            _STORES.add(self)
            self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a later call of another method opens it again."""
        with _LOCK, suppress(sqlite3.Error):
            connection, self._connection = self._connection, None
            if connection:
                connection.close()

    def __len__(self) -> int:
        """Number of chains in the file, damaged rows included."""
        with _LOCK:
            return sum(int(count) for (count,) in self._rows("SELECT count(*) FROM embedding", ()))

    def get(self, residues: Sequence[str]) -> dict[int, np.ndarray]:
        """The embeddings that are there and intact.

        A damaged row is deleted, so that it will be computed and kept again.

        Args:
            residues: Chains in one-letter code.

        Returns:
            Index in ``residues`` to float32 array: (width,) for mean pooling, (length, width) for residues. Chains
            that are the same share one array.
        """
        wanted = _indices(residues)
        found: dict[int, np.ndarray] = {}
        damaged: list[bytes] = []
        with _LOCK:
            for keys in _batches(wanted):
                query = f"SELECT key, {_CELLS} FROM embedding WHERE key IN ({_marks(keys)})"  # noqa: S608 - only marks
                for key, *cells in self._rows(query, keys):
                    indices = wanted.get(key, [])
                    array = _intact(key, *cells)
                    if array is None or not all(self._fits(residues[index], array) for index in indices):
                        damaged.append(key)
                    elif array.dtype.name in self._accepted:
                        found |= dict.fromkeys(indices, array.astype(np.float32))
            if damaged and self.writable:
                self._change("DELETE FROM embedding WHERE key = ?", [(key,) for key in damaged])
        return found

    def contains(self, residues: Sequence[str]) -> np.ndarray:
        """Whether there is an embedding of each chain, as booleans; quick, for the numbers are not looked at."""
        wanted = _indices(residues)
        there = np.zeros(len(residues), dtype=bool)
        with _LOCK:
            for keys in _batches(wanted):
                query = (
                    f"SELECT key FROM embedding WHERE key IN ({_marks(keys)}) "  # noqa: S608 - only marks
                    f"AND dtype IN ({_marks(self._accepted)})"
                )
                for (key,) in self._rows(query, (*keys, *self._accepted)):
                    there[wanted.get(key, [])] = True
        return there

    def put(self, residues: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        """Keep embeddings, all of them or none; one of a chain that is there already is replaced.

        Where nothing can be saved this does nothing; the first time, ``report`` is told why. A matrix of more than
        900 MB is not kept.

        Args:
            residues: Chains in one-letter code.
            arrays: The embedding of each: (width,) for mean pooling, (length, width) for residues.

        Raises:
            ValueError: An array has another shape, or there is another number of them.
        """
        rows = []
        for chain, array in zip(residues, arrays, strict=True):
            if not self._fits(chain, array):
                raise ValueError(f"no {self.space.pooling} embedding of {len(chain)} residues: shape {array.shape}")
            rows.append(_row(_key(chain), array, self._storage_dtype))
        with _LOCK:
            self._change(
                f"INSERT OR REPLACE INTO embedding (key, {_CELLS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - only marks
                [row for row in rows if len(row[-1]) < _LARGEST_BLOB_BYTES],
            )

    def _fits(self, chain: str, array: np.ndarray) -> bool:
        if self.space.pooling == "mean":
            return array.ndim == 1
        return array.ndim == 2 and len(array) == len(chain)

    def _rows(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        try:
            if connection := self._connect():
                yield from connection.execute(query, values)
        except sqlite3.DatabaseError as error:
            if self.writable and is_damage(error):
                self._overcome(error)
            else:
                self._tell(f"{self.path} cannot be read, and what it holds is computed again: {error}")

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Apply a statement to all rows in one transaction; where the file turns out damaged, to a new one."""
        while (connection := self._connect()) and self.writable:
            try:
                with connection:  # commits, or rolls back after any error
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(statement, rows)
                return
            except sqlite3.DatabaseError as error:
                self._overcome(error)

    def _connect(self) -> sqlite3.Connection | None:
        """The connection of this process; None where there is nothing to read or write."""
        while self._connection is None and self.writable:
            self._inode = _inode(self.path)
            try:
                self._connection = open_database(self.path, self.space.json)
                self._inode = _inode(self.path)
            except (OSError, sqlite3.DatabaseError) as error:
                self._overcome(error)
        if self._connection is None and _inode(self.path) is not None:
            try:
                self._connection = open_to_read(self.path, self.space.json)
            except sqlite3.DatabaseError as error:
                if not self._reported:  # of what a full disk left half made, that was said already
                    self._tell(f"{self.path} cannot be read, and what it holds is computed again: {error}")
        return self._connection

    def _overcome(self, error: OSError | sqlite3.DatabaseError) -> None:
        """Give a damaged file another name, so that the next use makes a new one; after other errors, save no more."""
        if is_damage(error):
            self.close()
            if self._inode != _inode(self.path):  # another process has done it
                return
            try:
                aside = move_aside(self.path)
            except OSError as problem:
                error = problem
            else:
                self._tell(f"{self.path} was damaged ({error}); it is now called {aside.name}, and a new one is begun")
                return
        self.writable = False
        reason = error.strerror if isinstance(error, OSError) else error
        self._tell(f"embeddings are not kept for a later run, because {self.path} cannot be written: {reason}")

    def _tell(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            self._report(message)


_LOCK = threading.RLock()
_STORES: weakref.WeakSet[EmbeddingStore] = weakref.WeakSet()


def _before_fork() -> None:
    # SQLite believes in a child that it holds the locks of the parent: no file may be open when the process splits.
    _LOCK.acquire()
    for store in list(_STORES):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _key(residues: str) -> bytes:
    return hashlib.sha256(residues.encode()).digest()


def _indices(residues: Sequence[str]) -> dict[bytes, list[int]]:
    indices = defaultdict(list)
    for index, chain in enumerate(residues):
        indices[_key(chain)].append(index)
    return indices


def _batches(keys: dict[bytes, list[int]]) -> Iterator[list[bytes]]:
    left = iter(keys)
    while batch := list(islice(left, _KEYS_PER_QUERY)):
        yield batch


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _row(key: bytes, array: np.ndarray, dtype: str) -> tuple[bytes, str, str, bytes, bytes]:
    if dtype == "float16" and array.size and not np.abs(array).max() <= _LARGEST_FLOAT16:
        dtype = "float32"
    data = array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    shape = json.dumps(array.shape)
    return key, dtype, shape, _checksum(key, dtype.encode(), shape.encode(), data), data


def _checksum(key: bytes, dtype: bytes, shape: bytes, data: bytes) -> bytes:
    digest = hashlib.blake2b(b"\0".join((key, dtype, shape, b"")), digest_size=16)
    digest.update(data)
    return digest.digest()


def _intact(key: object, dtype: object, shape: object, checksum: object, data: object) -> np.ndarray | None:
    """The array of a row, None where any of its cells is not what was written."""
    match key, dtype, shape, checksum, data:
        case bytes(), (b"float16" | b"float32") as kind, bytes() as size, bytes(), bytes() as numbers:
            if checksum != _checksum(key, kind, size, numbers):
                return None
            with suppress(TypeError, ValueError):
                return np.frombuffer(numbers, np.dtype(kind.decode()).newbyteorder("<")).reshape(json.loads(size))
    return None


def _inode(path: Path) -> int | None:
    """What stays the same when a file is renamed; None where there is none, or it cannot be seen."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
