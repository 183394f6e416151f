"""The SQLite file of a store: opened, told apart from other files, and moved out of the way when it is damaged."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from enzyme_stability.errors import ArtifactError

BUSY_S = 60.0
"""Seconds that one process waits for another one to finish writing."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_TABLES = (
    "CREATE TABLE IF NOT EXISTS space (json TEXT NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS embedding (
        key BLOB PRIMARY KEY,
        dtype TEXT NOT NULL,
        shape TEXT NOT NULL,
        checksum BLOB NOT NULL,
        data BLOB NOT NULL
    )
    """,
)


class NoStoreError(sqlite3.DatabaseError):
    """The file is a database, but not one of a store."""


def is_damage(error: Exception) -> bool:
    """Whether the content of the file is to blame, and not the disk, its rights or another process."""
    # The upper bits of an extended code say more precisely what the lower eight say.
    return isinstance(error, NoStoreError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def open_database(path: Path, space: str) -> sqlite3.Connection:
    """Open the file to read and write; it and its folder are made where they are missing.

    Args:
        path: The file.
        space: What its embeddings are of, as JSON.

    Raises:
        ArtifactError: The embeddings are of something else.
        OSError: The folder cannot be made.
        sqlite3.DatabaseError: The file cannot be opened; ``is_damage`` says whether that is due to its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return _opened(path, "", space)


def open_to_read(path: Path, space: str) -> sqlite3.Connection:
    """As ``open_database``, but for a file that cannot or must not be changed."""
    try:
        return _opened(path, "?mode=ro", space)
    except sqlite3.OperationalError:
        # A write-ahead log needs files beside the database: in a write-protected folder only "immutable" does without.
        return _opened(path, "?mode=ro&immutable=1", space)


def move_aside(path: Path) -> Path:
    """Call the file, and what SQLite keeps beside it, ``<name>.damaged-<n>``.

    Raises:
        OSError: It cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):  # a log that stays behind would be taken for that of the next file
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _opened(path: Path, mode: str, space: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path.as_uri() + mode,
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,  # a transaction begins where the code says so
        check_same_thread=False,  # the store has a lock
    )
    try:
        connection.text_factory = bytes  # damaged text may be no UTF-8
        if not mode:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
        found = _space(connection, space if not mode else None)
    except BaseException:
        connection.close()
        raise
    wanted = json.loads(space)
    if other := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        connection.close()
        what = ", ".join(f"{name} {found.get(name)!r} instead of {wanted.get(name)!r}" for name in other)
        raise ArtifactError(f"{path} holds other embeddings ({what}); move it out of the folder")
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Turn it on. While another process does the same, SQLite refuses at once instead of waiting."""
    patience = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
            time.sleep(0.02)


def _space(connection: sqlite3.Connection, new: str | None) -> dict[str, object]:
    """What the embeddings in the file are of; a file without tables gets them, and ``new``, where that is given."""
    try:
        if new and not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'embedding'").fetchone():
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    connection.execute(table)
                connection.execute("INSERT INTO space SELECT ? WHERE NOT EXISTS (SELECT 1 FROM space)", (new,))
        connection.execute("SELECT key, dtype, shape, checksum, data FROM embedding LIMIT 0")
        ((text,),) = connection.execute("SELECT json FROM space").fetchall()
        return dict(json.loads(text))
    except (TypeError, ValueError):
        raise NoStoreError("it does not say what its embeddings are of") from None
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:
            raise NoStoreError(str(error)) from None
        raise
