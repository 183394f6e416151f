"""Gradient-boosted trees (LightGBM): four models a head, two for the value and two for the raw interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import lightgbm

    from enzyme_stability.config import Trees as Settings

VALUE_LOSSES = ("huber", "regression")


def fit_trees(
    features: np.ndarray, tm: np.ndarray, settings: Settings, seed: int, threads: int
) -> dict[str, list[lightgbm.Booster]]:
    """Fit on features (n, k) and Tm in degC (n,).

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

    def fit(**loss: Any) -> lightgbm.Booster:
        data = lightgbm.Dataset(features, label=tm, params={"verbose": -1})
        return lightgbm.train({**common, **loss}, data, num_boost_round=settings.trees)

    low, high = settings.quantiles
    return {
        "tm": [fit(objective=loss, alpha=settings.huber_celsius) for loss in VALUE_LOSSES],
        "lower": [fit(objective="quantile", alpha=low)],
        "upper": [fit(objective="quantile", alpha=high)],
    }
