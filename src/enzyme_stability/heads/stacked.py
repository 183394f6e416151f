"""The stacked head: kernel ridges on landmark proteins, then trees on descriptors and the ridges' predictions.

Level 2 learns from out-of-fold predictions of level 1 (folds keep clusters of alike sequences together), so it knows
how far to trust them. Source: Wolpert 1992, doi 10.1016/S0893-6080(05)80023-1 (stacked generalisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.heads.landmark_ridge import DescriptorScaling, LandmarkRidge
from enzyme_stability.heads.trees import fit_trees

if TYPE_CHECKING:
    import lightgbm

    from enzyme_stability.config import StackedHead as Settings

_THRESHOLD_STEP = 10.0  # degC: what "at least this hot" counts beside Tm itself in the ridges' targets


@dataclass(frozen=True)
class FittedStack:
    """A trained stacked head, ready to be exported.

    Attributes:
        scalings: Descriptor scaling of each ridge.
        ridges: Level-1 models; targets are Tm in degC, then one column per threshold.
        columns: Descriptor columns the trees see, shape (k,).
        trees: ``tm``, ``lower`` and ``upper`` models without the growth temperature.
        trees_with_growth: The same with the growth temperature in degC as last feature; None if never known.
    """

    scalings: list[DescriptorScaling]
    ridges: list[LandmarkRidge]
    columns: np.ndarray
    trees: dict[str, list[lightgbm.Booster]]
    trees_with_growth: dict[str, list[lightgbm.Booster]] | None


def fit_stack(
    descriptors: np.ndarray,
    blocks: dict[str, slice],
    tm: np.ndarray,
    clusters: np.ndarray,
    growth_temperature: np.ndarray,
    settings: Settings,
    seed: int,
    threads: int,
) -> FittedStack:
    """Fit both levels.

    Args:
        descriptors: Shape (n, width).
        blocks: Columns of each descriptor block.
        tm: degC, shape (n,).
        clusters: Cluster number of each protein, shape (n,).
        growth_temperature: degC, NaN where unknown, shape (n,).
        settings: What to fit.
        seed: Seed of every random choice.
        threads: Threads for the trees.
    """
    random = np.random.default_rng(seed)
    steps = [(tm >= threshold) * _THRESHOLD_STEP for threshold in settings.thresholds_celsius]
    targets = np.stack([tm, *steps], axis=1)
    folds = folds_by_cluster(clusters, settings.inner_folds, seed)
    scalings, ridges, predicted = [], [], []
    for ridge in settings.ridges:
        scaling = DescriptorScaling.fit(descriptors, blocks, ridge)
        scaled = scaling(descriptors)
        out_of_fold = np.empty(targets.shape, dtype=np.float32)
        for fold in range(settings.inner_folds):
            inside = folds != fold
            fitted = LandmarkRidge.fit(scaled[inside], targets[inside], ridge, random)
            out_of_fold[~inside] = fitted.predict(scaled[~inside])
        scalings.append(scaling)
        ridges.append(LandmarkRidge.fit(scaled, targets, ridge, random))
        predicted.append(out_of_fold)
    columns = np.concatenate([np.arange(blocks[name].start, blocks[name].stop) for name in settings.trees.blocks])
    features = np.concatenate([descriptors[:, columns], *predicted], axis=1)
    known = np.isfinite(growth_temperature)
    with_growth = None
    if known.any():
        grown = np.column_stack([features, growth_temperature])[known]
        with_growth = fit_trees(grown, tm[known], settings.trees, seed, threads)
    return FittedStack(scalings, ridges, columns, fit_trees(features, tm, settings.trees, seed, threads), with_growth)
