"""Measured temperatures as tables: those a person sends in, and the one that a new predictor learns from."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from typing import Any

from sqlalchemy import select

from enzyme_stability.data.readers import GROWTH_TEMPERATURE_COLUMNS, ID_COLUMNS, SEQUENCE_COLUMNS
from enzyme_stability.data.writers import open_writer
from enzyme_stability.errors import DataError, MissingDependencyError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.feedback import Measured
from enzyme_stability.monitoring.tables import FeedbackRow

COLUMN_NAMES = {
    "sequence": SEQUENCE_COLUMNS,
    "sequence_sha256": ("sequence_sha256", "sequence_hash", "sha256"),
    "tm": ("measured_tm_celsius", "tm_celsius", "measured_tm", "tm"),
    "id": ID_COLUMNS,
    "organism": ("organism", "species"),
    "growth_temperature": GROWTH_TEMPERATURE_COLUMNS,
    "source": ("source", "assay", "run"),
}
"""Names by which the columns are recognised, the best first; in lower case with ``_`` for blanks."""

TRAINING_COLUMNS: dict[str, type] = {
    "id": str,
    "sequence": str,
    "tm_celsius": float,
    "tm_spread_celsius": float,
    "measurements": int,
    "source": str,
    "organism": str,
    "growth_temperature_celsius": float,
}
"""Columns of the table to learn from, as 'data prepare' names them."""

TRAINING_SUFFIXES = (".csv", ".parquet")
"""What training reads."""

_TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
_MISSING = {"", "na", "nan", "n/a", "none", "null"}
_LONGEST_FIELD = 10_000_000
_SURPLUS = "\0"  # no column is called so


@dataclass(frozen=True, slots=True)
class RetrainSet:
    """What a table to learn from was made of.

    Attributes:
        rows: A protein and growth temperature each.
        measurements: That they were made of.
        left_out: Measurements without a sequence.
    """

    rows: int
    measurements: int
    left_out: int


def read_measured(path: Path) -> Iterator[tuple[str, Measured]]:
    """Yield the rows of a CSV, TSV or Parquet table, each with where it stands, as ``line 7``.

    A row that cannot be read has a ``problem`` and costs itself only. CSV and TSV may be gzip-compressed.

    Raises:
        DataError: The file is missing, damaged or lacks a column, or holds predictions.
        MissingDependencyError: The file is Parquet and pyarrow is not installed.
    """
    rows = _parquet(path) if path.suffix == ".parquet" else _delimited(path)
    _, header = next(rows)
    columns = _columns(path, list(header))
    for count, (where, row) in enumerate(rows, 1):
        cells = {field: _cell(row.get(name)) for field, name in columns.items()}
        cells["surplus"] = "" if _SURPLUS not in row else "yes"
        if any(cells.values()):
            yield where, _measured(cells, f"row_{count}")


def _delimited(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The header, as a row that names itself, then the rows."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    line = 1
    try:
        with gzip.open(path, "rt", **_TEXT) if path.suffix == ".gz" else path.open(**_TEXT) as file:
            header = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, restkey=_SURPLUS, delimiter=max("\t;,", key=header.count), strict=True)
            names = [name.strip() for name in rows.fieldnames or ()]
            rows.fieldnames = names
            yield "line 1", dict(zip(names, names, strict=True))
            for row in rows:
                line = rows.line_num
                yield f"line {line}", row
    except (csv.Error, UnicodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be read after line {line}: {error}; save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Reading Parquet", "parquet") from error
    try:
        table = pq.read_table(path)
        yield "the header", {name: name for name in table.column_names}
        for count, row in enumerate(table.to_pylist(), 1):
            yield f"row {count}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Name of the column of each field that the table has."""
    plain = {name.strip().casefold().replace(" ", "_"): name for name in reversed(header)}
    found = {
        field: next(plain[name] for name in names if name in plain)
        for field, names in COLUMN_NAMES.items()
        if not plain.keys().isdisjoint(names)
    }
    for fields in (("sequence", "sequence_sha256"), ("tm",)):
        if not found.keys() & set(fields):
            usual = ", ".join(name for field in fields for name in COLUMN_NAMES[field])
            raise DataError(f"{path} has no column for the {fields[0]} (usual names: {usual}); it has {list(header)}")
    if "tm_lower_celsius" in plain and found["tm"] != plain.get("measured_tm_celsius"):
        raise DataError(
            f"{path} holds predictions, whose column {found['tm']} is no measurement; "
            "put the measured Tm into a column measured_tm_celsius"
        )
    return found


