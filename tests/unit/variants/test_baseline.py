"""The plain formula has the published scales, the sign and the matrix that it says."""

from __future__ import annotations

import numpy as np
import pytest

from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.baseline import substitution_formula, substitution_matrix

# Standard deviations among the twenty residues of the published values, to four digits.
HYDROPATHY, VOLUME = 2.9113, 40.3465


def formula(own: str, other: str) -> float:
    return float(substitution_formula()[AMINO_ACIDS.index(own), AMINO_ACIDS.index(other)])


def blosum(own: str, other: str) -> int:
    return int(substitution_matrix()[AMINO_ACIDS.index(own), AMINO_ACIDS.index(other)])


def test_the_standard_deviations_are_those_of_all_twenty_residues() -> None:
    assert SCALES["hydropathy"].std() == pytest.approx(HYDROPATHY, abs=5e-5)
    assert SCALES["volume"].std() == pytest.approx(VOLUME, abs=5e-5)


@pytest.mark.parametrize(
    ("own", "other", "hydropathy", "volume", "score"),
    [
        ("A", "V", 4.2 - 1.8, 140.0 - 88.6, 0),
        ("V", "A", 1.8 - 4.2, 88.6 - 140.0, 0),
        ("G", "W", -0.9 + 0.4, 227.8 - 60.1, -2),
        ("I", "D", -3.5 - 4.5, 111.1 - 166.7, -3),
        ("D", "E", 0.0, 138.4 - 111.1, 2),
        ("K", "R", -4.5 + 3.9, 173.4 - 168.6, 2),
    ],
)
def test_the_formula_is_what_its_words_say(own: str, other: str, hydropathy: float, volume: float, score: int) -> None:
    by_hand = hydropathy / HYDROPATHY + volume / VOLUME + 0.3 * score
    assert formula(own, other) == pytest.approx(by_hand, abs=1e-3)


def test_larger_and_more_hydrophobic_residues_score_higher() -> None:
    assert formula("G", "I") > 0 > formula("I", "G")
    assert formula("S", "L") > formula("S", "A") > formula("S", "D")


def test_the_way_back_has_the_other_sign_but_for_the_matrix() -> None:
    table = substitution_formula()
    assert table.shape == (20, 20)
    np.testing.assert_allclose(table + table.T, 0.6 * substitution_matrix(), atol=1e-12)
    np.testing.assert_allclose(np.diag(table), 0.3 * np.diag(substitution_matrix()), atol=1e-12)


def test_the_matrix_is_blosum62_in_the_order_of_the_amino_acids() -> None:
    assert (blosum("A", "A"), blosum("W", "W"), blosum("C", "C")) == (4, 11, 9)
    assert (blosum("I", "V"), blosum("D", "E"), blosum("W", "P"), blosum("F", "Y")) == (3, 2, -4, 3)
    matrix = substitution_matrix()
    assert matrix.shape == (20, 20)
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(substitution_matrix("BLOSUM62"), matrix)
    assert not np.array_equal(substitution_matrix("BLOSUM45"), matrix)
