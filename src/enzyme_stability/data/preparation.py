"""From raw tables to one clean table of melting temperatures, with a reason for every row that left.

The steps, in order: read the tables as they are; refuse rows without a usable sequence or temperature; refuse what
resembles a held-out protein; merge repeated measurements of one protein. Kept and removed rows add up to the raw rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from enzyme_stability.config import PreparationSettings, Recipe
from enzyme_stability.data.homology import search
from enzyme_stability.data.merging import REASON_COLUMNS, combine, find_proteins
from enzyme_stability.data.tables import (
    RawTable,
    Unit,
    describe_file,
    find_table,
    known_tables,
    load_yaml,
    read_raw,
)
from enzyme_stability.errors import ConfigError, DataError, SequenceError
from enzyme_stability.sequence import clean_sequence

REMOVED_COLUMNS = ["table", "line", "id", *REASON_COLUMNS]


@dataclass(frozen=True)
class Prepared:
    """A clean table and the account of how it came about.

    Attributes:
        table: One protein a row, columns ``CLEAN_COLUMNS``.
        removed: One row for every raw row that is not itself a row of ``table``, columns ``REMOVED_COLUMNS``.
        summary: Counts at each step, settings, sources and licences; JSON-ready.
    """

    table: pd.DataFrame
    removed: pd.DataFrame
    summary: dict[str, Any]


def load_recipe(name: str) -> Recipe:
    """Read ``conf/<name>.yaml``, for instance ``prepare_builtin``.

    Raises:
        ConfigError: There is no such recipe, a key is misspelt or a value out of bounds; the message names it.
    """
    shipped = {path.name for path in files("enzyme_stability.conf").iterdir() if path.name.startswith("prepare_")}
    if f"{name}.yaml" not in shipped:
        recipes = ", ".join(sorted(file.removeprefix("prepare_").removesuffix(".yaml") for file in shipped))
        raise ConfigError(f"no recipe '{name.removeprefix('prepare_')}'; there are: {recipes}")
    return Recipe.parse(load_yaml(f"{name}.yaml"), f"conf/{name}.yaml")


def prepare(
    tables: Sequence[str | Path],
    *,
    root: Path,
    held_out: Sequence[str | Path] = (),
    settings: PreparationSettings | None = None,
    unit: Unit | None = None,
    threads: int | None = None,
) -> Prepared:
    """Make one clean table of raw ones.

    Rows of one protein (near-identical chains; of one organism wherever both are known) become one row. Its
    temperature is the **median** of the independent measurements, which one poor curve does not move, and its spread
    their standard deviation. A number that a table took over from another is counted once.

    Args:
        tables: Names of declared tables or paths of any other; where rows are merged, earlier ones come first.
        root: Folder that holds the declared tables.
        held_out: Tables whose proteins, and everything that resembles them, must not appear.
        settings: Bounds; the defaults are those of the shipped recipes.
        unit: Unit of the tables given as paths, where their columns do not say.
        threads: Processor threads for the homology search; all by default.

    Raises:
        DataError: A table cannot be read, or nothing is left.
        MissingDependencyError: MMseqs2 is not installed.
    """
    settings = settings or PreparationSettings()
    opened = {str(name): _open(name, root, unit) for name in tables}
    rows = pd.concat([read_raw(name, *where) for name, where in opened.items()], ignore_index=True)
    if rows.empty:
        raise DataError(f"the tables {list(opened)} hold no rows")
    rows["sequence"], why = _clean_sequences(rows["raw_sequence"])
    unusable = _unusable(rows, why, settings)
    usable = rows.drop(index=unusable.index)
    forbidden = {str(name): read_raw(str(name), *_open(name, root, unit)) for name in held_out}
    near = _near_held_out(usable, forbidden, settings, threads)
    usable = usable.drop(index=near.index)
    if usable.empty:
        raise DataError(f"no row of {list(opened)} is left; the first left for: {_first_reason(unusable, near)}")
    proteins, organism = find_proteins(usable, settings.same_protein_identity, settings.same_protein_coverage, threads)
    table, merged = combine(usable.assign(organism=organism), proteins, settings.same_number_celsius)
    removed = _account(rows, table, [unusable, near, merged])
    declared = {name: table for name, (table, _) in opened.items()}
    return Prepared(
        table, removed, _summary(rows, table, removed, declared=declared, held_out=list(forbidden), settings=settings)
    )


def prepare_recipe(recipe: Recipe, root: Path, *, threads: int | None = None) -> Prepared:
    """Carry a recipe out; see ``prepare``."""
    return prepare(recipe.tables, root=root, held_out=recipe.held_out, settings=recipe.settings, threads=threads)


def prepare_test_table(name: str | Path, root: Path, *, unit: Unit | None = None) -> Prepared:
    """Read a table to be predicted: cleaned the same way, the order kept, nothing taken out that can be predicted.

    What leaves is a row without a usable sequence or without a temperature to compare with. Only a table declared with
    ``one_row_per_sequence`` has its repeated rows merged, at the place of the first.

    Returns:
        A table with ``CLEAN_COLUMNS``; for enzyme tables ``stability_temperature_celsius`` or
        ``optimum_temperature_celsius`` stands beside an empty ``tm_celsius``.

    Raises:
        DataError: The table cannot be read, or nothing is left.
    """
    declared, base = _open(name, root, unit)
    label = next(key for key in ("tm", "stability", "optimum") if getattr(declared.columns, key))
    keep = [f"{label}_temperature_celsius"] if label != "tm" else []
    rows = read_raw(str(name), declared, base)
    rows["sequence"], why = _clean_sequences(rows["raw_sequence"])
    unlabelled = rows[keep[0] if keep else "tm_celsius"].isna()
    unusable = _reasons([(why != "", "bad sequence", why), (unlabelled, f"{label} missing", pd.Series("", rows.index))])
    usable = rows.drop(index=unusable.index)
    if usable.empty:
        raise DataError(f"no row of {name} can be used; the first: {_first_reason(unusable)}")
    same = usable["sequence"] + " " + usable["organism"].fillna("") if declared.one_row_per_sequence else usable.index
    settings = PreparationSettings()
    table, merged = combine(usable, pd.factorize(same)[0], settings.same_number_celsius, keep)
    removed = _account(rows, table, [unusable, merged])
    return Prepared(
        table, removed, _summary(rows, table, removed, declared={str(name): declared}, held_out=[], settings=settings)
    )


def _open(name: str | Path, root: Path, unit: Unit | None) -> tuple[RawTable, Path]:
    if name in known_tables():
        return find_table(str(name)), root
    if not Path(name).exists():
        find_table(str(name))  # names the known tables
    return describe_file(Path(name), unit), Path()


def _clean_sequences(sequences: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Clean residues of each sequence, and why it cannot be used (empty where it can)."""
    residues: dict[str, str] = {}
    why: dict[str, str] = {}
    for text in sequences.unique():
        try:
            residues[text] = clean_sequence(text).residues
        except SequenceError as error:
            why[text] = str(error)
    return sequences.map(residues), sequences.map(why).fillna("")


