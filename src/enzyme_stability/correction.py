"""A small correction of a predictor's output, learned from a user's own measurements; NumPy is all it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from enzyme_stability.errors import ArtifactError
from enzyme_stability.sequence import AMINO_ACIDS

Kind = Literal["none", "offset", "line", "growth", "composition"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The simplest first; ``growth`` is for the head that takes a growth temperature."""

SMALLEST_SLOPE, LARGEST_SLOPE = 0.2, 3.0
"""Bounds of the slope: above 0, or the bounds of an interval would change places."""

SLOPE_DEVIATION = 0.3
"""Standard deviation of the prior of a slope: about 1 for the predicted Tm, about 0 for the growth temperature."""

_LEAST_DEVIATION = 1e-3  # of the frequency of a residue that hardly any of the proteins has
_NO_NUMBERS = {"kind", "weights", "given_growth"}
_PENALTIES = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)  # noise variance over the prior variance of a weight


@dataclass(frozen=True)
class Correction:
    """``intercept + slope * tm + growth_slope * growth temperature + weights . amino-acid frequencies``.

    Attributes:
        kind: Which of the terms were learned.
        intercept: degC.
        slope: Of the predicted Tm.
        growth_slope: Of the growth temperature.
        weights: degC for each of the twenty frequencies in the order of ``AMINO_ACIDS``; empty for none.
        given_growth: What the head that takes a growth temperature gets instead; ``None`` for the same.
    """

    kind: Kind
    intercept: float = 0.0
    slope: float = 1.0
    growth_slope: float = 0.0
    weights: tuple[float, ...] = ()
    given_growth: Correction | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """The correction as ``to_dict`` and JSON leave it.

        Raises:
            ArtifactError: A term is missing, unknown, no finite number or out of bounds.
        """
        try:
            inner = values.get("given_growth")
            correction = cls(
                **{key: float(value) for key, value in values.items() if key not in _NO_NUMBERS},
                kind=values["kind"],
                weights=tuple(map(float, values.get("weights", ()))),
                given_growth=None if inner is None else cls.from_dict(inner),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the correction of the predictor is damaged: {error!r}") from None
        if problem := correction._problem():
            raise ArtifactError(f"the correction of the predictor is damaged: {problem}")
        return correction

    def _problem(self) -> str:
        if self.kind not in KINDS:
            return f"its kind is {self.kind!r}, which is none of {', '.join(KINDS)}"
        if len(self.weights) not in {0, len(AMINO_ACIDS)}:
            return f"it has {len(self.weights)} weights for {len(AMINO_ACIDS)} residues"
        if not all(map(math.isfinite, (self.intercept, self.slope, self.growth_slope, *self.weights))):
            return "a term is no finite number"
        if not SMALLEST_SLOPE <= self.slope <= LARGEST_SLOPE:
            return f"its slope {self.slope} is not between {SMALLEST_SLOPE} and {LARGEST_SLOPE}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The terms as JSON values."""
        return asdict(self)

    def apply(
        self,
        tm: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        frequencies: np.ndarray,
        growth_temperature: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Correct the uncalibrated output of a head; a raw interval moves and stretches with its value.

        Args:
            tm: degC, shape (n,).
            lower: Lower quantile in degC, shape (n,).
            upper: Upper quantile in degC, shape (n,).
            frequencies: Amino-acid frequencies, shape (n, 20).
            growth_temperature: degC, shape (n,), where the head was given it.

        Returns:
            Corrected ``tm``, ``lower`` and ``upper``, in the order in which they came: the slope is above 0.
        """
        if growth_temperature is not None and self.given_growth is not None:
            return self.given_growth.apply(tm, lower, upper, frequencies, growth_temperature)
        shift = np.full(tm.shape, self.intercept)
        if self.growth_slope and growth_temperature is not None:
            shift += self.growth_slope * growth_temperature
        if self.weights:  # summed row by row: a matrix product may sum in another order for another batch
            shift += (frequencies * np.array(self.weights)).sum(axis=1)
        return self.slope * tm + shift, self.slope * lower + shift, self.slope * upper + shift


def fit_correction(
    kind: Kind,
    measured: np.ndarray,
    tm: np.ndarray,
    frequencies: np.ndarray,
    growth_temperature: np.ndarray | None = None,
) -> Correction:
    """Learn a correction of one kind.

    Slopes and weights are ridge estimates, drawn towards "no correction" the more the fewer proteins there are; the
    intercept is then the median of what is left, which one wrong measurement does not move.

    Args:
        kind: One of ``KINDS``. ``composition`` is a line and the weights of the amino acids.
        measured: degC, shape (n,).
        tm: Uncorrected predictions in degC, shape (n,).
        frequencies: Amino-acid frequencies, shape (n, 20).
        growth_temperature: degC, shape (n,); for ``growth`` only.
    """
    if kind == "none":
        return Correction("none")
    slope, growth_slope, weights = 1.0, 0.0, np.zeros(frequencies.shape[1])
    if kind in {"line", "composition"}:
        (tilt,) = _slopes(measured - tm, tm)
        slope = _bounded(1 + tilt)
    if kind == "growth":
        if growth_temperature is None:
            raise ValueError("a correction by growth temperature is learned from growth temperatures")
        tilt, growth_slope = _slopes(measured - tm, tm, growth_temperature)
        slope = _bounded(1 + tilt)
        measured = measured - growth_slope * growth_temperature
    if kind == "composition":
        weights = _weights(measured - slope * tm, frequencies)
    intercept = float(np.median(measured - slope * tm - frequencies @ weights))
    return Correction(kind, intercept, slope, growth_slope, tuple(weights.tolist()) if kind == "composition" else ())


def _bounded(slope: float) -> float:
    return min(max(slope, SMALLEST_SLOPE), LARGEST_SLOPE)


def _slopes(residual: np.ndarray, *inputs: np.ndarray) -> list[float]:
    """Ridge regression of the residual on the inputs, all in degC; prior and noise variance set the penalty."""
    centred = np.stack([values - values.mean() for values in inputs])
    noise = max(float(residual.var()), 1e-6)  # a residual without any variance needs no slope
    penalty = noise / SLOPE_DEVIATION**2 * np.eye(len(inputs))
    slopes: list[float] = np.linalg.solve(centred @ centred.T + penalty, centred @ residual).tolist()
    return slopes


def _weights(residual: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Ridge regression on standardised frequencies, shape (20,), degC for each unit of frequency.

    Of the penalties the one is taken under which the residuals are most likely (Bayesian linear regression, its noise
    variance put at the most likely value; MacKay 1992, doi 10.1162/neco.1992.4.3.415).
    """
    deviation = np.maximum(frequencies.std(axis=0), _LEAST_DEVIATION)
    left, values, right = np.linalg.svd((frequencies - frequencies.mean(axis=0)) / deviation, full_matrices=False)
    centred = residual - residual.mean()
    along = left.T @ centred
    beside = max(float(centred @ centred - along @ along), 0.0)

    def unlikely(penalty: float) -> float:
        noise = ((along**2 / (values**2 / penalty + 1)).sum() + beside) / residual.size
        return float(residual.size * np.log(max(noise, 1e-12)) + np.log1p(values**2 / penalty).sum())

    penalty = min(_PENALTIES, key=unlikely)
    weights: np.ndarray = right.T @ (values * along / (values**2 + penalty)) / deviation
    return weights
