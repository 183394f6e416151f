"""Databases to test against: SQLite files and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_answers import Start

from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.prediction_log import PredictionLog
from postgresql import empty_postgresql_url, postgresql_url

__all__ = ["empty_postgresql_url", "postgresql_url"]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'service.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database of each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "empty_postgresql_url"
    return str(request.getfixturevalue(name))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind that is up to date."""
    database = Database(database_url, busy_timeout_s=5)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start logs that end with the test."""
    logs: list[PredictionLog] = []

    def start(database: Database, **settings: object) -> PredictionLog:
        logs.append(PredictionLog(database, **{"keep_days": 90, "keep_rows": 10**6} | settings))  # type: ignore[arg-type]
        return logs[-1]

    yield start
    for log in logs:
        log.close(0.1)


@pytest.fixture
def sqlite(sqlite_url: str) -> Database:
    """An SQLite database that soon says that it is locked."""
    database = Database(sqlite_url, busy_timeout_s=0.1)
    database.migrate()
    return database
