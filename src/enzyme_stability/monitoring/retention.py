"""How long logged predictions are kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from enzyme_stability.monitoring.database import Database

PORTION = 5_000
"""Rows deleted in one transaction, so that others may write in between."""

_LONGEST_DAYS = 36_500.0  # calendars end


def prune(database: Database, *, keep_days: float | None = None, keep_rows: int | None = None) -> int:
    """Delete the oldest logged predictions.

    Args:
        database: Up to date.
        keep_days: Age in days beyond which a row is deleted; None is any age.
        keep_rows: Rows that are kept at most, the newest; None is any number.

    Returns:
        Rows deleted.

    Raises:
        ArtifactError: The database cannot be reached or written.
    """
    return sum(prune_in_portions(database, keep_days=keep_days, keep_rows=keep_rows))


def prune_in_portions(database: Database, *, keep_days: float | None, keep_rows: int | None) -> Iterator[int]:
    """As ``prune``; a transaction for each portion, and the number of rows it deleted."""
    from sqlalchemy import delete, select

    from enzyme_stability.monitoring.tables import PredictionRow

    surplus = []
    if keep_days is not None:
        oldest = dt.datetime.now(dt.UTC) - dt.timedelta(days=min(keep_days, _LONGEST_DAYS))
        surplus.append(PredictionRow.made_at < oldest)
    if keep_rows is not None:
        newest_surplus = select(PredictionRow.id).order_by(PredictionRow.id.desc()).offset(keep_rows).limit(1)
        with database.session(read_only=True) as session:
            surplus.append(PredictionRow.id <= (session.scalar(newest_surplus) or 0))
    for condition in surplus:
        # Another process may be deleting the same rows: those that it has in hand are left to it.
        some = select(PredictionRow.id).where(condition).limit(PORTION).with_for_update(skip_locked=True)
        while True:
            with database.session() as session:
                ids = session.scalars(some).all()
                session.connection().execute(delete(PredictionRow).where(PredictionRow.id.in_(ids)))
            if not ids:
                break
            yield len(ids)
