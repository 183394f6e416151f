"""The tables that scans, lists of variants and designs are written as; a status says what became of each row.

``status`` is ``ok``; ``additive`` where effects of single substitutions were added up; ``unsupported`` for insertions,
deletions and other changes that the model does not know; or ``error``. What went wrong follows after a colon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.designs import Design, PositionSummary
from enzyme_stability.variants.scan import Candidate, Scan

Row = dict[str, Any]

_ESTIMATE: dict[str, type] = {
    "delta_tm_celsius": float,
    "delta_tm_lower_celsius": float,
    "delta_tm_upper_celsius": float,
    "probability_stabilising": float,
}
SCAN_COLUMNS: dict[str, type] = {
    "id": str,
    "variant": str,
    "position": int,
    "wild_type": str,
    "substitution": str,
    **_ESTIMATE,
    "status": str,
}
"""Of a scan; further scores follow."""

VARIANT_COLUMNS: dict[str, type] = {"id": str, "variant": str, "substitutions": int, **_ESTIMATE, "status": str}
"""Of a list of variants and of designs; further scores follow."""

SUMMARY_COLUMNS: dict[str, type] = {
    "id": str,
    "position": int,
    "wild_type": str,
    "mean_delta_tm_celsius": float,
    "best_delta_tm_celsius": float,
    "worst_delta_tm_celsius": float,
    "best_substitution": str,
    "stabilizing": int,
    "stabilizing_share": float,
    "tolerance": int,
}
"""Of a summary by position."""

OK, ADDITIVE = "ok", "additive"
_CELSIUS_DIGITS, _SHARE_DIGITS, _SCORE_DIGITS = 2, 3, 4


def scan_rows(scan: Scan) -> Iterator[Row]:
    """All substitutions, the most stabilising first; equal ones by their place and residue."""
    delta = scan.estimate.delta_tm
    places, after = np.nonzero(np.isfinite(delta))
    order = np.argsort(-delta[places, after], kind="stable")
    arrays = [*scan.estimate, *scan.scores.values()]
    picked = np.stack([array[places, after] for array in arrays], axis=1)[order].tolist()
    for place, column, values in zip(places[order].tolist(), after[order].tolist(), picked, strict=True):
        position, residue, to = place + scan.offset + 1, scan.wild_type[place], AMINO_ACIDS[column]
        yield {
            "id": scan.id,
            "variant": f"{residue}{position}{to}",
            "position": position,
            "wild_type": residue,
            "substitution": to,
            **estimate(*values[:4]),
            "status": OK,
            **{name: rounded(value, _SCORE_DIGITS) for name, value in zip(scan.scores, values[4:], strict=True)},
        }


def candidate_rows(name: str, candidates: Sequence[Candidate]) -> Iterator[Row]:
    """A shortlist, in the order in which its substitutions were chosen."""
    for one in candidates:
        yield {
            "id": name,
            "variant": str(one.variant),
            "position": one.position,
            "wild_type": one.wild_type,
            "substitution": one.substitution,
            **estimate(one.delta_tm, one.lower, one.upper, one.probability),
            "status": OK,
        }


def design_rows(name: str, designs: Sequence[Design]) -> Iterator[Row]:
    """Designs of several substitutions."""
    for one in designs:
        yield {
            "id": name,
            "variant": str(one.variant),
            "substitutions": len(one.variant.substitutions),
            **estimate(one.delta_tm, one.lower, one.upper, one.probability),
            "status": one.method,
        }


def summary_rows(name: str, summary: Sequence[PositionSummary]) -> Iterator[Row]:
    """A summary by position."""
    for one in summary:
        digits = {key: rounded(value, _CELSIUS_DIGITS) for key, value in asdict(one).items() if key.endswith("celsius")}
        yield {"id": name, **asdict(one), **digits, "stabilizing_share": rounded(one.stabilizing_share, _SHARE_DIGITS)}


def estimate(delta_tm: float, lower: float, upper: float, probability: float) -> Mapping[str, float | None]:
    """The columns with what the model says, rounded."""
    celsius = (rounded(value, _CELSIUS_DIGITS) for value in (delta_tm, lower, upper))
    return dict(zip(_ESTIMATE, (*celsius, rounded(probability, _SHARE_DIGITS)), strict=True))


def rounded(value: float | None, digits: int) -> float | None:
    """None for what is unknown or not finite."""
    return None if value is None or not math.isfinite(value) else round(value, digits) + 0.0
