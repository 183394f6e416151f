"""What a machine of the cloud runs: real trainings of a second, as trials and after an interruption."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from enzyme_stability import Predictor
from enzyme_stability.cloud import trial
from enzyme_stability.configuration import compose
from enzyme_stability.storage import put_folder
from enzyme_stability.training import train


@pytest.fixture
def settings(made_up_proteins: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    made_up_proteins.to_csv("table.csv", index=False)
    return [
        *("data.path=table.csv", "encoder=composition", "encoder.blocks=[amino_acids]", "head=ridge"),
        *("split.folds=2", "split.calibration_share=0.3", "run_name=line", f"mirror={(tmp_path / 'bucket').as_uri()}"),
    ]


def test_a_trial_takes_vertex_arguments_and_reports_the_error_of_its_folds(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = tmp_path / "hypertune" / "output.metrics"
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(metrics))
    assert trial.main([*settings, "--head.penalties=[30]"]) == 0
    (reported,) = map(json.loads, metrics.read_text().splitlines())
    rmse = json.loads((tmp_path / "outputs/line/7/metrics.json").read_text())["metrics"]["rmse"]["value"]
    assert (reported["trial"], float(reported["rmse"])) == ("7", rmse)
    predictor = Predictor.load(str(tmp_path / "bucket" / "7"))
    assert predictor.name == "line-7"
    assert predictor.manifest["training"]["config"]["head"]["penalties"] == [30]


@pytest.mark.parametrize("number", [None, "0"])
def test_a_training_that_is_no_trial_reports_nothing_and_keeps_its_name(
    settings: list[str], number: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "hypertune" / "output.metrics"))
    if number:
        monkeypatch.setenv("CLOUD_ML_TRIAL_ID", number)
    trial.run([*settings, "split.folds=0"])
    assert Predictor.load(str(tmp_path / "bucket")).name == "line"
    assert not (tmp_path / "hypertune").exists()


def test_a_new_machine_goes_on_where_the_last_one_was_taken_away(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken_away(sentence: str) -> None:
        if sentence == "fold 2 of 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(compose(settings), taken_away)
    put_folder(tmp_path / "outputs" / "line", (tmp_path / "bucket").as_uri())
    shutil.rmtree(tmp_path / "outputs")

    trial.run(settings)
    said = capsys.readouterr().err
    assert "files of an earlier start are back" in said
    assert "fold 2 of 2" in said
    assert "fold 1 of 2" not in said
    assert (tmp_path / "bucket" / "predictor.json").is_file()


def test_a_setting_that_cannot_be_used_ends_a_trial_with_one_sentence(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial.main([*settings, "--head.penaltys=[3]"]) == 2
    assert "did you mean head.penalties" in capsys.readouterr().err


def test_a_trial_that_cannot_report_says_so_before_it_trains(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    monkeypatch.setitem(sys.modules, "hypertune", None)
    assert trial.main(settings) == 2
    assert "'vertex' extra" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()
