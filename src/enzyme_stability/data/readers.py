"""Read sequences from FASTA, CSV, TSV or Parquet as a stream, whatever the file is called.

The format is found by content. A record that cannot be read keeps its place as a ``Record`` with a ``problem``, so
that it costs itself only; what makes the rest of a file unreadable is a ``DataError``, raised after the records
before it were yielded.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from enzyme_stability.errors import DataError, MissingDependencyError
from enzyme_stability.sequence import Record

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SEQUENCE_COLUMNS = (
    "sequence",
    "seq",
    "protein_sequence",
    "aa_sequence",
    "aa_seq",
    "amino_acid_sequence",
    "mutated_sequence",
)
"""Names by which a sequence column is recognised, in lower case with ``_`` for blanks."""

ID_COLUMNS = ("id", "accession", "uniprot_id", "entry", "protein_id", "name", "protein")
"""Names by which an id column is recognised, the most specific first."""

GROWTH_TEMPERATURE_COLUMNS = ("growth_temperature", "growth_temperature_celsius", "ogt", "optimal_growth_temperature")
"""Names by which a column of growth temperatures in degC is recognised."""

LOWEST_GROWTH_TEMPERATURE = -20.0
"""degC. Below the coldest growth known, at -15 degC (doi 10.1038/ismej.2013.8)."""

HIGHEST_GROWTH_TEMPERATURE = 150.0
"""degC. Above the hottest growth known, at 122 degC (doi 10.1073/pnas.0712334105)."""

_MISSING = {"", "na", "nan", "n/a", "none", "null"}
_BLANKS = "\ufeff \t"  # a byte-order mark starts each part of files that were joined with cat
_HEAD_BYTES = 4096
_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
_BATCH_ROWS = 1000
_BUFFER_BYTES = 1 << 20
# Some 300 titins. The limit also bounds the memory that a quote nobody closed can take.
_LONGEST_FIELD = 10_000_000
_LONGEST_HEADER = 100_000  # below the limit of csv for a field, for a first line that is no header at all


class _Columns(NamedTuple):
    """Names of the columns, asked for or found."""

    sequence: str | None
    id: str | None
    growth_temperature: str | None


def read_records(
    source: str | Path,
    *,
    column: str | None = None,
    id_column: str | None = None,
    growth_temperature_column: str | None = None,
) -> Iterator[Record]:
    """Yield the records of a file in their order, holding a few of them in memory at a time.

    Nothing is opened before the first record is asked for. FASTA, and tables separated by comma, semicolon or tab, may
    be gzip-compressed. Sequences are as they stand in the file, without line breaks; the residue policy is not applied.

    Args:
        source: Path of the file, or ``-`` for standard input.
        column: Sequence column of a table; found by ``SEQUENCE_COLUMNS`` where not given.
        id_column: Id column of a table; found by ``ID_COLUMNS`` where not given. A row without an id is ``row_<n>``,
            a FASTA record without one ``record_<n>``, counted from 1.
        growth_temperature_column: Column of growth temperatures in degC; found by ``GROWTH_TEMPERATURE_COLUMNS``
            where not given. A blank is an unknown temperature.

    Raises:
        DataError: The file is missing, unreadable, empty, damaged or not of a known format, or its columns are missing,
            repeated or ambiguous. The message says what to do.
        MissingDependencyError: The file is Parquet and pyarrow is not installed.
    """
    name = "standard input" if str(source) == "-" else str(source)
    asked = _Columns(column, id_column, growth_temperature_column)
    count = 0
    with _opened(source) as stream:
        try:
            for record in _parse(source, name, stream, asked):
                count += 1
                yield record
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            state = "truncated" if isinstance(error, EOFError) else "damaged"
            raise DataError(
                f"{name}: the gzip data is {state} after {count} complete records; copy or download it again"
            ) from error
        except OSError as error:
            raise DataError(f"{name}: reading stopped after {count} records: {error.strerror or error}") from error


@contextmanager
def _opened(source: str | Path) -> Iterator[BinaryIO]:
    if str(source) == "-":
        yield sys.stdin.buffer
        return
    path = Path(source)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give a file in it")
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened: {error}") from error
    with stream:
        yield stream


class _Replayed(io.RawIOBase):
    """A stream with the bytes put back by which its format was found; closing it leaves standard input open."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)


