"""Intervals keep their promise in finite samples: over many simulated draws, and at the ranks the theory names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.errors import ConfigError
from enzyme_stability.uncertainty import MINIMUM_HALF_WIDTH, ConformalInterval

Draw = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw(random: np.random.Generator, n: int) -> Draw:
    """Measured Tm, prediction and raw interval of n proteins: skewed errors that widen with Tm, biased bounds."""
    tm = random.uniform(35, 90, n)
    scale = 1 + (tm - 35) / 20
    measured = tm + scale * (random.gamma(2, 1.5, n) - 3)
    return measured, tm, tm - 2 * scale, tm + 1.5 * scale


def misses(n: int, coverage: float, upper_tail_share: float, draws: int = 4000) -> tuple[float, float]:
    """Shares of new proteins below and above their interval, over many calibration sets of n."""
    random = np.random.default_rng(11)
    below = above = 0
    fresh = 5
    for _ in range(draws):
        interval = ConformalInterval.fit(*draw(random, n), upper_tail_share)
        measured, *raw = draw(random, fresh)
        lower, upper = interval.interval(*raw, coverage)
        below += int((measured < lower).sum())
        above += int((measured > upper).sum())
    return below / draws / fresh, above / draws / fresh


def of_ranks(n: int, upper_tail_share: float = 0.5) -> ConformalInterval:
    """An interval whose stretch factors are the ranks used."""
    ranks = np.arange(1.0, n + 1)
    return ConformalInterval(ranks, ranks, upper_tail_share)


def test_thirty_calibration_proteins_keep_ninety_percent() -> None:
    below, above = misses(30, 0.9, 0.5)
    # rank 30 of 31 on either side: the exact expectation is 1 - 2/31, never less than asked
    assert 1 - below - above == pytest.approx(1 - 2 / 31, abs=0.007)
    assert 1 - below - above > 0.9


def test_coverage_is_exact_where_the_ranks_are_whole() -> None:
    below, above = misses(39, 0.9, 0.5)
    assert 1 - below - above == pytest.approx(0.9, abs=0.007)


@pytest.mark.parametrize("upper_tail_share", [0.3, 0.6])
def test_each_tail_holds_its_share_of_the_misses(upper_tail_share: float) -> None:
    below, above = misses(99, 0.9, upper_tail_share, draws=3000)
    assert above == pytest.approx(0.1 * upper_tail_share, abs=0.006)
    assert below == pytest.approx(0.1 * (1 - upper_tail_share), abs=0.006)


@pytest.mark.parametrize(
    ("n", "coverage", "rank"),
    [
        (9, 0.8, 9),  # 10 * 0.9, whole
        (19, 0.9, 19),  # 20 * 0.95, whole
        (39, 0.9, 38),
        (99, 0.9, 95),
        (999, 0.9, 950),
        (99, 0.8, 90),
        (30, 0.9, 30),  # 31 * 0.95 = 29.45, up
        (100, 0.9, 96),  # 101 * 0.95 = 95.95, up
        (100, 0.5, 76),  # 101 * 0.75 = 75.75, up
    ],
)
def test_factor_is_the_score_at_the_finite_sample_rank(n: int, coverage: float, rank: int) -> None:
    assert of_ranks(n).factors(coverage) == (rank, rank)


def test_unequal_tails_have_ranks_of_their_own() -> None:
    assert of_ranks(99, upper_tail_share=0.6).factors(0.9) == (96, 94)  # below first: 4 % missed there, 6 % above


@pytest.mark.parametrize("n", [20, 24, 49, 100, 333, 832, 2000])
@pytest.mark.parametrize("upper_tail_share", [0.3, 0.5, 0.6])
def test_too_high_a_coverage_is_refused_with_the_highest_that_works(n: int, upper_tail_share: float) -> None:
    interval = of_ranks(n, upper_tail_share)
    with pytest.raises(ConfigError) as caught:
        interval.factors(0.9999)
    assert f"the {n} calibration proteins" in str(caught.value)
    highest = float(re.search(r"highest it can promise is ([\d.]+)$", str(caught.value))[1])
    assert max(interval.factors(highest)) <= n
    with pytest.raises(ConfigError):
        interval.factors(highest + 0.001)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_hopelessly_few_calibration_proteins_are_not_advised_an_impossible_coverage(n: int) -> None:
    with pytest.raises(ConfigError) as caught:
        of_ranks(n, 0.9).factors(0.9)
    for number in re.findall(r"promise is (\S+)$", str(caught.value)):
        of_ranks(n, 0.9).factors(float(number))


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.1, 90.0, float("nan"), float("inf")])
def test_coverage_outside_zero_to_one_is_refused_by_value(coverage: float) -> None:
    with pytest.raises(ConfigError, match=f"between 0 and 1, got {coverage}"):
        of_ranks(1000).factors(coverage)


@given(
    st.lists(st.floats(-20, 20), min_size=200, max_size=200),
    st.lists(st.floats(0.01, 0.98), min_size=2, max_size=6),
    st.floats(0.3, 0.7),
)
def test_more_coverage_never_narrows_an_interval(scores: list[float], coverages: list[float], share: float) -> None:
    interval = ConformalInterval(np.sort(scores), np.sort(scores)[::-1] * -1, share)
    below, above = zip(*(interval.factors(coverage) for coverage in sorted(coverages)), strict=True)
    assert list(below) == sorted(below)
    assert list(above) == sorted(above)


@given(st.lists(st.tuples(*[st.floats(-50, 150)] * 4), min_size=30, max_size=80), st.floats(0.05, 0.9))
def test_value_lies_inside_its_interval_even_where_the_raw_bounds_cross(
    rows: list[tuple[float, float, float, float]], coverage: float
) -> None:
    measured, tm, lower, upper = np.array(rows).T
    low, high = ConformalInterval.fit(measured, tm, lower, upper, 0.5).interval(tm, lower, upper, coverage)
    assert np.isfinite([low, high]).all()
    assert (low <= tm).all()
    assert (tm <= high).all()


def test_calibration_proteins_themselves_are_covered_to_the_rank() -> None:
    measured, tm, lower, upper = draw(np.random.default_rng(2), 199)
    low, high = ConformalInterval.fit(measured, tm, lower, upper, 0.6).interval(tm, lower, upper, 0.9)
    # 200 * 0.96 = 192 of 199 are not below; 200 * 0.94 = 188 not above: the score at the rank counts as inside
    assert (measured < low - 1e-9).sum() == 199 - 192
    assert (measured > high + 1e-9).sum() == 199 - 188


def test_interval_is_the_raw_one_stretched_about_the_value() -> None:
    interval = ConformalInterval(np.full(99, 2.0), np.full(99, 0.5), 0.5)
    lower, upper = interval.interval(np.array([60.0]), np.array([57.0]), np.array([64.0]), 0.9)
    assert lower.tolist() == [60 - 2 * 3]
    assert upper.tolist() == [60 + 0.5 * 4]


def test_a_raw_interval_of_no_width_is_widened_before_it_is_stretched() -> None:
    interval = ConformalInterval(np.full(99, 2.0), np.full(99, 3.0), 0.5)
    lower, upper = interval.interval(np.array([60.0]), np.array([60.0]), np.array([59.0]), 0.9)
    assert lower.tolist() == [60 - 2 * MINIMUM_HALF_WIDTH]
    assert upper.tolist() == [60 + 3 * MINIMUM_HALF_WIDTH]


def test_a_bound_is_never_on_the_wrong_side_of_the_value() -> None:
    # every calibration protein lies well above its prediction: the lower bound stops at the value
    measured, tm = np.full(99, 70.0), np.full(99, 60.0)
    lower, upper = ConformalInterval.fit(measured, tm, tm - 2, tm + 2, 0.5).interval(tm, tm - 2, tm + 2, 0.9)
    assert (lower == tm).all()
    np.testing.assert_allclose(upper, 70)
