"""A correction moves predictions the way it was learned, never turns an interval round, and survives JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.correction import KINDS, LARGEST_SLOPE, SMALLEST_SLOPE, Correction, Kind, fit_correction
from enzyme_stability.errors import ArtifactError


def proteins(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Predicted Tm and amino-acid frequencies of made-up proteins."""
    random = np.random.default_rng(seed)
    return random.uniform(35, 85, n), random.dirichlet(np.full(20, 8.0), n), random


def learned(n: int = 80) -> Correction:
    tm, frequencies, random = proteins(n)
    measured = 1.2 * tm - 4 + 150 * frequencies[:, 3] + random.normal(0, 1, n)
    return fit_correction("composition", measured, tm, frequencies)


def test_no_correction_leaves_every_bit_as_it_was() -> None:
    tm, frequencies, _ = proteins(9)
    out = fit_correction("none", tm + 5, tm, frequencies).apply(tm, tm - 3, tm + 2, frequencies)
    for corrected, given_values in zip(out, (tm, tm - 3, tm + 2), strict=True):
        np.testing.assert_array_equal(corrected, given_values)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_a_shift_is_taken_off_by_every_kind(kind: Kind) -> None:
    tm, frequencies, random = proteins(200)
    growth = random.uniform(15, 80, 200)
    measured = tm + 7 + random.normal(0, 1, 200)
    out = fit_correction(kind, measured, tm, frequencies, growth).apply(tm, tm - 5, tm + 5, frequencies, growth)
    assert np.abs(out[0] - tm - 7).max() < 1.5
    assert np.abs(out[0] - measured).mean() < 1


@pytest.mark.parametrize("kind", ["offset", "line"])
def test_one_wrong_measurement_does_not_move_the_rest(kind: Kind) -> None:
    tm, frequencies, random = proteins(40)
    measured = tm + random.normal(0, 1, 40)
    measured[3] += 60
    out = fit_correction(kind, measured, tm, frequencies).apply(tm, tm - 5, tm + 5, frequencies)[0]
    assert np.abs(np.median(out - tm)) < 1


def test_many_proteins_teach_the_slope_and_twenty_noisy_ones_hardly_tilt_it() -> None:
    tm, frequencies, _ = proteins(400)
    assert fit_correction("line", 1.6 * tm - 30, tm, frequencies).slope == pytest.approx(1.6, abs=0.05)
    tilts, unshrunk = [], []
    for seed in range(30):
        tm, frequencies, random = proteins(20, seed)
        measured = tm + random.normal(0, 15, 20)
        tilts.append(abs(fit_correction("line", measured, tm, frequencies).slope - 1))
        unshrunk.append(abs(np.polyfit(tm, measured, 1)[0] - 1))
    assert max(tilts) < 0.5
    assert np.mean(tilts) < 0.8 * np.mean(unshrunk)


@pytest.mark.parametrize(("true", "bound"), [(-1.0, SMALLEST_SLOPE), (9.0, LARGEST_SLOPE)])
def test_a_slope_stays_within_its_bounds(true: float, bound: float) -> None:
    tm, frequencies, _ = proteins(300)
    assert fit_correction("line", true * tm, tm, frequencies).slope == bound


@given(
    st.floats(SMALLEST_SLOPE, LARGEST_SLOPE),
    st.floats(-200, 200),
    st.lists(st.floats(-1000, 1000), min_size=20, max_size=20),
    st.tuples(st.floats(0, 120), st.floats(0, 60), st.floats(0, 60)),
)
def test_the_ends_of_an_interval_never_change_places(
    slope: float, intercept: float, weights: list[float], interval: tuple[float, float, float]
) -> None:
    tm, down, up = (np.array([value]) for value in interval)
    correction = Correction("composition", intercept, slope, weights=tuple(weights))
    value, lower, upper = correction.apply(tm, tm - down, tm + up, np.full((1, 20), 0.05))
    assert lower <= value <= upper
    assert upper - lower == pytest.approx(slope * (down + up), abs=1e-6)


