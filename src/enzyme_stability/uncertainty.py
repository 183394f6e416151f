"""Prediction intervals with finite-sample coverage, and the check whether a protein is like the training data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from enzyme_stability.errors import ConfigError

MINIMUM_HALF_WIDTH = 0.5
"""degC; below it a raw interval is widened before calibration, so that a score stays finite."""

_ROUNDING = 1e-9  # a rank that is whole but for floating point must not round up


@dataclass(frozen=True)
class ConformalInterval:
    """Conformalised quantile regression, scaled form (Sesia and Candes 2020, doi 10.1002/sta4.261, 'CQR-m').

    The raw interval ``lower < tm < upper`` of the quantile models is stretched about ``tm`` by the factor that the
    calibration proteins call for, one factor for either side: of the share that may be missed, ``upper_tail_share``
    lies above the interval and the rest below, each with its own finite-sample rank.

    Attributes:
        below: Calibration scores (tm - y) / (tm - lower), ascending, shape (n,).
        above: Calibration scores (y - tm) / (upper - tm), ascending, shape (n,).
        upper_tail_share: Share of the misses that may lie above the interval.
    """

    below: np.ndarray
    above: np.ndarray
    upper_tail_share: float

    @classmethod
    def fit(
        cls, measured: np.ndarray, tm: np.ndarray, lower: np.ndarray, upper: np.ndarray, upper_tail_share: float
    ) -> ConformalInterval:
        """Scores of calibration proteins the model has not seen; all arguments in degC, shape (n,)."""
        down, up = _half_widths(tm, lower, upper)
        return cls(np.sort((tm - measured) / down), np.sort((measured - tm) / up), upper_tail_share)

    def interval(
        self, tm: np.ndarray, lower: np.ndarray, upper: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated bounds in degC, each of shape (n,).

        Raises:
            ConfigError: ``coverage`` is not between 0 and 1, or needs more calibration proteins than there are.
        """
        down, up = _half_widths(tm, lower, upper)
        stretch_down, stretch_up = self.factors(coverage)
        return tm - stretch_down * down, tm + stretch_up * up

    def factors(self, coverage: float) -> tuple[float, float]:
        """By how much the raw interval is stretched downwards and upwards; raises as ``interval`` does."""
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage must lie between 0 and 1, got {coverage}")
        missed_above = (1 - coverage) * self.upper_tail_share
        missed_below = (1 - coverage) - missed_above
        return self._factor(self.below, missed_below, coverage), self._factor(self.above, missed_above, coverage)

    def _factor(self, scores: np.ndarray, missed: float, coverage: float) -> float:
        rank = math.ceil((scores.size + 1) * (1 - missed) - _ROUNDING)
        if rank > scores.size:
            highest = 1 - 1 / (scores.size + 1) / min(self.upper_tail_share, 1 - self.upper_tail_share)
            most = f"; the highest it can promise is {math.floor(highest * 1000) / 1000}" if highest >= 0.001 else ""
            raise ConfigError(
                f"coverage {coverage} needs more than the {scores.size} calibration proteins of this predictor{most}"
            )
        return max(float(scores[rank - 1]), 0.0)


def _half_widths(tm: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(tm - lower, MINIMUM_HALF_WIDTH), np.maximum(upper - tm, MINIMUM_HALF_WIDTH)