def _unusable(rows: pd.DataFrame, why: pd.Series, settings: PreparationSettings) -> pd.DataFrame:
    tm, r2 = rows["tm_celsius"], rows["curve_r2"]
    low, high = settings.tm_minimum_celsius, settings.tm_maximum_celsius
    checks = [
        (why != "", "bad sequence", why),
        (tm.isna(), "tm missing", "'" + rows["raw_tm"] + "' is no temperature"),
        (~tm.between(low, high), "tm out of range", tm.map("{:g} degC".format) + f" is not within {low:g} to {high:g}"),
        (r2 < settings.curve_r2_minimum, "poor curve", r2.map("R2 of the melting curve {:g}".format)),
    ]
    return _reasons(checks)


def _reasons(checks: Sequence[tuple[pd.Series, str, pd.Series]]) -> pd.DataFrame:
    reasons = pd.DataFrame({"reason": "", "detail": ""}, index=checks[0][0].index)
    for failed, reason, detail in reversed(checks):  # the first check that fails has the last word
        reasons.loc[failed, "reason"] = reason
        reasons.loc[failed, "detail"] = detail[failed]
    return reasons[reasons["reason"] != ""]


def _account(rows: pd.DataFrame, table: pd.DataFrame, reasons: Sequence[pd.DataFrame]) -> pd.DataFrame:
    removed = pd.concat(reasons).sort_index()
    if len(table) + len(removed) != len(rows) or removed.index.has_duplicates:
        raise AssertionError(f"{len(rows)} raw rows became {len(table)} kept and {len(removed)} removed")
    return rows.loc[removed.index, ["table", "line", "id"]].join(removed).reset_index(drop=True)


