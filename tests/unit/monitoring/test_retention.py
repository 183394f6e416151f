"""Old predictions are deleted: by age, by number, the oldest first, beside others who do the same."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from sqlalchemy import insert, select

from enzyme_stability.errors import ArtifactError
from enzyme_stability.monitoring import retention
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.retention import prune
from enzyme_stability.monitoring.tables import PredictionRow


def log(database: Database, *days_ago: float) -> None:
    now = dt.datetime.now(dt.UTC)
    common = {"coverage": 0.9, "status": "ok", "model": "plain", "model_hash": "d", "latency_ms": 1.0}
    with database.session() as session:
        rows = [common | {"made_at": now - dt.timedelta(days=days), "length": k} for k, days in enumerate(days_ago)]
        session.execute(insert(PredictionRow), rows)


def kept(database: Database) -> list[int | None]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(PredictionRow.length).order_by(PredictionRow.length)))


def test_rows_older_than_the_limit_are_deleted(database: Database) -> None:
    log(database, 30, 8, 6.9, 0)
    assert prune(database, keep_days=7) == 2
    assert kept(database) == [2, 3]


def test_the_newest_rows_are_kept(database: Database) -> None:
    log(database, 5, 4, 3, 2, 1)
    assert prune(database, keep_rows=2) == 3
    assert kept(database) == [3, 4]


def test_both_limits_hold_together(database: Database) -> None:
    log(database, 9, 8, 3, 2, 1)
    assert prune(database, keep_days=7, keep_rows=2) == 3
    assert kept(database) == [3, 4]


def test_nothing_is_deleted_within_the_limits(database: Database) -> None:
    log(database, 5, 4, 3)
    assert prune(database) == 0
    assert prune(database, keep_days=1e9, keep_rows=3) == 0
    assert kept(database) == [0, 1, 2]


def test_gaps_in_the_numbers_of_rows_cost_no_rows(database: Database) -> None:
    log(database, 5, 4, 3, 2, 1)
    with database.session() as session:
        for row in session.scalars(select(PredictionRow).where(PredictionRow.length.in_([1, 3]))):
            session.delete(row)
    assert prune(database, keep_rows=3) == 0
    assert kept(database) == [0, 2, 4]


def test_many_rows_are_deleted_in_portions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PORTION", 10)
    log(database, *[8] * 25, *[1] * 4)
    assert list(retention.prune_in_portions(database, keep_days=7, keep_rows=None)) == [10, 10, 5]
    assert len(kept(database)) == 4


def test_several_may_delete_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PORTION", 7)
    log(database, *[8] * 200, *[1] * 5)
    deleted: list[int] = []
    threads = [threading.Thread(target=lambda: deleted.append(prune(database, keep_days=7))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(deleted) == 200
    assert len(deleted) == 4
    assert len(kept(database)) == 5


def test_a_database_that_is_not_set_up_is_explained(database_url: str) -> None:
    with pytest.raises(ArtifactError, match="tarting the service"):
        prune(Database(database_url), keep_days=7)
