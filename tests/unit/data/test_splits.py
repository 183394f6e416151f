"""Splits and folds never cut a cluster, come out balanced and are the same every time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.data import splits
from enzyme_stability.data.splits import DEFAULT_SHARES, add_split, folds_by_cluster, shares_with_test, split_by_cluster
from enzyme_stability.errors import DataError

SHARES = {"train": 0.7, "calibration": 0.15, "test": 0.15}


def parts_of_each_cluster(clusters: np.ndarray, parts: np.ndarray) -> pd.Series:
    return pd.Series(parts).groupby(clusters).nunique()


@given(seed=st.integers(0, 2**32 - 1), largest=st.integers(1, 50))
def test_no_cluster_is_ever_in_two_parts(seed: int, largest: int) -> None:
    random = np.random.default_rng(seed)
    clusters = random.permutation(np.repeat(np.arange(40), random.integers(1, largest + 1, 40)))
    assert (parts_of_each_cluster(clusters, split_by_cluster(clusters, SHARES, seed)) == 1).all()
    assert (parts_of_each_cluster(clusters, folds_by_cluster(clusters, 5, seed)) == 1).all()


def test_parts_come_near_their_shares_even_with_a_large_family() -> None:
    clusters = np.concatenate([np.zeros(300, dtype=int), np.repeat(np.arange(1, 51), 10), np.arange(51, 251)])
    share = pd.Series(split_by_cluster(clusters, SHARES)).value_counts(normalize=True)
    assert share["train"] == pytest.approx(0.7, abs=0.005)
    assert share["test"] == pytest.approx(0.15, abs=0.005)
    sizes = np.bincount(folds_by_cluster(clusters, 3))
    assert sizes.max() - sizes.min() <= 1


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    clusters = np.arange(500) // 2
    assert (split_by_cluster(clusters, SHARES, 1) == split_by_cluster(clusters, SHARES, 1)).all()
    assert (split_by_cluster(clusters, SHARES, 1) != split_by_cluster(clusters, SHARES, 2)).any()


def test_the_numbering_of_clusters_does_not_matter() -> None:
    clusters = np.arange(500) // 2
    assert (split_by_cluster(clusters, SHARES) == split_by_cluster(clusters * 7 + 3, SHARES)).all()


def test_a_part_that_would_be_empty_is_an_error() -> None:
    with pytest.raises(DataError, match="2 clusters do not fill every part; empty: test"):
        split_by_cluster([0, 0, 0, 1], SHARES)
    with pytest.raises(DataError, match="empty: fold 2"):
        folds_by_cluster([0, 1], 3)


@pytest.mark.parametrize(("share", "parts"), [(0, {"train", "calibration"}), (0.3, set(DEFAULT_SHARES))])
def test_a_share_to_test_on_is_taken_from_what_is_trained_on(share: float, parts: set[str]) -> None:
    shares = shares_with_test(share)
    found = split_by_cluster(np.arange(1000), shares)
    assert set(found) == parts
    assert (found == "test").sum() == pytest.approx(1000 * share, abs=1)
    assert (found == "calibration").sum() == pytest.approx(1000 * DEFAULT_SHARES["calibration"], abs=1)


def test_shares_must_add_up() -> None:
    with pytest.raises(DataError, match="add up to 1"):
        split_by_cluster([0, 1, 2], {"train": 0.9, "test": 0.2})


def test_one_fold_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 2"):
        folds_by_cluster([0, 1, 2], 1)


def test_a_table_gains_cluster_split_and_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "cluster", lambda sequences, *_, **__: np.arange(len(sequences)) // 2)
    table = pd.DataFrame({"id": range(40), "sequence": ["MKVLAAGIVGLCAKAY"] * 40})
    divided = add_split(table, folds=4)
    assert list(divided.columns) == ["id", "sequence", "cluster", "split", "fold"]
    assert set(divided["split"]) == set(SHARES)
    assert sorted(divided["fold"].unique()) == [0, 1, 2, 3]
    assert (divided.groupby("cluster")[["split", "fold"]].nunique() == 1).all(axis=None)
    assert "cluster" not in table.columns


def test_a_table_without_sequences_cannot_be_split() -> None:
    with pytest.raises(DataError, match="no column 'sequence'; it has"):
        add_split(pd.DataFrame({"seq": ["MKV"]}))
