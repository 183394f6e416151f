"""The prediction log while its database is locked, full, gone or write-protected: rows wait, requests do not."""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_up_answers import PATIENCE_S, Start, add, count, wait_until
from sqlalchemy import event, make_url

from enzyme_stability.monitoring import prediction_log as module
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.prediction_log import PredictionLog
from postgresql import on_server


def arrives_once_it_works(log: PredictionLog, database: Database, broken: Iterator[None]) -> None:
    """What is added while the database is broken waits, and is there afterwards."""
    add(log, 3)
    wait_until(lambda: log.failures)
    assert (log.written, log.waiting, log.dropped) == (0, 3, 0)
    next(broken, None)
    assert log.flush(PATIENCE_S)
    assert (log.written, log.waiting, log.dropped) == (3, 0, 0)
    assert count(database) == 3


def test_a_locked_database_makes_no_request_wait_and_loses_nothing(sqlite: Database, start: Start) -> None:
    log = start(sqlite)
    other = sqlite3.connect(sqlite.name.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        add(log)
        seconds.append(time.perf_counter() - began)
        time.sleep(0.01)
    wait_until(lambda: log.failures)
    assert statistics.median(seconds) < 0.005
    assert (log.written, log.waiting) == (0, 50)
    other.close()
    assert log.flush(PATIENCE_S)
    assert count(sqlite) == 50


def test_rows_wait_until_a_deleted_file_is_made_again(sqlite: Database, start: Start) -> None:
    def broken() -> Iterator[None]:
        for path in Path(sqlite.name.removeprefix("sqlite:///")).parent.glob("service.db*"):
            path.unlink()
        yield
        sqlite.migrate()

    happens = broken()
    next(happens)
    arrives_once_it_works(start(sqlite), sqlite, happens)


def test_rows_wait_until_the_tables_are_made(database_url: str, start: Start) -> None:
    def broken() -> Iterator[None]:
        database.migrate()
        yield

    database = Database(database_url)
    arrives_once_it_works(start(database), database, broken())
    database.close()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_rows_wait_while_the_file_is_write_protected(start: Start) -> None:
    def broken() -> Iterator[None]:
        path.chmod(0o444)
        with ordinary_user():
            yield
        path.chmod(0o644)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "service.db"
        database = Database(f"sqlite:///{path}")
        database.migrate()
        Path(folder).chmod(0o755)
        happens = broken()
        next(happens)
        arrives_once_it_works(start(database), database, happens)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Whom the rights of files mean something to, which they do not to root."""
    if root := os.geteuid() == 0:
        import pwd

        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def grow_no_more(connection: sqlite3.Connection, _: object) -> None:
    """As on a full disk; SQLite takes this for the size that the file has by now."""
    connection.execute("PRAGMA max_page_count=1")


def test_rows_wait_while_the_disk_is_full(sqlite: Database, start: Start) -> None:
    event.listen(sqlite.engine, "connect", grow_no_more)
    log = start(sqlite)
    add(log, 900)
    wait_until(lambda: log.failures)
    assert (log.written, log.waiting) == (0, 900)
    event.remove(sqlite.engine, "connect", grow_no_more)
    assert log.flush(PATIENCE_S)
    assert count(sqlite) == 900


def test_a_full_disk_gets_room_by_deleting_what_is_old(
    sqlite: Database, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(sqlite)
    add(first, 900)
    assert first.flush(PATIENCE_S)
    event.listen(sqlite.engine, "connect", grow_no_more)
    monkeypatch.setattr(module, "_FIRST_PRUNING_S", 0.5)
    log = start(sqlite, keep_rows=100)
    add(log, 500)
    wait_until(lambda: log.failures)
    assert log.flush(PATIENCE_S)
    assert (log.written, log.dropped) == (500, 0)


def test_rows_wait_while_the_server_refuses_connections(empty_postgresql_url: str, start: Start) -> None:
    name = make_url(empty_postgresql_url).database
    server = make_url(empty_postgresql_url).set(database="postgres").render_as_string()
    database = Database(empty_postgresql_url)
    database.migrate()

    def broken() -> Iterator[None]:
        on_server(
            server,
            f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608
        )
        yield
        on_server(server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    happens = broken()
    next(happens)
    arrives_once_it_works(start(database), database, happens)
    database.close()


def test_rows_wait_while_the_server_is_read_only(empty_postgresql_url: str, start: Start) -> None:
    name = make_url(empty_postgresql_url).database
    database = Database(empty_postgresql_url)
    database.migrate()

    def broken() -> Iterator[None]:
        on_server(empty_postgresql_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        database.close()  # it holds for new connections
        yield
        on_server(
            empty_postgresql_url,
            "SET default_transaction_read_only = off",
            f"ALTER DATABASE {name} SET default_transaction_read_only = off",
        )
        database.close()

    happens = broken()
    next(happens)
    arrives_once_it_works(start(database), database, happens)
    database.close()


def test_rows_that_no_database_takes_do_not_hold_up_the_others(empty_postgresql_url: str, start: Start) -> None:
    database = Database(empty_postgresql_url)
    database.migrate()
    log = start(database)
    add(log, 2, model_hash="no hash of that length is known" * 9)
    wait_until(lambda: log.dropped == 2)
    add(log, 3)
    assert log.flush(PATIENCE_S)
    assert (log.written, log.dropped, log.failures, count(database)) == (3, 2, 1, 3)
    database.close()
