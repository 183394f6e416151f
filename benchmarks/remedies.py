"""Ways to bring predictions nearer to the temperatures of purified enzymes, for purified_enzymes.py.

All of them take the same table: one enzyme a row, the measured temperature as ``tm_celsius``, ``growth_temperature``
(degC, NaN unknown) and the columns of ``enzyme_stability.measured.predict_table``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from enzyme_stability.config import TrainConfig
from enzyme_stability.heads.onnx_export import to_onnx
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.heads.stacked import fit_stack
from enzyme_stability.measured import GIVEN_GROWTH
from enzyme_stability.uncertainty import ConformalInterval
from held_out import COVERAGE, EXTRA, Fit, Model, Raw, encoded, extended, trees_see, without_quantiles

FIGURES = ("predicted_celsius", "lower_celsius", "upper_celsius")
_UPPER_TAIL_SHARE = 0.5  # no reason to expect the misses on one side after a correction


@dataclass(frozen=True)
class Remedy:
    """A way to bring predictions nearer to purified enzymes.

    Attributes:
        name: What it is.
        kind: Of each kind one goes to the validation enzymes.
        fit: Learns from rows of the enzymes and predicts rows.
    """

    name: str
    kind: str
    fit: Fit


FORMS: dict[str, Callable[[Raw], Raw]] = {
    "the predictor's own, stretched": lambda raw: raw,
    "one width": lambda raw: without_quantiles(raw.tm),
}
"""What a recalibrated interval may be made of."""


def recalibrated(raw: Raw, measured: np.ndarray) -> tuple[str, ConformalInterval]:
    """Interval for this domain from held-out predictions: of the ``FORMS`` the one that comes out narrower there."""
    fitted = {name: ConformalInterval.fit(measured, *form(raw), _UPPER_TAIL_SHARE) for name, form in FORMS.items()}

    def width(name: str) -> float:
        lower, upper = fitted[name].interval(*FORMS[name](raw), COVERAGE)
        return float((upper - lower).mean())

    narrower = min(fitted, key=width)
    return narrower, fitted[narrower]


def simple_remedies(enzymes: pd.DataFrame) -> list[Remedy]:
    """Those that need no training: baselines without a model, the predictor as it is, offsets and lines."""
    measured = enzymes["tm_celsius"].to_numpy(dtype=float)
    growth = enzymes["growth_temperature"].to_numpy(dtype=float)[:, None]
    known = np.isfinite(growth[:, 0])
    everyone = np.ones(len(enzymes), dtype=bool)
    plain, given = (_raw(enzymes, suffix) for suffix in ("", GIVEN_GROWTH))
    best = Raw(*(np.where(known, with_it, without) for with_it, without in zip(given, plain, strict=True)))
    nothing, zero = np.empty((len(enzymes), 0)), without_quantiles(np.zeros(len(enzymes)))
    plain_tm, best_tm = plain.tm[:, None], best.tm[:, None]

    def line(base: Raw, *parts: tuple[np.ndarray, np.ndarray]) -> Fit:
        return _line(base, parts, measured)

    return [
        Remedy("constant, no model", "baseline", line(zero, (everyone, nothing))),
        Remedy("line on the growth temperature, no model", "baseline", line(zero, (known, growth), (~known, nothing))),
        Remedy("as shipped, intervals recalibrated", "as shipped", lambda _: _rows_of(plain)),
        Remedy("as shipped, growth where known, recalibrated", "as shipped", lambda _: _rows_of(best)),
        Remedy("offset", "offset", _offset(plain, [everyone], measured)),
        Remedy("offset, growth where known", "offset", _offset(best, [known, ~known], measured)),
        Remedy("line on the predicted Tm", "line", line(plain, (everyone, plain_tm))),
        Remedy(
            "line on the predicted Tm, and growth where known",
            "line",
            line(best, (known, np.column_stack([best_tm, growth])), (~known, best_tm)),
        ),
    ]


def _rows_of(raw: Raw) -> Model:
    return lambda rows: Raw(*(values[rows] for values in raw))


def _moved(raw: Raw, tm: np.ndarray) -> Raw:
    """The raw interval goes along with the value."""
    return Raw(tm, tm - (raw.tm - raw.lower), tm + (raw.upper - raw.tm))


def _offset(base: Raw, groups: list[np.ndarray], measured: np.ndarray) -> Fit:
    """The mean error of each group taken off."""

    def fit(learn: np.ndarray) -> Model:
        tm = base.tm.copy()
        for group in groups:
            tm[group] += (measured - base.tm)[learn[group[learn]]].mean()
        return _rows_of(_moved(base, tm))

    return fit


def _line(base: Raw, parts: Sequence[tuple[np.ndarray, np.ndarray]], measured: np.ndarray) -> Fit:
    """For each group of enzymes a line of its own through its inputs, shape (n, k); the mean where k is 0."""

    def fit(learn: np.ndarray) -> Model:
        tm = base.tm.copy()
        for group, inputs in parts:
            rows = learn[group[learn]]
            if inputs.shape[1]:
                tm[group] = LinearRegression().fit(inputs[rows], measured[rows]).predict(inputs[group])
            else:
                tm[group] = measured[rows].mean()
        return _rows_of(_moved(base, tm))

    return fit


def source_as_input(
    learnt: pd.DataFrame, learnt_clusters: np.ndarray, enzymes: pd.DataFrame, clusters: np.ndarray, config: TrainConfig
) -> Fit:
    """The configured head on Tm and stability temperatures at once; its trees see which of the two is meant."""
    both = pd.concat([learnt, enzymes], ignore_index=True)
    offset = len(learnt)
    purified = (np.arange(len(both)) >= offset).astype(float)
    wide, columns = extended(*encoded(both, config), purified)
    tm, growth = (both[name].to_numpy(dtype=float) for name in ("tm_celsius", "growth_temperature"))
    together = np.concatenate([learnt_clusters, clusters])
    settings = trees_see(config.head, EXTRA)

    def fit(learn: np.ndarray) -> Model:
        rows = np.concatenate([np.arange(offset), offset + learn])
        arrays = (tm[rows], together[rows], growth[rows])
        stack = fit_stack(wide[rows], columns, *arrays, settings, config.seed, config.threads)
        plain, given = (OnnxHead(to_onnx(stack, with_growth_temperature=g), config.threads) for g in (False, True))

        def predict(asked: np.ndarray) -> Raw:
            places = offset + asked
            known = np.isfinite(growth[places])
            values = np.empty((3, len(asked)))
            if (~known).any():
                values[:, ~known] = plain.predict(wide[places[~known]])[:3]
            if known.any():
                values[:, known] = given.predict(wide[places[known]], growth[places[known]])[:3]
            return Raw(*values)

        return predict

    return fit


def _raw(enzymes: pd.DataFrame, suffix: str) -> Raw:
    return Raw(*(enzymes[f"{name}{suffix}"].to_numpy(dtype=float) for name in FIGURES))
