"""Metrics as a table: one row a step, on disk as soon as it is logged."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enzyme_stability.errors import DataError
from enzyme_stability.tracking.backend import Status

if TYPE_CHECKING:
    from PIL.Image import Image

_STEP = "step"


class CsvFile:
    """Writes ``metrics.csv``; goes on below the rows that an earlier run left.

    A metric that turns up late gets a column then, empty in the rows above. What is logged without a step gets a row
    without one.

    Args:
        path: The file; its folder exists.

    Raises:
        DataError: There is such a file, and it is no table of metrics.
        OSError: The file cannot be written.
    """

    label = "CSV"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = _columns_of_earlier_run(path)
        self._row: dict[str, object] = {}
        self._row_start = 0
        if not self._columns:
            self._columns = [_STEP]
            path.write_bytes(self._line({_STEP: _STEP}))

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Append a row, or fill cells of the last one where it is of the same step and they are empty."""
        if new := [name for name in values if name not in self._columns]:
            self._widen(new)
        fills = step is not None and self._row.get(_STEP) == step and not values.keys() & self._row.keys()
        self._row = {**(self._row if fills else {}), **values, _STEP: step}
        with self._path.open("r+b") as file:
            # Filled cells only make a row longer, so writing over it leaves nothing of the old one.
            self._row_start = file.seek(self._row_start) if fills else file.seek(0, os.SEEK_END)
            file.write(self._line(self._row))

    def picture(self, name: str, picture: Image) -> None:
        """Nothing: a table holds no pictures."""

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Nothing: a table holds no files."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Append the final figures as a row without a step."""
        self.metrics(values, None)

    def close(self, status: Status) -> None:
        """Nothing: every row is on disk already."""

    def _widen(self, new: Iterable[str]) -> None:
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._columns = [*self._columns, *new]
        lines = [self._line(row) for row in ({name: name for name in self._columns}, *rows)]
        part = self._path.with_name(f".{self._path.name}.part")
        part.write_bytes(b"".join(lines))
        part.replace(self._path)
        self._row_start = sum(map(len, lines[:-1]))

    def _line(self, row: Mapping[str, object]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(column) for column in self._columns])
        return text.getvalue().encode()


def _columns_of_earlier_run(path: Path) -> list[str]:
    """Columns of the table that is there, none for a new one; cuts off a row that was not written to its end."""
    if not path.exists():
        return []
    content = path.read_bytes()
    if not content.startswith(_STEP.encode()[: len(content)]):
        raise DataError(f"{path} is no table of metrics; move it away")
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return next(csv.reader(content[:whole].decode().splitlines()), [])
