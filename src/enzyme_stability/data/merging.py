"""Which rows of raw tables are one protein, and which of their numbers are one measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from enzyme_stability.data.homology import cluster

CLEAN_COLUMNS = [
    "id",
    "sequence",
    "tm_celsius",
    "tm_spread_celsius",
    "measurements",
    "source",
    "run",
    "organism",
    "ph",
    "growth_temperature_celsius",
    "predicted_growth_temperature_celsius",
    "table",
    "line",
]
"""Columns of a clean table; ``table`` and ``line`` say which raw row the row was built on."""

REASON_COLUMNS = ["reason", "detail"]

_FIRST_KNOWN = ("organism", "ph", "growth_temperature_celsius", "predicted_growth_temperature_celsius")


def find_proteins(
    rows: pd.DataFrame, identity: float, coverage: float, threads: int | None = None
) -> tuple[npt.NDArray[np.int64], pd.Series]:
    """Tell which rows are one protein: near-identical chains, of one organism wherever both are known.

    Args:
        rows: Measurements as from ``read_raw`` with a clean ``sequence``.
        identity: Share of identical residues, 0 to 1, from which two chains are one protein.
        coverage: Share of both chains, 0 to 1, that the alignment covers.
        threads: Processor threads for clustering; all by default.

    Returns:
        Protein number of each row, shape ``(n,)``, from 0 by first appearance; and the organism of each row, where a
        row that had none takes that of its near-copy.
    """
    families = cluster(rows["sequence"].tolist(), identity, coverage, mask=False, threads=threads)
    organism = _settle_organisms(rows, families)
    keys = pd.Series(families, index=rows.index).astype(str) + " " + organism.fillna("")
    return np.asarray(pd.factorize(keys)[0], dtype=np.int64), organism


def combine(
    rows: pd.DataFrame, proteins: npt.NDArray[np.int64], same_number_celsius: float, keep: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make one row of the rows that share a protein number.

    The row built on is the longest chain of a table that measured (rather than copied) it; among equals the first.
    Its temperature is the median of the independent measurements.

    Args:
        rows: Measurements with a clean ``sequence``.
        proteins: Protein number of each row, shape ``(n,)``, from 0 by first appearance.
        same_number_celsius: A derived number this near to another table's is a copy of it.
        keep: Further columns of ``rows`` to carry over.

    Returns:
        The clean table, ``CLEAN_COLUMNS`` and ``keep``, in the order of the numbers; and ``reason`` and ``detail`` of
        every row that no row was built on, indexed like ``rows``.
    """
    ordered = rows.assign(protein=proteins, length=rows["sequence"].str.len(), run=rows["run"].fillna(""))
    ordered = ordered.sort_values(["protein", "derived", "length"], ascending=[True, True, False], kind="stable")
    repeated = ordered["protein"].duplicated(keep=False)
    copies = [
        index for _, group in ordered[repeated].groupby("protein") for index in _copies(group, same_number_celsius)
    ]
    measured = ordered.drop(index=copies).groupby("protein")
    base = ordered.drop_duplicates("protein").set_index("protein")
    known = ordered.groupby("protein")[list(_FIRST_KNOWN)].first()  # the first that is not missing
    table = base.assign(
        tm_celsius=measured["tm_celsius"].median(),
        tm_spread_celsius=measured["tm_celsius"].std(),
        measurements=measured.size(),
        source=measured["source"].agg(_joined),
        run=measured["run"].agg(_joined).replace("", None),
        **{column: known[column] for column in _FIRST_KNOWN},
    )[[*CLEAN_COLUMNS, *keep]].reset_index(drop=True)
    others = ordered[ordered["protein"].duplicated()]
    onto = base["id"] + " (" + base["table"] + ", line " + base["line"].astype(str) + ")"
    copied = others.index.isin(copies)
    removed = pd.DataFrame(
        {
            "reason": np.where(copied, "duplicate", "merged"),
            "detail": np.where(copied, "copy of ", "measurement of ") + others["protein"].map(onto),
        },
        index=others.index,
    )
    return _with_distinct_ids(table), removed


def _copies(group: pd.DataFrame, tolerance: float) -> list[int]:
    """Rows that measured nothing: their number is taken over from another table, or the row stands there twice."""
    measured = group.loc[~group["derived"], "tm_celsius"]
    # The benchmarks took single runs, or the mean or median of the runs of a protein.
    averages = [measured.mean(), measured.median()]
    copies: list[int] = []
    seen: list[tuple[float, str, str]] = []
    for index, tm, table, run, derived in group[["tm_celsius", "table", "run", "derived"]].itertuples():
        others = [other for other, where, _ in seen if where != table] + averages
        # Published numbers are rounded, so a copy may be off by the whole tolerance; 1e-6 is for binary fractions.
        taken_over = derived and any(abs(tm - other) <= tolerance + 1e-6 for other in others)
        if taken_over or (tm, table, run) in seen:
            copies.append(index)
        else:
            seen.append((tm, table, run))
    return copies


def _settle_organisms(rows: pd.DataFrame, families: npt.NDArray[np.int64]) -> pd.Series:
    """Give rows of unknown organism that of a near-identical row: same chain but for its ends, then nearest number."""
    organism = rows["organism"].copy()
    nameless = organism.isna().to_numpy()
    mixed = np.isin(families, np.intersect1d(families[nameless], families[~nameless]))
    for _, group in rows[mixed].groupby(families[mixed]):
        unknown, known = group[group["organism"].isna()], group[group["organism"].notna()]
        for index, sequence, tm in unknown[["sequence", "tm_celsius"]].itertuples():
            contained = [sequence in other or other in sequence for other in known["sequence"]]
            distance = (known["tm_celsius"] - tm).abs()
            best = distance[contained].idxmin() if any(contained) else distance.idxmin()
            organism[index] = known.at[best, "organism"]
    return organism


def _joined(values: pd.Series) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


def _with_distinct_ids(table: pd.DataFrame) -> pd.DataFrame:
    """Two proteins may carry one name (an accession in two organisms): the later ones say where they are from."""
    again = table["id"].duplicated()
    place = table["table"] + ":" + table["line"].astype(str)
    return table.assign(id=table["id"].where(~again, table["id"] + "@" + place))
