"""Splits that keep families together: train, calibration and test, and folds, by homology cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from enzyme_stability.data.homology import cluster
from enzyme_stability.errors import DataError

DEFAULT_SHARES: Mapping[str, float] = {"train": 0.7, "calibration": 0.15, "test": 0.15}


def shares_with_test(share: float) -> dict[str, float]:
    """The usual shares, but for ``share`` of the proteins to test on, at the cost of those to train on; 0 for none."""
    lent = DEFAULT_SHARES["test"] - share
    shares = {**DEFAULT_SHARES, "train": DEFAULT_SHARES["train"] + lent, "test": share}
    return {part: size for part, size in shares.items() if size}


def split_by_cluster(
    clusters: npt.ArrayLike, shares: Mapping[str, float] = DEFAULT_SHARES, seed: int = 0
) -> npt.NDArray[np.str_]:
    """Assign whole clusters to the parts of a split.

    The largest clusters are placed first, each into the part that is farthest below its share, so the parts come out
    near their shares without a cluster ever being cut. Clusters of one size are placed in an order drawn from ``seed``.

    Args:
        clusters: Cluster of each protein, shape ``(n,)``.
        shares: Share of the proteins in each part; they must add up to 1.
        seed: Seed of the order.

    Returns:
        Name of the part of each protein, shape ``(n,)``.

    Raises:
        DataError: The shares do not add up to 1, or a part would stay empty.
    """
    if any(share <= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise DataError(f"the shares {dict(shares)} must be above 0 and add up to 1")
    parts = _balance(np.asarray(clusters), list(shares.values()), list(shares), seed)
    return np.array(list(shares))[parts]


def folds_by_cluster(clusters: npt.ArrayLike, k: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Assign whole clusters to ``k`` folds of nearly equal size.

    Args:
        clusters: Cluster of each protein, shape ``(n,)``.
        k: Number of folds, at least 2.
        seed: Seed of the order; see ``split_by_cluster``.

    Returns:
        Fold of each protein, 0 to ``k - 1``, shape ``(n,)``.

    Raises:
        DataError: There are fewer clusters than folds.
    """
    if k < 2:
        raise DataError(f"{k} folds are too few; at least 2 are needed")
    return _balance(np.asarray(clusters), [1 / k] * k, [f"fold {fold}" for fold in range(k)], seed)


def add_split(
    table: pd.DataFrame,
    *,
    identity: float = 0.3,
    coverage: float = 0.5,
    connected: bool = False,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    folds: int = 5,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Add the columns ``cluster``, ``split`` and ``fold`` to a table with a ``sequence`` column.

    ``fold`` divides the whole table, so that cross-validation may ignore ``split``; neither cuts a cluster.

    Args:
        table: Proteins, one a row.
        identity: Identity to its representative that makes a protein a member of a cluster, 0 to 1.
        coverage: Share of both chains that the alignment covers, 0 to 1.
        connected: Also join clusters with any hit between them; see ``homology.cluster``.
        shares: Share of each part; see ``split_by_cluster``.
        folds: Number of folds.
        seed: Seed of both assignments.
        threads: Processor threads for clustering; all by default.

    Raises:
        DataError: The table has no ``sequence`` column, or a part would stay empty.
        MissingDependencyError: MMseqs2 is not installed.
    """
    if "sequence" not in table.columns:
        raise DataError(f"the table has no column 'sequence'; it has {list(table.columns)}")
    clusters = cluster(table["sequence"].tolist(), identity, coverage, connected=connected, threads=threads)
    return table.assign(
        cluster=clusters,
        split=split_by_cluster(clusters, shares, seed),
        fold=folds_by_cluster(clusters, folds, seed),
    )


def _balance(
    clusters: npt.NDArray[np.int64], shares: list[float], names: list[str], seed: int
) -> npt.NDArray[np.int64]:
    _, number, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    largest_first = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    wanted = np.array(shares) * len(clusters)
    missing = wanted.copy()
    part = np.empty(len(sizes), dtype=np.int64)
    for index in largest_first:
        # Relative to the wish, or a small part would get its first cluster last and only a tiny one.
        part[index] = int(np.argmax(missing / wanted))
        missing[part[index]] -= sizes[index]
    if empty := [name for place, name in enumerate(names) if not (part == place).any()]:
        raise DataError(f"{len(sizes)} clusters do not fill every part; empty: {', '.join(empty)}")
    return part[number]
