"""The logged predictions as a file for other programs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from sqlalchemy import select

from enzyme_stability.data.writers import open_writer
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.tables import PredictionRow
from enzyme_stability.sequence import AMINO_ACIDS

_AT_ONCE = 1_000


def export_log(
    database: Database, target: str | Path, *, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> int:
    """Write the logged predictions, oldest first, a few of them in memory at a time.

    The columns are those of ``PredictionRow``, with one for the share of each amino acid (``A`` to ``Y``) in place of
    ``composition``. ``made_at`` is ISO 8601, UTC.

    Args:
        database: With the log.
        target: File to write, by its suffix CSV, TSV, JSON lines or Parquet; ``-`` is standard output.
        since: The first moment; None is all there is.
        until: The first moment that is not part of it; None is now.

    Returns:
        Rows written.

    Raises:
        ArtifactError: The database cannot be read.
        DataError: The file cannot be written.
        MissingDependencyError: The file is Parquet and pyarrow is not installed.
    """
    query = select(PredictionRow).order_by(PredictionRow.made_at, PredictionRow.id)
    if since is not None:
        query = query.where(PredictionRow.made_at >= since)
    if until is not None:
        query = query.where(PredictionRow.made_at < until)
    plain = [column for column in PredictionRow.__table__.columns if column.name != "composition"]
    columns = {column.name: column.type.python_type for column in plain} | {"made_at": str}
    rows = 0
    with (
        database.session(read_only=True) as session,
        open_writer(target, columns | dict.fromkeys(AMINO_ACIDS, float)) as table,
    ):
        for row in session.scalars(query.execution_options(yield_per=_AT_ONCE)):
            shares = dict(zip(AMINO_ACIDS, row.composition or (), strict=False))
            cells = {name: getattr(row, name) for name in columns}
            table.write({**cells, "made_at": row.made_at.isoformat(), **shares})
            rows += 1
    return rows
