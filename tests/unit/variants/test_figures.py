"""Figures of predicted changes: libraries as witnesses, whole proteins resampled, hits and calibration by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from enzyme_stability.data.variant_tables import REVERSE, read_variant_table
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.baseline import substitution_formula
from enzyme_stability.variants.figures import (
    ALL,
    UNRELATED,
    compare,
    formula,
    hit_rates,
    paired_figures,
    reliability,
    variant_figures,
)


def made_up(n: int = 300, proteins: int = 12, seed: int = 0, noise: float = 3.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    target = random.normal(-2, 4, n).round()  # rounded, so that there are ties and zeros
    predicted = (target + random.normal(0, noise, n)).round()
    return pd.DataFrame({"protein": random.integers(0, proteins, n), "target": target, "predicted": predicted})


def values(figures: dict, *names: str) -> dict[str, float]:
    return {name: figures[name]["value"] for name in names}


def test_figures_agree_with_the_libraries_where_values_tie() -> None:
    table = made_up()
    y, p = table["target"], table["predicted"]
    within = [
        stats.spearmanr(rows["target"], rows["predicted"]).statistic
        for _, rows in table.groupby("protein")
        if len(rows) >= 10
    ]
    expected = {
        "pearson": stats.pearsonr(y, p).statistic,
        "spearman": stats.spearmanr(y, p).statistic,
        "rmse": ((y - p) ** 2).mean() ** 0.5,
        "auc": roc_auc_score(y > 0, p),
        "sign_accuracy": (np.sign(p) == np.sign(y))[y != 0].mean(),
        "majority_sign": (y < 0)[y != 0].mean(),
        "protein_spearman": np.mean(within),
    }
    found = variant_figures(table, bootstrap=20)
    assert values(found, *expected) == pytest.approx(expected)
    assert (found["n"], found["proteins"]) == (300, 12)


def test_the_bounds_are_those_of_tables_with_whole_proteins_drawn() -> None:
    table, random = made_up(120, proteins=6), np.random.default_rng(4)
    chains = [rows for _, rows in table.groupby("protein")]
    drawn = []
    for _ in range(600):
        resample = pd.concat([chains[k] for k in random.integers(0, 6, 6)])
        drawn.append((
            stats.spearmanr(resample["target"], resample["predicted"]).statistic,
            roc_auc_score(resample["target"] > 0, resample["predicted"]),
        ))  # fmt: skip
    found = variant_figures(table, bootstrap=1500)
    for name, column in zip(("spearman", "auc"), np.array(drawn).T, strict=True):
        bounds = found[name]["low"], found[name]["high"]
        assert bounds == pytest.approx(np.percentile(column, [2.5, 97.5]), abs=0.04), name


def test_variants_of_one_protein_count_as_little_as_they_know() -> None:
    # Ten variants of each protein share their error: rows drawn one by one would feign three times the knowledge.
    random = np.random.default_rng(2)
    protein = np.repeat(np.arange(30), 10)
    target = random.normal(0, 1, 30)[protein]
    alike = pd.DataFrame({"protein": protein, "target": target, "predicted": target + random.normal(0, 1, 30)[protein]})
    together = variant_figures(alike)["pearson"]
    apart = variant_figures(alike.assign(protein=range(300)))["pearson"]
    assert together["value"] == apart["value"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_the_seed_decides_and_batches_do_not(monkeypatch) -> None:
    whole = variant_figures(made_up(), bootstrap=100)
    assert variant_figures(made_up(), bootstrap=100) == whole
    assert variant_figures(made_up(), bootstrap=100, seed=1) != whole
    monkeypatch.setattr("enzyme_stability.variants.figures._BATCH", 300)
    assert variant_figures(made_up(), bootstrap=100) == whole


def test_a_perfect_way_back_is_minus_one_without_a_bias() -> None:
    table = made_up()
    perfect = variant_figures(table.assign(reverse=-table["predicted"]), bootstrap=20)
    assert values(perfect, "antisymmetry", "reverse_bias") == pytest.approx({"antisymmetry": -1, "reverse_bias": 0})
    # one that always says 2 degC less than it should, and leaves some out
    lazy = (-table["predicted"] - 2).where(table.index % 3 > 0)
    found = variant_figures(table.assign(reverse=lazy), bootstrap=20)
    assert values(found, "antisymmetry", "reverse_bias") == pytest.approx({"antisymmetry": -1, "reverse_bias": -1})


def test_what_is_not_defined_is_none() -> None:
    table = made_up().assign(predicted=0.7)
    found = variant_figures(table, same_quantity=False, bootstrap=20)
    assert [name for name, figure in found.items() if figure is None] == [
        *("pearson", "spearman", "rmse", "protein_spearman", "auc_of_probability", "antisymmetry", "reverse_bias")
    ]
    assert found["auc"]["value"] == 0.5
    assert variant_figures(table.assign(target=-1.0), bootstrap=20)["auc"] is None
    one = variant_figures(made_up(proteins=1), bootstrap=20)["spearman"]
    assert math.isnan(one["low"])
    assert one["value"] > 0.5


def test_a_probability_has_its_own_auc() -> None:
    table = made_up()
    probability = np.random.default_rng(1).uniform(0, 1, len(table))
    found = variant_figures(table.assign(probability=probability), bootstrap=20)
    assert found["auc_of_probability"]["value"] == pytest.approx(roc_auc_score(table["target"] > 0, probability))


def test_tables_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(DataError, match="'predicted' is missing or not finite for 1 of 300"):
        variant_figures(made_up().assign(predicted=lambda rows: rows["predicted"].where(rows.index > 0)))
    with pytest.raises(DataError, match="needs the column 'protein'"):
        variant_figures(made_up().drop(columns="protein"))
    with pytest.raises(ConfigError, match="bootstrap must be at least 1"):
        variant_figures(made_up(), bootstrap=0)


def test_a_paired_difference_is_surer_than_two_figures_apart() -> None:
    table = made_up(400, proteins=20)
    worse = table["predicted"] + np.random.default_rng(3).normal(0, 1, 400)
    found = paired_figures(table, worse.where(table.index > 9))
    ours, theirs = (
        variant_figures(rows.iloc[10:], bootstrap=1) for rows in (table, table.assign(predicted=worse))
    )  # fmt: skip
    names = ("pearson", "spearman", "rmse", "sign_accuracy", "protein_spearman", "auc")
    expected = {name: ours[name]["value"] - theirs[name]["value"] for name in names}
    assert found["n"] == 390
    assert values(found, *names) == pytest.approx(expected)
    assert found["rmse"]["high"] < 0
    alone = variant_figures(table)["rmse"]
    assert found["rmse"]["high"] - found["rmse"]["low"] < alone["high"] - alone["low"]


def test_a_method_against_itself_differs_by_nothing() -> None:
    table = made_up()
    figures = paired_figures(table, table["predicted"], bootstrap=30)
    for name in ("pearson", "rmse", "protein_spearman"):
        assert figures[name] == {"value": 0, "low": 0, "high": 0}
    with pytest.raises(DataError, match="the other method has 299 predictions; the table has 300 rows"):
        paired_figures(table, table["predicted"][1:])


def test_hit_rates_of_two_proteins_are_those_computed_by_hand() -> None:
    # In the first protein the best ten are its only stabilising variants, in the second none of them is.
    first = pd.DataFrame({"protein": "a", "target": [1.0] * 10 + [-1.0] * 30, "predicted": np.arange(40, 0, -1)})
    second = pd.DataFrame({"protein": "b", "target": [-1.0] * 20 + [1.0] * 20, "predicted": np.arange(40, 0, -1)})
    small = pd.DataFrame({"protein": "c", "target": 1.0, "predicted": range(19)})
    found = hit_rates(pd.concat([first, second, small], ignore_index=True), bootstrap=400)
    ten = found["top 10"]
    assert (ten["n"], ten["proteins"]) == (80, 2)
    assert values(ten, "hit_rate", "random", "gain") == {"hit_rate": 0.5, "random": 0.375, "gain": 0.125}
    assert (ten["hit_rate"]["low"], ten["hit_rate"]["high"]) == (0, 1)
    assert found["top 50"] is None
    assert found["top 5 %"]["hit_rate"]["value"] == 0.5


def test_ties_count_what_a_random_order_would_give() -> None:
    # 4 variants above all others, then 16 alike of which a quarter stabilises: 4 + 6/4 hits are expected among ten.
    target = [1.0] * 4 + [1.0] * 4 + [-1.0] * 12
    table = pd.DataFrame({"protein": 0, "target": target, "predicted": [2.0] * 4 + [1.0] * 16, "baseline": 0.0})
    ten = hit_rates(table, bootstrap=5)["top 10"]
    assert values(ten, "hit_rate", "baseline", "random") == pytest.approx(
        {"hit_rate": 0.55, "baseline": 0.4, "random": 0.4}
    )
    assert ten["gain_over_baseline"]["value"] == pytest.approx(0.15)


def test_a_variant_measured_again_counts_once() -> None:
    table = pd.DataFrame(
        {"protein": 0, "variant": range(20), "target": [1.0] * 5 + [-1.0] * 15, "predicted": range(20)}
    )
    again = pd.concat([table, table.iloc[:1].assign(target=-3.0)], ignore_index=True)  # on average it destabilises
    assert hit_rates(again, bootstrap=5)["top 10"]["random"]["value"] == 4 / 20
    assert hit_rates(again, bootstrap=5)["top 10"]["n"] == 20


def test_reliability_is_the_share_that_came_true() -> None:
    probability = np.array([0.0, 0.05, 0.35, 0.3, 0.3, 1.0, 0.95])
    outcome = np.array([0, 0, 1, 0, 0, 1, 0], dtype=bool)
    found = reliability(probability, outcome)
    assert [(one["low"], one["n"]) for one in found["bins"]] == [(0, 2), (0.3, 3), (0.9, 2)]
    middle = found["bins"][1]
    assert middle["predicted"] == pytest.approx(0.95 / 3)
    wilson = stats.binomtest(1, 3).proportion_ci(method="wilson")
    assert middle["observed"] == pytest.approx({"value": 1 / 3, "low": wilson.low, "high": wilson.high})
    brier = brier_score_loss(outcome, probability)
    assert found["brier"] == pytest.approx(brier)
    assert found["brier_skill"] == pytest.approx(1 - brier / (2 / 7 * 5 / 7))
    assert found["calibration_error"] == pytest.approx((2 * 0.025 + 3 * abs(0.95 / 3 - 1 / 3) + 2 * 0.475) / 7)


def test_an_honest_probability_has_skill_and_the_base_rate_has_none() -> None:
    random = np.random.default_rng(0)
    probability = random.uniform(0, 1, 4000)
    outcome = random.uniform(0, 1, 4000) < probability
    honest = reliability(probability, outcome)
    assert honest["calibration_error"] < 0.03
    assert sum(one["observed"]["low"] <= one["predicted"] <= one["observed"]["high"] for one in honest["bins"]) >= 8
    assert honest["brier_skill"] > 0.3
    assert reliability(np.full(4000, outcome.mean()), outcome)["brier_skill"] == pytest.approx(0)
    assert reliability([0.2, 0.3], [False, False])["brier_skill"] is None


@pytest.mark.parametrize("probability", [[1.2, 0.5], [np.nan, 0.5], [0.5], []])
def test_what_is_no_probability_is_refused(probability: list[float]) -> None:
    with pytest.raises(DataError, match="probabilit"):
        reliability(probability, [True, False][: max(len(probability), 1)] if len(probability) != 1 else [True, False])


def comparable(n: int = 200) -> pd.DataFrame:
    table = made_up(n)
    published = {"FoldX": table["predicted"].where(table.index > 4), "FoldX" + REVERSE: -table["predicted"]}
    return table.drop(columns="predicted").assign(quantity="dTm", variant="K2R", **published)


def test_every_method_has_a_row_for_all_proteins_and_one_for_those_without_relatives() -> None:
    table = comparable().assign(has_relative=lambda rows: rows["protein"] < 4)
    mine = table["target"] + 1.0
    found = compare(table, {"mine": mine, "mine" + REVERSE: -mine}, bootstrap=20).set_index(["method", "rows"])
    assert [method for method, rows in found.index if rows == ALL] == ["mine", "formula", "FoldX"]
    assert found["kind"].tolist() == ["ours"] * 2 + ["baseline"] * 2 + ["published"] * 2
    assert found.loc[("FoldX", ALL), ["needs", "n", "unanswered"]].tolist() == ["structure", 195, 5]
    assert found.loc[("mine", UNRELATED), "n"] == (table["protein"] >= 4).sum()
    assert found.loc[("mine", UNRELATED), "rmse"] == pytest.approx(1)
    assert found.loc[("mine", ALL), "antisymmetry"] == pytest.approx(-1)
    assert np.isnan(found.loc[("formula", ALL), "rmse"])
    foldx = variant_figures(
        table.assign(predicted=table["FoldX"], reverse=table["FoldX" + REVERSE]).iloc[5:], bootstrap=20
    )
    for name in ("pearson", "rmse", "auc", "reverse_bias"):
        assert found.loc[("FoldX", ALL), [name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(
            list(foldx[name].values())
        )


def test_the_formula_adds_up_over_the_substitutions() -> None:
    score, place = substitution_formula(), AMINO_ACIDS.index
    first, second = score[place("K"), place("R")], score[place("I"), place("V")]
    table = pd.DataFrame({"variant": ["K2R", "WT", "K2R:I6V"]})
    assert formula(table).tolist() == pytest.approx([first, 0, first + second])
    assert formula(table.iloc[:0]).shape == (0,)


def test_another_quantity_has_no_error_and_no_answer_has_no_figures() -> None:
    table = comparable().assign(quantity="ddG")
    silent = np.full(len(table), np.nan)
    found = compare(table, {"mine": table["target"], "silent": silent}, bootstrap=5).set_index("method")
    assert np.isnan(found.loc["mine", "rmse"])
    assert found.loc["mine", "pearson"] == pytest.approx(1)
    assert not np.isnan(found.loc["FoldX", "rmse"])
    assert found.loc["silent", ["n", "unanswered"]].tolist() == [0, 200]
    assert np.isnan(found.loc["silent", "pearson"])
    same = compare(table, {"mine": table["target"]}, quantity="ddG", baselines={"none": np.zeros(200)}, bootstrap=5)
    assert same["rmse"].notna().all()


def test_names_and_lengths_must_fit() -> None:
    table = comparable()
    with pytest.raises(DataError, match="two methods are called FoldX"):
        compare(table, {"FoldX": table["target"]})
    with pytest.raises(DataError, match="mine has 3 predictions; the table has 200 rows"):
        compare(table, {"mine": [1, 2, 3]})
    with pytest.raises(DataError, match=r"needs the columns \['quantity'\]"):
        compare(table.drop(columns="quantity"), {"mine": table["target"]})


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("S571", {"GeoDTm-3D": 0.467, "GeoDTm-Seq": 0.462, "HoTMuSiC": 0.329, "AUTO-MUTE": 0.288}),
        ("S669", {"INPS-Seq": 0.431, "GeoDDG-Seq": 0.579}),
    ],
)
def test_the_published_correlations_are_reproduced(data_root: Path, name: str, published: dict[str, float]) -> None:
    found = compare(read_variant_table(name, data_root), {}, bootstrap=1).set_index("method")
    assert found["pearson"][list(published)].round(3).to_dict() == published
