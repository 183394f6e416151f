"""Progress on a terminal: shown on standard error, and only when work takes more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE_S = 1.0
"""Seconds of silence before a progress line appears."""

_EVERY_S = 0.2
_LINE_EVERY_S = 30.0


def count_along(items: Iterable[T], unit: str) -> Iterator[T]:
    """Yield ``items``; on a terminal, count them on standard error with their rate once a second has passed."""
    if not sys.stderr.isatty():
        yield from items
        return
    started = shown = time.monotonic()
    count = 0
    display = None
    try:
        for item in items:
            yield item
            count += 1
            now = time.monotonic()
            if now - started < PATIENCE_S or now - shown < _EVERY_S:
                continue
            shown = now
            if display is None:
                from rich.console import Console

                display = Console(stderr=True).status("")
                display.start()
            display.update(f"{count:,} {unit}, {count / (now - started):,.0f} a second")
    finally:
        if display is not None:
            display.stop()


class Meter:
    """How far a long computation is: a bar with rate and time left on a terminal, a line now and then in a log.

    Args:
        sequences: How many there are.
        residues: How many residues they have: what the time left goes by.
        report: Called with a line where standard error is no terminal.
    """

    def __init__(self, sequences: int, residues: int, report: Callable[[str], None]) -> None:
        self._sequences, self._residues, self._report = sequences, residues, report
        self._done = self._done_residues = self._found_residues = 0
        self._found: int | None = None
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, sequences: int, residues: int) -> None:
        """Count what is done; the first call says what was there already."""
        if self._found is None:
            self._found, self._found_residues = sequences, residues
        self._done += sequences
        self._done_residues += residues
        now = time.monotonic()
        if now - self._said < (_EVERY_S if sys.stderr.isatty() else _LINE_EVERY_S):
            return
        self._said = now
        if sys.stderr.isatty():
            self._draw(now)
        else:
            self._report(self.line(now))

    def line(self, now: float) -> str:
        """Sequences done, their rate and the time left."""
        took = max(now - self._started, 1e-9)
        rate = (self._done - (self._found or 0)) / took
        speed = (self._done_residues - self._found_residues) / took
        left = (self._residues - self._done_residues) / speed if speed else 0
        return (
            f"{self._done:,} of {self._sequences:,} sequences embedded, {rate:,.1f} a second, "
            f"about {timedelta(seconds=round(left))} left"
        )

    def _draw(self, now: float) -> None:
        if now - self._started < PATIENCE_S:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._residues)
        self._bar.update(self._task, completed=self._done_residues, description=self.line(now))
