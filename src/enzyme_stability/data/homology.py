"""Homology between proteins, found by the MMseqs2 program: clusters of one set, hits between two.

Source:
    MMseqs2, doi 10.1038/nbt.3988.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from enzyme_stability.data.mmseqs import find_mmseqs, run_mmseqs, write_numbered
from enzyme_stability.errors import SequenceError
from enzyme_stability.sequence import clean_sequence

__all__ = ["HIT_COLUMNS", "clean_all", "cluster", "find_mmseqs", "number_by_appearance", "search"]

HIT_COLUMNS = ["query", "target", "identity", "query_coverage", "target_coverage", "e_value"]

_SENSITIVITY = 7.5
"""The finest setting of the prefilter: at the default, 5.7, 25 of 565 Tm50 test proteins with a relative are missed."""

_HITS_PER_QUERY = 1000
"""Candidates kept for each query; at the default, 300, members of the largest families begin to be missed."""


def cluster(
    sequences: Sequence[str],
    identity: float = 0.3,
    coverage: float = 0.5,
    *,
    connected: bool = False,
    mask: bool = True,
    threads: int | None = None,
) -> npt.NDArray[np.int64]:
    """Group proteins into families: members align with their representative.

    Equal sequences always share a cluster. Every other member has at least ``identity`` to its representative over
    at least ``coverage`` of **both** chains; two members of one cluster, or of two clusters, may be closer or farther.

    Args:
        sequences: Proteins, ``n`` of them; cleaned by the residue policy here.
        identity: Least share of identical residues in the alignment, 0 to 1.
        coverage: Least share of either chain that the alignment covers, 0 to 1.
        connected: Join clusters that have any hit between them (single linkage) instead of representatives only.
            Nothing similar is then left between clusters, at the price of a few very large ones.
        mask: Leave low-complexity stretches out of the search for seeds. ``False`` finds near-copies made of repeats.
        threads: Processor threads; all by default. The answer does not depend on it.

    Returns:
        Cluster of each sequence, shape ``(n,)``, numbered from 0 by first appearance.

    Raises:
        SequenceError: A sequence is unusable; the message gives its place, counted from 1.
        MissingDependencyError: MMseqs2 is not installed.
        DataError: MMseqs2 failed; the message ends with what it said.
    """
    residues = clean_all(sequences, "sequences")
    distinct = {text: number for number, text in enumerate(dict.fromkeys(residues))}
    if len(distinct) < 2:
        return np.zeros(len(residues), dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as name:
        folder = Path(name)
        write_numbered(folder / "in.fasta", list(distinct))
        run_mmseqs(
            "easy-cluster",
            [folder / "in.fasta", folder / "out", folder / "tmp"],
            {
                "--min-seq-id": identity,
                "-c": coverage,
                "--cov-mode": 0,
                "--mask": int(mask),
                "--cluster-mode": int(connected),
                # In one step: as quick as the default cascade for tables of this size, and it misses less.
                "--single-step-clustering": 1,
                "-k": _seed_length(len(distinct)),
            },
            threads,
        )
        pairs = np.loadtxt(folder / "out_cluster.tsv", dtype=np.int64, ndmin=2)
    representative = np.empty(len(distinct), dtype=np.int64)
    representative[pairs[:, 1]] = pairs[:, 0]
    return number_by_appearance(representative[[distinct[text] for text in residues]])


def search(
    queries: Sequence[str],
    targets: Sequence[str],
    identity: float = 0.3,
    coverage: float = 0.5,
    *,
    covering: Literal["query", "either"] = "query",
    threads: int | None = None,
) -> pd.DataFrame:
    """Find the targets that each query resembles.

    Args:
        queries: Proteins to ask for; cleaned by the residue policy here.
        targets: Proteins to look among; likewise.
        identity: Least share of identical residues in the alignment, 0 to 1.
        coverage: Least share of the chain that the alignment covers, 0 to 1.
        covering: Which chain ``coverage`` is about: the query's, or either of the two.
        threads: Processor threads; all by default.

    Returns:
        One row a hit, the most identical of each query first: ``query`` and ``target`` (places in the arguments,
        from 0), ``identity``, ``query_coverage``, ``target_coverage`` (all 0 to 1) and ``e_value`` (at most 0.001).
        Of equal sequences each is listed.

    Raises:
        SequenceError: A sequence is unusable; the message gives its place, counted from 1.
        MissingDependencyError: MMseqs2 is not installed.
        DataError: MMseqs2 failed; the message ends with what it said.
    """
    asked = pd.Series(clean_all(queries, "queries"), dtype=object)
    among = pd.Series(clean_all(targets, "targets"), dtype=object)
    if asked.empty or among.empty:
        return pd.DataFrame(columns=HIT_COLUMNS)
    distinct_queries, distinct_targets = list(dict.fromkeys(asked)), list(dict.fromkeys(among))
    with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as name:
        folder = Path(name)
        write_numbered(folder / "queries.fasta", distinct_queries)
        write_numbered(folder / "targets.fasta", distinct_targets)
        run_mmseqs(
            "easy-search",
            [folder / "queries.fasta", folder / "targets.fasta", folder / "hits.tsv", folder / "tmp"],
            {
                "--format-output": "query,target,fident,qcov,tcov,evalue",
                "--min-seq-id": identity,
                "-s": _SENSITIVITY,
                "--max-seqs": _HITS_PER_QUERY,
                "-k": _seed_length(len(distinct_targets)),
            },
            threads,
        )
        hits = pd.read_csv(folder / "hits.tsv", sep="\t", names=HIT_COLUMNS)
    # The program has no setting for "either chain", so the rule is applied here for both choices.
    covered = hits["query_coverage"]
    if covering == "either":
        covered = hits[["query_coverage", "target_coverage"]].max(axis=1)
    hits = hits[(covered >= coverage) & (hits["identity"] >= identity)]
    hits = _spread(_spread(hits, "query", asked, distinct_queries), "target", among, distinct_targets)
    return hits.sort_values(
        ["query", "identity", "e_value", "target"], ascending=[True, False, True, True], ignore_index=True
    )


def number_by_appearance(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Renumber labels, shape ``(n,)``, from 0 in the order in which they first appear."""
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def _spread(hits: pd.DataFrame, column: str, sequences: pd.Series, distinct: list[str]) -> pd.DataFrame:
    """Replace the number of a distinct sequence by the place of every sequence equal to it."""
    number = {text: index for index, text in enumerate(distinct)}
    places = pd.DataFrame({column: sequences.map(number), "place": range(len(sequences))})
    return hits.merge(places, on=column).assign(**{column: lambda frame: frame["place"]}).drop(columns="place")


def _seed_length(sequences: int) -> int:
    """Residues in a seed: 6 is the program's own choice, but its table takes seconds to fill even for two proteins."""
    return 5 if sequences < 2000 else 6


def clean_all(sequences: Sequence[str], what: str) -> list[str]:
    """Apply the residue policy to every sequence of ``what``.

    Raises:
        SequenceError: One is unusable; the message gives its place, counted from 1.
    """
    residues = []
    for place, text in enumerate(sequences, start=1):
        try:
            residues.append(clean_sequence(text).residues)
        except SequenceError as error:
            raise SequenceError(f"sequence {place} of the {what}: {error}") from error
    return residues
