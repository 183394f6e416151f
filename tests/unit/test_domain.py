"""The domain check flags what the predictor never learned from, says why, and flags no more than it was told to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from enzyme_stability.domain import ApplicabilityDomain
from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.sequence import AMINO_ACIDS, CleanSequence, clean_sequence

random = np.random.default_rng(17)


def proteins(n: int, letters: str = AMINO_ACIDS) -> list[str]:
    lengths = random.integers(60, 400, n)
    return ["".join(random.choice(list(letters), length)) for length in lengths]


def fitted(learned: list[str], calibration: list[str], flagged_share: float = 0.05) -> ApplicabilityDomain:
    return ApplicabilityDomain.fit(
        np.array([len(sequence) for sequence in learned]),
        amino_acid_frequencies(learned),
        amino_acid_frequencies(calibration),
        np.linspace(0.2, 0.9, len(calibration)),
        flagged_share,
        0.1,
    )


LEARNED = proteins(600)
CALIBRATION = proteins(200)
DOMAIN = fitted(LEARNED, CALIBRATION)


def reasons(sequence: str, similarity: float = 0.9, domain: ApplicabilityDomain = DOMAIN) -> list[str]:
    clean = clean_sequence(sequence)
    (found,) = domain.reasons([clean], amino_acid_frequencies([clean.residues]), np.array([similarity]))
    return found


def test_a_typical_protein_has_no_reason_against_it() -> None:
    assert reasons(AMINO_ACIDS * 10) == []


def test_each_bound_lets_its_own_value_pass() -> None:
    balanced = AMINO_ACIDS * 20
    exactly = dataclasses.replace(DOMAIN, minimum_length=400, maximum_length=400, minimum_similarity=0.5)
    assert reasons(balanced, 0.5, exactly) == []
    assert reasons(balanced[:-1], 0.5, exactly) == ["shorter than the proteins learned from (400 residues)"]
    assert reasons(balanced + "A", 0.5, exactly) == ["longer than the proteins learned from (400 residues)"]
    assert reasons(balanced, 0.499, exactly) == ["unlike every protein learned from"]


def test_unknown_residues_beyond_the_allowed_share_are_named_in_percent() -> None:
    assert reasons(AMINO_ACIDS * 9 + "X" * 20) == []  # 10 % of 200, as allowed
    assert reasons(AMINO_ACIDS * 9 + "X" * 40) == ["18% non-standard residues"]


def test_unknown_residues_count_in_the_length() -> None:
    domain = dataclasses.replace(DOMAIN, maximum_length=200, nonstandard_share=1.0)
    assert reasons(AMINO_ACIDS * 10, domain=domain) == []
    assert reasons(AMINO_ACIDS * 10 + "X", domain=domain) == ["longer than the proteins learned from (200 residues)"]


def test_an_unusual_composition_is_flagged() -> None:
    assert reasons("W" * 200) == ["unusual amino-acid composition"]


def test_dna_is_recognised_but_a_short_peptide_is_not_taken_for_it() -> None:
    assert "looks like DNA, not protein" in reasons("ACGT" * 50)
    assert "looks like DNA, not protein" in reasons("ACGT" * 7 + "AC")
    assert "looks like DNA, not protein" not in reasons("ACGT" * 7)
    assert "looks like DNA, not protein" not in reasons("ACGT" * 50 + "W")


def test_several_reasons_are_all_given() -> None:
    assert reasons("ACGT" * 500, similarity=0.0) == [
        "looks like DNA, not protein",
        f"longer than the proteins learned from ({DOMAIN.maximum_length} residues)",
        "unusual amino-acid composition",
        "unlike every protein learned from",
    ]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_each_check_flags_the_share_of_proteins_asked_for(share: float) -> None:
    domain = fitted(LEARNED, CALIBRATION, share)
    clean = [clean_sequence(sequence) for sequence in CALIBRATION]
    frequencies = amino_acid_frequencies(CALIBRATION)
    similarity = np.linspace(0.2, 0.9, len(CALIBRATION))
    found = domain.reasons(clean, frequencies, similarity)
    flagged = [sum(reason in row for row in found) / len(found) for reason in ("unusual amino-acid composition",)]
    flagged.append(sum("unlike every protein learned from" in row for row in found) / len(found))
    assert flagged == pytest.approx([share, share], abs=1 / len(CALIBRATION))
    lengths = np.array([len(sequence) for sequence in LEARNED])
    outside = (lengths < domain.minimum_length) | (lengths > domain.maximum_length)
    assert outside.mean() == pytest.approx(share, abs=0.01)


def test_neighbours_do_not_move_a_verdict() -> None:
    sequences = [*CALIBRATION[:50], "A" * 30, "ACGT" * 20]
    clean = [CleanSequence(sequence, len(sequence), sequence) for sequence in sequences]
    similarity = np.linspace(0, 1, len(sequences))
    together = DOMAIN.reasons(clean, amino_acid_frequencies(sequences), similarity)
    assert together == [reasons(s, float(k)) for s, k in zip(sequences, similarity, strict=True)]


def test_an_amino_acid_that_no_training_protein_has_does_not_break_the_check() -> None:
    without_cysteine = AMINO_ACIDS.replace("C", "")
    domain = fitted(proteins(300, without_cysteine), proteins(100, without_cysteine))
    assert np.isfinite(domain.maximum_composition_distance)
    assert reasons(without_cysteine * 10, domain=domain) == []
    assert reasons("W" * 200, domain=domain) == ["unusual amino-acid composition"]
    assert reasons((without_cysteine + "CCCCC") * 8, domain=domain) == ["unusual amino-acid composition"]
