"""Figures of merit: hand-computed values, libraries as witnesses, and intervals that mean what they say."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.metrics import (
    BANDS,
    band_of,
    coverage_curve,
    domain_figures,
    interval_figures,
    metrics,
    paired_difference,
    within_organism_figures,
)


def predictions(measured, predicted, half_width=5.0, in_domain=True, **more) -> pd.DataFrame:
    table = pd.DataFrame({"tm_celsius": measured, "predicted_celsius": predicted, "in_domain": in_domain, **more})
    table["lower_celsius"] = table["predicted_celsius"] - half_width
    table["upper_celsius"] = table["predicted_celsius"] + half_width
    return table


def made_up(n: int, seed: int = 0, bias: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    measured = random.normal(58, 10, n).round()  # rounded, so that there are ties
    return predictions(measured, (measured + random.normal(bias, 5, n)).round())


def test_figures_of_four_proteins_are_those_computed_by_hand() -> None:
    found = metrics(predictions([50.0, 60.0, 70.0, 80.0], [52.0, 59.0, 75.0, 78.0]), bootstrap=50)
    # errors +2 -1 +5 -2: squares 34 of 500 about the mean; all three proteins from 60 degC rank above the one below
    expected = {"r2": 1 - 34 / 500, "rmse": 8.5**0.5, "mae": 2.5, "bias": 1.0, "spearman": 1.0, "auc_60": 1.0}
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    assert found["n"] == 4


def test_figures_agree_with_the_libraries_where_values_tie() -> None:
    table = made_up(300)
    y, p = table["tm_celsius"], table["predicted_celsius"]
    expected = {
        "r2": r2_score(y, p),
        "rmse": root_mean_squared_error(y, p),
        "mae": mean_absolute_error(y, p),
        "pearson": stats.pearsonr(y, p).statistic,
        "spearman": stats.spearmanr(y, p).statistic,
        "auc_60": roc_auc_score(y >= 60, p),
    }
    found = metrics(table, bootstrap=20)
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)


def test_the_interval_of_a_mean_is_the_one_of_the_textbook() -> None:
    table = made_up(400)
    bias = metrics(table)["bias"]
    error = table["predicted_celsius"] - table["tm_celsius"]
    half_width = 1.96 * error.std() / len(table) ** 0.5
    assert bias["high"] - bias["value"] == pytest.approx(half_width, rel=0.15)
    assert bias["value"] - bias["low"] == pytest.approx(half_width, rel=0.15)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    tables = [metrics(made_up(80, seed, bias=3.0), bootstrap=200, seed=seed)["bias"] for seed in range(60)]
    held = sum(figure["low"] <= 3.0 <= figure["high"] for figure in tables)
    assert 52 <= held <= 60


def test_batches_do_not_change_the_figures(monkeypatch) -> None:
    whole = metrics(made_up(50), bootstrap=100)
    monkeypatch.setattr("enzyme_stability.metrics._BATCH", 170)
    assert metrics(made_up(50), bootstrap=100) == whole


def test_what_is_not_defined_is_none_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cold = metrics(predictions([40.0, 45.0, 50.0], [41.0, 44.0, 52.0]), bootstrap=50)
        constant = metrics(predictions([40.0, 65.0, 50.0], [50.0, 50.0, 50.0]), bootstrap=50)
        same = metrics(predictions([50.0, 50.0, 50.0], [41.0, 44.0, 52.0]), bootstrap=50)
    assert cold["auc_60"] is None
    assert cold["r2"] is not None
    assert constant["pearson"] is None
    assert constant["spearman"] is None
    assert constant["auc_60"]["value"] == 0.5
    assert same["r2"] is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (predictions([50.0], [51.0]), "1 proteins are too few"),
        (
            predictions([50.0, np.nan], [51.0, 52.0], id=["P1", "P2"]),
            r"'tm_celsius' is missing .* 1 of 2, first for P2",
        ),
        (predictions([50.0, 60.0], [np.inf, 52.0]), "'predicted_celsius' .* first for row 1"),
        (predictions([50.0, 60.0], [51.0, 52.0]).drop(columns="tm_celsius"), "no column 'tm_celsius'"),
    ],
)
def test_a_table_that_cannot_be_judged_is_an_error_that_says_why(table, message) -> None:
    with pytest.raises(DataError, match=message):
        metrics(table)


def test_a_flag_that_is_a_word_is_refused() -> None:
    with pytest.raises(DataError, match="'in_domain' must be true or false"):
        domain_figures(predictions([50.0, 60.0], [51.0, 52.0], in_domain=["True", "False"]))


def test_no_resample_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="bootstrap must be at least 1"):
        metrics(made_up(20), bootstrap=0)


def test_a_predictor_does_not_differ_from_itself() -> None:
    table = made_up(100)
    found = paired_difference(
        table["tm_celsius"], table["predicted_celsius"], table["predicted_celsius"], bootstrap=100
    )
    assert found.pop("n") == 100
    assert all(figure == {"value": 0.0, "low": 0.0, "high": 0.0} for figure in found.values())


def test_a_paired_difference_is_ours_minus_theirs_and_sharper_than_either() -> None:
    table = made_up(300)
    y, ours = table["tm_celsius"], table["predicted_celsius"]
    theirs = ours + np.random.default_rng(1).normal(0, 2, 300)
    found = paired_difference(y, ours, theirs, bootstrap=300)
    assert found["r2"]["value"] == pytest.approx(r2_score(y, ours) - r2_score(y, theirs))
    assert found["mae"]["value"] < 0 < found["r2"]["low"]
    alone = metrics(table, bootstrap=300)["r2"]
    assert found["r2"]["high"] - found["r2"]["low"] < 0.7 * (alone["high"] - alone["low"])


def test_predictions_of_different_length_are_not_compared() -> None:
    with pytest.raises(DataError, match="3 measured, 3 ours, 2 theirs"):
        paired_difference([50, 60, 70], [51, 61, 71], [51, 61])


def test_both_edges_belong_to_the_middle_band() -> None:
    assert band_of([54.9, 55.0, 60.0, 65.0, 65.1]).tolist() == [BANDS[0], BANDS[1], BANDS[1], BANDS[1], BANDS[2]]


def test_coverage_is_counted_by_band_and_by_flag() -> None:
    table = predictions([50, 52, 60, 70], [50, 60, 55, 76], half_width=5, in_domain=[True, True, True, False])
    found = interval_figures(table, nominal=0.9)
    assert found["nominal"] == 0.9
    assert found["overall"]["coverage"]["value"] == 0.5
    assert [found["bands"][name]["coverage"]["value"] for name in BANDS] == [0.5, 1.0, 0.0]
    assert [found["bands"][name]["n"] for name in BANDS] == [2, 1, 1]
    assert found["overall"]["mean_width_celsius"] == 10
    assert found["in_domain"]["coverage"]["value"] == pytest.approx(2 / 3)
    assert found["flagged"] == {
        "n": 1,
        "coverage": {"value": 0.0, "low": 0.0, "high": pytest.approx(0.7935, abs=1e-4)},
        "mean_width_celsius": 10,
    }


def test_a_band_without_proteins_has_no_coverage() -> None:
    found = interval_figures(predictions([50, 52], [50, 60]))
    assert found["bands"][BANDS[2]] is None
    assert found["flagged"] is None


def test_flagged_proteins_with_larger_errors_show_a_difference_above_zero() -> None:
    random = np.random.default_rng(0)
    flagged = np.arange(300) < 60
    error = random.normal(0, np.where(flagged, 9, 4))
    found = domain_figures(predictions(60 + random.normal(0, 9, 300), 0, in_domain=~flagged).assign(
        predicted_celsius=lambda table: table["tm_celsius"] + error
    ))  # fmt: skip
    assert found["flagged_share"] == 0.2
    assert found["flagged"]["mae"]["value"] == pytest.approx(np.abs(error[flagged]).mean())
    assert found["in_domain"]["rmse"]["value"] == pytest.approx((error[~flagged] ** 2).mean() ** 0.5)
    difference = np.abs(error[flagged]).mean() - np.abs(error[~flagged]).mean()
    assert found["difference"]["mae"]["value"] == pytest.approx(difference)
    assert found["difference"]["mae"]["low"] > 0


def test_one_flagged_protein_is_too_few_to_compare() -> None:
    found = domain_figures(predictions([50, 60, 70], [51, 62, 73], in_domain=[True, True, False]))
    assert found["flagged"] is None
    assert found["difference"] is None
    assert found["flagged_share"] == pytest.approx(1 / 3)


def organisms(**rows: int) -> list[str | None]:
    return [name for name, n in rows.items() for _ in range(n)]


def test_knowing_the_mean_of_the_organism_and_nothing_else_is_worth_nothing_within() -> None:
    random = np.random.default_rng(0)
    measured = pd.Series(np.concatenate([random.normal(45, 3, 30), random.normal(80, 3, 20)]))
    names = pd.Series(organisms(cold=30, hot=20))
    table = predictions(measured, measured.groupby(names).transform("mean"), organism=names)
    found = within_organism_figures(table, bootstrap=50)
    assert r2_score(measured, table["predicted_celsius"]) > 0.95
    assert found["r2"]["value"] == pytest.approx(0, abs=1e-12)
    assert found["mean_spearman"] is None
    assert found["between"]["variance_share"] == pytest.approx(r2_score(measured, table["predicted_celsius"]))


def test_within_organism_figures_pool_squares_and_weight_correlations_by_size() -> None:
    random = np.random.default_rng(0)
    names = pd.Series(organisms(small=20, large=60))
    measured = pd.Series(random.normal(50, 5, 80))
    table = predictions(measured, measured + random.normal(0, 4, 80), organism=names)
    found = within_organism_figures(table, bootstrap=100)
    rows = {name: table[names == name] for name in ("small", "large")}
    squares = {name: ((part["tm_celsius"] - part["tm_celsius"].mean()) ** 2).sum() for name, part in rows.items()}
    errors = {name: ((part["tm_celsius"] - part["predicted_celsius"]) ** 2).sum() for name, part in rows.items()}
    assert list(found["organisms"]) == ["large", "small"]
    assert found["r2"]["value"] == pytest.approx(1 - sum(errors.values()) / sum(squares.values()))
    for name, part in rows.items():
        assert found["organisms"][name]["r2"]["value"] == pytest.approx(1 - errors[name] / squares[name])
        rank = stats.spearmanr(part["tm_celsius"], part["predicted_celsius"]).statistic
        assert found["organisms"][name]["spearman"]["value"] == pytest.approx(rank)
    small, large = (found["organisms"][name]["spearman"]["value"] for name in ("small", "large"))
    assert found["mean_spearman"]["value"] == pytest.approx(0.25 * small + 0.75 * large)
    assert found["r2"]["low"] < found["r2"]["value"] < found["r2"]["high"]


def test_organisms_of_fewer_than_twenty_proteins_have_no_figures() -> None:
    table = made_up(39).assign(organism=organisms(few=19) + [None] * 20)
    assert within_organism_figures(table) is None
    assert within_organism_figures(made_up(39)) is None
    one = within_organism_figures(made_up(40).assign(organism=organisms(few=19, enough=21)), bootstrap=20)
    assert list(one["organisms"]) == ["enough"]
    assert one["between"] == {"variance_share": None, "pearson_of_means": None}


def test_a_coverage_curve_counts_each_level_in_each_band() -> None:
    measured = np.array([50.0, 60.0, 62.0, 70.0])
    bounds = {0.9: (measured - 1, measured + 1), 0.5: ([49, 61, 61, 71], [51, 62, 63, 72])}
    found = coverage_curve(measured, bounds)
    assert found["overall"] == {"n": 4, "nominal": [0.5, 0.9], "observed": [0.5, 1.0]}
    assert {name: found[name]["observed"][0] for name in BANDS} == {BANDS[0]: 1.0, BANDS[1]: 0.5, BANDS[2]: 0.0}
