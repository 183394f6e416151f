"""Raw tables of melting temperatures: how the public ones are laid out, and how any table is read as it is.

``conf/tables.yaml`` holds the declarations, ``RawTable`` says what a declaration may contain, and ``read_raw`` turns
a declared or any other table into measurements: one row a raw row, nothing dropped, nothing cleaned but the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from enzyme_stability.config import Strict
from enzyme_stability.errors import DataError, MissingDependencyError

Unit = Literal["celsius", "kelvin"]

MEASUREMENT_COLUMNS = [
    "table",
    "line",
    "id",
    "raw_sequence",
    "raw_tm",
    "tm_celsius",
    "source",
    "run",
    "organism",
    "ph",
    "growth_temperature_celsius",
    "predicted_growth_temperature_celsius",
    "stability_temperature_celsius",
    "optimum_temperature_celsius",
    "curve_r2",
    "derived",
]
"""Columns of ``read_raw``; ``line`` is the line in the file, the header being line 1."""

KELVIN_AT_0_CELSIUS = 273.15

_HOTTEST_CELSIUS = 200.0
"""Above any boiling solvent a protein was ever melted in: a table that lies wholly above it is in kelvin."""


class Columns(Strict):
    """Names of the columns in the raw file; what is not there stays ``None``."""

    sequence: str
    id: str | None = None
    tm: str | None = None
    ph: str | None = None
    organism: str | None = None
    run: str | None = None
    growth_temperature: str | None = None
    predicted_growth_temperature: str | None = None
    stability: str | None = None
    optimum: str | None = None
    curve_r2: str | None = None


class RawTable(Strict):
    """One raw table: where it lies, what its columns mean, where it comes from."""

    path: str = Field(description="File, relative to the data folder")
    columns: Columns
    source: str = Field(description="Name of the data set in the clean table")
    description: str = Field(default="", description="One line for people")
    licence: str = Field(default="", description="Licence of the file and of what it was made from")
    citation: str = Field(default="", description="Publication, with DOI")
    url: str | None = Field(default=None, description="Address of the very same file, where one is known")
    sha256: tuple[str, ...] = Field(default=(), description="Checksums that the file may have, in hexadecimal")
    by_hand: str = Field(default="", description="Where a person finds the data where there is no address")
    unit: Unit = Field(default="celsius", description="Unit of the temperatures in the file")
    derived: bool = Field(default=False, description="Its numbers were taken from another table's measurements")
    rows: Mapping[str, str] = Field(default_factory=dict, description="Only rows with these values belong to the table")
    ids_in: str | None = Field(
        default=None, description="Only rows whose id is in this file's first column belong to it"
    )
    organism: str | None = Field(default=None, description="Organism of every row")
    organism_in_run: bool = Field(default=False, description="The run's name begins with Genus_species")
    organism_by_id: str | None = Field(default=None, description="Look the organism up by id in this other table")
    one_row_per_sequence: bool = Field(default=False, description="As a test table: merge rows of one protein")
    missing: Mapping[str, tuple[float, ...]] = Field(
        default_factory=dict, description="Values that stand for a missing one, by column of this package"
    )


class GrowthTemperature(Strict):
    """Growth temperature of an organism, degC, and the key of its source."""

    growth_temperature_celsius: float = Field(ge=-5, le=122)
    source: str


class GrowthTemperatures(Strict):
    """The table of growth temperatures and what its source keys mean."""

    organisms: Mapping[str, GrowthTemperature]
    sources: Mapping[str, str]


def load_yaml(name: str) -> Any:
    """Read a YAML file that ships in ``enzyme_stability.conf``.

    Raises:
        MissingDependencyError: OmegaConf, which comes with Hydra, is not installed.
    """
    try:
        from omegaconf import OmegaConf
    except ImportError as error:
        raise MissingDependencyError("Reading the declared tables", "train") from error
    text = files("enzyme_stability.conf").joinpath(name).read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text))


@cache
def known_tables() -> Mapping[str, RawTable]:
    """The declared public tables by name."""
    declared = load_yaml("tables.yaml").items()
    return {name: RawTable.parse(values, f"conf/tables.yaml, {name}:") for name, values in declared}


@cache
def growth_temperatures() -> Mapping[str, float]:
    """Growth temperature in degC of the organisms whose proteomes were melted, by binomial name."""
    table = GrowthTemperatures.model_validate(load_yaml("organism_growth_temperatures.yaml"))
    return {name: entry.growth_temperature_celsius for name, entry in table.organisms.items()}


def find_table(name: str) -> RawTable:
    """The declared table of that name.

    Raises:
        DataError: There is none; the message lists the names.
    """
    if name not in known_tables():
        raise DataError(f"no file or public table is called '{name}'; the tables are: {', '.join(known_tables())}")
    return known_tables()[name]


def full_organism(name: str) -> str | None:
    """Write an organism as its binomial: 'E.coli' and 'Escherichia coli K-12' become 'Escherichia coli'.

    An abbreviated genus is spelt out for the organisms of ``growth_temperatures`` and kept as it is for others;
    'Genus sp. strain' keeps the strain, which is all there is to tell it by.
    """
    words = name.replace("_", " ").replace(".", ". ").split()
    if not words or words[0] in {"-", "unknown", "uncultured"}:
        return None
    if len(words) > 1 and len(words[0]) == 2 and words[0].endswith("."):
        for known in growth_temperatures():
            genus, species = known.split()
            if genus[0] == words[0][0].upper() and species == words[1].lower():
                return known
    return " ".join(words) if len(words) > 1 and words[1] in {"sp.", "cf.", "aff."} else " ".join(words[:2])


def read_raw(name: str, table: RawTable, root: Path) -> pd.DataFrame:
    """Read one table as measurements, a row for each raw row.

    Args:
        name: Name to give the table in messages and reports.
        table: Its declaration.
        root: Folder that the declared paths are relative to.

    Returns:
        The columns ``MEASUREMENT_COLUMNS``, in the order of the file. Temperatures are degC; what is missing or no
        number is NaN, ``None`` or, for text that must be there, the empty string.

    Raises:
        DataError: The file is missing, cannot be parsed, lacks a declared column, or its unit is wrong.
    """
    raw = _read_text(root / table.path)
    declared = {key: column for key, column in table.columns.model_dump().items() if column is not None}
    absent = [column for column in (*declared.values(), *table.rows) if column not in raw.columns]
    if absent:
        raise DataError(f"{root / table.path}: no column {absent}; the file has {list(raw.columns)}")
    for column, value in table.rows.items():
        raw = raw[raw[column] == value]
    if table.ids_in is not None:
        listed = _read_text(root / table.ids_in)
        raw = raw[raw[table.columns.id].isin(listed.iloc[:, 0])]

    def text(key: str) -> pd.Series:
        return raw[declared[key]] if key in declared else pd.Series("", index=raw.index, dtype=object)

    def temperature(key: str) -> pd.Series:
        degrees = _numbers(text(key), table.missing.get(key, ()))
        return degrees - KELVIN_AT_0_CELSIUS if table.unit == "kelvin" else degrees

    measured = pd.DataFrame(
        {
            "table": name,
            "line": raw.index,
            "id": text("id").str.strip(),
            "raw_sequence": text("sequence"),
            "raw_tm": text("tm"),
            "tm_celsius": temperature("tm"),
            "source": table.source,
            "run": text("run").replace("", None),
            "organism": _organisms(table, root, raw, text),
            "ph": _numbers(text("ph")),
            "growth_temperature_celsius": temperature("growth_temperature"),
            "predicted_growth_temperature_celsius": temperature("predicted_growth_temperature"),
            "stability_temperature_celsius": temperature("stability"),
            "optimum_temperature_celsius": temperature("optimum"),
            "curve_r2": _numbers(text("curve_r2")),
            "derived": table.derived,
        }
    )[MEASUREMENT_COLUMNS]
    by_organism = measured["organism"].map(growth_temperatures()).astype(float)
    measured["growth_temperature_celsius"] = measured["growth_temperature_celsius"].fillna(by_organism)
    unnamed = measured["id"] == ""
    measured.loc[unnamed, "id"] = name + ":" + measured.loc[unnamed, "line"].astype(str)
    if table.unit == "celsius" and measured["tm_celsius"].min() > _HOTTEST_CELSIUS:
        raise DataError(
            f"{root / table.path}: every temperature in '{table.columns.tm}' is above {_HOTTEST_CELSIUS:g}; "
            "if they are kelvin, say so with unit='kelvin'"
        )
    return measured.reset_index(drop=True)


def describe_file(path: Path, unit: Unit | None = None, columns: Mapping[str, str] | None = None) -> RawTable:
    """Find out the layout of a table that is not declared, from the names of its columns.

    Args:
        path: CSV, TSV (also gzipped) or Parquet file.
        unit: Unit of the temperatures; by default kelvin if the name of the column says so, else degC.
        columns: Names of columns to take instead of guessing, by field of ``Columns``.

    Returns:
        A declaration whose path is ``path`` itself: read it with ``root=Path()``.

    Raises:
        DataError: No column looks like the sequence or the melting temperature; the message lists the columns.
    """
    present = list(_read_text(path).columns)
    found = dict(columns or {})
    wrong = [name for name in found if name not in Columns.model_fields] + [
        column for column in found.values() if column not in present
    ]
    if wrong:
        raise DataError(f"{path}: {wrong} cannot be used; columns of the file: {present}")
    for key, names in _USUAL_NAMES.items():
        if key not in found and (match := _first_match(names, present)):
            found[key] = match
    for key in ("sequence", "tm"):
        if key not in found:
            usual = ", ".join(_USUAL_NAMES[key])
            raise DataError(f"{path}: no column for the {key} (usual names: {usual}); the file has {present}")
    if unit is None:
        unit = "kelvin" if _plain(found["tm"]) in _KELVIN_NAMES else "celsius"
    return RawTable(path=str(path), columns=Columns.model_validate(found), source=path.name.split(".")[0], unit=unit)


_KELVIN_NAMES = ("tm_kelvin", "tm_k", "melting_temperature_kelvin", "melting_temperature_k")

_USUAL_NAMES = {
    "sequence": ("sequence", "seq", "protein_sequence", "aa_sequence", "aa_seq"),
    "id": ("id", "uniprot_id", "uniprot", "accession", "entry", "protein_id", "name", "identifier"),
    "tm": (
        *("tm_celsius", "tm", "tm_c", "tm_degc", "melting_temperature", "melting_temperature_celsius", "melting_point"),
        *("meltingpoint", "tm_value", "target", "label", *_KELVIN_NAMES),
    ),
    "ph": ("ph",),
    "organism": ("organism", "species", "organism_name"),
    "run": ("run", "run_name", "runname", "experiment"),
    "growth_temperature": ("growth_temperature_celsius", "growth_temperature", "ogt"),
    "predicted_growth_temperature": ("predicted_growth_temperature_celsius",),
    "curve_r2": ("curve_r2",),
}
"""Column names taken without asking, best first; compared without case, blanks and punctuation."""


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def _first_match(names: Sequence[str], present: Sequence[str]) -> str | None:
    plain = {_plain(column): column for column in reversed(present)}
    return next((plain[name] for name in names if name in plain), None)


def _read_text(path: Path) -> pd.DataFrame:
    """Every cell as the text that stands in the file; the index is the line in the file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.name.endswith((".parquet", ".pq")):
            raw = pd.read_parquet(path)
            raw = raw.astype(object).where(raw.notna(), "").astype(str)
        else:
            separator = "\t" if re.search(r"\.(tsv|txt|tab)(\.gz)?$", path.name) else ","
            raw = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
            )
    except (ValueError, OSError) as error:  # pandas' parser errors and undecodable bytes are ValueErrors
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    raw.index = pd.RangeIndex(2, len(raw) + 2)
    raw.columns = raw.columns.astype(str).str.strip()
    return raw


def _numbers(text: pd.Series, missing: Sequence[float] = ()) -> pd.Series:
    numbers = pd.to_numeric(text.str.strip(), errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers) & ~numbers.isin(missing))


def _organisms(table: RawTable, root: Path, raw: pd.DataFrame, text: Callable[[str], pd.Series]) -> pd.Series:
    if table.organism is not None:
        return pd.Series(table.organism, index=raw.index, dtype=object)
    names: dict[str, str | None]
    if table.organism_by_id is not None:
        other = find_table(table.organism_by_id)
        known = read_raw(table.organism_by_id, other, root).dropna(subset=["organism"])
        # An accession seen in the proteomes of two organisms belongs to one of them only: leave it unknown.
        seen = {identifier: set(group) for identifier, group in known.groupby("id")["organism"]}
        written = text("id")
        names = {str(identifier): min(group) for identifier, group in seen.items() if len(group) == 1}
    else:
        written = text("run") if table.organism_in_run else text("organism")
        names = {name: full_organism(name) for name in written.unique()}
    return pd.Series([names.get(name) for name in written], index=raw.index, dtype=object)
