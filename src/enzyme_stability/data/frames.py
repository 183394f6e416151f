"""Whole tables as data frames, for the commands that prepare, train and evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from enzyme_stability.errors import DataError

SUMMARY_SUFFIX = ".summary.json"
"""Ending of the account that 'data prepare' leaves beside its table."""


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV, TSV or Parquet by the file's name.

    Raises:
        DataError: The file is missing, empty or no table; the message names it.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", encoding="utf-8-sig", low_memory=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write CSV, TSV or Parquet by the file's name; a file that is there already survives a failure.

    Raises:
        DataError: The folder is missing or cannot be written to.
    """
    writers: dict[str, Callable[[Path], None]] = {
        ".parquet": lambda to: table.to_parquet(to, index=False),
        ".csv": lambda to: table.to_csv(to, index=False),
        ".tsv": lambda to: table.to_csv(to, index=False, sep="\t"),
    }
    if path.suffix not in writers:
        raise DataError(f"{path}: write to a file ending in {', '.join(writers)}")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder does not exist; create it first")
    unfinished = path.with_name(f".{path.name}.part")
    try:
        writers[path.suffix](unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
