"""Pictures of an evaluation of variants say what they show: axes, methods, how many, and what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.variants.evaluation_plots import compare_plot, hit_rate_plot, reliability_curve
from enzyme_stability.variants.figures import compare, hit_rates, reliability


def text_of(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def variants(n: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(0)
    target = random.normal(-1, 3, n)
    return pd.DataFrame(
        {
            "protein": np.arange(n) % 4,
            "target": target,
            "predicted": target + random.normal(0, 2, n),
            "quantity": "dTm",
            "variant": [f"K{k + 2}{'RAW'[k % 3]}" for k in range(n)],
            "FoldX": random.normal(0, 2, n),
        }
    )


def test_the_reliability_curve_counts_each_bin_and_says_how_skilful(tmp_path) -> None:
    found = reliability([0.1] * 10 + [0.9] * 30, [False] * 9 + [True] * 31)
    reliability_curve(found, tmp_path / "curve.svg", name="made up")
    text = text_of(tmp_path / "curve.svg")
    assert {"10", "30", "observed = predicted", "Predicted probability of more stable"} <= set(text)
    assert "made up, n = 40" in text
    assert f"Brier score {found['brier']:.3f} (skill {found['brier_skill']:.2f}), calibration error 0.075" in text


def test_the_hit_rates_show_the_cuts_that_proteins_are_large_enough_for(tmp_path) -> None:
    table = variants()
    hit_rate_plot(hit_rates(table, bootstrap=20), tmp_path / "hits.svg", name="made up")
    text = text_of(tmp_path / "hits.svg")
    assert {"top 10", "top 5 %", "4 proteins", "predicted best", "random", "made up"} <= set(text)
    assert not {"top 50", "baseline"} & set(text)
    alone = hit_rates(table.assign(protein=0, baseline=0.0), bootstrap=20)
    hit_rate_plot(alone, tmp_path / "alone.svg", name="one protein")
    assert {"top 50", "1 protein", "baseline"} <= set(text_of(tmp_path / "alone.svg"))


def test_methods_stand_in_the_order_of_their_figure_and_both_groups_are_named(tmp_path) -> None:
    table = variants().assign(has_relative=lambda rows: rows["protein"] == 0)
    found = compare(table, {"mine": table["predicted"]}, bootstrap=20)
    for figure, order in (("pearson", ["FoldX", "mine"]), ("rmse", ["FoldX", "mine"])):
        compare_plot(found, tmp_path / f"{figure}.svg", name="made up", figure=figure)
        text = text_of(tmp_path / f"{figure}.svg")
        assert [line for line in text if line in {"mine", "FoldX"}] == order  # from the bottom up
        assert {"ours, all", "ours, without relatives", "made up, n = 120"} <= set(text)
        assert ("formula" in text) == (figure == "pearson")


def test_what_cannot_be_drawn_is_refused(tmp_path) -> None:
    found = compare(variants(), {}, bootstrap=5)
    with pytest.raises(DataError, match="'mse' cannot be compared; choose one of pearson"):
        compare_plot(found, tmp_path / "x.svg", name="made up", figure="mse")
    with pytest.raises(DataError, match="no method of made up has 'rmse'"):
        compare_plot(found[found["kind"] == "baseline"], tmp_path / "x.svg", name="made up", figure="rmse")
    with pytest.raises(DataError, match="no protein of made up has enough variants"):
        hit_rate_plot(hit_rates(variants(40), bootstrap=5), tmp_path / "x.svg", name="made up")
    with pytest.raises(DataError, match=r"x\.gif: a picture is written as"):
        compare_plot(found, tmp_path / "x.gif", name="made up")
    with pytest.raises(ArtifactError, match=r"cannot write to .*nowhere.*x\.png"):
        compare_plot(found, tmp_path / "nowhere" / "x.png", name="made up")
    assert not list(tmp_path.iterdir())
