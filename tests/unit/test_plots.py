"""Pictures say what they show: axes with units, the data set, how many proteins, and what is out of domain."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability import plots
from enzyme_stability.errors import DataError, MissingDependencyError
from enzyme_stability.metrics import coverage_curve


def predictions(n: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    measured = random.normal(55, 9, n)
    guess = measured + random.normal(-1, 4, n)
    bounds = {"lower_celsius": guess - 7, "upper_celsius": guess + 8}
    return pd.DataFrame(
        {"tm_celsius": measured, "predicted_celsius": guess, "in_domain": np.arange(n) % 8 > 0, **bounds}
    )


def text_of(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def test_parity_names_the_data_and_counts_what_is_out_of_domain(tmp_path) -> None:
    plots.parity(predictions(40), tmp_path / "parity.svg", name="tm50_test")
    text = text_of(tmp_path / "parity.svg")
    assert {"tm50_test, n = 40", "Measured Tm (°C)", "Predicted Tm (°C)", "predicted = measured"} <= set(text)
    assert {"in domain (35 proteins)", "out of domain (5 proteins)", "interval"} <= set(text)


def test_a_crowd_shows_the_intervals_of_some_and_says_so(tmp_path) -> None:
    table = predictions(2000).assign(in_domain=True)
    plots.parity(table, tmp_path / "parity.svg", name="crowd", quantity="optimum temperature")
    text = text_of(tmp_path / "parity.svg")
    shown = [int(found.group(1)) for line in text if (found := re.fullmatch(r"interval of (\d+) proteins", line))]
    assert len(shown) == 1
    assert 40 <= shown[0] <= 60
    assert "Measured optimum temperature (°C)" in text
    assert not [line for line in text if line.startswith("out of domain")]


def test_every_protein_is_in_one_band_and_no_band_is_nearly_empty(tmp_path) -> None:
    table = predictions(200)
    plots.error_by_band(table, tmp_path / "bands.svg", name="made up")
    text = text_of(tmp_path / "bands.svg")
    sizes = [int(line[2:]) for line in text if re.fullmatch(r"n \d+", line)]
    assert sum(sizes) == 200
    assert min(sizes) >= 10
    assert {"made up, n = 200", "mean (bias)", "Predicted Tm - measured Tm (°C)"} <= set(text)


def test_the_error_of_a_band_is_the_one_of_its_proteins(tmp_path) -> None:
    table = pd.DataFrame({"tm_celsius": [51.0] * 10 + [56.0] * 10, "predicted_celsius": [54.0] * 10 + [54.5] * 10})
    plots.error_by_band(table, tmp_path / "bands.svg", name="two bands")
    text = text_of(tmp_path / "bands.svg")
    assert {"50-55", "55-60", "MAE 3.0 °C", "MAE 1.5 °C"} <= set(text)


def test_coverage_shows_each_band_with_its_size(tmp_path) -> None:
    table = predictions(300)
    guess = table["predicted_celsius"]
    bounds = {level: (guess - 10 * level, guess + 10 * level) for level in (0.5, 0.7, 0.9)}
    curve = coverage_curve(table["tm_celsius"], bounds)
    plots.coverage(curve, tmp_path / "coverage.svg", name="made up")
    text = text_of(tmp_path / "coverage.svg")
    assert {"made up, n = 300", "all (n = 300)", "observed = nominal", "Observed coverage"} <= set(text)
    assert f"Tm 55-65 °C (n = {curve['55-65']['n']})" in text


def test_one_protein_can_be_drawn(tmp_path) -> None:
    plots.parity(predictions(1), tmp_path / "parity.png", name="one")
    plots.error_by_band(predictions(1), tmp_path / "bands.png", name="one")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_table_gives_the_same_file(tmp_path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        plots.parity(predictions(40), tmp_path / name, name="again")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_another_suffix_is_refused_before_anything_is_drawn(tmp_path) -> None:
    with pytest.raises(DataError, match=r"parity\.gif: a picture is written as \.png or \.svg"):
        plots.parity(predictions(5), tmp_path / "parity.gif", name="x")


def test_a_missing_matplotlib_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="enzyme-stability\\[train\\]"):
        plots.parity(predictions(5), tmp_path / "parity.png", name="x")


def test_matplotlib_is_loaded_only_to_draw() -> None:
    program = "import sys, enzyme_stability.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
