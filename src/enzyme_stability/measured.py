"""Predictions beside measurements, as evaluation and cross-validation need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from enzyme_stability.embeddings.table import EmbeddingTable
from enzyme_stability.predictor import Predictor
from enzyme_stability.sequence import Record

GIVEN_GROWTH = "_given_growth_temperature"
"""Ending of the columns predicted with the growth temperature as an input."""


HELD_OUT_FOLDS = "held_out_folds"
"""Name of the file that training leaves in a predictor's folder: every protein as predicted without its cluster."""


def known_growth_temperature(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Growth temperature in degC, NaN where unknown: the first of ``columns`` that has a value counts."""
    growth = pd.Series(np.nan, index=table.index)
    for column in columns:
        if column in table:
            growth = growth.fillna(table[column].astype(float))
    return growth


def predict_table(
    predictor: Predictor, table: pd.DataFrame, coverage: float = 0.9, embeddings: EmbeddingTable | None = None
) -> pd.DataFrame:
    """Predictions beside measurements, with and without the growth temperature.

    Args:
        predictor: The predictor.
        table: Columns ``sequence`` and ``tm_celsius``; ``growth_temperature`` (degC, NaN unknown) where there is one.
        coverage: Coverage of the intervals.
        embeddings: Taken instead of the sequences, by ``id``.

    Raises:
        DataError: A protein of the table has no embedding.
    """

    def columns(growth: pd.Series | None, suffix: str) -> dict[str, list[Any]]:
        temperatures = [None] * len(table) if growth is None else [None if np.isnan(g) else g for g in growth]
        records = [Record("", s, g) for s, g in zip(table["sequence"], temperatures, strict=True)]
        if embeddings is None:
            rows = predictor.predict(records, coverage=coverage, strict=True)
        else:
            vectors = embeddings.select(table["id"].astype(str).tolist())
            rows = predictor.predict_embeddings(
                table["id"].tolist(), vectors, made_by=embeddings.metadata, coverage=coverage
            )
        return {
            f"predicted_celsius{suffix}": [r.tm_celsius for r in rows],
            f"lower_celsius{suffix}": [r.tm_lower_celsius for r in rows],
            f"upper_celsius{suffix}": [r.tm_upper_celsius for r in rows],
            f"in_domain{suffix}": [r.in_domain for r in rows],
        }

    kept = [c for c in ("id", "tm_celsius", "organism", "growth_temperature") if c in table]
    given = columns(None, "")
    if embeddings is None and predictor.takes_growth_temperature and "growth_temperature" in table:
        given |= columns(table["growth_temperature"], GIVEN_GROWTH)
    return pd.concat([table[kept], pd.DataFrame(given, index=table.index)], axis=1)
