"""Training in two processes: the same predictor as in one, one run folder, and nothing said twice."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from quick_runs import configured, epochs, finish, overrides, start, stop_when

from enzyme_stability import Predictor
from enzyme_stability.errors import ConfigError
from enzyme_stability.training import train
from tiny_models import save_tiny_model

SETTINGS = ("head.dropout=0.0", "trainer.max_epochs=6", "split.folds=2", "trainer.accelerator=cpu")
"""Dropout is drawn by each process for itself, so without it the numbers are the same up to the order of a sum."""
TOLERANCE_CELSIUS = 0.05
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    made_up_proteins.drop(columns="growth_temperature_celsius").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Predictor:
    return train(configured("mlp", table, tmp_path_factory.mktemp("runs") / "alone", *SETTINGS))


def assert_as_alone(folder: Path, alone: Predictor, proteins: pd.DataFrame) -> None:
    together = Predictor(folder)
    sequences = proteins["sequence"].tolist()
    one, two = ([row.tm_celsius for row in predictor.predict(sequences)] for predictor in (alone, together))
    np.testing.assert_allclose(one, two, atol=TOLERANCE_CELSIUS)
    figures = [json.loads((f / "metrics.json").read_text())["metrics"] for f in (alone.folder, folder)]
    assert figures[0]["mae"]["value"] == pytest.approx(figures[1]["mae"]["value"], abs=TOLERANCE_CELSIUS)
    tables = [pd.read_csv(f / "metrics.csv") for f in (alone.folder, folder)]
    assert tables[0].columns.tolist() == tables[1].columns.tolist()
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-3, atol=1e-3)
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.folder.iterdir()}


def test_two_processes_train_the_predictor_of_one(
    table: Path, tmp_path: Path, alone: Predictor, made_up_proteins: pd.DataFrame
) -> None:
    folder = tmp_path / "run"
    code, err = finish(start("train", *overrides("mlp", table, folder, *SETTINGS, "trainer.devices=2")))
    assert code == 0, err
    assert_as_alone(folder, alone, made_up_proteins)
    lines = err.splitlines()
    assert len(lines) == len(set(lines)) == 6, err  # each sentence once
    assert lines[-1].startswith(f"wrote {folder} after")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_run_of_two_processes_is_taken_up_by_one(
    table: Path, tmp_path: Path, alone: Predictor, made_up_proteins: pd.DataFrame
) -> None:
    folder = tmp_path / "run"
    running = start("train", *overrides("mlp", table, folder, *SETTINGS, "trainer.devices=2"))
    stop_when(running, lambda: epochs(folder, "fold_1/member_0/") >= 2, signal.SIGKILL)
    settings = configured("mlp", table, folder, *SETTINGS)
    train(settings, resume=True)
    found, expected = (Predictor(f).predict(made_up_proteins["sequence"].tolist()) for f in (folder, alone.folder))
    np.testing.assert_allclose(
        [row.tm_celsius for row in found], [row.tm_celsius for row in expected], atol=TOLERANCE_CELSIUS
    )


def test_processes_of_torchrun_that_fine_tune_a_language_model_wait_for_its_adapter(
    tmp_path: Path, made_up_proteins: pd.DataFrame
) -> None:
    made_up_proteins[:210].to_csv(tmp_path / "table.csv", index=False)
    model = save_tiny_model("esm2", tmp_path / "tiny")
    settings = [
        *(f"data.path={tmp_path / 'table.csv'}", "encoder=language_model", f"encoder.model={model}"),
        *("encoder.device=cpu", "head=lora", "head.rank=1", "head.hidden=[4]", "split.calibration_share=0.35"),
        *("split.folds=0", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=2"),
        *(f"store={tmp_path / 'store'}", f"output={tmp_path / 'run'}"),
    ]
    code, err = finish(start("train", *settings, before=TORCHRUN))
    assert code == 0, err
    assert "error" not in err
    assert Predictor(tmp_path / "run").predict(made_up_proteins["sequence"][:3].tolist())[0].status == "ok"


def test_more_processes_than_devices_are_refused_in_one_sentence(table: Path, tmp_path: Path) -> None:
    changes = ("trainer.accelerator=gpu", "trainer.devices=99")
    with pytest.raises(ConfigError, match="trainer does not fit this machine"):
        train(configured("mlp", table, tmp_path / "run", *SETTINGS, *changes))
