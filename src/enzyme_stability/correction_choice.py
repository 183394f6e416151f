"""Which correction of a predictor, if any, holds for proteins whose relatives it was not learned from.

Folds keep homology clusters together, and the bootstrap behind every interval draws whole clusters. A figure is
``{"value", "low", "high"}`` with 95 % bounds, or ``None`` where it is not defined; temperatures and errors are degC, an
error is predicted minus measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from enzyme_stability.correction import KINDS, Correction, Kind, fit_correction
from enzyme_stability.errors import ConfigError
from enzyme_stability.uncertainty import ConformalInterval

MINIMUM_CLUSTERS = 6
"""Below it all clusters may gain by chance more often than the bounds allow: 2**-5 is above 2.5 %, 2**-6 is not."""

UPPER_TAIL_SHARE = 0.5
"""Nothing is known of the side on which a corrected predictor misses, and equal tails need the fewest proteins."""

FOLDS, REPEATS, DRAWS = 10, 3, 1000

_ROUNDING = 1e-9  # a variance below it is one of equal values

Figure = dict[str, float]


class Raw(NamedTuple):
    """Uncalibrated predictions in degC, each of shape (n,)."""

    tm: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def at(self, rows: np.ndarray) -> Raw:
        """Those of some of the proteins."""
        return Raw(self.tm[rows], self.lower[rows], self.upper[rows])


@dataclass(frozen=True)
class MeasuredProteins:
    """Proteins with a measured Tm and what one head of a predictor says of them.

    Attributes:
        measured: degC, shape (n,).
        raw: Uncalibrated output of the head.
        interval: Bounds of the predictor's own calibrated interval in degC, shape (2, n).
        frequencies: Amino-acid frequencies, shape (n, 20).
        growth_temperature: degC, shape (n,), where the head was given it.
        clusters: Homology cluster of each, shape (n,); for ``choose_correction`` numbered from 0
            without gaps.
    """

    measured: np.ndarray
    raw: Raw
    interval: np.ndarray
    frequencies: np.ndarray
    growth_temperature: np.ndarray | None
    clusters: np.ndarray

    def at(self, rows: np.ndarray) -> MeasuredProteins:
        """Some of the proteins; clusters keep their numbers."""
        growth = None if self.growth_temperature is None else self.growth_temperature[rows]
        return MeasuredProteins(
            self.measured[rows],
            self.raw.at(rows),
            self.interval[:, rows],
            self.frequencies[rows],
            growth,
            self.clusters[rows],
        )

    def fit(self, kind: Kind) -> Correction:
        """Learn a correction from the proteins."""
        return fit_correction(kind, self.measured, self.raw.tm, self.frequencies, self.growth_temperature)

    def corrected(self, correction: Correction) -> Raw:
        """What a correction makes of the output of the head."""
        return Raw(*correction.apply(*self.raw, self.frequencies, self.growth_temperature))


@dataclass(frozen=True)
class Choice:
    """The correction taken for one head, and the figures it was taken by.

    Attributes:
        proteins: Proteins it was judged on.
        clusters: Homology clusters among them.
        candidates: By kind the cross-validated ``mae``, ``r2``, ``spearman``, ``bias``, and ``mae_minus_none``: the MAE
            minus that of the predictor without a correction on the same proteins. With fewer clusters than
            ``MINIMUM_CLUSTERS`` there is ``none`` alone.
        chosen: The kind taken.
        coverage: Share of the measured values inside the interval, ``before`` and ``after``; ``after`` is ``None``
            where the proteins of the other clusters are too few to calibrate an interval on.
        mean_width_celsius: Of the interval, ``before`` and ``after``.
    """

    proteins: int
    clusters: int
    candidates: dict[Kind, dict[str, Figure | None]]
    chosen: Kind
    coverage: dict[str, Figure | None]
    mean_width_celsius: dict[str, float]

    @property
    def helped(self) -> bool:
        """Whether a correction makes the error smaller beyond noise."""
        return self.chosen != "none"

    def summary(self) -> str:
        """The candidates as a table, and one sentence on whether any helped."""
        columns = " ".join(f"{name:>22}" for name in ("MAE", "R2", "Spearman", "bias"))
        lines = [f"{self.proteins} proteins in {self.clusters} families", f"  {'correction':12}{columns}"]
        for kind, figures in self.candidates.items():
            cells = " ".join(f"{_text(figures[name]):>22}" for name in ("mae", "r2", "spearman", "bias"))
            lines.append(f"{'*' if kind == self.chosen else ' '} {kind:12}{cells}")
        return "\n".join([*lines, self._verdict(), self._coverage()])

    def _mae(self, kind: Kind) -> float:
        return (self.candidates[kind]["mae"] or {})["value"]

    def _verdict(self) -> str:
        if self.helped:
            return (
                f"helped: cross-validated MAE {self._mae('none'):.2f} -> {self._mae(self.chosen):.2f} degC with the "
                f"correction '{self.chosen}' (difference {_text(self.candidates[self.chosen]['mae_minus_none'], '+')})"
            )
        kept = "the predictor is kept as it was; only its interval was recalibrated"
        if self.clusters < MINIMUM_CLUSTERS:
            return f"did not help: {self.clusters} families are too few to tell what holds for others; {kept}"
        best = min((kind for kind in self.candidates if kind != "none"), key=self._mae)
        difference = _text(self.candidates[best]["mae_minus_none"], "+")
        return f"did not help: the best correction, '{best}', changes the MAE by {difference} degC; {kept}"

    def _coverage(self) -> str:
        shares = [_text(self.coverage[when]) if self.coverage[when] else "unknown" for when in ("before", "after")]
        widths = [f"{self.mean_width_celsius[when]:.1f}" for when in ("before", "after")]
        return f"share inside the interval {' -> '.join(shares)}, mean width {' -> '.join(widths)} degC"


def choose_correction(proteins: MeasuredProteins, coverage: float, seed: int) -> tuple[Choice, ConformalInterval]:
    """Compare the corrections on held-out clusters and calibrate the interval on what the chosen one says there.

    Args:
        proteins: Of two clusters at least.
        coverage: Coverage of the interval that is compared with the predictor's own.
        seed: Seed of the folds and the bootstrap.

    Raises:
        ConfigError: ``coverage`` needs more proteins than there are.
    """
    measured, clusters = proteins.measured, proteins.clusters
    draws = _draws(clusters, seed)
    held_out: dict[Kind, Raw] = {"none": proteins.raw}
    if clusters.max() + 1 >= MINIMUM_CLUSTERS:
        kinds = [kind for kind in KINDS[1:] if kind != "growth" or proteins.growth_temperature is not None]
        held_out |= {kind: _held_out(kind, proteins, seed) for kind in kinds}
    drawn = {kind: _figures(measured, out.tm, draws) for kind, out in held_out.items()}
    mae = {kind: figures["mae"] for kind, figures in drawn.items()}
    for kind, figures in drawn.items():
        figures["mae_minus_none"] = mae[kind] - mae["none"]
    chosen = _simplest_of_the_best(mae)
    interval = ConformalInterval.fit(measured, *held_out[chosen], UPPER_TAIL_SHARE)
    lower, upper = interval.interval(*held_out[chosen], coverage)
    inside = {
        "before": (proteins.interval[0] <= measured) & (measured <= proteins.interval[1]),
        "after": _inside_held_out(measured, held_out[chosen], clusters, coverage),
    }
    choice = Choice(
        proteins=measured.size,
        clusters=int(clusters.max()) + 1,
        candidates={kind: {name: _figure(v) for name, v in figures.items()} for kind, figures in drawn.items()},
        chosen=chosen,
        coverage={
            when: None if hits is None else _figure(_mean(hits.astype(float), draws)) for when, hits in inside.items()
        },
        mean_width_celsius={
            "before": float((proteins.interval[1] - proteins.interval[0]).mean()),
            "after": float((upper - lower).mean()),
        },
    )
    return choice, interval


def _held_out(kind: Kind, proteins: MeasuredProteins, seed: int) -> Raw:
    """What a correction says of each protein when its cluster was not learned from; mean of the repeats."""
    from enzyme_stability.data.splits import folds_by_cluster

    count = int(proteins.clusters.max()) + 1
    repeats = REPEATS if count > FOLDS else 1  # leaving out one cluster at a time can be done in one way only
    out = np.zeros((3, proteins.measured.size))
    for repeat in range(repeats):
        folds = folds_by_cluster(proteins.clusters, min(FOLDS, count), seed + repeat)
        for fold in np.unique(folds):
            correction = proteins.at(folds != fold).fit(kind)
            asked = folds == fold
            out[:, asked] += np.stack(proteins.at(asked).corrected(correction)) / repeats
    return Raw(*out)


def _simplest_of_the_best(mae: dict[Kind, np.ndarray]) -> Kind:
    """The simplest of those that beat ``none`` beyond noise and are within a standard error of the best of them.

    Args:
        mae: MAE of each, the simplest first: on the proteins as they are, then on each resample of them.
    """
    better = [kind for kind in mae if np.percentile((mae[kind] - mae["none"])[1:], 97.5) < 0]
    if not better:
        return "none"
    best = min(better, key=lambda kind: float(mae[kind][0]))
    behind = {kind: mae[kind] - mae[best] for kind in better}
    return next(kind for kind in better if behind[kind][0] <= behind[kind][1:].std())


def _inside_held_out(measured: np.ndarray, out: Raw, clusters: np.ndarray, coverage: float) -> np.ndarray | None:
    """Whether each value lies in the interval that the other clusters give; None where they are too few."""
    inside = np.empty(measured.size, dtype=bool)
    for cluster in np.unique(clusters):
        asked = clusters == cluster
        others = ConformalInterval.fit(measured[~asked], *out.at(~asked), UPPER_TAIL_SHARE)
        try:
            lower, upper = others.interval(*out.at(asked), coverage)
        except ConfigError:
            return None
        inside[asked] = (lower <= measured[asked]) & (measured[asked] <= upper)
    return inside


def _draws(clusters: np.ndarray, seed: int) -> np.ndarray:
    """How often each protein counts: once, then as resamples of whole clusters have it; shape (1 + DRAWS, n)."""
    count = int(clusters.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return np.concatenate([np.ones((1, clusters.size)), drawn[:, clusters]])


def _figures(measured: np.ndarray, predicted: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Figures on each draw, NaN where one is not defined; every array has shape (1 + DRAWS,)."""
    from scipy.stats import rankdata

    error, centred = predicted - measured, measured - measured.mean()
    # Ranks are those among all proteins: ranking every resample anew would not change their order.
    rank, predicted_rank = (values - values.mean() for values in (rankdata(measured), rankdata(predicted)))
    squared_error, variance = _mean(error**2, draws), _covariance(centred, centred, draws)
    deviations = np.sqrt(_covariance(rank, rank, draws) * _covariance(predicted_rank, predicted_rank, draws))
    return {
        "mae": _mean(np.abs(error), draws),
        "r2": 1 - _ratio(squared_error, variance),
        "spearman": _ratio(_covariance(rank, predicted_rank, draws), deviations),
        "bias": _mean(error, draws),
    }


def _mean(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    mean: np.ndarray = draws @ values / draws.sum(axis=1)
    return mean


def _covariance(a: np.ndarray, b: np.ndarray, draws: np.ndarray) -> np.ndarray:
    covariance: np.ndarray = _mean(a * b, draws) - _mean(a, draws) * _mean(b, draws)
    return np.where(np.abs(covariance) > _ROUNDING, covariance, 0.0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return ratio


def _figure(values: np.ndarray) -> Figure | None:
    if not np.isfinite(values[0]):
        return None
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _text(figure: Figure | None, sign: str = "") -> str:
    if figure is None:
        return "-"
    middle, low, high = (f"{figure[key]:{sign}.2f}" for key in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"
