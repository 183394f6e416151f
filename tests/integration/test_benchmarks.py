"""Every benchmark runs from end to end on little data and leaves the figures it promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIGURE = {"value", "low", "high"}


def run(script: str, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ENZYME_STABILITY_DATA"}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == expect, done.stderr[-3000:] + done.stdout[-1000:]
    return done


def figures(folder: Path, name: str) -> dict[str, Any]:
    """The JSON a smoke run left, checked for what every one of them must and must not hold."""
    text = (folder / f"{name}_smoke.json").read_text(encoding="utf-8")
    assert str(folder) not in text
    assert str(Path.home()) not in text
    content: dict[str, Any] = json.loads(text)
    assert content["benchmark"] == name
    assert content["smoke"] is True
    assert {"cpu", "cores", "python", "packages", "load_average_before"} <= content["machine"].keys()
    assert content["machine"]["packages"]["numpy"]
    return content


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame) -> Path:
    """A table as 'data prepare' makes it, every growth temperature known under both of its names."""
    table = made_up_proteins.dropna(subset=["growth_temperature_celsius"]).reset_index(drop=True)
    table["predicted_growth_temperature_celsius"] = table["growth_temperature_celsius"]
    path = tmp_path_factory.mktemp("benchmarks") / "table.parquet"
    table.to_parquet(path)
    return path


@pytest.mark.slow
def test_recipe_compares_every_variant_with_the_shipped_one(prepared: Path, tmp_path: Path) -> None:
    shown = run("recipe.py", prepared, "--smoke", "--bootstrap", "20", "--results", tmp_path).stdout
    rows = figures(tmp_path, "recipe_tm50")["rows"]
    assert {row["group"] for row in rows.values()} == {"baselines", "parts", "shipped", "changes"}
    for name, row in rows.items():
        assert name.split()[0] in shown
        assert FIGURE == row["r2"].keys() == row["mae"].keys() == row["coverage"].keys()
        assert {"spearman", "auc_60", "width_celsius", "train_cpu_s", "artefact_mb", "minus_shipped"} <= row.keys()
    shipped, given = (rows[name] for name in rows if rows[name]["group"] == "shipped")
    assert shipped["minus_shipped"]["mae"]["value"] == 0
    assert shipped["artefact_mb"] > 0
    # These proteins were made so: composition tells the Tm, and the growth temperature tells it better.
    assert rows["line on the amino-acid composition"]["mae"]["value"] < rows["constant"]["mae"]["value"]
    assert given["mae"]["value"] < shipped["mae"]["value"]


def test_recipe_runs_only_the_variants_asked_for(prepared: Path, tmp_path: Path) -> None:
    run("recipe.py", prepared, "--smoke", "--only", "constant", "--bootstrap", "20", "--results", tmp_path)
    groups = {row["group"] for row in figures(tmp_path, "recipe_tm50")["rows"].values()}
    assert groups == {"baselines", "shipped"}


@pytest.mark.slow
def test_auxiliary_targets_are_compared_with_the_recipe(data_root: Path, prepared: Path, tmp_path: Path) -> None:
    run("auxiliary_targets.py", prepared, "--data", data_root, "--smoke", "--bootstrap", "20", "--results", tmp_path)
    content = figures(tmp_path, "auxiliary_targets")
    assert len(content["ridges"]) == 3
    assert len(content["rows"]) == 3
    without, *others = content["rows"].values()
    assert without["minus_none"]["all"]["r2"]["value"] == 0
    assert all(row["minus_none"]["all"]["mae"].keys() == FIGURE for row in others)


@pytest.mark.slow
def test_purified_enzymes_measures_the_shift_and_judges_the_remedies(
    data_root: Path, prepared: Path, tmp_path: Path
) -> None:
    arguments = ("--data", data_root, "--table", prepared, "--smoke", "--bootstrap", "20", "--results", tmp_path)
    shown = run("purified_enzymes.py", *arguments).stdout
    assert "As shipped:" in shown
    content = figures(tmp_path, "purified_enzymes")
    for label in ("stability", "optimum"):
        known = content["shift"][label]["known"]
        for how in ("without", "with_growth_temperature"):
            assert {"bias", "mae", "spearman", "auc_60", "coverage", "flagged_share"} <= known[how].keys()
    remedies = content["remedies"]
    kinds = {row["kind"] for row in remedies["validation_once"].values()}
    assert kinds == {"baseline", "as shipped", "offset", "line", "source as an input"}
    assert remedies["train_folds"][remedies["chosen_on_train"]]["kind"] != "baseline"


@pytest.mark.slow
def test_recalibration_is_judged_on_other_proteins_with_controls(data_root: Path, tmp_path: Path) -> None:
    shown = run("recalibration.py", "--data", data_root, "--draws", "2", "--smoke", "--results", tmp_path).stdout
    content = figures(tmp_path, "recalibration")
    assert content["draws"] == 2
    cases = content["cases"]
    assert [case["expected"] for case in cases.values()] == ["open", "open", "none", "help"]
    for name, case in cases.items():
        assert name in shown
        for size, sized in case["sizes"].items():
            for draw in sized["draws"]:
                assert 0 < draw["rest"] <= case["proteins"] - int(size)
                assert {"before", "after"} == draw["mae"].keys() == draw["coverage"].keys()
    for size, shifted in cases["the kind learned from, 5 degC higher"]["sizes"].items():
        same = cases["the kind learned from"]["sizes"][size]["mean"]
        assert shifted["mean"]["bias"]["before"] == pytest.approx(same["bias"]["before"] - 5)
        assert abs(shifted["mean"]["bias"]["after"]) < abs(shifted["mean"]["bias"]["before"])


@pytest.mark.slow
def test_drift_alarms_where_something_changed_and_seldom_where_nothing_did(data_root: Path, tmp_path: Path) -> None:
    shown = run("drift.py", "--data", data_root, "--smoke", "--results", tmp_path).stdout
    content = figures(tmp_path, "drift")
    for case in content["cases"]:
        assert case["name"] in shown
        for size in filter(None, case["sizes"].values()):
            assert size["alarm_share"].keys() == {"rule", "rule_with_lower_threshold", "index_alone", "test_alone"}
            assert size["alarm_share"]["rule"] == min(size["alarm_share"].values())
            assert sum(size["verdicts"].values()) == case["draws"]
    alarms = {
        (case["name"], case["compared_with"]): case["sizes"]["100"]["alarm_share"]["rule"]
        for case in content["cases"]
        if case["sizes"]["100"]
    }
    assert alarms["six proteomes", "own log"] == 0
    assert alarms["hyperthermophilic bacteria", "own log"] == 1


@pytest.mark.slow
def test_speed_prints_every_figure_beside_its_comparison(data_root: Path, tmp_path: Path) -> None:
    shown = run("speed.py", "--data", data_root, "--smoke", "--results", tmp_path).stdout
    content = figures(tmp_path, "speed")
    commands = {"predict 12 enzymes", "scan 348 residues", "bare Python", "import numpy, onnxruntime"}
    assert commands == content["cold_start"]["rows"].keys()
    assert content["proteome"]["proteins"] == 4363
    assert content["throughput"]["sequences"] == 300
    assert sum(bucket["sequences"] for bucket in content["throughput"]["by_length"]) == 300
    assert content["stream"]["peak_mb"] >= content["stream"]["peak_mb_at_a_tenth"] > 0
    assert {"numpy", "onnxruntime", "enzyme-stability"} <= content["install"]["distributions_mb"].keys()
    assert "targets < 1 s, scan < 2 s" in shown


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_service_load_answers_everything_and_sets_it_beside_the_naive_endpoint(data_root: Path, tmp_path: Path) -> None:
    run("service_load.py", "--data", data_root, "--smoke", "--results", tmp_path)
    content = figures(tmp_path, "service_load")
    service, naive = content["figures"]["1 worker"], content["figures"]["naive"]
    loads = [*service["rising"], service["half_of_peak"], service["overload"], *naive["rising"]]
    assert all(load["statuses_not_200"].keys() <= {"429"} and not load["broken_connections"] for load in loads)
    assert service["memory"]["requests"] >= 200
    assert service["memory"]["before_mib"] > 50
    assert content["times_naive"]["naive"] == 1
    assert content["times_naive"]["1 worker"] > 1


@pytest.mark.parametrize("script", ["speed.py", "purified_enzymes.py", "recalibration.py", "drift.py"])
def test_absent_data_is_one_sentence_that_says_what_to_do(script: str, tmp_path: Path) -> None:
    said = run(script, "--data", tmp_path, "--results", tmp_path, expect=2).stderr
    assert said.count("\n") == 1
    assert "--data or ENZYME_STABILITY_DATA" in said


@pytest.mark.slow
def test_head_training_compares_the_loops_at_the_loss_they_reach(tmp_path: Path) -> None:
    shown = run("head_training.py", "--smoke", "--results", tmp_path).stdout
    rows = figures(tmp_path, "head_training")["rows"]
    assert rows["Lightning, DataLoader with 2 workers"]["times_usual"] == 1
    for name, row in rows.items():
        assert name.split(",")[0] in shown
        assert row["times_usual"] > 0
        assert 0 < row["validation_loss"] < 2


@pytest.mark.slow
def test_encoder_speed_sets_ours_beside_the_usual_loops(data_root: Path, tmp_path: Path) -> None:
    shown = run("encoder_speed.py", "--smoke", "--data", data_root, "--results", tmp_path).stdout
    content = figures(tmp_path, "encoder_speed")
    assert content["bare_product_gflops"].keys() == {"bfloat16", "float32"}
    assert content["rows"]["(a) one by one, float32"]["times_usual_loop"] == 1
    assert any(name.startswith("(c) ours") for name in content["rows"])
    assert all(row["useful_gflops"] > 0 for row in content["rows"].values())
    assert content["memory_mb"].keys() == {"loaded", "few", "five_times_as_many", "one_of_5000"}
    assert "share of bfloat16 product" in shown


def test_profiling_example_compares_the_two_products(data_root: Path, tmp_path: Path) -> None:
    run("profiling_example.py", "--data", data_root, "--smoke", "--results", tmp_path)
    rows = figures(tmp_path, "profiling_example")["rows"]
    assert rows.keys() == {"the product", "descriptors of residue classes", "all descriptors", "prediction"}
    assert all(row["before_s"] >= 0 and row["after_s"] >= 0 for row in rows.values())
