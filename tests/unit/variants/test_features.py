"""The numbers that describe a substitution are the ones their names say, and describe nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.baseline import substitution_formula
from enzyme_stability.variants.features import (
    LANGUAGE_MODEL,
    NAMES,
    RISING,
    UNKNOWN,
    both_ways,
    indices,
    properties,
    substitution_features,
)
from enzyme_stability.variants.profile import BACKGROUND

RANDOM = np.random.default_rng(11)
LENGTH = 8
PROBABILITIES = RANDOM.dirichlet(np.ones(20), LENGTH)
EFFECTIVE = RANDOM.uniform(0, 50, LENGTH)
PLACES, BEFORE, AFTER = (RANDOM.integers(0, most, 60) for most in (LENGTH, 20, 20))
A, D, W = (AMINO_ACIDS.index(letter) for letter in "ADW")


def column(features: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(features[:, NAMES.index(name)])


def described() -> np.ndarray:
    return substitution_features(PROBABILITIES, EFFECTIVE, PLACES, BEFORE, AFTER)


def test_every_column_has_a_name_of_its_own() -> None:
    features = described()
    assert features.shape == (60, len(NAMES))
    assert features.dtype == np.float32
    assert len(set(NAMES)) == len(NAMES)
    assert LANGUAGE_MODEL not in NAMES
    assert set(RISING) < {*NAMES, LANGUAGE_MODEL}


def test_values_of_a_tiny_case_are_those_worked_out_by_hand() -> None:
    probabilities = np.full((2, 20), 0.4 / 18)
    probabilities[1, [A, W]] = 0.5, 0.1
    probabilities[0] = 0.05
    (row,) = substitution_features(probabilities, np.array([0.0, 9.0]), *(np.array([k]) for k in (1, A, W)))
    found = dict(zip(NAMES, row.tolist(), strict=True))
    by_hand = {
        "formula": (-0.9 - 1.8) / 2.9113 + (227.8 - 88.6) / 40.3465 + 0.3 * -3,
        "change of hydropathy": (-0.9 - 1.8) / 2.9113,
        "change of volume": (227.8 - 88.6) / 40.3465,
        "change of aromatic": 1 / 0.4,  # four of twenty: a standard deviation of sqrt(0.2 * 0.8)
        "change of charge": 0.0,
        "change of branched": 0.0,
        "BLOSUM62 of the substitution": -3,
        "BLOSUM62 of the wild type": 4,
        "BLOSUM62 of the new residue": 11,
        "hydropathy of the wild type": (1.8 + 0.49) / 2.9113,  # the mean of the scale is -0.49
        "aromatic of the wild type": -0.2 / 0.4,
        "ln p(new) - ln p(wild type)": np.log(0.1 / 0.5),
        "log-odds of the wild type": np.log(0.5 / 0.07805),
        "log-odds of the new residue": np.log(0.1 / 0.01330),
        "entropy of the place": -(0.5 * np.log(0.5) + 0.1 * np.log(0.1) + 0.4 * np.log(0.4 / 18)),
        "ln(1 + effective sequences)": np.log(10),
        "expected hydropathy": (0.5 * 1.8 - 0.1 * 0.9 + 0.4 / 18 * (-9.8 - 1.8 + 0.9) + 0.49) / 2.9113,
    }
    assert {name: found[name] for name in by_hand} == pytest.approx(by_hand, abs=1e-3)


def test_without_a_preference_the_place_says_nothing() -> None:
    even = substitution_features(np.full((3, 20), 0.05), np.zeros(3), *(np.array([k]) for k in (2, D, W)))
    assert column(even, "ln p(new) - ln p(wild type)") == 0
    assert column(even, "entropy of the place") == pytest.approx(np.log(20))
    assert column(even, "expected hydropathy") == pytest.approx(0, abs=1e-6)
    usual = substitution_features(np.tile(BACKGROUND, (3, 1)), np.zeros(3), *(np.array([k]) for k in (2, D, W)))
    assert column(usual, "log-odds of the wild type") == pytest.approx(0, abs=1e-6)
    assert column(usual, "log-odds of the new residue") == pytest.approx(0, abs=1e-6)


def test_the_way_back_turns_the_changes_round_and_leaves_the_place() -> None:
    there = described()
    back = substitution_features(PROBABILITIES, EFFECTIVE, PLACES, AFTER, BEFORE)
    for name in NAMES:
        if name.startswith(("change of", "ln p(new)")):
            np.testing.assert_allclose(column(back, name), -column(there, name), atol=1e-6)
        if name.startswith(("entropy", "ln(1 +", "expected", "BLOSUM62 of the substitution")):
            np.testing.assert_array_equal(column(back, name), column(there, name))
    for name in ("log-odds", "BLOSUM62"):
        own, new = f"{name} of the wild type", f"{name} of the new residue"
        np.testing.assert_array_equal(column(back, own), column(there, new))


def test_both_ways_stand_side_by_side_with_the_score_of_a_language_model() -> None:
    back = substitution_features(PROBABILITIES, EFFECTIVE, PLACES, AFTER, BEFORE)
    np.testing.assert_array_equal(
        both_ways(PROBABILITIES, EFFECTIVE, PLACES, BEFORE, AFTER), np.concatenate([described(), back], axis=1)
    )
    scores = RANDOM.normal(size=(LENGTH, 20))
    there, home = np.split(both_ways(PROBABILITIES, EFFECTIVE, PLACES, BEFORE, AFTER, scores), 2, axis=1)
    np.testing.assert_array_equal(there[:, :-1], described())
    np.testing.assert_array_equal(home[:, :-1], back)
    np.testing.assert_array_equal(there[:, -1], scores[PLACES, AFTER].astype(np.float32))
    np.testing.assert_array_equal(home[:, -1], -there[:, -1])


def test_a_row_depends_on_its_own_substitution_alone() -> None:
    everything = described()
    order = RANDOM.permutation(60)[:23]
    some = substitution_features(PROBABILITIES, EFFECTIVE, PLACES[order], BEFORE[order], AFTER[order])
    np.testing.assert_array_equal(some, everything[order])
    elsewhere = PROBABILITIES.copy()
    elsewhere[0] = 0.05
    changed = substitution_features(elsewhere, EFFECTIVE, PLACES, BEFORE, AFTER)
    assert np.array_equal(changed[PLACES != 0], everything[PLACES != 0])
    assert not np.array_equal(changed[PLACES == 0], everything[PLACES == 0])


def test_nothing_to_describe_gives_no_rows() -> None:
    none = np.empty(0, dtype=np.int64)
    assert substitution_features(PROBABILITIES, EFFECTIVE, none, none, none).shape == (0, len(NAMES))


def test_every_pair_of_residues_has_finite_numbers_even_at_the_rarest_probabilities() -> None:
    rare = np.full((1, 20), 1e-6)
    rare[0, D] = 1 - 19e-6
    before, after = (side.ravel() for side in np.indices((20, 20)))
    features = substitution_features(rare, np.array([20_000.0]), np.zeros(400, dtype=np.int64), before, after)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(column(features, "formula").reshape(20, 20), substitution_formula(), atol=1e-5)


def test_properties_are_standardised() -> None:
    table = properties()
    assert table.shape == (20, len(SCALES) + 3)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(table.std(axis=0), 1, atol=1e-12)


def test_residues_become_columns_and_the_rest_is_unknown() -> None:
    assert indices(AMINO_ACIDS).tolist() == list(range(20))
    assert indices("AXaW*-\u00c4\u4e00Y").tolist() == [A, UNKNOWN, UNKNOWN, W, *[UNKNOWN] * 4, 19]
    assert indices("").tolist() == []
