"""What to measure next, from what measurements made of the model: candidates in the order of the promise they hold.

Temperatures are delta Tm = Tm(variant) - Tm(wild type) in degC; positive = more stable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import erfc, pi
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.scan import FloatArray

Method = Literal["greedy", "expected-improvement", "thompson"]
METHODS: tuple[Method, ...] = get_args(Method)

_LEAST_DEVIATION = 1e-9  # degC
_FARTHEST = 38.0  # standard deviations beyond which a normal density is 0 in double precision
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # shares of the mean variance


@dataclass(frozen=True, slots=True)
class Proposal:
    """One variant to measure.

    Attributes:
        index: Its number among the candidates, from 0.
        variant: The variant.
        mean: Expected delta Tm in degC.
        sd: Standard deviation of it in degC.
        score: What it was chosen by, in degC: the mean, the expected improvement over the best variant so far, or the
            value in the draw that it won.
    """

    index: int
    variant: Variant
    mean: float
    sd: float
    score: float


def next_shortlist(
    mean: npt.ArrayLike,
    sd: npt.ArrayLike,
    covariance: npt.ArrayLike | None,
    candidates: Sequence[Variant],
    measured: Mapping[Variant, float],
    *,
    method: Method = "expected-improvement",
    size: int = 20,
    seed: int = 0,
    per_position: int = 2,
    keep: Collection[int] = frozenset(),
    exclude: str = "",
) -> list[Proposal]:
    """Choose variants to measure next, the most promising first; the same arguments always give the same list.

    ``greedy`` takes the highest means. ``expected-improvement`` takes the highest expected gain over the best variant
    so far (Jones et al. 1998, doi 10.1023/A:1008306431147); given a covariance, each choice lowers the uncertainty of
    those that go with it, as if it were measured and came out as expected. ``thompson`` takes the best of a new joint
    draw each time (Thompson 1933, doi 10.1093/biomet/25.3-4.285); without a covariance the draws are independent.

    Args:
        mean: Expected delta Tm of the candidates in degC, shape (n,); those with NaN are passed over.
        sd: Standard deviations in degC, shape (n,).
        covariance: Of the true values, shape (n, n), degC squared, or ``None``.
        candidates: ``n`` variants.
        measured: delta Tm in degC of the variants measured so far, which are not proposed again. The best of them is
            what is to be improved on, or the wild type with 0 where none is above it.
        method: One of ``METHODS``.
        size: How many to choose; fewer come back where the candidates run out.
        seed: Seed of the draws.
        per_position: Most proposals with a substitution at one position.
        keep: Places, from 0, that must stay as they are.
        exclude: Residues that must not be introduced, as in ``CP``.

    Returns:
        At most ``size`` proposals.

    Raises:
        ConfigError: A setting is out of bounds.
        DataError: The arrays do not match the candidates, or no candidate is left to choose from.
    """
    if method not in METHODS:
        raise ConfigError(f"the method '{method}' is unknown; there are: {', '.join(METHODS)}")
    if size < 1 or per_position < 1 or seed < 0:
        raise ConfigError(
            f"size ({size}) and per_position ({per_position}) must be at least 1, seed ({seed}) at least 0"
        )
    if unknown := set(exclude) - set(AMINO_ACIDS):
        raise ConfigError(f"exclude names {', '.join(sorted(unknown))}, but the residues are {AMINO_ACIDS}")
    means, deviations = (np.array(values, dtype=float) for values in (mean, sd))
    shared = None if covariance is None else np.array(covariance, dtype=float)
    n = len(candidates)
    shapes = [means.shape, deviations.shape, (n, n) if shared is None else shared.shape]
    if shapes != [(n,), (n,), (n, n)]:
        raise DataError(f"{n} candidates need a mean and an sd each and a covariance of each pair, not shapes {shapes}")
    usable = np.isfinite(means) & np.isfinite(deviations) & (deviations >= 0)
    rows = np.flatnonzero(usable & _allowed(candidates, measured, keep, exclude))
    if not rows.size:
        raise DataError(f"none of the {n} candidates is left: all were measured, excluded or have no estimate")
    means, deviations = means[rows], deviations[rows]
    best = max([0.0, *(value for value in measured.values() if np.isfinite(value))])
    scores = _scores(method, means, deviations, None if shared is None else shared[np.ix_(rows, rows)], best, seed)
    free, used, proposals = np.ones(rows.size, dtype=bool), Counter[int](), list[Proposal]()
    holders = _holders([candidates[k] for k in rows.tolist()])
    score = next(scores)
    while free.any() and len(proposals) < size:
        # where nothing promises an improvement, or hardly, the mean decides
        highest = np.flatnonzero(free & (score == score[free].max()))
        row = int(highest[np.argmax(means[highest])])
        variant = candidates[rows[row]]
        proposals.append(
            Proposal(int(rows[row]), variant, float(means[row]), float(deviations[row]), float(score[row]))
        )
        free[row] = False
        for place, _ in _key(variant):
            used[place] += 1
            if used[place] == per_position:
                free[holders[place]] = False
        score = scores.send(row)
    return proposals


def _scores(
    method: Method, mean: FloatArray, sd: FloatArray, covariance: FloatArray | None, best: float, seed: int
) -> Generator[FloatArray, int, None]:
    """Scores of all candidates, anew after each choice that is sent in."""
    if covariance is not None and not np.isfinite(covariance).all():
        raise DataError("the covariance of the candidates has values that are not finite")
    if method == "thompson":
        random = np.random.default_rng(seed)
        root = None if covariance is None else _root(covariance)
        while True:
            normal = random.normal(size=mean.size)
            yield mean + (sd * normal if root is None else root @ normal)
    score = mean if method == "greedy" else _expected_improvement(mean, sd, best)
    while True:
        chosen = yield score
        if method == "expected-improvement" and covariance is not None and covariance[chosen, chosen] > 0:
            column = covariance[:, chosen] / covariance[chosen, chosen] ** 0.5
            covariance = covariance - column[:, None] * column
            score = _expected_improvement(mean, np.sqrt(np.maximum(np.diag(covariance), 0)), best)


def _expected_improvement(mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    gain = mean - best
    z = np.clip(gain / np.maximum(sd, _LEAST_DEVIATION), -_FARTHEST, _FARTHEST)
    below = np.array([erfc(-one / 2**0.5) / 2 for one in z.tolist()])
    density = np.exp(-(z**2) / 2) / (2 * pi) ** 0.5
    improvement: FloatArray = np.where(sd > 0, np.maximum(gain * below + sd * density, 0), np.maximum(gain, 0))
    return improvement


def _root(covariance: FloatArray) -> FloatArray:
    scale = max(float(np.diag(covariance).mean()), np.finfo(float).tiny)
    for jitter in _JITTERS:
        try:
            jittered = covariance + np.diag(np.full(len(covariance), jitter * scale))
            return np.asarray(np.linalg.cholesky(jittered), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
    raise DataError("the covariance of the candidates is not that of any distribution: it has negative variances")


def _key(variant: Variant) -> frozenset[tuple[int, str]]:
    """The residues that a variant has and the wild type has not, with their places."""
    pairs = zip(variant.places, variant.substitutions, strict=True)
    return frozenset((place, one.substitution) for place, one in pairs if one.wild_type != one.substitution)


def _holders(variants: Sequence[Variant]) -> dict[int, list[int]]:
    """Numbers of the variants that have a substitution at a place."""
    holders: dict[int, list[int]] = {}
    for number, variant in enumerate(variants):
        for place, _ in _key(variant):
            holders.setdefault(place, []).append(number)
    return holders


def _allowed(
    candidates: Sequence[Variant], measured: Collection[Variant], keep: Collection[int], exclude: str
) -> npt.NDArray[np.bool_]:
    """Whether each candidate may be proposed: neither wild type, measured nor named before, and within the limits."""
    seen = {frozenset[tuple[int, str]](), *map(_key, measured)}
    kept = frozenset(keep)
    allowed = np.zeros(len(candidates), dtype=bool)
    for number, variant in enumerate(candidates):
        key = _key(variant)
        allowed[number] = key not in seen and not any(place in kept or residue in exclude for place, residue in key)
        seen.add(key)
    return allowed
