"""What tables of variants share: related proteins, and the very same mutations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from enzyme_stability.data.homology import search
from enzyme_stability.errors import DataError
from enzyme_stability.variant import Variant

IDENTITY = 0.25
"""Least share of identical residues in an alignment of relatives. An alignment counts however little of the chains it
covers: one shared domain is enough to learn the effect of a mutation from."""

LEVELS = (0.25, 0.3, 0.5, 0.9)
"""Identities that the report counts at."""

_CONTEXT = 10
"""Residues beside a substitution that say where it is: by chance ten agree in one of 10^13 places."""


def related_proteins(
    table: pd.DataFrame, others: pd.DataFrame, identity: float = IDENTITY, *, threads: int | None = None
) -> dict[int, list[int]]:
    """For each protein of a table its relatives in another: found by MMseqs2 either way (e-value <= 0.001), or equal.

    Args:
        table: Variants as from ``read_variant_table``; of it ``protein`` and ``wild_type`` are used.
        others: The table to look in, likewise.
        identity: Least share of identical residues in the alignment, 0 to 1.
        threads: Processor threads; all by default.

    Returns:
        By ``protein`` of the table the ``protein`` of each relative in the other, in order; every protein is there,
        with an empty list where it has none.

    Raises:
        DataError: A column is missing, a table is empty, or MMseqs2 failed.
        SequenceError: A wild type is unusable.
        MissingDependencyError: MMseqs2 is not installed.
    """
    hits = _hits(table, others, identity, threads)
    related: dict[int, list[int]] = {int(protein): [] for protein in table["protein"].drop_duplicates()}
    for protein, other in hits[["protein", "other"]].sort_values(["protein", "other"]).itertuples(index=False):
        related[int(protein)].append(int(other))
    return related


def without_relatives(
    train: pd.DataFrame, test: pd.DataFrame, identity: float = IDENTITY, *, threads: int | None = None
) -> pd.DataFrame:
    """The training rows of proteins that are related to no test protein.

    Raises:
        DataError: As ``related_proteins``, and so the other errors.
    """
    return train[~mark_relatives(train, test, identity, threads=threads)["has_relative"]]


def mark_relatives(
    table: pd.DataFrame, others: pd.DataFrame, identity: float = IDENTITY, *, threads: int | None = None
) -> pd.DataFrame:
    """The table with the column ``has_relative``: whether the protein has a relative in the other table.

    Raises:
        DataError: As ``related_proteins``, and so the other errors.
    """
    related = related_proteins(table, others, identity, threads=threads)
    return table.assign(has_relative=table["protein"].map(lambda protein: bool(related[int(protein)])))


@dataclass(frozen=True)
class VariantLeakage:
    """What a test table of variants shares with a training table.

    Attributes:
        train_proteins: Distinct wild types of the training table.
        train_rows: Its measurements.
        test_proteins: Distinct wild types of the test table.
        test_rows: Its measurements.
        related_proteins: Test proteins with a relative at or above each identity of ``LEVELS``.
        related_rows: Their measurements, likewise.
        identical_proteins: Test proteins whose very wild type is in the training table.
        identical_rows: Their measurements.
        same_variants: Measurements of a variant, of the very same wild type, that was measured in the training table.
        same_mutations: Measurements of a mutation that was measured in the training table, in that wild type or in a
            near-copy of it: the same residues replaced by the same, beside the same neighbours.
    """

    train_proteins: int
    train_rows: int
    test_proteins: int
    test_rows: int
    related_proteins: dict[float, int]
    related_rows: dict[float, int]
    identical_proteins: int
    identical_rows: int
    same_variants: int
    same_mutations: int

    def to_dict(self) -> dict[str, Any]:
        """The counts, ready for JSON."""
        near = zip(LEVELS, self.related_proteins.values(), self.related_rows.values(), strict=True)
        return {
            "train": {"proteins": self.train_proteins, "rows": self.train_rows},
            "test": {"proteins": self.test_proteins, "rows": self.test_rows},
            "related": [{"identity": level, "proteins": proteins, "rows": rows} for level, proteins, rows in near],
            "identical": {"proteins": self.identical_proteins, "rows": self.identical_rows},
            "same_variants": self.same_variants,
            "same_mutations": self.same_mutations,
        }

    def __str__(self) -> str:
        counts = [
            (f"related, >= {level:.0%} identical", self.related_proteins[level], self.related_rows[level])
            for level in LEVELS
        ]
        counts.append(("the same wild type", self.identical_proteins, self.identical_rows))
        lines = [
            f"test: {self.test_proteins} proteins, {self.test_rows} measurements; "
            f"training: {self.train_proteins} proteins, {self.train_rows} measurements",
            f"{'of the test table':<28}{'proteins':>10}{'measurements':>14}",
            *(f"{label:<28}{proteins:>10}{rows:>14}" for label, proteins, rows in counts),
            f"{'the same variant of it':<28}{'':>10}{self.same_variants:>14}",
            f"{'the same mutation':<28}{'':>10}{self.same_mutations:>14}",
        ]
        return "\n".join(lines)


def variant_leakage(train: pd.DataFrame, test: pd.DataFrame, *, threads: int | None = None) -> VariantLeakage:
    """Count what a test table shares with a training table.

    Raises:
        DataError: As ``related_proteins``, and so the other errors.
        VariantError: A variant cannot be read.
    """
    hits = _hits(test, train, min(LEVELS), threads)
    best = hits.groupby("protein")["identity"].max()
    near = {level: set(best.index[best >= level]) for level in LEVELS}
    known = set(train["wild_type"])
    identical = test["wild_type"].isin(known)
    variants = set(zip(train["wild_type"], train["variant"], strict=True))
    places = {key for keys in _mutations(train) for key in keys}
    return VariantLeakage(
        train_proteins=train["protein"].nunique(),
        train_rows=len(train),
        test_proteins=test["protein"].nunique(),
        test_rows=len(test),
        related_proteins={level: len(proteins) for level, proteins in near.items()},
        related_rows={level: int(test["protein"].isin(proteins).sum()) for level, proteins in near.items()},
        identical_proteins=test.loc[identical, "protein"].nunique(),
        identical_rows=int(identical.sum()),
        same_variants=sum(variant in variants for variant in zip(test["wild_type"], test["variant"], strict=True)),
        same_mutations=sum(not places.isdisjoint(keys) for keys in _mutations(test)),
    )


def _hits(table: pd.DataFrame, others: pd.DataFrame, identity: float, threads: int | None) -> pd.DataFrame:
    """One row a pair of relatives: ``protein``, ``other`` and the highest ``identity`` found."""
    for rows in (table, others):
        if absent := {"protein", "wild_type"} - set(rows.columns):
            raise DataError(f"a table of variants needs the columns {sorted(absent)}; there are {list(rows.columns)}")
    asked, among = (rows.drop_duplicates("protein").reset_index(drop=True) for rows in (table, others))
    if asked.empty or among.empty:
        raise DataError(f"nothing to compare: {len(asked)} and {len(among)} proteins")
    ours, theirs = asked["wild_type"].tolist(), among["wild_type"].tolist()
    forward = search(ours, theirs, identity, 0, covering="either", threads=threads)
    # The e-value depends on the size of the table searched, so a pair may be found one way only.
    backward = search(theirs, ours, identity, 0, covering="either", threads=threads)
    backward = backward.rename(columns={"query": "target", "target": "query"})
    # Looked up, not searched: a chain of repeats is masked by the search and would find no seed, not even in itself.
    left, right = asked[["wild_type"]].reset_index(names="query"), among[["wild_type"]].reset_index(names="target")
    equal = left.merge(right, on="wild_type").assign(identity=1.0)
    wanted = ["query", "target", "identity"]
    pairs = pd.concat([rows[wanted].astype(float) for rows in (forward, backward, equal)])
    best = pairs.groupby(["query", "target"], as_index=False)["identity"].max()
    return pd.DataFrame(
        {
            "protein": asked["protein"].to_numpy()[best["query"].astype(int)],
            "other": among["protein"].to_numpy()[best["target"].astype(int)],
            "identity": best["identity"],
        }
    )


def _mutations(table: pd.DataFrame) -> Iterator[set[tuple[Any, ...]]]:
    """Of each row what the mutation is known by; rows that share one of these are the same mutation.

    The neighbours on one side are enough, so a tag, a missing end or a further difference on the other hides nothing;
    in a chain of repeats the same substitution in two of them counts as one.
    """
    for wild_type, text in zip(table["wild_type"], table["variant"], strict=True):
        variant = Variant.parse(text)
        sites = [(k, one.substitution) for k, one in zip(variant.places, variant.substitutions, strict=True)]
        keys: set[tuple[Any, ...]] = {(wild_type, str(variant))}
        if sites and sites[0][0] >= _CONTEXT:
            keys.add(("before", *((wild_type[k - _CONTEXT : k + 1], to) for k, to in sites)))
        if sites and sites[-1][0] + _CONTEXT < len(wild_type):
            keys.add(("after", *((wild_type[k : k + _CONTEXT + 1], to) for k, to in sites)))
        yield keys
