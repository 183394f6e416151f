"""Gradient-boosted trees (LightGBM): four models a head, two for the value and two for the raw interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.heads.graph import Graph
from enzyme_stability.heads.pooled import Examples

if TYPE_CHECKING:
    import lightgbm

    from enzyme_stability.config import Boosting
    from enzyme_stability.config import Trees as Settings

VALUE_LOSSES = ("huber", "regression")

_VALIDATION_METRICS = {"huber": "l2", "regression": "l2", "quantile": "quantile"}


def fit_trees(
    features: np.ndarray,
    tm: np.ndarray,
    settings: Boosting,
    seed: int,
    threads: int,
    *,
    weights: np.ndarray | None = None,
    validation: np.ndarray | None = None,
    patience: int = 0,
    rising: np.ndarray | None = None,
) -> dict[str, list[lightgbm.Booster]]:
    """Fit on features (n, k) and Tm in degC (n,).

    Args:
        features: Shape (n, k).
        tm: degC, shape (n,).
        settings: How to grow them.
        seed: Seed of every random choice.
        threads: Threads of the processor.
        weights: How much each protein counts, shape (n,).
        validation: Proteins that only decide how many trees there are, shape (n,), bool.
        patience: Trees without a gain on them before stopping.
        rising: Features in which the value may only rise, shape (k,), bool; none where not given.

    Returns:
        ``tm``: the models whose mean is the value; ``lower`` and ``upper``: one quantile model each.
    """
    import lightgbm

    common: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.minimum_leaf_size,
        "lambda_l2": settings.l2_penalty,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    learn = slice(None) if validation is None else ~validation

    def part(rows: Any) -> lightgbm.Dataset:
        own = None if weights is None else weights[rows]
        return lightgbm.Dataset(features[rows], label=tm[rows], weight=own, params={"verbose": -1}, free_raw_data=False)

    def fit(**loss: Any) -> lightgbm.Booster:
        stopping: dict[str, Any] = {}
        if validation is not None:
            stopping = {
                "valid_sets": [part(validation)],
                "callbacks": [lightgbm.early_stopping(patience, verbose=False)],
            }
            loss["metric"] = _VALIDATION_METRICS[loss["objective"]]
        booster = lightgbm.train({**common, **loss}, part(learn), num_boost_round=settings.trees, **stopping)
        if validation is None:
            return booster
        return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))

    low, high = settings.quantiles
    held: dict[str, Any] = {}  # LightGBM holds no quantile to it
    if rising is not None:
        held = {"monotone_constraints": rising.astype(int).tolist(), "monotone_constraints_method": "advanced"}
    return {
        "tm": [fit(objective=loss, alpha=settings.huber_celsius, **held) for loss in VALUE_LOSSES],
        "lower": [fit(objective="quantile", alpha=low)],
        "upper": [fit(objective="quantile", alpha=high)],
    }


@dataclass(frozen=True)
class TreesHead:
    """Trees on the scaled embedding; see ``fit_trees``.

    Attributes:
        boosters: By output.
        width: Features they take.
    """

    boosters: dict[str, list[lightgbm.Booster]]
    width: int

    def add_to(self, graph: Graph, features: str) -> dict[str, str]:
        """See ``FittedHead``."""
        return {
            name: graph.add("Mean", *(graph.trees(booster, features, self.width) for booster in boosters))
            for name, boosters in self.boosters.items()
        }


def fit_trees_head(features: np.ndarray, examples: Examples, settings: Settings, seed: int, threads: int) -> TreesHead:
    """Fit on scaled features (n, k), as many trees as the validation proteins want."""
    boosters = fit_trees(
        features,
        examples.tm,
        settings,
        seed,
        threads,
        weights=examples.weights,
        validation=examples.validation,
        patience=settings.patience,
    )
    return TreesHead(boosters, features.shape[1])
