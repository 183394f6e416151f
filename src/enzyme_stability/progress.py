"""Progress on a terminal: shown on standard error, and only when work takes more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 1.0
"""Seconds of silence before a progress line appears."""

_EVERY_S = 0.2


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
