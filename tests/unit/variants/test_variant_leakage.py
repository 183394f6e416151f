"""Relatives and repeated mutations between tables of variants are found, and only those."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.data.variant_tables import read_variant_table
from enzyme_stability.errors import DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.leakage import (
    VariantLeakage,
    mark_relatives,
    related_proteins,
    variant_leakage,
    without_relatives,
)

pytestmark = pytest.mark.usefixtures("mmseqs")

RANDOM = np.random.default_rng(5)


def protein(length: int) -> str:
    return "".join(RANDOM.choice(list(AMINO_ACIDS), length))


def changed(sequence: str, share: float) -> str:
    residues = list(sequence)
    for place in RANDOM.choice(len(residues), round(len(residues) * share), replace=False):
        residues[place] = RANDOM.choice([letter for letter in AMINO_ACIDS if letter != residues[place]])
    return "".join(residues)


def table(*rows: tuple[str, str]) -> pd.DataFrame:
    wild_types, variants = zip(*rows, strict=True)
    return pd.DataFrame(
        {"protein": pd.factorize(np.array(wild_types))[0], "wild_type": wild_types, "variant": variants}
    )


def substitution(sequence: str, place: int) -> str:
    return f"{sequence[place]}{place + 1}{'A' if sequence[place] != 'A' else 'G'}"


ENZYME, HORMONE, STRANGER = protein(200), protein(200), protein(200)
REPEATS = "QPQQ" * 30
RELATIVE = changed(HORMONE, 0.5)
DOMAIN = protein(400) + ENZYME[20:120]
TAGGED = "MGSSHHHHHHSSGLVPRGSH" + ENZYME[3:]

TRAIN = table(
    (ENZYME, substitution(ENZYME, 100)),
    (ENZYME, f"{substitution(ENZYME, 100)}:{substitution(ENZYME, 150)}"),
    (ENZYME, substitution(ENZYME, 3)),
    (RELATIVE, substitution(RELATIVE, 50)),
    (REPEATS, "P2A"),
)
TEST = table(
    (TAGGED, substitution(TAGGED, 117)),  # place 100 of the enzyme
    (TAGGED, substitution(TAGGED, 20)),  # place 3: only the neighbours after it are the same
    (TAGGED, f"{substitution(TAGGED, 117)}:{substitution(TAGGED, 167)}"),
    (TAGGED, substitution(TAGGED, 167)),  # measured only together with another
    (TAGGED, f"{TAGGED[117]}118W"),  # another residue in that place
    (HORMONE, substitution(HORMONE, 50)),
    (STRANGER, substitution(STRANGER, 10)),
    (DOMAIN, substitution(DOMAIN, 5)),
    (REPEATS, "P2A"),
    (REPEATS, "P6A"),
)


@pytest.fixture(scope="module")
def report() -> VariantLeakage:
    return variant_leakage(TRAIN, TEST, threads=1)


def test_relatives_are_found_by_homology_by_a_shared_domain_and_by_being_equal() -> None:
    assert related_proteins(TEST, TRAIN, threads=1) == {0: [0], 1: [1], 2: [], 3: [0], 4: [2]}


def test_rows_of_close_relatives_leave_the_training_table_and_no_others() -> None:
    left = without_relatives(TRAIN, TEST.iloc[:8], 0.7, threads=1)
    assert left["wild_type"].tolist() == [RELATIVE, REPEATS]


def test_marking_keeps_every_row_in_its_place() -> None:
    shuffled = TEST.sample(frac=1, random_state=1)
    marked = mark_relatives(shuffled, TRAIN.iloc[:3], threads=1)
    assert marked.index.tolist() == shuffled.index.tolist()
    assert marked.sort_index()["has_relative"].tolist() == [True] * 5 + [False] * 2 + [True] + [False] * 2


def test_the_report_counts_proteins_and_measurements(report: VariantLeakage) -> None:
    assert (report.test_proteins, report.test_rows, report.train_proteins, report.train_rows) == (5, 10, 3, 5)
    assert (report.related_proteins[0.25], report.related_rows[0.25]) == (4, 9)
    assert (report.related_proteins[0.9], report.related_rows[0.9]) == (3, 8)  # all but the hormone
    assert (report.identical_proteins, report.identical_rows) == (1, 2)


def test_a_mutation_is_the_same_in_a_construct_with_a_tag(report: VariantLeakage) -> None:
    # the first three rows of the tagged construct, and the two in the repeats, which are alike on one side
    assert report.same_mutations == 5
    assert report.same_variants == 1


def test_the_report_is_plain_json_and_a_table_for_people(report: VariantLeakage) -> None:
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["test"] == {"proteins": 5, "rows": 10}
    assert plain["related"][0] == {"identity": 0.25, "proteins": 4, "rows": 9}
    assert plain["same_mutations"] == 5
    assert "test: 5 proteins, 10 measurements; training: 3 proteins, 5 measurements" in str(report)
    assert "the same mutation" in str(report)


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match=r"needs the columns \['protein'\]"):
        related_proteins(TEST.drop(columns="protein"), TRAIN)
    with pytest.raises(DataError, match="nothing to compare: 0 and 3 proteins"):
        related_proteins(TEST.iloc[:0], TRAIN)


@pytest.mark.slow
def test_the_public_benchmark_shares_what_is_known_of_it(data_root: Path) -> None:
    test = read_variant_table("S571", data_root)
    auxiliary = variant_leakage(read_variant_table("S8754", data_root), test, threads=1)
    assert auxiliary.same_variants == 220
    assert auxiliary.same_mutations >= 220
    trained_on = variant_leakage(read_variant_table("S4346", data_root), test, threads=1)
    assert (trained_on.related_proteins[0.3], trained_on.related_rows[0.3]) == (13, 173)
    assert trained_on.related_proteins[0.25] >= 15
    assert (trained_on.identical_proteins, trained_on.same_variants) == (0, 0)
