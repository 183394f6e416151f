"""A Gaussian process on top of the delta-Tm model, learned from measurements of one protein's own variants.

A measured delta Tm = Tm(variant) - Tm(wild type) in degC, positive = more stable, is taken to be
``scale * model + bias * substitutions + process + noise``. The process adds up over the substitutions of a variant, so
that the wild type stays at 0. Two substitutions go together as their exchanges are alike, times how near their sites
are: the same one, close along the chain, or alike in their description; and by the site alone, whatever the exchange.
See Rasmussen and Williams 2006 (ISBN 026218253X), chapters 2 and 5. Learning needs SciPy, all else NumPy alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from enzyme_stability.encoders.scales import CHARGE, SCALES
from enzyme_stability.errors import ArtifactError, ConfigError, DataError, MissingDependencyError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.measurements import MINIMUM_MEASUREMENTS, NOISE, Judgement, judge
from enzyme_stability.variants.scan import FloatArray

IntArray = npt.NDArray[np.int64]

MAXIMUM_MEASUREMENTS = 1000
MAXIMUM_JOINT = 4000  # variants whose covariance is given at once: a matrix of 128 MB

AMPLITUDES = {"same_site": 3.0, "neighbours": 2.0, "alike_sites": 2.0, "site_alone": 2.5}
"""Parts of the process and the prior median of the standard deviation of each in degC."""

# Medians, deviations and lengths were set on half of the proteins of S4346 with 40 variants or more.
_LOG_DEVIATION, _NOISE_LOG_DEVIATION, _REPEATS_LOG_DEVIATION = 0.5, 0.5, 0.3
_SCALE_DEVIATION, _BIAS_DEVIATION = 0.5, 3.0  # about 1, and about 0 degC a substitution
_CHAIN_LENGTH = 4.0  # residues
_STARTS, _BOUND = 3, 3.0  # the most likely values are looked for within 3 deviations of the prior
_COVERAGE, _NARROWEST, _WIDEST = 0.9, 0.5, 5.0  # the share that intervals shall cover, and bounds of the spread
_BLOCK, _VARIANTS = 500_000, 1024  # pairs of substitutions compared, and variants predicted, at once
_ARRAYS = ("measured", "model_estimate", "repeats", "standard_error")

_TABLE = np.stack(
    [*(SCALES[name] for name in ("hydropathy", "volume", "helix", "sheet")), CHARGE.astype(float)], axis=1
)
_SCALES: FloatArray = _TABLE / np.sqrt(((_TABLE[:, None] - _TABLE) ** 2).mean(axis=(0, 1)))
_COLUMN = {residue: k for k, residue in enumerate(AMINO_ACIDS)}


class _Substitutions(NamedTuple):
    """The distinct substitutions of several variants; ``which`` has those of each, of ``size``, one after another."""

    size: IntArray
    which: IntArray
    place: FloatArray
    change: FloatArray
    site: FloatArray

    @classmethod
    def of(cls, variants: Sequence[Variant], wild_type: str, sites: npt.NDArray[np.float32]) -> _Substitutions:
        found, size = [], []
        for variant in variants:
            variant.check(wild_type)
            pairs = zip(variant.places, variant.substitutions, strict=True)
            changed = [(place, _COLUMN[a], _COLUMN[b]) for place, (_, a, b) in pairs if a != b]
            found += changed
            size.append(len(changed))
        table = np.array(found, dtype=np.int64).reshape(-1, 3)
        distinct, which = np.unique(table, axis=0, return_inverse=True)
        place, before, after = distinct.T
        change = _SCALES[after] - _SCALES[before]
        return cls(np.array(size, dtype=np.int64), which, place.astype(float), change, sites[place].astype(float))

    def add_up(self, values: FloatArray) -> FloatArray:
        """Sums over the substitutions of each variant: shape (distinct, m) becomes (variants, m)."""
        out, start = np.zeros((self.size.size, values.shape[1])), np.cumsum(self.size) - self.size
        for k in range(self.size.max(initial=0)):
            some = np.flatnonzero(self.size > k)
            out[some] += values[self.which[start[some] + k]]
        return out


def _kernel(a: _Substitutions, b: _Substitutions, weights: FloatArray) -> FloatArray:
    """Weighted sums of the parts of the process: weights (sums, parts) give shape (sums, variants a, variants b)."""
    out = np.empty((len(weights), a.place.size, b.size.size))
    for rows in np.array_split(np.arange(a.place.size), 1 + a.place.size * b.place.size // _BLOCK):
        part = a._replace(place=a.place[rows], change=a.change[rows], site=a.site[rows])
        block = np.tensordot(weights, np.stack(_likeness(part, b)), axes=1)
        out[:, rows] = np.stack([b.add_up(one.T).T for one in block])
    return np.stack([a.add_up(one) for one in out])


def _likeness(a: _Substitutions, b: _Substitutions) -> list[FloatArray]:
    """One array for each of ``AMPLITUDES``, shape (substitutions a, substitutions b), 1 between equal ones."""
    apart, exchange = np.abs(a.place[:, None] - b.place), _gaussian(a.change, b.change)
    same, near = (apart == 0).astype(float), np.exp(-apart / _CHAIN_LENGTH)
    return [same * exchange, near * exchange, _gaussian(a.site, b.site) * exchange, (same + near) / 2]


def _gaussian(a: FloatArray, b: FloatArray) -> FloatArray:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    likeness: FloatArray = np.exp(-np.maximum(squared, 0) / (2 * max(a.shape[1], 1)))
    return likeness


@dataclass(frozen=True, eq=False)
class VariantCorrection:
    """What measured variants of one protein say of its other variants; made by ``fit_residuals``.

    Attributes:
        wild_type: Its residues, ``L`` of them.
        sites: Standardised description of each site, shape (L, d), float32; d may be 0: sites that are all alike.
        variants: The measured variants, ``n`` of them.
        measured: Their delta Tm in degC, shape (n,).
        model_estimate: What the plain model says of them in degC, shape (n,).
        repeats: Measurements behind each value, shape (n,).
        standard_error: Of each value in degC, shape (n,); 0 where unknown.
        amplitudes: Standard deviation in degC of each of ``AMPLITUDES``.
        noise: Standard deviation of one measurement in degC.
    """

    wild_type: str
    sites: npt.NDArray[np.float32]
    variants: tuple[Variant, ...]
    measured: FloatArray
    model_estimate: FloatArray
    repeats: FloatArray
    standard_error: FloatArray
    amplitudes: dict[str, float]
    noise: float

    @cached_property
    def judgement(self) -> Judgement:
        """Whether the correction helps, judged on values that were left out.

        ``one_out`` leaves out one value at a time, ``position_out`` all that share a position with it. The amplitudes
        stay those learned from all values, which flatters the correction a little.
        """
        place, count = self._known.place, self.measured.size
        placed = self._known.add_up((place[:, None] == np.unique(place)).astype(float))
        schemes = {"one_out": np.eye(count) > 0, "position_out": placed @ placed.T + np.eye(count) > 0}
        corrected = {scheme: self.measured - self._without(out)[0] for scheme, out in schemes.items()}
        return judge(self.measured, self.model_estimate, corrected, schemes)

    def predict(self, variants: Sequence[Variant], model_estimate: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Corrected delta Tm and the standard deviation of the true value, both in degC, shape (m,).

        ``model_estimate`` is what the plain model says of the variants in degC, shape (m,). A new measurement has the
        standard deviation ``hypot(sd, spread * noise)`` about the mean.

        Raises:
            DataError: ``model_estimate`` has another shape, or a value is not finite.
            VariantError: A variant does not fit the wild type.
        """
        estimate = _numbers(model_estimate, len(variants), "model_estimate")
        mean, variance = np.empty(estimate.size), np.empty(estimate.size)
        for first in range(0, len(variants), _VARIANTS):
            run = slice(first, first + _VARIANTS)
            asked = self._substitutions(variants[run])
            mean[run], explained = self._posterior(asked, estimate[run])
            own = np.full(asked.size.size, self._weights.sum())
            for k in np.flatnonzero(asked.size != 1).tolist():
                alone = self._substitutions([variants[first + k]])
                own[k] = _kernel(alone, alone, self._weights)[0, 0, 0]
            own += _SCALE_DEVIATION**2 * estimate[run] ** 2 + _BIAS_DEVIATION**2 * asked.size**2
            variance[run] = np.maximum(own - (explained**2).sum(axis=1), 0)
        return mean, np.sqrt(variance) * self.spread

    def joint(self, variants: Sequence[Variant], model_estimate: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Corrected delta Tm in degC, shape (m,), and the covariance of the true values, shape (m, m).

        Raises:
            ConfigError: There are more than ``MAXIMUM_JOINT`` variants, or different substitutions in them.
            DataError: ``model_estimate`` has another shape, or a value is not finite.
            VariantError: A variant does not fit the wild type.
        """
        asked, estimate = self._substitutions(variants), _numbers(model_estimate, len(variants), "model_estimate")
        if max(len(variants), asked.place.size) > MAXIMUM_JOINT:
            given = f"{len(variants):,} variants with {asked.place.size:,} substitutions"
            raise ConfigError(f"{given} are too many for a covariance; give the best, at most {MAXIMUM_JOINT:,}")
        mean, explained = self._posterior(asked, estimate)
        prior = _kernel(asked, asked, self._weights)[0] + _line(estimate, asked.size, estimate, asked.size)
        return mean, (prior - explained @ explained.T) * self.spread**2

    def to_dict(self) -> dict[str, Any]:
        """All that predictions need as JSON values, and the verdict for people to read."""
        return {
            **{name: getattr(self, name) for name in ("wild_type", "amplitudes", "noise")},
            **{name: getattr(self, name).tolist() for name in _ARRAYS},
            "variants": [[str(variant), variant.offset] for variant in self.variants],
            "sites": base64.b64encode(self.sites.astype("<f4").tobytes()).decode(),
            "verdict": self.judgement.verdict,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VariantCorrection:
        """The correction as ``to_dict`` and JSON leave it; it predicts the very same.

        Raises:
            ArtifactError: A part is missing, of the wrong kind or out of bounds.
        """
        try:
            length, written = len(values["wild_type"]), values["variants"]
            sites = np.frombuffer(base64.b64decode(values["sites"], validate=True), "<f4").astype(np.float32)
            made = cls(
                values["wild_type"],
                sites.reshape(length, sites.size // length),
                tuple(Variant.parse(text, offset=offset) for text, offset in written),
                **{name: _numbers(values[name], len(written), name) for name in _ARRAYS},
                amplitudes={name: float(values["amplitudes"][name]) for name in AMPLITUDES},
                noise=float(values["noise"]),
            )
            numbers = [made.noise, *made.amplitudes.values(), *made.repeats]
            if not (min(numbers) > 0 and np.isfinite([*numbers, sites.sum(), made.spread]).all()):
                raise ValueError("a number is not finite or not above 0")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, DataError, VariantError) as error:
            raise ArtifactError(f"the correction by measured variants is damaged; learn it anew: {error!r}") from None
        return made

    @cached_property
    def spread(self) -> float:
        """Factor of every standard deviation, by which intervals of 90 % cover values that are left out.

        The finite-sample rank of their standardised residuals over the quantile of a normal distribution.
        """
        residual, deviation = self._without(np.eye(len(self.variants), dtype=bool))
        rank = min(int(np.ceil((residual.size + 1) * _COVERAGE)), residual.size)
        found = np.sort(np.abs(residual) / deviation)[rank - 1] / NormalDist().inv_cdf((1 + _COVERAGE) / 2)
        return float(np.clip(found, _NARROWEST, _WIDEST))

    @cached_property
    def _weights(self) -> FloatArray:
        return np.array([[self.amplitudes[name] ** 2 for name in AMPLITUDES]])

    @cached_property
    def _known(self) -> _Substitutions:
        return self._substitutions(self.variants)

    @cached_property
    def _root(self) -> FloatArray:
        """Inverse of the Cholesky factor of the covariance of the measurements, shape (n, n)."""
        prior = _kernel(self._known, self._known, self._weights)[0] + _line(
            *(self.model_estimate, self._known.size) * 2
        )
        noise = np.diag(np.maximum(self.noise**2 / self.repeats, self.standard_error**2))
        root: FloatArray = np.linalg.inv(np.linalg.cholesky(prior + noise))
        return root

    def _substitutions(self, variants: Sequence[Variant]) -> _Substitutions:
        return _Substitutions.of(variants, self.wild_type, self.sites)

    def _posterior(self, asked: _Substitutions, estimate: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean, shape (m,), and the root of the covariance that the measurements explain, shape (m, n)."""
        shared = _kernel(asked, self._known, self._weights)[0]
        shared += _line(estimate, asked.size, self.model_estimate, self._known.size)
        explained = shared @ self._root.T
        return estimate + explained @ (self._root @ (self.measured - self.model_estimate)), explained

    def _without(self, out: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Residual of each value, and its standard deviation, where none of those of its row in ``out`` is known.

        Rasmussen and Williams 2006, equations 5.10 to 5.12, with blocks of the inverse covariance.
        """
        precision = self._root.T @ self._root
        weighted = precision @ (self.measured - self.model_estimate)
        residual, variance = np.empty(weighted.size), np.empty(weighted.size)
        for k, row in enumerate(out):
            others = np.flatnonzero(row)
            here = (others == k).astype(float)
            column = np.linalg.solve(precision[np.ix_(others, others)], here)
            residual[k], variance[k] = column @ weighted[others], column @ here
        return residual, np.sqrt(variance)


def fit_residuals(
    variants: Sequence[Variant],
    measured: npt.ArrayLike,
    model_estimate: npt.ArrayLike,
    sites: npt.ArrayLike | None,
    wild_type: str,
    *,
    repeats: npt.ArrayLike | None = None,
    standard_error: npt.ArrayLike | None = None,
    noise: float | None = None,
) -> VariantCorrection:
    """Learn a correction from measured variants of one protein; the same numbers always give the same correction.

    Args:
        variants: ``n`` variants, each once.
        measured: Their delta Tm in degC, shape (n,).
        model_estimate: What the plain model says of them in degC, shape (n,).
        sites: Description of each site of the wild type, shape (L, d); NaN where unknown, ``None`` for none.
        wild_type: Residues, ``L`` of them.
        repeats: Measurements behind each value, shape (n,); 1 where not given.
        standard_error: Of each value in degC, shape (n,), NaN where unknown; counts where it is above the noise.
        noise: Standard deviation of repeated measurements in degC; ``NOISE``, held less firmly, where not given.

    Raises:
        DataError: There are too few or too many measurements, or numbers of a wrong shape or out of bounds.
        MissingDependencyError: SciPy is not installed.
        VariantError: A variant does not fit the wild type.
    """
    n = len(variants)
    if not MINIMUM_MEASUREMENTS <= n <= MAXIMUM_MEASUREMENTS:
        raise DataError(
            f"{n:,} measured variants; {MINIMUM_MEASUREMENTS} to {MAXIMUM_MEASUREMENTS:,} make a correction"
        )
    unlearned = VariantCorrection(
        wild_type,
        _standardised(sites, len(wild_type)),
        tuple(variants),
        _numbers(measured, n, "measured"),
        _numbers(model_estimate, n, "model_estimate"),
        _numbers(np.ones(n) if repeats is None else repeats, n, "repeats"),
        _numbers(np.zeros(n) if standard_error is None else standard_error, n, "standard_error", unknown=0.0),
        AMPLITUDES,
        NOISE if noise is None else noise,
    )
    if not (0 < unlearned.noise < np.inf and unlearned.repeats.min() > 0):
        raise DataError("noise and repeats must be above 0")
    return _most_likely(unlearned, _NOISE_LOG_DEVIATION if noise is None else _REPEATS_LOG_DEVIATION)


def _most_likely(start: VariantCorrection, noise_deviation: float) -> VariantCorrection:
    """The amplitudes and noise of the highest posterior density under log-normal priors."""
    try:
        from scipy.optimize import Bounds, minimize
    except ImportError as error:
        raise MissingDependencyError("Learning from measured variants", "train") from error
    known, residual = start._known, start.measured - start.model_estimate
    parts, line = _kernel(known, known, np.eye(len(AMPLITUDES))), _line(*(start.model_estimate, known.size) * 2)
    medians = np.log([*start.amplitudes.values(), start.noise])
    deviations = np.array([_LOG_DEVIATION] * len(AMPLITUDES) + [noise_deviation])

    def unlikely(logs: FloatArray) -> tuple[float, FloatArray]:
        *squares, noise = np.exp(2 * logs)
        noisy = noise / start.repeats
        covariance = np.tensordot(squares, parts, axes=1) + line + np.diag(np.maximum(noisy, start.standard_error**2))
        precision = np.linalg.inv(covariance)
        weighted, off = precision @ residual, (logs - medians) / deviations
        value = (residual @ weighted + np.linalg.slogdet(covariance)[1] + off @ off) / 2
        slope = precision - np.outer(weighted, weighted)
        noisy[noisy < start.standard_error**2] = 0
        slopes = [*squares * np.einsum("kij,ij->k", parts, slope), noisy @ np.diag(slope)]
        return float(value), np.array(slopes) + off / deviations

    steps = [np.zeros(medians.size), *np.random.default_rng(0).normal(size=(_STARTS - 1, medians.size))]
    bounds = Bounds(medians - _BOUND * deviations, medians + _BOUND * deviations)
    found = [minimize(unlikely, medians + step * deviations, jac=True, bounds=bounds) for step in steps]
    *amplitudes, noise = np.exp(min(found, key=lambda one: float(one.fun)).x).tolist()
    return replace(start, amplitudes=dict(zip(AMPLITUDES, amplitudes, strict=True)), noise=noise)


def _line(a: FloatArray, size_a: IntArray, b: FloatArray, size_b: IntArray) -> FloatArray:
    """Prior covariance by the unknown scale of the model estimates and the unknown bias of a substitution."""
    return _SCALE_DEVIATION**2 * np.outer(a, b) + _BIAS_DEVIATION**2 * np.outer(size_a, size_b)


def _standardised(sites: npt.ArrayLike | None, length: int) -> npt.NDArray[np.float32]:
    table = np.empty((length, 0)) if sites is None else np.asarray(sites, dtype=float)
    if table.ndim != 2 or len(table) != length:
        raise DataError(f"sites has the shape {table.shape}, but the wild type has {length} residues: one row for each")
    masked = np.ma.masked_invalid(table)
    deviation = masked.std(axis=0).filled(0)
    scaled = ((masked - masked.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).filled(0)
    return np.asarray(scaled[:, deviation > 0], dtype=np.float32)


def _numbers(values: npt.ArrayLike, n: int, name: str, unknown: float = np.nan) -> FloatArray:
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(0)
    array = np.where(np.isnan(array), unknown, array)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise DataError(f"{name} must be {n} finite numbers, one for each variant")
    return array
