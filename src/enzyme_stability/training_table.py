"""Reads the table a predictor learns from: clean residues, clusters, growth temperatures and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.config import Boosting, StackedHead, TrainConfig
from enzyme_stability.errors import DataError, SequenceError
from enzyme_stability.measured import known_growth_temperature
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.storage import fetch

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_PROTEINS = 200
"""Fewer training proteins than this give neither trees nor intervals worth having."""

MINIMUM_CALIBRATION = 60
"""Calibration proteins below which the shorter tail of a 90 % interval may have no rank of its own."""


def read_training_table(config: TrainConfig, report: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """The prepared table with clean residues and columns ``cluster``, ``growth_temperature`` and ``weight``.

    Clusters are computed unless the table brings a ``cluster`` column; rows whose ``split`` is ``test`` are left aside.

    Args:
        config: Which table, and how it is split.
        report: Told how many rows were left aside, and why, and what takes long.

    Raises:
        DataError: The table cannot be used; the message names column and row.
    """
    from enzyme_stability.data.frames import read_table
    from enzyme_stability.data.homology import cluster

    path = config.data.path
    table = read_table(fetch(path)).reset_index(drop=True)  # of which errors name the row
    if missing := {"sequence", "tm_celsius"}.difference(table.columns):
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; make it with 'enzyme-stability data prepare'")
    if "split" in table:
        table = _without(table, table["split"] == "test", "are kept for testing", report)
    table = _without(table, table[["sequence", "tm_celsius"]].isna().any(axis=1), "lack a sequence or a Tm", report)
    refuse_too_few(len(table), config)
    growth_columns = [column for column in config.data.growth_temperature_columns if column in table]
    for column in ("tm_celsius", *growth_columns):
        table[column] = _numbers(table, column, path)
    table["residues"] = _residues(table, path)
    table["growth_temperature"] = known_growth_temperature(table, growth_columns)
    table["weight"] = _weights(table, config)
    if "cluster" not in table:
        split = config.split
        report(f"grouping {len(table):,} proteins by their homology")
        table["cluster"] = cluster(table["residues"].tolist(), split.cluster_identity, split.cluster_coverage)
    elif (unknown := table["cluster"].isna()).any():
        raise DataError(f"{path}, row {table.index[unknown][0] + 1}: there is no cluster; give all rows one, or none")
    return table.reset_index(drop=True)


def _without(table: pd.DataFrame, leave: pd.Series, why: str, report: Callable[[str], None]) -> pd.DataFrame:
    if leave.any():
        report(f"{int(leave.sum()):,} of {len(table):,} rows {why}")
    return table[~leave]


def _numbers(table: pd.DataFrame, column: str, path: str) -> pd.Series:
    """A column as numbers; what is neither a finite number nor missing is an error that names the row."""
    import pandas as pd

    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = table[column].notna() & ~np.isfinite(numbers)
    if bad.any():
        row, value = table.index[bad][0] + 1, table.loc[bad, column].iloc[0]
        raise DataError(f"{path}, row {row}: {column} is '{value}', which is no temperature")
    return numbers


def _residues(table: pd.DataFrame, path: str) -> list[str]:
    residues = []
    for row, sequence in zip(table.index + 1, table["sequence"], strict=True):
        try:
            residues.append(clean_sequence(str(sequence)).residues)
        except SequenceError as error:
            raise DataError(f"{path}, row {row}: {error}") from None
    return residues


def _weights(table: pd.DataFrame, config: TrainConfig) -> np.ndarray:
    """Inverse of the variance: of one measurement and, where it was repeated, of what the repeats showed."""
    column = config.data.spread_column
    if column not in table:
        return np.ones(len(table))
    spread = _numbers(table, column, config.data.path).fillna(0).to_numpy()
    error = config.data.measurement_error_celsius**2
    weights: np.ndarray = error / (error + spread**2)
    return weights


def refuse_too_few(proteins: int, config: TrainConfig) -> None:
    """Say before anything is fitted that the settings ask for more proteins than there are.

    Raises:
        DataError: With a setting that would do.
    """
    path, share = config.data.path.rsplit("/", 1)[-1], config.split.calibration_share
    if proteins < MINIMUM_PROTEINS:
        raise DataError(f"{path} has {proteins} proteins with a Tm; at least {MINIMUM_PROTEINS} are needed")
    folds = config.split.folds
    learnt = proteins * (1 - 1 / folds if folds else 1)
    if (calibration := int(learnt * share)) < MINIMUM_CALIBRATION:
        enough = MINIMUM_CALIBRATION / learnt + 0.02
        raise DataError(
            f"{path} would leave {calibration} proteins to calibrate the intervals on, and {MINIMUM_CALIBRATION} are "
            f"needed: {f'raise split.calibration_share to {enough:.2f}' if enough < 0.5 else 'set split.folds to 0'}"
        )
    trees, setting = _trees(config)
    if trees is None:
        return
    watching = 0.0 if isinstance(config.head, StackedHead) else config.split.validation_share
    offered = int(learnt * (1 - share) * (1 - watching) * trees.row_share)
    if offered < 8 * trees.minimum_leaf_size:
        raise DataError(
            f"{path} would offer {offered} proteins to a tree, too few for leaves of {trees.minimum_leaf_size}: "
            f"set {setting}.minimum_leaf_size={max(2, offered // 8)} or lower"
        )


def _trees(config: TrainConfig) -> tuple[Boosting | None, str]:
    if isinstance(config.head, StackedHead):
        return config.head.trees, "head.trees"
    return (config.head, "head") if isinstance(config.head, Boosting) else (None, "")
