"""Homology-held-out predictions of models that a training configuration cannot express.

The folds, the calibration proteins inside them and the intervals are those of ``enzyme_stability.training``, so the
figures stand beside those of ``cross_validate``. Models are put together from the package's own parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from enzyme_stability.config import StackedHead, TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.data.splits import folds_by_cluster, split_by_cluster
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.heads.onnx_export import to_onnx
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.heads.stacked import fit_stack
from enzyme_stability.metrics import interval_figures, metrics
from enzyme_stability.uncertainty import ConformalInterval

COVERAGE = 0.9
EXTRA = "extra"
"""Name of the descriptor block that an experiment adds for the trees."""


class Raw(NamedTuple):
    """Uncalibrated predictions in degC, each of shape (n,)."""

    tm: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


Model = Callable[[np.ndarray], Raw]
"""Predicts rows of the table, given by number."""

Fit = Callable[[np.ndarray], Model]
"""Learns from rows of the table, given by number."""

Columns = Callable[[np.ndarray], np.ndarray]
"""Features of rows of the table: shape (n,) to (n, k)."""


def without_quantiles(tm: np.ndarray) -> Raw:
    """Predictions of a model that has no raw interval: its conformal interval has one width everywhere."""
    return Raw(tm, tm - 1, tm + 1)


def encoded(table: pd.DataFrame, config: TrainConfig) -> tuple[np.ndarray, dict[str, slice]]:
    """Descriptors of the table, shape (n, width), and the columns of each block."""
    encoder = CompositionEncoder(config.encoder.blocks)
    return encoder.encode(table["residues"].tolist()), encoder.columns


def predict_held_out(table: pd.DataFrame, config: TrainConfig, fit: Fit) -> pd.DataFrame:
    """Predict every protein by a model that saw no protein of its cluster; columns as of ``cross_validate``."""
    clusters, tm = table["cluster"].to_numpy(), table["tm_celsius"].to_numpy(dtype=float)
    folds = folds_by_cluster(clusters, config.split.folds, config.seed)
    predicted = np.empty((3, len(table)))
    for fold in range(config.split.folds):
        asked, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        learn, calibration = (rest[part] for part in learning_parts(clusters[rest], config))
        model = fit(learn)
        interval = ConformalInterval.fit(tm[calibration], *model(calibration), config.interval.upper_tail_share)
        raw = model(asked)
        predicted[:, asked] = raw.tm, *interval.interval(*raw, COVERAGE)
    named = dict(zip(("predicted_celsius", "lower_celsius", "upper_celsius"), predicted, strict=True))
    return pd.DataFrame({"tm_celsius": tm, **named, "in_domain": True}, index=table.index)


def learning_parts(clusters: np.ndarray, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which proteins are learned from and which calibrate the interval, two masks of shape (n,)."""
    share = config.split.calibration_share
    learn = split_by_cluster(clusters, {"train": 1 - share, "calibration": share}, config.seed) == "train"
    return learn, ~learn


def stack_with_extra(table: pd.DataFrame, config: TrainConfig, level_1: Callable[[np.ndarray], Columns]) -> Fit:
    """The configured head, its trees given further level-1 predictions.

    Args:
        table: As from ``read_training_table``.
        config: The run.
        level_1: Learns from rows and returns what it says about rows. As in the package's own level 1, what the trees
            learn from is out of fold.
    """
    descriptors, blocks = encoded(table, config)
    clusters, tm = table["cluster"].to_numpy(), table["tm_celsius"].to_numpy(dtype=float)
    everything = np.arange(len(table))

    def fit(learn: np.ndarray) -> Model:
        extra = level_1(learn)(everything)
        inner = folds_by_cluster(clusters[learn], config.head.inner_folds, config.seed)
        for fold in range(config.head.inner_folds):
            extra[learn[inner == fold]] = level_1(learn[inner != fold])(learn[inner == fold])
        wide, columns = extended(descriptors, blocks, extra)
        head = fit_head(wide[learn], columns, tm[learn], clusters[learn], config, trees_see(config.head, EXTRA))
        return lambda rows: Raw(*head.predict(wide[rows])[:3])

    return fit


def extended(
    descriptors: np.ndarray, blocks: Mapping[str, slice], extra: np.ndarray
) -> tuple[np.ndarray, dict[str, slice]]:
    """Descriptors with the block ``EXTRA`` at their end, and the columns of each block."""
    width = descriptors.shape[1]
    wide = np.column_stack([descriptors, extra]).astype(np.float32)
    return wide, {**blocks, EXTRA: slice(width, wide.shape[1])}


def trees_see(head: StackedHead, *blocks: str) -> StackedHead:
    """The settings with further descriptor blocks for the trees; ``EXTRA`` is not a name that a file may give."""
    trees = head.trees.model_copy(update={"blocks": (*head.trees.blocks, *blocks)})
    return head.model_copy(update={"trees": trees})


def fit_head(
    descriptors: np.ndarray,
    blocks: dict[str, slice],
    tm: np.ndarray,
    clusters: np.ndarray,
    config: TrainConfig,
    settings: StackedHead,
) -> OnnxHead:
    """Fit a stacked head without growth temperature and load what would ship."""
    unknown = np.full(len(tm), np.nan)
    stack = fit_stack(descriptors, blocks, tm, clusters, unknown, settings, config.seed, config.threads)
    return OnnxHead(to_onnx(stack, with_growth_temperature=False), config.threads)


def recipe_on(name: str, table: Path | None) -> TrainConfig:
    """The recipe of a predictor that ships, learning from ``table`` where one is given."""
    config = compose([name])
    if table is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"path": str(table)})})


def smaller(config: TrainConfig) -> TrainConfig:
    """The same run with hardly any work in it: two folds, few trees, few landmarks; shows that a script runs."""
    head = config.head
    changes = {
        "ridges": tuple(ridge.model_copy(update={"landmarks": 60}) for ridge in head.ridges),
        "trees": head.trees.model_copy(update={"trees": 20, "learning_rate": 0.2, "minimum_leaf_size": 10}),
        "inner_folds": 2,
    }
    split = config.split.model_copy(update={"calibration_share": 0.35, "folds": 2})
    return config.model_copy(update={"head": head.model_copy(update=changes), "split": split})


def figures_of(predicted: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    """What every comparison reports: ``metrics.metrics`` and, of the intervals, coverage and mean width."""
    intervals = interval_figures(predicted, nominal=COVERAGE)
    bands = {name: band and band["coverage"]["value"] for name, band in intervals["bands"].items()}
    return {
        **metrics(predicted, bootstrap=bootstrap),
        "coverage": intervals["overall"]["coverage"],
        "width_celsius": intervals["overall"]["mean_width_celsius"],
        "coverage_by_band": bands,
    }