def _parse(source: str | Path, name: str, stream: BinaryIO, asked: _Columns) -> Iterator[Record]:
    head = stream.read(_HEAD_BYTES)
    if head.startswith(_PARQUET_MAGIC):
        if name == "standard input" or not Path(source).is_file():
            raise DataError(f"{name}: Parquet is read from its end, so it must be a file; save it and give its path")
        return _parquet(Path(source), asked)
    content: io.BufferedReader | gzip.GzipFile = io.BufferedReader(_Replayed(head, stream))
    if head.startswith(_GZIP_MAGIC):
        content = gzip.GzipFile(fileobj=content)
        head = content.peek(_HEAD_BYTES)
    if head.startswith(_PARQUET_MAGIC):
        raise DataError(f"{name} is Parquet inside gzip; unpack it first")
    if b"\0" in head:
        raise DataError(f"{name} is not text in UTF-8, gzip or Parquet; save a spreadsheet as CSV in UTF-8")
    # newline="" leaves line ends to csv, which has to tell those inside quotes
    text = io.TextIOWrapper(content, "utf-8-sig", errors="replace", newline="")
    number, first = next(((n, line) for n, line in enumerate(text, 1) if line.strip(_BLANKS + "\r\n")), (0, ""))
    if not number:
        raise DataError(f"{name}: the file is empty")
    lines = chain([first], text)
    if _is_fasta(first, head, asked):
        if any(asked):
            raise DataError(f"{name} is FASTA, which has no columns; leave the column options out")
        return _fasta(enumerate(lines, number))
    return _table(lines, number, _split_header(first)[0], name, asked)


def _is_fasta(first: str, head: bytes, asked: _Columns) -> bool:
    mark = first.lstrip(_BLANKS)[0]
    if mark == ">":
        return True
    if any(asked) or _usual(_split_header(first)[1], SEQUENCE_COLUMNS):
        return False
    return mark == ";" or re.search(rb"[\r\n][ \t]*>", head) is not None


# Well-kept FASTA parsers stop at the first bad record and so lose the good ones after it; this one keeps them.
def _fasta(lines: Iterable[tuple[int, str]]) -> Iterator[Record]:
    count = 0
    record_id = problem = ""
    parts: list[str] = []
    for number, line in lines:
        text = line.rstrip("\r\n")
        mark = text.lstrip(_BLANKS)[:1]
        if mark == ">":
            if record_id:
                yield Record(record_id, "".join(parts), problem=problem)
            count += 1
            record_id, problem, parts = _fasta_id(text) or f"record_{count}", "", []
        elif not record_id and mark not in {"", ";"}:
            record_id, problem = f"line_{number}", f"line {number}: text before the first '>' header"
        elif not problem and mark not in {"", ";"}:
            parts.append(text)
    if record_id:
        yield Record(record_id, "".join(parts), problem=problem)


def _fasta_id(header: str) -> str:
    first = header.lstrip(_BLANKS).removeprefix(">").split(maxsplit=1)[:1]
    if not first:
        return ""
    database, *rest = first[0].split("|")
    return rest[0] if database in {"sp", "tr"} and len(rest) > 1 and rest[0] else first[0]


def _split_header(line: str) -> tuple[str, list[str]]:
    """Return the delimiter that finds the most columns in a header line, and those columns."""
    start = line[:_LONGEST_HEADER]
    splits = [(mark, next(csv.reader([start], delimiter=mark))) for mark in "\t;,"]
    return max(splits, key=lambda split: len(split[1]))


