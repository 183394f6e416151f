"""One self-contained page about a prediction: which proteins survive a temperature, plots and a table.

The page needs no network and opens from disk. It carries no date: the same rows give the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enzyme_stability import __version__
from enzyme_stability.pages import render, write_whole
from enzyme_stability.prediction import Prediction
from enzyme_stability.predictor import Predictor

THRESHOLD = 60.0
"""degC at which the page opens; the reader may ask for another."""

TABLE_ROWS = 2000
"""Rows of the table in the page; a browser stays quick and the file small."""

ERROR_ROWS = 200
"""Rows of the table that are kept for sequences without an answer."""

CHART_ROWS = 40
"""Proteins in the ranked chart."""


def write_report(path: Path, rows: Sequence[Prediction], predictor: Predictor, coverage: float, source: str) -> None:
    """Write the page.

    Args:
        path: File to write; it gets its name only when it is complete.
        rows: Predictions in any order.
        predictor: The predictor that made them.
        coverage: Coverage of their intervals.
        source: The file the sequences came from, ``-`` for standard input; the page shows its name without folders.

    Raises:
        DataError: The file cannot be written.
    """
    page = _page(rows, predictor, coverage, "standard input" if source == "-" else Path(source).name)
    write_whole(path, page.encode("utf-8", errors="replace"), "the report")


@dataclass(frozen=True)
class Axis:
    """A linear scale from one round number to another, with ticks at round numbers."""

    low: float
    high: float
    step: float

    @classmethod
    def spanning(cls, low: float, high: float, steps: int, least_step: float = 1) -> Axis:
        """The tightest axis with a step of 1, 2 or 5 times a power of ten, about ``steps`` of them."""
        step = _round_up(max((high - low) / steps, least_step))
        first, last = math.floor(low / step), math.ceil(high / step)
        return cls(first * step, max(last, first + 1) * step, step)

    @property
    def ticks(self) -> list[float]:
        """Every multiple of the step, both ends included."""
        return [self.low + k * self.step for k in range(round((self.high - self.low) / self.step) + 1)]

    def percent(self, value: float) -> float:
        """Where a value lies: 0 at the lower end, 100 at the upper one."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Bar:
    """Proteins with ``start <= tm < end``, in and out of the domain."""

    start: float
    end: float
    inside: int
    outside: int


def verdict(row: Prediction, threshold: float) -> str:
    """Whether the interval lies ``above`` a temperature in degC, ``below`` it, or leaves it ``undecided``."""
    if row.tm_lower_celsius is None or row.tm_upper_celsius is None:
        return ""
    if row.tm_lower_celsius >= threshold:
        return "above"
    return "below" if row.tm_upper_celsius < threshold else "undecided"


def _page(rows: Sequence[Prediction], predictor: Predictor, coverage: float, source: str) -> str:
    answered = sorted((row for row in rows if row.tm_celsius is not None), key=lambda row: -(row.tm_celsius or 0.0))
    errors = [row for row in rows if row.tm_celsius is None]
    errors_shown = errors[: max(ERROR_ROWS, TABLE_ROWS - len(answered))]
    tm, lower, upper = np.array(
        [(row.tm_celsius, row.tm_lower_celsius, row.tm_upper_celsius) for row in answered], dtype=float
    ).reshape(-1, 3).T  # fmt: skip
    outside = np.array([not row.in_domain for row in answered], dtype=bool)
    bars = _histogram(tm, outside)
    edges = [THRESHOLD, *lower.tolist(), *upper.tolist(), *(edge for bar in bars for edge in (bar.start, bar.end))]
    return render(
        "report",
        source=source,
        version=__version__,
        predictor=predictor,
        coverage=f"{100 * coverage:.4g}\u202f%",
        threshold=THRESHOLD,
        verdict=verdict,
        total=len(rows),
        predictions=answered,
        errors=len(errors),
        outside=int(outside.sum()),
        median=float(np.median(tm)) if answered else None,
        tally=_tally(answered, THRESHOLD),
        axis=Axis.spanning(min(edges), max(edges), steps=8),
        bars=bars,
        count_axis=Axis.spanning(0, max((bar.inside + bar.outside for bar in bars), default=1), steps=4),
        chart=answered[:CHART_ROWS],
        table=_ranked(answered[: TABLE_ROWS - len(errors_shown)]),
        errors_shown=errors_shown,
        counts=_counts(lower, upper, outside),
    )


def _ranked(rows: Sequence[Prediction]) -> list[tuple[int, Prediction]]:
    """Ranks from 1; proteins with the same Tm share one, as in sport."""
    ranked: list[tuple[int, Prediction]] = []
    for place, row in enumerate(rows, start=1):
        tied = ranked and ranked[-1][1].tm_celsius == row.tm_celsius
        ranked.append((ranked[-1][0] if tied else place, row))
    return ranked


def _tally(rows: Sequence[Prediction], threshold: float) -> Counter[str]:
    tally: Counter[str] = Counter()
    for row in rows:
        kind = verdict(row, threshold)
        tally[kind] += 1
        tally[f"{kind}_outside"] += not row.in_domain
    return tally


def _counts(lower: np.ndarray, upper: np.ndarray, outside: np.ndarray) -> dict[str, list[int] | int]:
    """Proteins above and below every tenth of a degree: exact for all rows, and no larger for more of them.

    Entry k of a list is for the temperature ``(first + k) / 10`` degC; beyond its ends nothing changes any more.
    """
    if not lower.size:
        return {"first": 0, "above": [0], "above_outside": [0], "below": [0], "below_outside": [0]}
    first, last = math.floor(lower.min() * 10), math.ceil(upper.max() * 10) + 1
    grid = np.arange(first, last + 1) / 10

    def fewer(bounds: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.sort(bounds), grid, side="left")

    return {
        "first": first,
        "above": (lower.size - fewer(lower)).tolist(),
        "above_outside": (outside.sum() - fewer(lower[outside])).tolist(),
        "below": fewer(upper).tolist(),
        "below_outside": fewer(upper[outside]).tolist(),
    }


def _histogram(tm: np.ndarray, outside: np.ndarray) -> list[Bar]:
    if not tm.size:
        return []
    bars = min(math.ceil(2 * tm.size ** (1 / 3)), 40)  # Rice's rule
    width = _round_up(max(np.ptp(tm) / bars, 1.0))
    place = np.floor(tm / width).astype(int)
    first = int(place.min())
    inside, beyond = (np.bincount(place[part] - first, minlength=np.ptp(place) + 1) for part in (~outside, outside))
    return [
        Bar((first + k) * width, (first + k + 1) * width, int(a), int(b))
        for k, (a, b) in enumerate(zip(inside, beyond, strict=True))
    ]


def _round_up(value: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value)
