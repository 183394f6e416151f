"""How much a test table shares with a training table: the first thing to know before believing a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enzyme_stability.data.homology import clean_all, search
from enzyme_stability.errors import DataError

LEVELS = (0.3, 0.5, 0.9)
"""Identities that the report counts at: remote homologue, family member, near-copy."""


@dataclass(frozen=True)
class LeakageReport:
    """What a test table shares with a training table.

    Attributes:
        train_proteins: Rows of the training table.
        test_proteins: Rows of the test table, ``n`` of them.
        coverage: Least share of the test protein that an alignment had to cover.
        duplicates: Test proteins whose very sequence is in the training table.
        near: Test proteins with a training protein at or above each identity of ``LEVELS``.
        best_identity: Highest identity of each test protein to any training protein, shape ``(n,)``, 0 to 1;
            0 where nothing resembles it at the lowest level.
        nearest: Row of that training protein, shape ``(n,)``; -1 where there is none.
    """

    train_proteins: int
    test_proteins: int
    coverage: float
    duplicates: int
    near: dict[float, int]
    best_identity: npt.NDArray[np.float64]
    nearest: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """The counts and shares, ready for JSON; the arrays by row stay out."""
        return {
            "train_proteins": self.train_proteins,
            "test_proteins": self.test_proteins,
            "coverage": self.coverage,
            "duplicates": self.duplicates,
            "near": [
                {"identity": level, "proteins": count, "share": round(count / self.test_proteins, 4)}
                for level, count in self.near.items()
            ],
        }

    def __str__(self) -> str:
        rows = [(f">= {level:.0%} identical", count) for level, count in self.near.items()]
        rows.append(("the same sequence", self.duplicates))
        lines = [f"{label:<20}{count:>8}{count / self.test_proteins:>9.1%}" for label, count in rows]
        header = f"{self.test_proteins} test proteins with a relative among {self.train_proteins} training proteins"
        return "\n".join([f"{header} (over >= {self.coverage:.0%} of the test protein)", *lines])


def leakage(
    train: Sequence[str], test: Sequence[str], *, coverage: float = 0.5, threads: int | None = None
) -> LeakageReport:
    """Compare a test table with a training table, protein by protein.

    Args:
        train: Sequences of the training table.
        test: Sequences of the test table.
        coverage: Least share of the test protein that an alignment must cover, 0 to 1.
        threads: Processor threads; all by default.

    Raises:
        SequenceError: A sequence is unusable; the message gives its place, counted from 1.
        DataError: A table is empty.
        MissingDependencyError: MMseqs2 is not installed.
    """
    if not len(train) or not len(test):
        raise DataError(f"nothing to compare: {len(train)} training and {len(test)} test proteins")
    best_identity = np.zeros(len(test))
    nearest = np.full(len(test), -1)
    best = search(test, train, LEVELS[0], coverage, threads=threads).drop_duplicates("query")
    best_identity[best["query"]] = best["identity"]
    nearest[best["query"]] = best["target"]
    # Looked up, not searched: a chain of repeats is masked by the search and would find no seed, not even in itself.
    place = {sequence: row for row, sequence in reversed(list(enumerate(clean_all(train, "training table"))))}
    same = np.array([place.get(sequence, -1) for sequence in clean_all(test, "test table")])
    duplicated = same >= 0
    best_identity[duplicated], nearest[duplicated] = 1.0, same[duplicated]
    return LeakageReport(
        train_proteins=len(train),
        test_proteins=len(test),
        coverage=coverage,
        duplicates=int(duplicated.sum()),
        near={level: int((best_identity >= level).sum()) for level in LEVELS},
        best_identity=best_identity,
        nearest=nearest,
    )