def _table(lines: Iterator[str], number: int, delimiter: str, name: str, asked: _Columns) -> Iterator[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    rows = _rows(lines, number, delimiter)
    _, header = next(rows)
    if isinstance(header, str):
        raise DataError(f"{name}, line {number}: the header cannot be read: {header}")
    names = [field.strip() for field in header]
    columns = _choose_columns(names, asked, name)
    places = [None if column is None else names.index(column) for column in columns]
    count = 0
    for line, row in rows:
        if not row:
            continue
        count += 1
        where = f"line {line}"
        if isinstance(row, str):
            yield Record(f"row_{count}", "", problem=f"{where}: {row}")
            continue
        cells = [row[place] if place is not None and place < len(row) else None for place in places]
        record = _record(count, where, columns, cells)
        if len(row) < len(names) or any(row[len(names) :]):
            problem = f"{where}: {len(row)} fields, but the header has {len(names)}"
            record = Record(record.id, record.sequence, problem=problem)
        yield record


def _rows(lines: Iterator[str], number: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the first line number of each row with its fields, or with the reason why it has none.

    A quote that nobody closes runs on to the end of the file. It costs its own line: those after it are read again.
    """
    again: deque[str] = deque()
    while True:
        taken: list[str] = []
        rows = csv.reader(_noted(lines, again, taken), delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for row in rows:
                yield number, row
                number += len(taken)
                taken.clear()
        except csv.Error as error:
            reason = "a quote is not closed" if "end of data" in str(error) else str(error)
        else:
            return
        yield number, reason
        number += 1
        again.extendleft(reversed(taken[1:]))


def _noted(lines: Iterator[str], again: deque[str], taken: list[str]) -> Iterator[str]:
    size = 0
    while line := again.popleft() if again else next(lines, ""):
        size = len(line) + (size if taken else 0)
        taken.append(line)
        if size > _LONGEST_FIELD:
            raise csv.Error(f"a quote is not closed within {_LONGEST_FIELD:,} characters")
        yield line


def _parquet(path: Path, asked: _Columns) -> Iterator[Record]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Reading Parquet", "parquet") from error
    count = 0
    try:
        # both settings are needed for Arrow to read a row group page by page, and not whole
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
            columns = _choose_columns(table.schema_arrow.names, asked, str(path))
            for batch in table.iter_batches(_BATCH_ROWS, columns=[column for column in columns if column is not None]):
                values = [repeat(None) if column is None else batch.column(column).to_pylist() for column in columns]
                for cells in zip(*values, strict=False):
                    count += 1
                    yield _record(count, f"row {count}", columns, cells)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the Parquet data is damaged after {count} records: {error}") from error


def _choose_columns(names: Sequence[str], asked: _Columns, source: str) -> _Columns:
    if repeated := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(f"{source}: {_listed(repeated)} stands more than once in the header; name each column once")
    for name in asked:
        if name is not None and name not in names:
            raise DataError(f"{source}: there is no column {name!r}; the columns are {_listed(names)}")
    sequence = asked.sequence or _only(_usual(names, SEQUENCE_COLUMNS), "--column", source)
    if sequence is None:
        raise DataError(
            f"{source}: no column is named like a sequence; the columns are {_listed(names)}: "
            "name the one with --column (the first line has to be a header)"
        )
    left = [name for name in names if name != sequence]
    record_id = asked.id or next(iter(_usual(left, ID_COLUMNS)), None)
    left = [name for name in left if name != record_id]
    temperatures = _usual(left, GROWTH_TEMPERATURE_COLUMNS)
    temperature = asked.growth_temperature or _only(temperatures, "--growth-temperature-column", source)
    return _Columns(sequence, record_id, temperature)


def _usual(names: Iterable[str], usual: Sequence[str]) -> list[str]:
    known = {name: name.strip().casefold().replace(" ", "_") for name in names}
    return sorted((name for name in known if known[name] in usual), key=lambda name: usual.index(known[name]))


def _only(candidates: Sequence[str], option: str, source: str) -> str | None:
    if len(candidates) > 1:
        raise DataError(f"{source}: {_listed(candidates)} could each be meant; choose one with {option}")
    return candidates[0] if candidates else None


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _record(count: int, where: str, columns: _Columns, cells: Sequence[object]) -> Record:
    sequence, record_id, temperature = cells
    celsius, problem = None, ""
    try:
        celsius = _growth_temperature(temperature)
    except ValueError as error:
        problem = f"{where}, column {columns.growth_temperature!r}: {error}"
    if sequence is None:
        problem = f"{where}, column {columns.sequence!r}: no sequence"
    residues = _text(sequence).replace("\r", "").replace("\n", "")
    return Record(_text(record_id).strip() or f"row_{count}", residues, celsius, problem)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if value is None else str(value)


def _growth_temperature(value: object) -> float | None:
    text = _text(value).strip()
    if text.casefold() in _MISSING:
        return None
    try:
        celsius = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not LOWEST_GROWTH_TEMPERATURE <= celsius <= HIGHEST_GROWTH_TEMPERATURE:
        bounds = f"{LOWEST_GROWTH_TEMPERATURE:g} to {HIGHEST_GROWTH_TEMPERATURE:g} degC"
        raise ValueError(f"{text!r} is outside {bounds}")
    return celsius
