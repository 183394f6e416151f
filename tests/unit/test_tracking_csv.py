"""The table of metrics holds what was logged, in one row a step, across resumes and torn writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from enzyme_stability.errors import DataError
from enzyme_stability.tracking.csv_file import CsvFile


def rows(path: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(path)
    return [{name: value for name, value in row.items() if not pd.isna(value)} for row in table.to_dict("records")]


@pytest.mark.parametrize("torn", ["", "2", "2,0.", '"'])
def test_a_resumed_run_appends_and_drops_a_torn_row(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.csv"
    CsvFile(path).metrics({"loss": 1.0}, 1)
    with path.open("a") as file:
        file.write(torn)
    CsvFile(path).metrics({"loss": 0.5, "mae": 3.0}, 2)
    assert rows(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "mae": 3.0}]


@pytest.mark.parametrize("left", ["", "ste", "step", "step,lo"])
def test_a_run_that_was_killed_before_its_first_row_starts_anew(tmp_path: Path, left: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(left)
    CsvFile(path).metrics({"loss": 1.0}, 1)
    assert rows(path) == [{"step": 1, "loss": 1.0}]


def test_figures_of_one_step_share_a_row_whatever_their_order(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "metrics.csv")
    table.metrics({"loss": 1.0}, 1)
    table.metrics({"mae, degC": 3.0}, 1)
    table.metrics({"loss": 0.5}, 2)
    table.metrics({"mae, degC": 2.125}, 2)
    table.metrics({"loss": 0.25}, 2)  # once more, as after a resume
    assert rows(tmp_path / "metrics.csv") == [
        {"step": 1, "loss": 1.0, "mae, degC": 3.0},
        {"step": 2, "loss": 0.5, "mae, degC": 2.125},
        {"step": 2, "loss": 0.25},
    ]


def test_a_figure_that_is_no_number_is_not_an_empty_cell(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "metrics.csv")
    table.metrics({"loss": float("nan"), "norm": float("inf")}, 1)
    table.metrics({"norm": 1e-300}, 2)
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,norm\n1,nan,inf\n2,,1e-300\n"


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("protein,tm\np1,50\n")
    with pytest.raises(DataError, match=r"metrics\.csv is no table of metrics"):
        CsvFile(path)
    assert path.read_text() == "protein,tm\np1,50\n"