def _near_held_out(
    rows: pd.DataFrame, forbidden: Mapping[str, pd.DataFrame], settings: PreparationSettings, threads: int | None
) -> pd.DataFrame:
    if not forbidden or rows.empty:
        return pd.DataFrame(columns=REASON_COLUMNS)
    held_out = pd.concat(forbidden.values(), ignore_index=True)
    held_out["sequence"], why = _clean_sequences(held_out["raw_sequence"])
    held_out = held_out[why == ""].drop_duplicates("sequence", ignore_index=True)
    forbidden_chains, chains = held_out["sequence"].tolist(), rows["sequence"].drop_duplicates(ignore_index=True)
    relatives = partial(
        search,
        identity=settings.held_out_identity,
        coverage=settings.held_out_coverage,
        covering="either",
        threads=threads,
    )
    hits = relatives(forbidden_chains, chains.tolist())
    # An alignment comes out a little different when the other chain asks (the program corrects for the composition of
    # the one that asks), so at the bounds a relative may show from one side only: what is left asks back.
    left = chains.drop(hits["target"].unique())
    back = relatives(left.tolist(), forbidden_chains)
    back = back.assign(query=back["target"], target=left.index[back["query"].to_numpy(dtype=int)])
    nearest = (
        pd.concat([hits, back])
        .sort_values("identity", ascending=False, kind="stable")
        .drop_duplicates("target")
        .astype({"query": int, "target": int})
    )
    resembled = held_out.loc[nearest["query"]]
    detail = [
        f"{identifier} ({table}) at {identity:.0%} identity"
        for identifier, table, identity in zip(resembled["id"], resembled["table"], nearest["identity"], strict=True)
    ]
    by_sequence = dict(zip(chains.loc[nearest["target"]], detail, strict=True))
    near = rows["sequence"].map(by_sequence).dropna()
    return pd.DataFrame({"reason": "near held-out protein", "detail": near})


def _first_reason(*removed: pd.DataFrame) -> str:
    every = pd.concat(removed).sort_index()
    return f"{every['reason'].iloc[0]}: {every['detail'].iloc[0]}"


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _summary(
    rows: pd.DataFrame,
    table: pd.DataFrame,
    removed: pd.DataFrame,
    *,
    declared: Mapping[str, RawTable],
    held_out: Sequence[str],
    settings: PreparationSettings,
) -> dict[str, Any]:
    tm = table["tm_celsius"].dropna()
    return {
        "raw_rows": len(rows),
        "removed": _counts(removed["reason"]),
        "proteins": len(table),
        "measurements": int(table["measurements"].sum()),
        "tm_celsius": {
            key: round(float(value), 2) for key, value in tm.describe().items() if len(tm) and key != "count"
        },
        "organisms": _counts(table["organism"].fillna("unknown")),
        "tables": [
            {
                "name": name,
                "raw_rows": int((rows["table"] == name).sum()),
                "removed": _counts(removed.loc[removed["table"] == name, "reason"]),
                "source": spec.source,
                "licence": spec.licence,
                "citation": spec.citation,
            }
            for name, spec in declared.items()
        ],
        "held_out": list(held_out),
        "settings": settings.model_dump(),
    }
