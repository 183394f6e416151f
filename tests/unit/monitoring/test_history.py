"""The logged predictions as a table: which rows, which columns, of which type."""

from __future__ import annotations

import datetime as dt
import sys

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

from enzyme_stability.errors import ArtifactError, MissingDependencyError
from enzyme_stability.monitoring import history
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.history import logged
from enzyme_stability.monitoring.tables import PredictionRow
from enzyme_stability.sequence import AMINO_ACIDS

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
COLUMNS = {column.name for column in PredictionRow.__table__.columns} - {"composition"} | set(AMINO_ACIDS)


def log(database: Database, hour: int, **columns: object) -> None:
    values = {
        "made_at": NOON + dt.timedelta(hours=hour),
        "sequence_hash": f"{hour:064d}",
        "length": 100 + hour,
        "composition": [0.05] * 20,
        "tm_celsius": 50.0,
        "coverage": 0.9,
        "in_domain": True,
        "status": "ok",
        "model": "plain",
        "model_hash": "d" * 64,
        "latency_ms": 1.0,
    }
    with database.session() as session:
        session.add(PredictionRow(**values | columns))


def test_a_stretch_of_time_holds_its_first_moment_and_not_its_last(database: Database) -> None:
    for hour in (3, 0, 2, 1):
        log(database, hour)
    abroad = dt.timezone(dt.timedelta(hours=-5))
    table = logged(database, (NOON + dt.timedelta(hours=1)).astimezone(abroad), NOON + dt.timedelta(hours=3))
    assert list(table["length"]) == [101, 102]
    assert list(table["made_at"]) == [NOON + dt.timedelta(hours=hour) for hour in (1, 2)]
    assert list(logged(database, NOON)["length"]) == [100, 101, 102, 103]


def test_one_predictor_can_be_asked_for(database: Database) -> None:
    log(database, 0, model_hash="a" * 64)
    log(database, 1, model_hash="b" * 64)
    assert list(logged(database, NOON, model_hash="b" * 64)["length"]) == [101]


def test_what_is_unknown_is_missing_and_types_do_not_depend_on_it(database: Database) -> None:
    share = [0.0] * 19 + [1.0]
    log(database, 0, composition=share, in_domain=False, similarity=0.25, growth_temperature_celsius=37.0)
    empty = {"sequence_hash", "length", "composition", "tm_celsius", "in_domain"}
    log(database, 1, status="error", **dict.fromkeys(empty))
    table = logged(database, NOON)
    assert set(table.columns) == COLUMNS
    first, second = table.iloc[0], table.iloc[1]
    assert list(first[list(AMINO_ACIDS)]) == share
    assert (first["in_domain"], first["similarity"], first["growth_temperature_celsius"]) == (False, 0.25, 37.0)
    assert second[[*AMINO_ACIDS, "tm_celsius", "length", "in_domain", "sequence_hash"]].isna().all()
    assert np.isnan(second["A"])
    assert table.dtypes.equals(logged(database, NOON + dt.timedelta(days=1)).dtypes)
    assert isinstance(table["made_at"].dtype, pd.DatetimeTZDtype)


def test_no_predictions_are_a_table_with_all_columns(database: Database) -> None:
    table = logged(database, NOON)
    assert table.empty
    assert set(table.columns) == COLUMNS


def test_rows_read_in_several_parts_make_one_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_AT_ONCE", 2)
    for hour in range(5):
        log(database, hour)
    table = logged(database, NOON)
    assert list(table["length"]) == [100, 101, 102, 103, 104]
    assert list(table.index) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("column", "damage"),
    [("composition", "'[0.5]'"), ("composition", "'no json'"), ("composition", "'[\"a\"]'"), ("made_at", "'never'")],
)
def test_rows_that_are_no_predictions_are_explained(sqlite_url: str, column: str, damage: str) -> None:
    database = Database(sqlite_url)
    database.migrate()
    log(database, 0)
    with database.session() as session:
        session.execute(text(f"UPDATE predictions SET {column} = {damage}"))  # noqa: S608
    with pytest.raises(ArtifactError, match=r"service\.db holds rows that are no predictions"):
        logged(database, NOON - dt.timedelta(days=9))


def test_a_missing_pandas_is_named(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[monitor\]"):
        logged(Database(sqlite_url), NOON)
