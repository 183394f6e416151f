"""Weights and profiles against tables worked out by hand or by brute force, and how they behave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies

from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants import profile as profile_module
from enzyme_stability.variants.alignment import GAP, NONSTANDARD, Alignment
from enzyme_stability.variants.profile import BACKGROUND, PSEUDOCOUNT, Profile, sequence_weights

CODE = {**{residue: code for code, residue in enumerate(AMINO_ACIDS)}, "-": GAP, "x": NONSTANDARD}


def alignment(*rows: str) -> Alignment:
    return Alignment(np.array([[CODE[character] for character in row] for row in rows], dtype=np.uint8))


def profile(*rows: str, prior: np.ndarray | None = None, pseudocount: float = PSEUDOCOUNT) -> Profile:
    return Profile.from_alignment(alignment(*rows), prior=prior, pseudocount=pseudocount)


def uniform(length: int) -> np.ndarray:
    return np.full((length, 20), 0.05)


def random_rows(seed: int, number: int, length: int) -> np.ndarray:
    """Families of near-copies, with gaps and unknown residues but for the first row."""
    random = np.random.default_rng(seed)
    founders = random.integers(0, 20, (3, length))
    rows = founders[random.integers(0, 3, number)]
    changed = random.random(rows.shape) < random.uniform(0, 0.3, (number, 1))
    rows[changed] = random.integers(0, 20, np.count_nonzero(changed))
    rows[1:][random.random(rows[1:].shape) < 0.15] = GAP
    rows[1:][random.random(rows[1:].shape) < 0.03] = NONSTANDARD
    return rows.astype(np.uint8)


def brute_force_weights(rows: np.ndarray) -> list[float]:
    weights = []
    for one in rows.tolist():
        similar = 0
        for other in rows.tolist():
            both = [(a, b) for a, b in zip(one, other, strict=True) if a < 20 and b < 20]
            similar += bool(both) and 5 * sum(a == b for a, b in both) >= 4 * len(both)
        weights.append(1 / similar)
    return weights


@given(strategies.integers(0, 10_000), strategies.integers(1, 20), strategies.sampled_from([10, 63, 64, 65, 130]))
def test_weights_are_those_of_comparing_every_pair_residue_by_residue(seed: int, number: int, length: int) -> None:
    rows = random_rows(seed, number, length)
    assert sequence_weights(rows).tolist() == brute_force_weights(rows)


def test_four_in_five_residues_make_rows_similar_and_three_do_not() -> None:
    assert sequence_weights(alignment("ACDEF", "ACDEG", "ACDGG").rows).tolist() == [1 / 2, 1 / 3, 1 / 2]
    # three of the four columns that both have agree
    assert sequence_weights(alignment("ACDEF", "ACD-G").rows).tolist() == [1, 1]
    assert sequence_weights(alignment("ACDEF", "--xxx").rows).tolist() == [1, 1]


def test_a_profile_worked_out_by_hand() -> None:
    # the first two are 80 % identical: they weigh 1/2 each, the third 1
    made = profile("ACDEF", "ACDEY", "GCH-K", prior=uniform(5), pseudocount=2.0)
    np.testing.assert_allclose(made.effective_sequences, [2, 2, 2, 1, 2])
    np.testing.assert_allclose(made.gap_share, [0, 0, 0, 0.5, 0])
    expected = uniform(5) * 2
    for place, residue, weight in [(0, "A", 1), (0, "G", 1), (1, "C", 2), (2, "D", 1), (2, "H", 1), (3, "E", 1)]:
        expected[place, CODE[residue]] += weight
    for residue, weight in [("F", 0.5), ("Y", 0.5), ("K", 1)]:
        expected[4, CODE[residue]] += weight
    expected /= np.array([4, 4, 4, 3, 4])[:, None]
    np.testing.assert_allclose(made.probabilities, expected)
    np.testing.assert_allclose(made.log_odds, np.log(expected / BACKGROUND))
    np.testing.assert_allclose(made.conservation, (expected * np.log2(expected / BACKGROUND)).sum(axis=1))


def test_scores_compare_with_the_wild_type_and_are_missing_where_there_is_nothing_to_compare() -> None:
    made = profile("AxDEF", "ACDEY", "GCHEK", prior=uniform(5), pseudocount=2.0)
    scores = made.score()
    p = made.probabilities
    np.testing.assert_allclose(scores[2, CODE["H"]], np.log(p[2, CODE["H"]] / p[2, CODE["D"]]))
    assert np.isnan(scores[1]).all()
    assert np.isnan(scores[[0, 2, 3, 4], [CODE[residue] for residue in "ADEF"]]).all()
    assert np.count_nonzero(np.isnan(scores)) == 20 + 4
    assert not np.isinf(scores).any()


def test_relatives_that_cover_less_than_half_of_the_wild_type_do_not_count() -> None:
    half = profile("ACDEFGHIKL", "WWWWW-----")
    np.testing.assert_array_equal(half.effective_sequences, [2] * 5 + [1] * 5)
    less = profile("ACDEFGHIKL", "WWWW------", "WWWWxx----")
    np.testing.assert_array_equal(less.effective_sequences, [1] * 10)


@given(strategies.integers(0, 10_000), strategies.integers(2, 30))
def test_neither_order_nor_copies_of_rows_change_a_profile(seed: int, number: int) -> None:
    rows = random_rows(seed, number, 40)
    others = np.random.default_rng(seed).permutation(np.repeat(np.arange(1, number), 3))
    again = rows[np.concatenate([[0], others, [0]])]
    made, other = Profile.from_alignment(Alignment(rows)), Profile.from_alignment(Alignment(again))
    for name in ("probabilities", "effective_sequences", "gap_share", "conservation"):
        np.testing.assert_array_equal(getattr(made, name), getattr(other, name))


@given(strategies.integers(0, 10_000), strategies.integers(1, 30))
def test_probabilities_sum_to_one_and_gaps_are_not_among_them(seed: int, number: int) -> None:
    made = Profile.from_alignment(Alignment(random_rows(seed, number, 40)))
    np.testing.assert_allclose(made.probabilities.sum(axis=1), 1)
    assert made.probabilities.min() > 0
    assert (made.conservation > -1e-12).all()
    assert ((made.gap_share >= 0) & (made.gap_share <= 1)).all()


def test_the_fewer_relatives_the_closer_a_profile_is_to_its_prior() -> None:
    rows = np.random.default_rng(3).integers(0, 4, (40, 30)).astype(np.uint8)  # of four letters only, all far apart
    prior = np.tile(BACKGROUND, (30, 1))
    made = [Profile.from_alignment(Alignment(rows[:n]), prior=prior) for n in (1, 2, 5, 10, 20, 40)]
    distances = [float((one.probabilities[:, :4].sum(axis=1) - BACKGROUND[:4].sum()).mean()) for one in made]
    assert distances == sorted(distances)
    assert distances[0] < 0.1
    assert distances[-1] > 0.6


def test_a_heavy_prior_is_the_answer_and_a_light_one_leaves_what_is_seen() -> None:
    prior = np.random.default_rng(5).dirichlet(np.ones(20), 5)
    heavy = profile("ACDEF", "GCHIK", prior=prior, pseudocount=1e9)
    np.testing.assert_allclose(heavy.probabilities, prior, atol=1e-5)
    light = profile("ACDEF", "GCHIK", prior=prior, pseudocount=1e-9)
    np.testing.assert_allclose(light.probabilities[0, [CODE["A"], CODE["G"]]], 0.5, atol=1e-6)


def test_alone_a_protein_has_what_blosum62_expects_in_its_place() -> None:
    made = profile("WLx")
    np.testing.assert_array_equal(made.effective_sequences, [1, 1, 0])
    np.testing.assert_allclose(made.probabilities[2], BACKGROUND)
    # P(a|c) = P(a) exp(0.3176 s), which for W and for L adds up to 1 within 7 %, as the scores are rounded
    for place, residue, score in [(1, "I", 2), (1, "M", 2), (1, "V", 1), (0, "Y", 2), (0, "F", 1), (0, "C", -2)]:
        expected = 10 / 11 * BACKGROUND[CODE[residue]] * np.exp(0.3176 * score)
        np.testing.assert_allclose(made.probabilities[place, CODE[residue]], expected, rtol=0.07)
    assert made.conservation[0] > made.conservation[1] > made.conservation[2]


def test_the_background_and_the_scale_of_blosum62_belong_together() -> None:
    from Bio.Align import substitution_matrices

    matrix = substitution_matrices.load("BLOSUM62")
    scores = np.array([[matrix[a][b] for b in AMINO_ACIDS] for a in AMINO_ACIDS])
    together = BACKGROUND[:, None] * BACKGROUND * np.exp(profile_module._LAMBDA * scores)
    assert BACKGROUND.sum() == pytest.approx(1)
    assert together.sum() == pytest.approx(1, abs=1e-4)


def test_of_too_many_rows_those_most_like_the_wild_type_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ("ACDEFGHIKL", "ACDEFGHIKM", "WWWWWWWWWW", "ACDEFWWWWW")
    monkeypatch.setattr(profile_module, "MOST_ROWS", 3)
    few = profile(*rows)
    monkeypatch.undo()
    np.testing.assert_array_equal(few.probabilities, profile(*rows[:2], rows[3]).probabilities)


def test_a_zero_in_the_prior_is_no_infinite_score() -> None:
    prior = np.zeros((3, 20))
    prior[:, 0] = 1
    assert np.isfinite(np.delete(profile("AAA", prior=prior).score(), 0, axis=1)).all()


@pytest.mark.parametrize(
    ("prior", "complaint"),
    [
        (uniform(4), r"has the shape \(4, 20\), and the protein takes \(3, 20\)"),
        (uniform(3) * 2, "row 1 of the prior"),
        (np.log(uniform(3)), "row 1 of the prior"),
        (np.where(np.arange(3)[:, None] == 2, np.nan, uniform(3)), "row 3 of the prior"),
        ([["a"]], "no table of numbers"),
    ],
    ids=["shape", "sums", "logarithms", "missing", "text"],
)
def test_a_prior_that_is_no_table_of_probabilities_is_refused(prior: np.ndarray, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        profile("ACD", prior=prior)


@pytest.mark.parametrize("pseudocount", [0.0, -1.0, float("nan"), float("inf")])
def test_a_profile_without_pseudocounts_is_refused(pseudocount: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        profile("ACD", pseudocount=pseudocount)
