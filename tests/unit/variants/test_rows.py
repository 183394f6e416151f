"""Rows of scans, shortlists, designs and summaries: their order, their rounding, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.designs import Design, position_summary
from enzyme_stability.variants.rows import (
    SCAN_COLUMNS,
    SUMMARY_COLUMNS,
    VARIANT_COLUMNS,
    candidate_rows,
    design_rows,
    estimate,
    rounded,
    scan_rows,
    summary_rows,
)
from enzyme_stability.variants.scan import Estimate, FloatArray, Scan

WILD_TYPE = "MXA"


def scan_of(delta: FloatArray, *, offset: int = 0, scores: dict[str, FloatArray] | None = None) -> Scan:
    """A scan whose intervals reach 1 degC and whose probabilities are all a third."""
    delta = delta.copy()
    for place, residue in enumerate(WILD_TYPE):
        delta[place, [AMINO_ACIDS.find(residue)] if residue != "X" else slice(None)] = np.nan
    third = np.where(np.isfinite(delta), 1 / 3, np.nan)
    return Scan("p", WILD_TYPE, Estimate(delta, delta - 1, delta + 1, third), offset, scores or {})


def test_rows_fall_with_delta_tm_and_equal_ones_keep_the_order_of_the_sequence() -> None:
    delta = np.zeros((3, 20))
    delta[2, AMINO_ACIDS.index("W")] = 2.0
    delta[0, AMINO_ACIDS.index("C")] = -3.0
    names = [row["variant"] for row in scan_rows(scan_of(delta))]
    equal = [f"M1{to}" for to in AMINO_ACIDS if to not in "MC"] + [f"A3{to}" for to in AMINO_ACIDS if to not in "AW"]
    assert names == ["A3W", *equal, "M1C"]


def test_an_unknown_residue_has_no_rows() -> None:
    rows = list(scan_rows(scan_of(np.zeros((3, 20)))))
    assert len(rows) == 2 * 19
    assert {row["position"] for row in rows} == {1, 3}


@pytest.mark.parametrize("offset", [40, -2])
def test_positions_have_the_offset(offset: int) -> None:
    row = next(scan_rows(scan_of(np.zeros((3, 20)), offset=offset)))
    assert row["position"] == 1 + offset
    assert row["variant"] == f"M{1 + offset}A"


def test_cells_are_rounded_and_fit_their_columns() -> None:
    score = np.full((3, 20), 0.123456)
    row = next(scan_rows(scan_of(np.full((3, 20), 1.23456), scores={"profile_score": score})))
    assert row == {
        "id": "p",
        "variant": "M1A",
        "position": 1,
        "wild_type": "M",
        "substitution": "A",
        "delta_tm_celsius": 1.23,
        "delta_tm_lower_celsius": 0.23,
        "delta_tm_upper_celsius": 2.23,
        "probability_stabilising": 0.333,
        "status": "ok",
        "profile_score": 0.1235,
    }
    assert [*row] == [*SCAN_COLUMNS, "profile_score"]
    assert all(type(row[column]) is kind for column, kind in SCAN_COLUMNS.items())


def test_a_score_that_is_missing_leaves_the_row() -> None:
    row = next(scan_rows(scan_of(np.zeros((3, 20)), scores={"profile_score": np.full((3, 20), np.nan)})))
    assert row["profile_score"] is None
    assert row["status"] == "ok"


def test_a_shortlist_keeps_its_order() -> None:
    scan = scan_of(np.zeros((3, 20)), offset=5)
    chosen = [scan.candidate(2, AMINO_ACIDS.index("W")), scan.candidate(0, AMINO_ACIDS.index("C"))]
    rows = list(candidate_rows("p", chosen))
    assert [row["variant"] for row in rows] == ["A8W", "M6C"]
    by_name = {row["variant"]: row for row in scan_rows(scan)}
    assert rows == [by_name["A8W"], by_name["M6C"]]


def test_a_design_says_how_its_numbers_came_about() -> None:
    design = Design(Variant.parse("A3W:M1C"), 2.006, -1.0, 5.0, 0.70049)
    (row,) = design_rows("p", [design])
    assert [*row] == [*VARIANT_COLUMNS]
    assert (row["variant"], row["substitutions"], row["status"]) == ("M1C:A3W", 2, "additive")
    assert (row["delta_tm_celsius"], row["probability_stabilising"]) == (2.01, 0.7)


def test_a_summary_has_a_row_for_every_position_and_blanks_for_an_unknown_one() -> None:
    delta = np.full((3, 20), -1.0)
    delta[2, AMINO_ACIDS.index("W")] = 0.9999
    rows = list(summary_rows("p", position_summary(scan_of(delta, offset=9))))
    assert all([*row] == [*SUMMARY_COLUMNS] for row in rows)
    assert [row["position"] for row in rows] == [10, 11, 12]
    assert rows[1]["wild_type"] == "X"
    assert rows[1]["mean_delta_tm_celsius"] is rows[1]["best_substitution"] is rows[1]["stabilizing_share"] is None
    assert (rows[2]["best_substitution"], rows[2]["best_delta_tm_celsius"]) == ("W", 1.0)
    assert rows[2]["mean_delta_tm_celsius"] == round((0.9999 - 18) / 19, 2)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_missing(value: float | None) -> None:
    assert rounded(value, 2) is None


def test_no_number_is_minus_nought() -> None:
    assert math.copysign(1, rounded(-0.001, 2) or 0.0) == 1
    assert str(estimate(-0.0, -0.004, 0.0, 0.5)["delta_tm_lower_celsius"]) == "0.0"
