"""Clusters and hits of made-up families."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from made_up_proteins import FOUNDERS, protein, relative

from enzyme_stability.data.homology import cluster, search
from enzyme_stability.errors import DataError, SequenceError

pytestmark = pytest.mark.usefixtures("mmseqs")

FAMILIES = [member for founder in FOUNDERS for member in (founder, relative(founder, 0.7), relative(founder, 0.6))]


def test_families_become_clusters_numbered_by_first_appearance() -> None:
    assert cluster(FAMILIES, threads=1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_clusters_follow_the_proteins_in_any_order_and_with_any_threads() -> None:
    order = [11, 0, 4, 8, 3, 1, 10, 7, 2, 5, 9, 6]
    shuffled = cluster([FAMILIES[place] for place in order], threads=2)
    assert shuffled.tolist() == [0, 1, 2, 3, 2, 1, 0, 3, 1, 2, 0, 3]


def test_near_copies_share_a_cluster_without_their_last_residue_and_even_if_made_of_repeats() -> None:
    whole, repeats = FOUNDERS[0], "QPQQ" * 30
    near, far = [whole[:-1], relative(whole, 0.99)], [relative(whole, 0.9), whole[:200]]
    clusters = cluster([whole, *near, *far, repeats, repeats[:-1]], 0.98, 0.95, mask=False, threads=1)
    assert clusters.tolist() == [0, 0, 0, 1, 2, 3, 3]


def test_equal_sequences_share_a_cluster_whatever_their_spelling() -> None:
    assert cluster(["mkvlaagivglcakay ", "MKVLAAGIVGLCAKAY*"]).tolist() == [0, 0]


def test_nothing_to_cluster_is_no_error() -> None:
    assert cluster([]).tolist() == []


@pytest.fixture(scope="module")
def hits() -> pd.DataFrame:
    """Query 0 is a relative, 1 a stranger, 2 a part of a target, 3 and 4 one chain twice, 5 longer than a target."""
    queries = [relative(FOUNDERS[2], 0.8), protein(250), FOUNDERS[0][:150], *[FOUNDERS[1]] * 2, CHIMERA]
    targets = [*FOUNDERS, relative(FOUNDERS[1], 0.6), relative(FOUNDERS[1], 0.9), FOUNDERS[1]]
    return search(queries, targets, threads=1)


CHIMERA = FOUNDERS[3] + protein(400)


def test_a_hit_names_query_target_identity_and_coverage(hits: pd.DataFrame) -> None:
    related, part = hits[hits["query"] == 0].iloc[0], hits[hits["query"] == 2].iloc[0]
    assert (related["target"], part["target"]) == (2, 0)
    assert (related["identity"], part["identity"]) == pytest.approx((0.8, 1.0), abs=0.01)
    assert (related["query_coverage"], part["query_coverage"]) == pytest.approx((1.0, 1.0), abs=0.02)
    assert (related["target_coverage"], part["target_coverage"]) == pytest.approx((1.0, 0.6), abs=0.02)


def test_a_stranger_has_no_hit(hits: pd.DataFrame) -> None:
    assert 1 not in set(hits["query"])


def test_the_most_identical_target_comes_first_and_every_copy_is_listed(hits: pd.DataFrame) -> None:
    assert hits.loc[hits["query"] == 3, "target"].tolist() == [1, 6, 5, 4]
    assert hits.loc[hits["query"] == 4, "target"].tolist() == [1, 6, 5, 4]


def test_coverage_is_of_the_query_or_of_either_chain(hits: pd.DataFrame) -> None:
    assert 5 not in set(hits["query"])
    assert search([CHIMERA], FOUNDERS, covering="either", threads=1)["target"].tolist() == [3]


def test_searching_nothing_finds_nothing() -> None:
    assert search([], FOUNDERS).empty
    assert search(FOUNDERS, []).empty


def test_an_unusable_sequence_is_named_by_its_place() -> None:
    with pytest.raises(SequenceError, match=r"sequence 2 of the targets: '1' at position 3"):
        search(FOUNDERS, [FOUNDERS[0], "MK1LAAGIVGLCAKAY"])


def test_a_failing_program_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, scratch = tmp_path / "mmseqs", tmp_path / "scratch"
    scratch.mkdir()
    program.write_text(f'#!/bin/sh\nls "{scratch}" > "{tmp_path}/seen"; exit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(DataError):
        search(FAMILIES, FAMILIES)
    assert "enzyme-stability-" in (tmp_path / "seen").read_text()
    assert list(scratch.iterdir()) == []
