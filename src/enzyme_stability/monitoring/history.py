"""The logged predictions as a table."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.errors import ArtifactError, MissingDependencyError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.sequence import AMINO_ACIDS

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 10_000
_TYPES = {"int": "Int64", "float": "float64", "bool": "boolean", "str": "object"}


def logged(
    database: Database,
    since: dt.datetime,
    until: dt.datetime | None = None,
    model_hash: str | None = None,
    *,
    most: int | None = None,
) -> pd.DataFrame:
    """What was predicted in a stretch of time, oldest first.

    Args:
        database: Up to date.
        since: The first moment, with its time zone.
        until: The first moment that is not part of it, with its time zone; None is now.
        model_hash: Only the predictions of this predictor.
        most: Rows, the newest ones; None is all.

    Returns:
        The columns of ``PredictionRow`` except ``composition``, and one column with the share of each amino acid
        (``A`` to ``Y``), which is NaN where the sequence was not known. ``made_at`` is UTC.

    Raises:
        ArtifactError: The database cannot be read, or holds something that is no prediction.
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingDependencyError("Looking at logged predictions", "monitor") from None
    from sqlalchemy import func, select

    from enzyme_stability.monitoring.tables import PredictionRow

    columns = [column for column in PredictionRow.__table__.columns if column.name != "composition"]
    names = [column.name for column in columns]
    types = {column.name: _TYPES.get(column.type.python_type.__name__) for column in columns}
    query = (
        select(*columns, PredictionRow.composition)
        .where(PredictionRow.made_at >= since)
        .order_by(PredictionRow.made_at, PredictionRow.id)
        .execution_options(yield_per=_AT_ONCE)
    )
    if until is not None:
        query = query.where(PredictionRow.made_at < until)
    if most is not None:
        newest = select(func.max(PredictionRow.id)).scalar_subquery()
        query = query.where(PredictionRow.id > newest - most)
    if model_hash is not None:
        query = query.where(PredictionRow.model_hash == model_hash)

    def table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
        given = pd.DataFrame([row[:-1] for row in rows], columns=names, dtype="object")
        given = given.astype({name: kind for name, kind in types.items() if kind})
        given["made_at"] = pd.to_datetime(given["made_at"], utc=True).dt.as_unit("us")
        unknown = [np.nan] * len(AMINO_ACIDS)
        shares = np.array([row[-1] or unknown for row in rows], dtype=float).reshape(len(rows), len(AMINO_ACIDS))
        return given.join(pd.DataFrame(shares, columns=list(AMINO_ACIDS)))

    try:
        with database.session(read_only=True) as session:
            parts = [table([tuple(row) for row in part]) for part in session.execute(query).partitions()]
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the database {database.name} holds rows that are no predictions: {error}") from error
    return pd.concat(parts, ignore_index=True) if parts else table([])
