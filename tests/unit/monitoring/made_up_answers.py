"""Requests with their answers, for logs to keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import func, select

from enzyme_stability import Record
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.monitoring.tables import PredictionRow
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import AMINO_ACIDS

CHAIN = AMINO_ACIDS * 3
DIGEST = "d" * 64
PATIENCE_S = 20.0

Start = Callable[..., PredictionLog]
"""Starts a log of a database that ends with the test."""


def records(count: int) -> list[Record]:
    return [Record(f"r{k}", CHAIN) for k in range(count)]


def answers(asked: Sequence[Record]) -> list[Prediction]:
    return [Prediction(r.id, len(CHAIN), 50.0, 40.0, 60.0, True, "ok", "", 0.5) for r in asked]


def add(log: PredictionLog, count: int = 1, model_hash: str = DIGEST) -> None:
    asked = records(count)
    log.add(asked, answers(asked), model="plain", model_hash=model_hash, coverage=0.9, latency_s=0.01)


def rows(database: Database) -> list[PredictionRow]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(PredictionRow).order_by(PredictionRow.id)))


def count(database: Database) -> int:
    with database.session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(PredictionRow)) or 0


def wait_until(happened: Callable[[], object]) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < patience
        time.sleep(0.02)
