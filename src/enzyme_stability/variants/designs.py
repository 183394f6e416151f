"""From a scan to what goes to the bench: a row a position, a shortlist, and designs of several substitutions.

Every delta Tm is Tm(variant) - Tm(wild type) in degC; positive is more stable. Nothing here is random: equal values go
by the place in the sequence, then by the order of ``AMINO_ACIDS``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import ConfigError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.scan import Candidate, FloatArray, Scan

RANKINGS = ("delta_tm", "probability", "lower")
"""What a shortlist can be ranked by; the names of ``Scan.scores`` are added to them."""

LARGEST_BUDGET = 10
"""Substitutions in one design; the sum of more of them says little about a protein."""

_COMBINATIONS = 150_000  # of one size that are looked at: all those of 5 out of 30
_LIKELY = 0.5


@dataclass(frozen=True, slots=True)
class PositionSummary:
    """What all substitutions at one position do, in degC; None where the wild type is unknown.

    Attributes:
        position: Number of the residue, offset included.
        wild_type: Residue of the wild type.
        mean_delta_tm_celsius: Mean over its substitutions.
        best_delta_tm_celsius: The highest.
        worst_delta_tm_celsius: The lowest.
        best_substitution: The residue that gives the highest.
        stabilizing: Substitutions that are as likely as not to be more stable, or likelier: probability >= 0.5.
        stabilizing_share: Their share of the substitutions at the position, 0 to 1.
        tolerance: Rank of the position by its mean, 1 where substitutions harm the least; equal means share one.
    """

    position: int
    wild_type: str
    mean_delta_tm_celsius: float | None
    best_delta_tm_celsius: float | None
    worst_delta_tm_celsius: float | None
    best_substitution: str | None
    stabilizing: int
    stabilizing_share: float | None
    tolerance: int | None


@dataclass(frozen=True, slots=True)
class Design:
    """Several substitutions at once under the assumption that their effects add up.

    Attributes:
        variant: The substitutions.
        delta_tm: Sum of theirs in degC; positive is more stable.
        lower: Lower end of the interval in degC.
        upper: Upper end of the interval in degC.
        probability: That the design is more stable than the wild type, 0 to 1.
        method: How the numbers came about; to be said with them.
    """

    variant: Variant
    delta_tm: float
    lower: float
    upper: float
    probability: float
    method: str = "additive"


def position_summary(scan: Scan) -> list[PositionSummary]:
    """One row for every position, in the order of the sequence."""
    delta = scan.estimate.delta_tm
    known = np.isfinite(delta)
    count = known.sum(axis=1)
    total = np.where(known, delta, 0.0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    best = np.where(known, delta, -np.inf).argmax(axis=1)
    worst = np.where(known, delta, np.inf).argmin(axis=1)
    likely = (known & (scan.estimate.probability >= _LIKELY)).sum(axis=1)
    falling = np.sort(-mean[count > 0])
    rows = []
    for place, residue in enumerate(scan.wild_type):
        position = place + scan.offset + 1
        if not count[place]:
            rows.append(PositionSummary(position, residue, None, None, None, None, 0, None, None))
            continue
        rows.append(
            PositionSummary(
                position,
                residue,
                float(mean[place]),
                float(delta[place, best[place]]),
                float(delta[place, worst[place]]),
                AMINO_ACIDS[best[place]],
                int(likely[place]),
                float(likely[place] / count[place]),
                int(np.searchsorted(falling, -mean[place])) + 1,
            )
        )
    return rows


def shortlist(
    scan: Scan,
    size: int = 20,
    *,
    keep: AbstractSet[int] = frozenset(),
    exclude: str = "",
    per_position: int = 2,
    minimum_distance: int = 0,
    window: int = 5,
    crowding: float = 1.0,
    rank_by: str = "delta_tm",
) -> list[Candidate]:
    """The best substitutions, spread over the protein.

    They are chosen one after the other, each time the one with the highest value left. The first choice at a position
    lowers the value of all that is left at the other positions within ``window`` residues: by ``crowding`` spreads for
    the next neighbours, falling linearly to nothing beyond the window. A spread is the standard deviation of all values
    that may be chosen. So a stretch where everything looks good gives its best, and the next best only where they are
    better by more than that. The first of a longer shortlist are the shorter one.

    Args:
        scan: All substitutions in the protein.
        size: How many, at most.
        keep: Places, from 0, that stay as they are.
        exclude: Residues that are never introduced, in one word: ``CPM``.
        per_position: Substitutions at one position, at most.
        minimum_distance: Between two chosen positions, in residues, at least; 2 rules out neighbours.
        window: Residues on either side over which a choice counts as a crowd; 0 for none.
        crowding: What the next neighbour of a choice loses, in spreads; 0 for a plain ranking.
        rank_by: ``delta_tm``, ``probability``, ``lower`` or the name of one of ``scan.scores``.

    Returns:
        In the order in which they were chosen; fewer than ``size`` where no more are allowed.

    Raises:
        ConfigError: A setting is out of bounds, or ``rank_by`` or a residue is unknown.
        VariantError: No substitution is left to choose from.
    """
    _at_least(1, size=size, per_position=per_position)
    _at_least(0, minimum_distance=minimum_distance, window=window, crowding=crowding)
    value = np.where(_allowed(scan, keep, exclude), _ranking(scan, rank_by), np.nan)
    value[~np.isfinite(value)] = -np.inf
    if not np.isfinite(value).any():
        raise VariantError(
            f"{scan.id}: no substitution is left to choose from; keep fewer positions or exclude fewer residues"
        )
    penalty = crowding * float(value[np.isfinite(value)].std())
    best = value.max(axis=1)
    chosen: list[Candidate] = []
    taken: Counter[int] = Counter()
    while len(chosen) < size and np.isfinite(best).any():
        place = int(best.argmax())
        column = int(value[place].argmax())
        chosen.append(scan.candidate(place, column))
        taken[place] += 1
        value[place, column] = -np.inf
        if taken[place] == per_position:
            value[place] = -np.inf
        if taken[place] == 1:
            _crowd(value, place, penalty, window, minimum_distance)
        reach = max(window, minimum_distance)
        near = slice(max(place - reach, 0), place + reach + 1)
        best[near] = value[near].max(axis=1)
    return chosen


def combine(
    scan: Scan,
    candidates: Iterable[Candidate],
    *,
    minimum: int = 2,
    maximum: int = 5,
    designs: int = 10,
    keep: AbstractSet[int] = frozenset(),
    exclude: str = "",
    max_overlap: int = 3,
    minimum_separation: int = 1,
    coverage: float = 0.9,
) -> list[Design]:
    """Designs of several substitutions, their effects added up.

    Only candidates that are predicted to stabilize are combined. As their sum always grows with their number, the
    sizes from ``maximum`` down to ``minimum`` take turns, so that small designs are among the proposals as well. At
    its turn a size gives the design with the highest sum in which no substitution has been used ``max_overlap`` times
    yet. All combinations are looked at for up to 30 candidates and 5 substitutions; of more candidates those with the
    highest delta Tm are, and no second one at a position before the best of every other.

    The effects are treated as independent: on either side, the half-width of the interval is the root of the summed
    squares of those of the parts. The probability is that of a normal distribution whose half-width on the side of
    zero, at ``coverage``, is the same. Substitutions that act on one another, and an error that all parts share, are
    in neither of the two.

    Args:
        scan: All substitutions in the protein; says what the wild type is.
        candidates: What may be combined, as from ``shortlist``.
        minimum: Substitutions in a design, at least.
        maximum: Substitutions in a design, at most: the budget, up to ``LARGEST_BUDGET``.
        designs: How many designs, at most.
        keep: Places, from 0, that stay as they are.
        exclude: Residues that are never introduced, in one word.
        max_overlap: Designs that one substitution may be part of.
        minimum_separation: Distance in residues between two substitutions of a design; 1 is one a position.
        coverage: Coverage of the intervals of the candidates.

    Returns:
        The highest sum first; fewer than ``designs`` where no more are allowed.

    Raises:
        ConfigError: A setting is out of bounds or a residue is unknown.
        VariantError: A candidate does not fit the wild type, or too few are left to combine.
    """
    _at_least(1, minimum=minimum, designs=designs, max_overlap=max_overlap, minimum_separation=minimum_separation)
    if not minimum <= maximum <= LARGEST_BUDGET:
        raise ConfigError(f"maximum={maximum} is not between minimum={minimum} and {LARGEST_BUDGET}")
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage={coverage} is not between 0 and 1")
    parts = _to_combine(scan, candidates, keep, exclude)
    sizes = {
        size: found
        for size in range(maximum, minimum - 1, -1)
        if len(found := _combinations(parts, size, minimum_separation))
    }
    if not sizes:
        raise VariantError(
            f"{scan.id}: the {len(parts)} candidates that may be combined and are predicted to stabilize give no "
            f"design of {minimum} substitutions; allow more candidates or a smaller separation"
        )
    used = np.zeros(len(parts), dtype=int)
    chosen: list[Design] = []
    for size in itertools.cycle(range(maximum, minimum - 1, -1)):
        if len(chosen) == designs or not sizes:
            break
        if size not in sizes:
            continue
        left = sizes[size][(used[sizes[size]] < max_overlap).all(axis=1)]
        if not len(left):
            del sizes[size]
            continue
        used[left[0]] += 1
        sizes[size] = left[1:]
        chosen.append(_design(scan, [parts[k] for k in left[0]], coverage))
    return sorted(chosen, key=lambda design: -design.delta_tm)


def _ranking(scan: Scan, name: str) -> FloatArray:
    if name in RANKINGS:
        return np.asarray(getattr(scan.estimate, name))
    if name not in scan.scores:
        raise ConfigError(f"nothing to rank by is called '{name}'; there are: {', '.join([*RANKINGS, *scan.scores])}")
    return scan.scores[name]


def _allowed(scan: Scan, keep: AbstractSet[int], exclude: str) -> npt.NDArray[np.bool_]:
    allowed = np.isfinite(scan.estimate.delta_tm)
    allowed[[place for place in keep if 0 <= place < len(allowed)]] = False
    allowed[:, [AMINO_ACIDS.index(residue) for residue in _excluded(exclude)]] = False
    return allowed


def _excluded(letters: str) -> set[str]:
    residues = set(letters.upper())
    if unknown := sorted(residues - set(AMINO_ACIDS)):
        raise ConfigError(f"exclude={letters!r}: {unknown[0]!r} is no amino acid; write it like CPM")
    return residues


def _crowd(value: FloatArray, place: int, penalty: float, window: int, minimum_distance: int) -> None:
    """Lower, in place, the values around a position that has just been chosen."""
    for distance in range(1, max(window, minimum_distance - 1) + 1):
        for near in (place - distance, place + distance):
            if not 0 <= near < len(value):
                continue
            if distance < minimum_distance:
                value[near] = -np.inf
            elif distance <= window:
                value[near] -= penalty * (window + 1 - distance) / window


def _to_combine(
    scan: Scan, candidates: Iterable[Candidate], keep: AbstractSet[int], exclude: str
) -> Sequence[Candidate]:
    excluded = _excluded(exclude)
    distinct = {(one.place, one.substitution): one for one in candidates}.values()
    for one in distinct:
        one.variant.check(scan.wild_type)
    allowed = (one for one in distinct if one.place not in keep and one.substitution not in excluded)
    return sorted(
        (one for one in allowed if one.delta_tm > 0),
        key=lambda one: (-one.delta_tm, one.place, one.substitution),
    )


def _combinations(parts: Sequence[Candidate], size: int, separation: int) -> npt.NDArray[np.intp]:
    """Designs of one size as indices into ``parts``, shape (n, size), the highest sum first."""
    looked_at = len(parts)
    while math.comb(looked_at, size) > _COMBINATIONS:
        looked_at -= 1
    seen: Counter[int] = Counter()
    turn = []
    for part in parts:
        turn.append(seen[part.place])
        seen[part.place] += 1
    pool = sorted(sorted(range(len(parts)), key=turn.__getitem__)[:looked_at])
    flat = itertools.chain.from_iterable(itertools.combinations(pool, size))
    found = np.fromiter(flat, dtype=np.intp).reshape(-1, size)
    places = np.sort(np.array([part.place for part in parts], dtype=np.intp)[found], axis=1)
    found = found[(np.diff(places, axis=1) >= separation).all(axis=1)]
    total = np.array([part.delta_tm for part in parts], dtype=float)[found].sum(axis=1)
    return found[np.argsort(-total, kind="stable")]


def _design(scan: Scan, parts: Sequence[Candidate], coverage: float) -> Design:
    total = math.fsum(part.delta_tm for part in parts)
    below = math.hypot(*(part.delta_tm - part.lower for part in parts))
    above = math.hypot(*(part.upper - part.delta_tm for part in parts))
    # Every part is positive, so zero lies below the sum; the normal distribution below z is (1 + erf(z / sqrt 2)) / 2.
    quantile = NormalDist().inv_cdf((1 + coverage) / 2)
    probability = 1.0 if below == 0 else (1 + math.erf(quantile * total / below / math.sqrt(2))) / 2
    variant = Variant(tuple(sorted(one for part in parts for one in part.variant.substitutions)), scan.offset)
    return Design(variant, total, total - below, total + above, probability)


def _at_least(least: int, **settings: float) -> None:
    for name, value in settings.items():
        if not value >= least:
            raise ConfigError(f"{name}={value} is out of bounds; it must be {least} or more")