def _cell(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text.casefold() in _MISSING else text


def _measured(cells: Mapping[str, str], name: str) -> Measured:
    numbers: dict[str, float | None] = {}
    problem = "it has more fields than the header" if cells.get("surplus") else ""
    for field in ("tm", "growth_temperature"):
        try:
            numbers[field] = float(cells[field]) if cells.get(field) else None
        except ValueError:
            numbers[field] = None
            problem = problem or f"the {field.replace('_', ' ')} {cells[field]!r:.40} is no number"
    return Measured(
        cells.get("id") or name,
        numbers["tm"],
        cells.get("sequence") or None,
        cells.get("sequence_sha256") or None,
        cells.get("organism") or None,
        numbers["growth_temperature"],
        cells.get("source") or None,
        problem,
    )


def export_retrain_set(
    database: Database, path: Path, *, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> RetrainSet:
    """Write what came back as a table that 'enzyme-stability train data.path=...' learns from.

    A row is a protein at one growth temperature, with the median of its measurements. What came back as a hash alone
    is counted where the sequence came with another measurement of the protein, and left out elsewhere.

    Args:
        database: With the feedback.
        path: File to write, .csv or .parquet; it gets its name only when it is complete.
        since: Measurements that came back at this time or later; None is all.
        until: And before this one; None is now.

    Raises:
        ArtifactError: The database cannot be read.
        DataError: Nothing came back with a sequence, or the file cannot be written.
        MissingDependencyError: The file is Parquet and pyarrow is not installed.
    """
    if path.suffix not in TRAINING_SUFFIXES:
        raise DataError(f"{path}: training reads {' and '.join(TRAINING_SUFFIXES)}; name the file so")
    query = select(FeedbackRow).order_by(FeedbackRow.received_at, FeedbackRow.id)
    if since is not None:
        query = query.where(FeedbackRow.received_at >= since)
    if until is not None:
        query = query.where(FeedbackRow.received_at < until)
    chains: dict[str, str] = {}
    groups: dict[tuple[str, float | None], list[FeedbackRow]] = defaultdict(list)
    with database.session(read_only=True) as session:
        for row in session.scalars(query):
            groups[row.sequence_hash, row.growth_temperature_celsius].append(row)
            if row.sequence is not None:
                chains.setdefault(row.sequence_hash, row.sequence)
        usable = {key: rows for key, rows in groups.items() if key[0] in chains}
        made = [_protein(chains[hash_], growth, rows) for (hash_, growth), rows in usable.items()]
    if not made:
        raise DataError("no measured Tm has come back with a sequence yet, so there is nothing to learn from")
    with open_writer(path, TRAINING_COLUMNS) as table:
        for protein in made:
            table.write(protein)
    counted = sum(map(len, usable.values()))
    return RetrainSet(len(made), counted, sum(map(len, groups.values())) - counted)


def _protein(chain: str, growth: float | None, rows: Sequence[FeedbackRow]) -> dict[str, object]:
    values = [row.measured_tm_celsius for row in rows]
    sources = dict.fromkeys(row.source for row in rows if row.source)
    return {
        "id": rows[0].name,
        "sequence": chain,
        "tm_celsius": median(values),
        "tm_spread_celsius": stdev(values) if len(values) > 1 else None,
        "measurements": len(values),
        "source": "; ".join(sources) or None,
        "organism": next((row.organism for row in rows if row.organism), None),
        "growth_temperature_celsius": growth,
    }
