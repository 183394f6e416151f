"""Reads lists of variants: as they are given, from tables, or one a line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from enzyme_stability.errors import DataError, UnsupportedVariantError, VariantError
from enzyme_stability.variant import Variant

COLUMNS = ("variant", "variants", "mutation", "mutations", "mutant")
"""Names by which the column with the variants is recognised."""

_LONGEST_HEADER = 100_000  # characters; csv takes no longer field


def read_list(arguments: Sequence[str]) -> Iterator[str]:
    """Variants given as they are, or as files: a table with a column 'variant' or 'mutation', or one a line.

    Tables are CSV or TSV, also separated by ``;`` or gzipped. What is no variant is passed on as it stands, for the one
    who parses it to say so.

    Raises:
        DataError: A file is missing, empty or cannot be read; the message says why.
    """
    for argument in arguments:
        path = Path(argument)
        try:
            is_file, is_folder = path.is_file(), bool(argument) and path.is_dir()
        except OSError:  # too long for the name of a file
            is_file = is_folder = False
        if is_file:
            yield from _read_file(path)
        elif (is_folder or path.suffix) and not _is_variant(argument):
            raise DataError(f"{argument} is neither a file nor a variant such as A123V")
        else:
            yield argument.encode("utf-8", "replace").decode()  # bytes that are no text would end the table


def _read_file(path: Path) -> Iterator[str]:
    lines = io.StringIO(_text(path), newline="").readlines()
    first = next((k for k, line in enumerate(lines) if line.strip() and not _is_comment(line)), None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    separator = max("\t;,", key=lines[first].count)
    head = next(csv.reader([lines[first][:_LONGEST_HEADER]], delimiter=separator, skipinitialspace=True))
    header = [cell.strip().lower() for cell in head]
    column = next((k for k, cell in enumerate(header) if cell in COLUMNS), None)
    if column is None:
        yield from (line.strip() for line in lines if line.strip() and not _is_comment(line))
        return
    reader = csv.reader(lines[first:], delimiter=separator, strict=True, skipinitialspace=True)
    try:
        next(reader)
        for row in reader:
            if any(row[len(header) :]):
                where = f"{path}, line {first + reader.line_num}"
                raise DataError(f"{where}: {len(row)} fields, but the header has {len(header)}")
            if any(cell.strip() for cell in row):
                yield row[column].strip() if column < len(row) else ""
    except csv.Error as error:
        raise DataError(f"{path}, line {first + reader.line_num}: the row cannot be read: {error}") from None


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"{path} holds no text: give variants such as A123V, one a line, or a table")
    return text


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_variant(text: str) -> bool:
    try:
        Variant.parse(text)
    except UnsupportedVariantError:
        return True
    except VariantError:
        return False
    return True


def parsed(text: str, offset: int) -> Variant | VariantError:
    """The variant, or why the text is none."""
    try:
        return Variant.parse(text, offset=offset)
    except VariantError as error:
        return error


def checked(one: Variant | VariantError, chain: str) -> Variant | VariantError:
    """The variant, or why it does not fit the wild type."""
    if isinstance(one, VariantError):
        return one
    try:
        one.check(chain)
    except VariantError as error:
        return error
    return one
