"""What is proposed is the best that is allowed, spread over the protein, and the same every time."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from enzyme_stability.errors import ConfigError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.designs import Candidate, combine, position_summary, shortlist
from enzyme_stability.variants.scan import Estimate, Scan


def scan_of(delta: np.ndarray, wild_type: str, *, offset: int = 0, half: float = 2.0) -> Scan:
    """A scan with these values, NaN where there is nothing to predict."""
    delta = delta.astype(float)
    for place, residue in enumerate(wild_type):
        delta[place, slice(None) if residue == "X" else AMINO_ACIDS.index(residue)] = np.nan
    probability = 1 / (1 + np.exp(-delta))
    return Scan("trial", wild_type, Estimate(delta, delta - half, delta + 2 * half, probability), offset)


def random_scan(length: int, seed: int = 0, **settings: int) -> Scan:
    draw = np.random.default_rng(seed)
    delta = draw.normal(-1, 2, (length, 1)) + draw.normal(0, 1, (length, 20))
    return scan_of(delta, "".join(draw.choice(list(AMINO_ACIDS), length)), **settings)


def candidate(scan: Scan, place: int, substitution: str) -> Candidate:
    numbers = (float(values[place, AMINO_ACIDS.index(substitution)]) for values in scan.estimate)
    return Candidate(place, place + scan.offset + 1, scan.wild_type[place], substitution, *numbers)


def flat(length: int, peaks: dict[tuple[int, str], float], **settings: float) -> Scan:
    """A protein of alanines where all else is -5 degC."""
    delta = np.full((length, 20), -5.0)
    for (place, residue), value in peaks.items():
        delta[place, AMINO_ACIDS.index(residue)] = value
    return scan_of(delta, "A" * length, **settings)


def test_a_summary_has_a_row_a_position_and_says_nothing_where_the_residue_is_unknown() -> None:
    delta = np.full((3, 20), -1.0)
    delta[0, AMINO_ACIDS.index("W")] = 4.0
    delta[2, AMINO_ACIDS.index("P")] = -9.0
    first, unknown, last = position_summary(scan_of(delta, "AXC", offset=26))
    assert (first.position, first.wild_type, first.best_substitution) == (27, "A", "W")
    assert (first.best_delta_tm_celsius, first.worst_delta_tm_celsius) == (4.0, -1.0)
    assert first.mean_delta_tm_celsius == pytest.approx((4 - 18) / 19)
    assert (first.stabilizing, first.stabilizing_share) == (1, pytest.approx(1 / 19))
    assert (unknown.position, unknown.mean_delta_tm_celsius, unknown.tolerance) == (28, None, None)
    assert (last.worst_delta_tm_celsius, last.stabilizing) == (-9.0, 0)
    assert (first.tolerance, last.tolerance) == (1, 2)


def test_positions_with_the_same_mean_share_a_tolerance() -> None:
    delta = np.repeat(np.array([[-2.0], [-1.0], [-1.0], [-3.0]]), 20, axis=1)
    assert [row.tolerance for row in position_summary(scan_of(delta, "AAAA"))] == [3, 1, 1, 4]


def test_without_crowding_a_shortlist_is_the_plain_ranking() -> None:
    scan = random_scan(30)
    found = shortlist(scan, 50, per_position=20, crowding=0)
    values = scan.estimate.delta_tm[np.isfinite(scan.estimate.delta_tm)]
    assert [one.delta_tm for one in found] == sorted(values, reverse=True)[:50]
    for one in found:
        column = AMINO_ACIDS.index(one.substitution)
        assert one.probability == scan.estimate.probability[one.place, column]
        assert (one.lower, one.upper) == (one.delta_tm - 2, one.delta_tm + 4)


def test_a_hot_stretch_does_not_fill_the_list() -> None:
    delta = np.random.default_rng(1).normal(-2, 1, (200, 20))
    delta[100:110] += 3.5
    scan = scan_of(delta, "A" * 200)
    plain, spread = shortlist(scan, 20, crowding=0), shortlist(scan, 20)
    hot, still_hot = (sum(100 <= one.place < 110 for one in found) for found in (plain, spread))
    assert hot == 20
    assert 4 <= still_hot <= 12
    assert spread[0] == plain[0]


def test_a_neighbour_is_lowered_by_the_share_of_a_spread_that_its_distance_says() -> None:
    peaks = {(10, "W"): 9.0, (12, "W"): 8.0}
    scan = flat(40, {**peaks, (30, "W"): 7.0})
    spread = float(np.nanstd(scan.estimate.delta_tm))
    just = 1.0 / (spread * 4 / 5)  # at a distance of 2 in a window of 5: what takes 8 down to 7
    assert [one.place for one in shortlist(scan, 3, crowding=just * 0.99)] == [10, 12, 30]
    assert [one.place for one in shortlist(scan, 3, crowding=just * 1.01)] == [10, 30, 12]
    assert [one.place for one in shortlist(scan, 3, crowding=just * 1.01, window=1)] == [10, 12, 30]


def test_the_limits_of_a_shortlist_hold() -> None:
    scan = random_scan(60, offset=100)
    found = shortlist(scan, 40, keep={3, 4, 5, 99}, exclude="cPM", per_position=1, minimum_distance=3)
    assert not {one.place for one in found} & {3, 4, 5}
    assert not {one.substitution for one in found} & set("CPM")
    places = sorted(one.place for one in found)
    assert min(b - a for a, b in pairwise(places)) == 3
    assert {one.position - one.place for one in found} == {101}
    found[0].variant.check(scan.wild_type)
    twice = Counter(one.place for one in shortlist(scan, 60, per_position=2, crowding=0, minimum_distance=3))
    assert max(twice.values()) == 2


def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_ties_go_by_place_and_residue() -> None:
    scan = random_scan(60)
    assert shortlist(scan, 30)[:10] == shortlist(scan, 10) == shortlist(random_scan(60), 10)
    level = scan_of(np.zeros((4, 20)), "AAAC")
    assert [str(one.variant) for one in shortlist(level, 4)] == ["A1C", "A1D", "A2C", "A2D"]


def test_a_list_ends_where_nothing_more_is_allowed() -> None:
    assert len(shortlist(random_scan(10), 100, per_position=3)) == 30


@pytest.mark.parametrize("name", ["probability", "lower", "language model"])
def test_a_shortlist_goes_by_the_score_that_is_asked_for(name: str) -> None:
    scan = random_scan(20)
    values = np.random.default_rng(7).normal(0, 1, (20, 20))
    values[:, 0] = np.nan
    if name in Estimate._fields:
        scan = Scan(scan.id, scan.wild_type, scan.estimate._replace(**{name: values}))
    else:
        scan.scores[name] = values
    allowed = np.where(np.isfinite(scan.estimate.delta_tm) & np.isfinite(values), values, -np.inf)
    best = np.unravel_index(allowed.argmax(), allowed.shape)
    first = shortlist(scan, 5, rank_by=name)[0]
    assert (first.place, first.substitution) == (best[0], AMINO_ACIDS[best[1]])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size=0"), ({"per_position": 0}, "per_position=0"), ({"window": -1}, "window=-1"),
        ({"crowding": math.nan}, "crowding=nan"), ({"exclude": "CB"}, "'B' is no amino acid"),
        ({"rank_by": "tm"}, "delta_tm, probability, lower"),
    ],
)  # fmt: skip
def test_a_setting_out_of_bounds_is_named(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shortlist(random_scan(10), **settings)


@pytest.mark.parametrize("settings", [{"keep": set(range(10))}, {"exclude": AMINO_ACIDS}])
def test_nothing_left_is_said_so(settings: dict) -> None:
    with pytest.raises(VariantError, match="trial: no substitution is left"):
        shortlist(random_scan(10), **settings)


def test_a_design_adds_up_its_parts_and_their_errors() -> None:
    scan = flat(20, {(2, "W"): 3.0, (9, "K"): 4.0}, half=2.0, offset=-5)
    (design,) = combine(scan, [candidate(scan, 9, "K"), candidate(scan, 2, "W")], designs=5)
    assert str(design.variant) == "A-2W:A5K"
    assert design.variant.apply(scan.wild_type)[9] == "K"
    assert design.delta_tm == 7.0
    assert design.lower == pytest.approx(7 - math.hypot(2, 2))
    assert design.upper == pytest.approx(7 + math.hypot(4, 4))
    z = 1.6448536269514722 * 7 / math.hypot(2, 2)
    assert design.probability == pytest.approx((1 + math.erf(z / math.sqrt(2))) / 2)
    assert design.method == "additive"


def test_a_design_whose_interval_ends_at_zero_is_as_sure_as_the_coverage_says() -> None:
    scan = flat(20, {(2, "W"): 3.0, (9, "K"): 4.0}, half=7 / math.sqrt(2))
    (design,) = combine(scan, [candidate(scan, 9, "K"), candidate(scan, 2, "W")], coverage=0.8)
    assert design.lower == pytest.approx(0)
    assert design.probability == pytest.approx(0.9)


def test_the_best_design_of_every_size_is_the_best_there_is() -> None:
    scan = random_scan(40, seed=3)
    candidates = shortlist(scan, 14, per_position=3, crowding=0)
    for size in (2, 3, 4, 5):
        best = combine(scan, candidates, minimum=size, maximum=size, designs=1, minimum_separation=2)[0]
        sums = (
            sum(one.delta_tm for one in parts)
            for parts in combinations(candidates, size)
            if all(abs(a.place - b.place) >= 2 for a, b in combinations(parts, 2))
        )
        assert best.delta_tm == pytest.approx(max(sums))


def test_designs_are_ranked_of_all_sizes_and_do_not_share_one_substitution_too_often() -> None:
    scan = random_scan(80, seed=5)
    designs = combine(scan, shortlist(scan, 30), designs=12, max_overlap=2)
    assert len(designs) == 12
    assert len({design.variant for design in designs}) == 12
    assert [design.delta_tm for design in designs] == sorted((d.delta_tm for d in designs), reverse=True)
    assert Counter(len(design.variant.substitutions) for design in designs) == {2: 3, 3: 3, 4: 3, 5: 3}
    uses = Counter(one for design in designs for one in design.variant.substitutions)
    assert max(uses.values()) == 2
    assert all(len({one.position for one in d.variant.substitutions}) == len(d.variant.substitutions) for d in designs)


def test_designs_stay_off_what_is_kept_excluded_or_harmful() -> None:
    scan = random_scan(80, seed=5)
    candidates = shortlist(scan, 30)
    kept, residue = candidates[0].place, candidates[1].substitution
    designs = combine(scan, [*candidates, candidate(scan, 0, "D")], keep={kept}, exclude=residue, max_overlap=10)
    for design in designs:
        assert kept not in design.variant.places
        for one in design.variant.substitutions:
            assert one.substitution != residue
            column = AMINO_ACIDS.index(one.substitution)
            assert scan.estimate.delta_tm[one.position - 1, column] > 0


def test_many_candidates_at_one_position_do_not_hide_the_others() -> None:
    peaks = {(place, residue): 9.0 for place in (3, 4) for residue in AMINO_ACIDS[1:]}
    peaks |= {(place, "W"): 1.0 for place in (10, 20, 30)}
    scan = flat(40, peaks)
    candidates = shortlist(scan, 41, per_position=19, crowding=0)
    (design,) = combine(scan, candidates, minimum=5, designs=1)
    assert design.delta_tm == pytest.approx(9 + 9 + 1 + 1 + 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"minimum": 0}, "minimum=0"), ({"minimum": 3, "maximum": 2}, "maximum=2"), ({"maximum": 11}, "and 10"),
        ({"designs": 0}, "designs=0"), ({"max_overlap": 0}, "max_overlap=0"), ({"exclude": "1"}, "no amino acid"),
        ({"coverage": 1.0}, "coverage=1.0"), ({"minimum_separation": 0}, "minimum_separation=0"),
    ],
)  # fmt: skip
def test_a_setting_of_designs_out_of_bounds_is_named(settings: dict, words: str) -> None:
    scan = random_scan(20)
    with pytest.raises(ConfigError, match=words):
        combine(scan, shortlist(scan), **settings)


def test_too_few_candidates_and_those_of_another_protein_are_refused() -> None:
    scan = flat(20, {(2, "W"): 3.0, (3, "W"): 3.0, (9, "K"): -1.0})
    some = [candidate(scan, 2, "W"), candidate(scan, 9, "K")]
    with pytest.raises(VariantError, match=r"the 1 candidates .* give no design of 2"):
        combine(scan, some)
    with pytest.raises(VariantError, match="give no design"):
        combine(scan, [some[0], candidate(scan, 3, "W")], minimum_separation=2)
    with pytest.raises(VariantError, match="the wild type has C"):
        combine(scan_of(np.ones((20, 20)), "C" * 20), some)
