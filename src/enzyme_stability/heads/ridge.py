"""A straight line on the embedding, with an interval that widens where its residuals were large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.heads.graph import Graph
from enzyme_stability.heads.pooled import Examples

if TYPE_CHECKING:
    from enzyme_stability.config import Ridge as Settings

_LEAST_RESIDUAL = 0.5  # degC: a smaller one says nothing about the spread


@dataclass(frozen=True)
class RidgeHead:
    """Value and logarithm of the usual residual, each a line.

    Attributes:
        coefficients: Shape (k, 2), float32.
        offsets: Shape (2,), float32.
        bounds: Of the log residual, as seen when it was fitted.
    """

    coefficients: np.ndarray
    offsets: np.ndarray
    bounds: tuple[float, float]

    def add_to(self, graph: Graph, features: str) -> dict[str, str]:
        """See ``FittedHead``."""
        lines = graph.add("Gemm", features, graph.constant(self.coefficients), graph.constant(self.offsets))
        tm, log_residual = (
            graph.add("Gather", lines, graph.constant(np.array([k], dtype=np.int64)), axis=1) for k in (0, 1)
        )
        limits = [graph.constant(np.array(bound, dtype=np.float32)) for bound in self.bounds]
        half = graph.add("Exp", graph.add("Clip", log_residual, *limits))
        return {"tm": tm, "lower": graph.add("Sub", tm, half), "upper": graph.add("Add", tm, half)}


def fit_ridge(features: np.ndarray, examples: Examples, settings: Settings, seed: int) -> RidgeHead:
    """Fit on scaled features (n, k); the penalty is the one with the least squared error over folds of clusters."""
    from sklearn.linear_model import Ridge

    tm, weights = examples.tm, examples.weights
    folds = folds_by_cluster(examples.clusters, settings.inner_folds, seed)
    out_of_fold = {penalty: np.empty(len(tm)) for penalty in settings.penalties}
    for fold in range(settings.inner_folds):
        inside = folds != fold
        for penalty, predicted in out_of_fold.items():
            line = Ridge(alpha=penalty).fit(features[inside], tm[inside], sample_weight=weights[inside])
            predicted[~inside] = line.predict(features[~inside])
    penalty = min(out_of_fold, key=lambda p: float(np.average((out_of_fold[p] - tm) ** 2, weights=weights)))
    residuals = np.log(np.maximum(np.abs(out_of_fold[penalty] - tm), _LEAST_RESIDUAL))
    value = Ridge(alpha=penalty).fit(features, tm, sample_weight=weights)
    spread = Ridge(alpha=max(settings.penalties)).fit(features, residuals, sample_weight=weights)
    low, high = np.quantile(spread.predict(features), [0.01, 0.99])
    return RidgeHead(
        np.stack([value.coef_, spread.coef_], axis=1).astype(np.float32),
        np.array([value.intercept_, spread.intercept_], dtype=np.float32),
        (float(low), float(high)),
    )
