"""The folder of a run: what is written when, what is cleared, and when a run may go on in it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.run_folder import (
    CHECKPOINTS,
    RunFolder,
    environment,
    is_finished,
    is_unfinished,
    refuse_unusable,
)

BASE = compose(["data.path=table.csv", "encoder=composition", "head=ridge"])


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "table.csv").write_text("sequence,tm_celsius\nMKV,50\n")
    data = BASE.data.model_copy(update={"path": str(tmp_path / "table.csv")})
    return BASE.model_copy(update={"data": data, "output": tmp_path / "run"})


def opened(config: TrainConfig, *, resume: bool = False) -> RunFolder:
    refuse_unusable(config, resume=resume)
    return RunFolder(config, lambda _: None, resume=resume)


def interrupted(config: TrainConfig) -> RunFolder:
    """A run that got as far as its first checkpoint."""
    run = opened(config)
    (run.path / CHECKPOINTS / "final").mkdir()
    (run.path / CHECKPOINTS / "final" / "last.ckpt").write_bytes(b"1")
    return run


def finished(config: TrainConfig) -> RunFolder:
    run = interrupted(config)
    (run.path / "predictor.json").write_text("{}")
    run.write_metrics({})
    run.finish()
    return run


# What is written


def test_settings_and_environment_are_there_from_the_start(config: TrainConfig) -> None:
    run = opened(config)
    assert compose([str(run.path / "config.yaml")]) == config
    written = json.loads((run.path / "environment.json").read_text())
    assert written["data_sha256"] == hashlib.sha256(Path(config.data.path).read_bytes()).hexdigest()
    assert written["packages"]["numpy"] == np.__version__
    assert not [path for path in run.path.iterdir() if path.name.endswith(".part")]


def test_the_environment_names_python_machine_and_command() -> None:
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["processors"] == os.cpu_count()
    assert found["platform"]
    assert str(Path.home()) not in json.dumps(found["command"][:1])


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git_commit"] is None
    monkeypatch.setenv("PATH", "")
    assert environment()["git_commit"] is None


def test_what_is_said_is_logged_with_its_time(config: TrainConfig) -> None:
    said: list[str] = []
    run = RunFolder(config, said.append, resume=False)
    run.report("first é")
    run.report("second")
    assert said == ["first é", "second"]
    times, sentences = zip(
        *(line.split(" ", 1) for line in (run.path / "train.log").read_text(encoding="utf-8").splitlines()), strict=True
    )
    assert list(sentences) == said
    assert all(datetime.fromisoformat(time).tzinfo is not None for time in times)


def test_the_split_names_id_and_cluster_where_there_are_some(config: TrainConfig) -> None:
    run = opened(config)
    table = pd.DataFrame({"id": ["a", "b"], "sequence": ["M", "K"], "cluster": [0, 1]})
    run.write_split(table, np.array(["train", "calibration"], dtype=object))
    assert (run.path / "split.csv").read_text() == "id,cluster,split\na,0,train\nb,1,calibration\n"


def test_an_end_leaves_nothing_to_resume_from(config: TrainConfig) -> None:
    run = interrupted(config)
    (run.path / "folds").mkdir()
    run.finish()
    assert not (run.path / CHECKPOINTS).exists()
    assert not (run.path / "folds").exists()


# States


def test_a_run_is_unfinished_from_its_first_checkpoint_to_its_figures(config: TrainConfig) -> None:
    folder = config.output
    assert not is_unfinished(folder)
    assert not is_finished(folder)
    opened(config)
    assert not is_unfinished(folder)  # nothing was computed yet that could be lost
    run = interrupted(config)
    assert is_unfinished(folder)
    (folder / "predictor.json").write_text("{}")
    assert is_unfinished(folder)
    run.write_metrics({})
    assert not is_unfinished(folder)
    assert is_finished(folder)


def test_a_finished_fold_makes_a_run_worth_resuming(config: TrainConfig) -> None:
    run = opened(config)
    (run.path / "folds").mkdir()
    (run.path / "folds" / "fold_0.parquet").write_bytes(b"1")
    assert is_unfinished(run.path)


def test_an_unfinished_run_is_refused_with_the_command_that_goes_on(config: TrainConfig) -> None:
    interrupted(config)
    with pytest.raises(ConfigError) as caught:
        refuse_unusable(config, resume=False)
    assert f"enzyme-stability train --resume {config.output}" in str(caught.value)
    refuse_unusable(config, resume=True)


def test_a_new_run_clears_the_finished_one_and_nothing_else(config: TrainConfig) -> None:
    run = finished(config)
    for name in ("CARD.md", "metrics.csv", "head_plain.onnx", "held_out_folds.csv", "held_out_folds.json", "mine.txt"):
        (run.path / name).write_text("old")
    for name in ("plots", "wandb", "adapter", "my pictures"):
        (run.path / name).mkdir()
    opened(config)
    left = {path.name for path in config.output.iterdir()}
    assert left == {"config.yaml", "environment.json", CHECKPOINTS, "mine.txt", "my pictures"}


def test_a_resumed_run_clears_nothing(config: TrainConfig) -> None:
    run = interrupted(config)
    run.report("before")
    opened(config, resume=True).report("after")
    assert (run.path / CHECKPOINTS / "final" / "last.ckpt").is_file()
    assert [line.split(" ", 1)[1] for line in (run.path / "train.log").read_text().splitlines()] == ["before", "after"]


@pytest.mark.parametrize("name", ["plots", "checkpoints", "folds", "config.yaml", "metrics.csv", "CARD.md"])
def test_files_of_no_run_stand_in_the_way(config: TrainConfig, name: str) -> None:
    (config.output / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"holds {name}, which is of no run"):
        refuse_unusable(config, resume=False)


def test_an_earlier_predictor_alone_may_be_replaced(config: TrainConfig) -> None:
    (config.output / "plots").mkdir(parents=True)
    (config.output / "predictor.json").write_text("{}")
    opened(config)
    assert not (config.output / "predictor.json").exists()


# Going on


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seed", 3), ("run_name", "other"), ("description", "Other."), ("head", compose(["tm50"]).head)],
)
def test_another_run_is_not_gone_on_with(config: TrainConfig, setting: str, value: object) -> None:
    interrupted(config)
    with pytest.raises(ConfigError, match=f"begun with another .*{setting}"):
        refuse_unusable(config.model_copy(update={setting: value}), resume=True)


def test_machine_and_trackers_may_differ_where_a_run_goes_on(config: TrainConfig) -> None:
    interrupted(config)
    trainer = config.trainer.model_copy(update={"devices": 2, "nodes": 2, "accelerator": "cpu"})
    tracking = config.tracking.model_copy(update={"csv": False, "tags": ("again",)})
    changes = {"trainer": trainer, "tracking": tracking, "threads": 4, "store": Path("elsewhere"), "mirror": "gs://b/c"}
    opened(config.model_copy(update=changes), resume=True)


def test_a_language_model_may_run_on_another_device_where_a_run_goes_on(config: TrainConfig) -> None:
    encoder = compose(["data.path=x", "encoder=esm2_8m"]).encoder
    interrupted(config.model_copy(update={"encoder": encoder}))
    for change in ({"device": "cpu"}, {"token_budget": 100}):
        refuse_unusable(config.model_copy(update={"encoder": encoder.model_copy(update=change)}), resume=True)
    for change in ({"model": "esm2_35m"}, {"layer": 3}, {"precision": "float32"}):
        other = config.model_copy(update={"encoder": encoder.model_copy(update=change)})
        with pytest.raises(ConfigError, match=f"encoder.{next(iter(change))}"):
            refuse_unusable(other, resume=True)


def test_a_run_does_not_go_on_with_other_data(config: TrainConfig) -> None:
    interrupted(config)
    with Path(config.data.path).open("a") as table:
        table.write("MKL,51\n")
    with pytest.raises(ConfigError, match="have changed since it began"):
        opened(config, resume=True)


@pytest.mark.parametrize("damage", ["{", "[]", '{"python": "3"}'])
def test_a_run_without_the_checksum_of_its_data_does_not_go_on(config: TrainConfig, damage: str) -> None:
    run = interrupted(config)
    (run.path / "environment.json").write_text(damage)
    with pytest.raises(ConfigError, match="holds no run to go on with"):
        opened(config, resume=True)


def test_damaged_settings_are_named(config: TrainConfig) -> None:
    run = interrupted(config)
    (run.path / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        refuse_unusable(config, resume=True)


# Disks and data


def test_a_place_that_cannot_be_written_to_is_named(config: TrainConfig) -> None:
    below_a_file = config.model_copy(update={"output": Path(config.data.path) / "run"})
    with pytest.raises(ArtifactError, match=r"cannot write to .*run"):
        opened(below_a_file)


def test_a_log_that_cannot_be_written_is_named(config: TrainConfig) -> None:
    run = opened(config)
    (run.path / "train.log").mkdir()
    with pytest.raises(ArtifactError, match="cannot write to"):
        run.report("lost")


def test_data_that_are_gone_are_named(config: TrainConfig) -> None:
    Path(config.data.path).unlink()
    with pytest.raises(DataError, match=r"table\.csv cannot be read"):
        opened(config)
    assert not config.output.exists()
