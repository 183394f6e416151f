"""Write tables row by row as CSV, TSV, JSON lines or Parquet; a file gets its name only when it is complete."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import math
import operator
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from enzyme_stability.errors import DataError, MissingDependencyError

FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""Names of the formats, as in ``--format``."""

_FORMAT_OF_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_ROW_GROUP_ROWS = 10_000


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


# operator.index and not int, which would cut 3.7 to 3 without a word
_CELL: dict[type, Callable[[Any], object]] = {str: str, int: operator.index, float: _finite, bool: bool}


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Table(Protocol):
    """One format: takes the cells of a row in the order of the columns."""

    def write(self, cells: Sequence[object]) -> None: ...

    def close(self) -> None:
        """Pass on everything that is buffered; the stream below stays open."""


class TableWriter:
    """Takes the rows of one table; made by ``open_writer``."""

    def __init__(self, table: _Table, columns: Mapping[str, type], name: str) -> None:
        self._table = table
        self._cells = {column: _CELL[kind] for column, kind in columns.items()}
        self._name = name

    def write(self, row: Mapping[str, object]) -> None:
        """Append one row.

        Args:
            row: Value of each column. A column that is left out, ``None`` and a number that is not finite are
                missing values: an empty cell in CSV, null in JSON and Parquet.

        Raises:
            DataError: The disk is full or the stream below failed otherwise.
            BrokenPipeError: The reader of standard output has gone, as ``head`` does.
            ValueError: The row has a column that the table has not.
        """
        if unknown := row.keys() - self._cells.keys():
            raise ValueError(f"columns {sorted(unknown)} are not among those of the table: {list(self._cells)}")
        values = ((row.get(column), convert) for column, convert in self._cells.items())
        cells = [None if value is None else convert(value) for value, convert in values]
        with _explained(self._name):
            self._table.write(cells)


@contextmanager
def open_writer(
    target: str | Path,
    columns: Mapping[str, type],
    *,
    format: str | None = None,  # noqa: A002 - the word of the command line
) -> Iterator[TableWriter]:
    """Open a table for writing.

    A file is written under a hidden name beside its target and renamed at the end. After an exception, or a kill, the
    target is as it was before. What went to standard output stays there.

    Args:
        target: Path of the file, or ``-`` for standard output. A further ``.gz`` compresses CSV, TSV and JSON lines.
        columns: Names of the columns in their order, and the type of each: str, int, float or bool.
        format: One of ``FORMATS``; found by the suffix of the target where not given, CSV on standard output.

    Yields:
        The writer of the rows.

    Raises:
        DataError: The format is unknown, or the target cannot be written. The message says what to do.
        MissingDependencyError: The format is Parquet and pyarrow is not installed.
    """
    name = "standard output" if str(target) == "-" else str(target)
    kind = _format_of(Path(target), format)
    with _standard_output() if name == "standard output" else _file(Path(target)) as stream:
        compressed = gzip.GzipFile("", "wb", fileobj=stream, mtime=0) if name.lower().endswith(".gz") else None
        with _explained(name):
            table = table_as(kind, compressed or stream, columns)
        try:
            yield TableWriter(table, columns, name)
        finally:
            with _explained(name):
                table.close()
                if compressed:
                    compressed.close()


def _format_of(path: Path, asked: str | None) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[-2:-1] if compressed else suffixes[-1:])
    kind = asked or ("csv" if str(path) == "-" else _FORMAT_OF_SUFFIX.get(suffix))
    if kind not in FORMATS:
        what = f"the format {asked!r} is unknown" if asked else f"{path}: the suffix {suffix!r} names no format"
        raise DataError(f"{what}; name the file .csv, .tsv, .jsonl or .parquet, or give --format {'|'.join(FORMATS)}")
    if kind == "parquet" and str(path) == "-":
        raise DataError("Parquet cannot be written to standard output; name a .parquet file or give --format jsonl")
    if kind == "parquet" and compressed:
        raise DataError(f"{path}: Parquet is compressed already; leave the .gz out")
    return kind


def table_as(kind: str, sink: _Sink, columns: Mapping[str, type]) -> _Table:
    """A table in one of the formats, ``csv``, ``tsv``, ``jsonl`` or ``parquet``, that ends up in ``sink``."""
    match kind:
        case "parquet":
            return _Parquet(sink, columns)
        case "jsonl":
            return _JsonLines(sink, columns)
        case _:
            return _Delimited(sink, columns, "\t" if kind == "tsv" else ",")


class _Delimited:
    def __init__(self, sink: _Sink, columns: Mapping[str, type], delimiter: str) -> None:
        self._rows = csv.writer(_UnixLines(sink), delimiter=delimiter, lineterminator="\r\n")
        self._rows.writerow(columns)

    def write(self, cells: Sequence[object]) -> None:
        self._rows.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])

    def close(self) -> None:
        pass


class _UnixLines:
    """Ends the rows of csv.writer with LF, which quotes a stray CR in a cell only where its own rows end with one."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink

    def write(self, row: str, /) -> int:
        return self._sink.write(row.removesuffix("\r\n").encode() + b"\n")


class _JsonLines:
    def __init__(self, sink: _Sink, columns: Mapping[str, type]) -> None:
        self._sink = sink
        self._columns = tuple(columns)

    def write(self, cells: Sequence[object]) -> None:
        row = dict(zip(self._columns, cells, strict=True))
        self._sink.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        pass


class _Parquet:
    def __init__(self, sink: _Sink, columns: Mapping[str, type]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingDependencyError("Writing Parquet", "parquet") from error
        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        self._schema = pa.schema([(column, types[kind]) for column, kind in columns.items()])
        self._writer = pq.ParquetWriter(sink, self._schema)
        self._batch_of = pa.RecordBatch.from_pylist
        self._rows: list[dict[str, object]] = []

    def write(self, cells: Sequence[object]) -> None:
        self._rows.append(dict(zip(self._schema.names, cells, strict=True)))
        if len(self._rows) == _ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        try:
            if self._rows:
                self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_batch(self._batch_of(self._rows, schema=self._schema))
        self._rows = []


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    sys.stdout.flush()
    try:
        yield sys.stdout.buffer
    finally:
        with _explained("standard output"):
            sys.stdout.buffer.flush()


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    with _explained(str(path)):
        if path.is_dir():
            raise DataError(f"{path} is a folder; give the name of a file in it")
        if path.exists() and not os.access(path, os.W_OK):
            raise DataError(f"{path} is write-protected; choose another name")
        # A device or a pipe, such as /dev/stdout, takes the rows itself: a rename would put a file in its place.
        final = path.resolve() if path.is_file() or not path.exists() else None
        written = final.with_name(f".{final.name[:40]}.{secrets.token_hex(4)}.tmp") if final else path
        stream = written.open("wb")
    try:
        if final and final.exists():
            shutil.copymode(final, written)
        yield stream
        with _explained(str(path)):
            stream.close()
            if final:
                written.replace(final)
    finally:
        with suppress(OSError):
            stream.close()
        if final:
            written.unlink(missing_ok=True)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"{name}: {_ADVICE.get(error.errno or 0) or error.strerror or error}") from error


_ADVICE = {
    errno.ENOENT: "the folder does not exist; create it first",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
}