def test_what_the_composition_tells_is_learned_and_noise_is_not() -> None:
    tm, frequencies, random = proteins(300)
    told = tm + 200 * (frequencies[:, 5] - 0.05)
    correction = fit_correction("composition", told + random.normal(0, 1, 300), tm, frequencies)
    assert np.argmax(np.abs(correction.weights)) == 5
    after = correction.apply(tm, tm, tm, frequencies)[0]
    assert np.abs(after - told).mean() < 0.3 * np.abs(tm - told).mean()
    nothing = fit_correction("composition", tm + random.normal(0, 8, 300), tm, frequencies)
    moved = nothing.apply(tm, tm, tm, frequencies)[0] - tm
    assert moved.std() < 2


def test_the_growth_temperature_is_learned_and_must_be_given() -> None:
    tm, frequencies, random = proteins(200)
    growth = random.uniform(15, 80, 200)
    measured = 0.5 * tm + 0.6 * growth + 5
    correction = fit_correction("growth", measured, tm, frequencies, growth)
    assert correction.growth_slope == pytest.approx(0.6, abs=0.1)
    assert np.abs(correction.apply(tm, tm, tm, frequencies, growth)[0] - measured).mean() < 2
    with pytest.raises(ValueError, match="growth temperatures"):
        fit_correction("growth", measured, tm, frequencies)


def test_the_head_that_takes_a_growth_temperature_can_have_a_correction_of_its_own() -> None:
    tm, frequencies, _ = proteins(4)
    one = Correction("offset", 3.0)
    other = replace(one, given_growth=Correction("growth", 1.0, growth_slope=0.5))
    growth = np.full(4, 40.0)
    np.testing.assert_allclose(one.apply(tm, tm, tm, frequencies, growth)[0], tm + 3)
    np.testing.assert_allclose(other.apply(tm, tm, tm, frequencies)[0], tm + 3)
    np.testing.assert_allclose(other.apply(tm, tm, tm, frequencies, growth)[0], tm + 21)


def test_a_protein_gets_the_same_bits_alone_and_among_others() -> None:
    correction, (tm, frequencies, _) = learned(), proteins(700, seed=5)
    together = np.stack(correction.apply(tm, tm - 4, tm + 6, frequencies))
    for k in (0, 1, 350, 699):
        one = slice(k, k + 1)
        alone = np.stack(correction.apply(tm[one], tm[one] - 4, tm[one] + 6, frequencies[one]))
        np.testing.assert_array_equal(alone[:, 0], together[:, k])


def test_a_correction_survives_json() -> None:
    correction = replace(learned(), given_growth=Correction("growth", -2.5, 0.8, 0.3))
    assert Correction.from_dict(json.loads(json.dumps(correction.to_dict()))) == correction


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "spline"},
        {"kind": None},
        {"slope": 0.0},
        {"slope": -1.0},
        {"slope": "steep"},
        {"intercept": float("nan")},
        {"intercept": None},
        {"growth_slope": float("inf")},
        {"weights": [1.0, 2.0]},
        {"weights": 3},
        {"given_growth": {"intercept": 1.0}},
        {"given_growth": [1]},
        {"curvature": 1.0},
    ],
    ids=str,
)
def test_a_damaged_correction_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        Correction.from_dict({**learned().to_dict(), **damage})


@pytest.mark.parametrize("values", [None, [], "offset", {}], ids=str)
def test_what_is_no_correction_is_refused(values: Any) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        Correction.from_dict(values)


@pytest.mark.parametrize("kind", KINDS)
def test_proteins_predicted_and_measured_alike_teach_nothing_and_break_nothing(kind: Kind) -> None:
    frequencies = np.full((20, 20), 0.05)
    tm = np.full(20, 50.0)
    out = fit_correction(kind, tm, tm, frequencies, np.full(20, 37.0)).apply(tm, tm - 1, tm + 1, frequencies, tm)
    np.testing.assert_allclose(out[0], tm, atol=1e-6)
