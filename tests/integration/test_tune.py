"""A search from a table to the best settings, on made-up proteins: what it finds, continues, survives and refuses."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from enzyme_stability import fitting, study
from enzyme_stability.cli.tune import tune as command
from enzyme_stability.configuration import compose
from enzyme_stability.data.splits import split_by_cluster
from enzyme_stability.errors import DataError
from enzyme_stability.search import Search, write_search_sweep
from enzyme_stability.training import cross_validate, read_training_table, train
from enzyme_stability.tuning import Tuned, tune

COMMON = ["data.path=table.csv", "encoder=composition", "encoder.blocks=[amino_acids]", "split.calibration_share=0.3"]
RIDGE = [*COMMON, "head=ridge", "head.inner_folds=2", "split.folds=2"]
MLP = [*COMMON, "head=mlp", "head.hidden=[8]", "trainer.accelerator=cpu", "trainer.batch_size=32", "split.folds=2"]
PENALTIES = {"kind": "choice", "values": ["[1]", "[10]", "[100]"]}
RATE = {"kind": "float", "low": 1e-6, "high": 0.3, "log": True}

CALL = """
import sys
from enzyme_stability.search import Search
from enzyme_stability.tuning import tune
search = Search.plan(sys.argv[3:], "space.yaml")
tune(search, trials=int(sys.argv[1]), storage=sys.argv[2], report=lambda line: print(line, flush=True))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up_proteins: pd.DataFrame) -> Path:
    """A working folder with ``table.csv``."""
    monkeypatch.chdir(tmp_path)
    made_up_proteins.to_csv("table.csv", index=False)
    return tmp_path


Plan = Callable[..., Search]


@pytest.fixture
def plan(here: Path) -> Plan:
    """Makes a search of overrides and a space, whose file stays as ``space.yaml``."""

    def make(overrides: list[str], space: dict[str, Any]) -> Search:
        (here / "space.yaml").write_text(yaml.safe_dump(space))
        return Search.plan(overrides, "space.yaml")

    return make


def trials_of(tuned: Tuned) -> pd.DataFrame:
    return pd.read_csv(tuned.folder / "trials.csv", float_precision="round_trip")


def process(trials: int, storage: str, overrides: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALL, str(trials), storage, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def until_a_trial_is_told(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("trial 1 of"):
            return
    raise AssertionError(running.communicate()[1])


def stop_during_a_trial(running: subprocess.Popen[str], storage: str) -> None:
    """Halt the process while a trial of it is known to the storage as one that is alive."""
    for _ in range(200):
        time.sleep(0.1)
        running.send_signal(signal.SIGSTOP)
        # halted in the middle of writing, it holds a lock
        with suppress(sqlite3.OperationalError), sqlite3.connect(storage, timeout=0.2) as database:
            query = "SELECT 1 FROM trials JOIN trial_heartbeats USING (trial_id) WHERE state = 'RUNNING'"
            if database.execute(query).fetchone():
                return
        running.send_signal(signal.SIGCONT)
    raise AssertionError("no trial was seen alive")


def test_a_good_learning_rate_is_told_from_a_bad_one_and_its_settings_train(plan: Plan) -> None:
    said: list[str] = []
    search = plan([*MLP, "trainer.max_epochs=12", "output=best"], {"head.learning_rate": RATE})
    tuned = tune(search, trials=4, report=said.append)
    trials = trials_of(tuned)
    assert (tuned.folder, len(trials), tuned.trials) == (Path("best-tune"), 4, 4)
    best, worst = trials.loc[trials["rmse_celsius"].idxmin()], trials.loc[trials["rmse_celsius"].idxmax()]
    assert best["rmse_celsius"] < 0.9 * worst["rmse_celsius"]
    assert best["head.learning_rate"] > worst["head.learning_rate"]
    assert tuned.values == {"head.learning_rate": best["head.learning_rate"]}
    assert tuned.rmse_celsius == pytest.approx(best["rmse_celsius"], abs=1e-3)
    assert said[1].startswith("trial 1 of 4: RMSE ")
    assert said[4].endswith(f"(best {tuned.rmse_celsius:.2f}, trial {best['trial']})")
    assert f"head.learning_rate  {float(best['head.learning_rate'])!r}" in tuned.summary()
    assert (tuned.folder / "history.png").read_bytes().startswith(b"\x89PNG")

    saved = compose([str(tuned.folder / "best.yaml")])
    assert saved == tuned.config == compose(tuned.overrides)
    predictor = train(saved)
    assert predictor.folder == Path("best")
    folds = pd.read_csv(predictor.folder / "held_out_folds.csv")
    error = math.sqrt(((folds["predicted_celsius"] - folds["tm_celsius"]) ** 2).mean())
    assert error == pytest.approx(tuned.rmse_celsius, abs=0.01)


def test_the_error_is_that_of_the_folds_of_training(plan: Plan) -> None:
    tuned = tune(plan(RIDGE, {"head.penalties": PENALTIES}), trials=1)
    folds = cross_validate(read_training_table(tuned.config), tuned.config)
    squared = (folds["predicted_celsius"] - folds["tm_celsius"]) ** 2
    assert tuned.rmse_celsius == pytest.approx(math.sqrt(squared.mean()), abs=0.005)
    assert tuned.r2 == pytest.approx(1 - squared.mean() / folds["tm_celsius"].var(ddof=0), abs=0.001)


def test_without_folds_the_proteins_of_the_validation_share_are_judged_and_not_learned_from(
    here: Path, plan: Plan
) -> None:
    overrides = [*RIDGE, "split.folds=0", "split.validation_share=0.2"]
    table = pd.read_csv("table.csv")
    parts = split_by_cluster(table["cluster"].to_numpy(), {"train": 0.8, "held out": 0.2}, 0)
    table.loc[parts == "held out", "tm_celsius"] += 500
    table.to_csv(here / "table.csv", index=False)
    tuned = tune(plan(overrides, {"head.penalties": PENALTIES}), trials=1)
    assert 490 < tuned.rmse_celsius < 510


def test_test_rows_are_neither_learned_from_nor_judged(here: Path, plan: Plan) -> None:
    space = {"head.penalties": PENALTIES}
    alone = tune(plan(RIDGE, space), trials=1, output=Path("alone"))
    table = pd.read_csv("table.csv").assign(split="train")
    kept = table.head(60).assign(split="test", tm_celsius=900.0, cluster=10_000)
    pd.concat([table, kept]).to_csv(here / "table.csv", index=False)
    with_test_rows = tune(plan(RIDGE, space), trials=1, output=Path("with"))
    assert with_test_rows.rmse_celsius == alone.rmse_celsius


def test_a_hopeless_trial_is_given_up_between_folds(plan: Plan) -> None:
    absurd = [f"[1{'0' * zeros}]" for zeros in range(7, 12)]
    space = {"head.penalties": {"kind": "choice", "values": [*(f"[{penalty}]" for penalty in range(1, 9)), *absurd]}}
    said: list[str] = []
    tuned = tune(plan(RIDGE, space), trials=12, report=said.append)
    trials = trials_of(tuned)
    given_up = trials[trials["state"] == "given up"]
    assert set(given_up["head.penalties"]) & set(absurd)
    assert set(given_up["folds"]) == {1}
    assert tuned.values["head.penalties"] not in absurd
    assert sum("given up after 1 of 2 folds" in line for line in said) == len(given_up)

    again = trials[(trials["state"] == "finished") & (trials["folds"] == 0)]
    assert len(again) >= 1  # values tried before are not computed again
    for _, row in again.iterrows():
        same = trials[(trials["head.penalties"] == row["head.penalties"]) & (trials["folds"] == 2)]
        assert set(same["rmse_celsius"]) == {row["rmse_celsius"]}
    shares = pd.read_csv(tuned.folder / "importance.csv")
    assert shares.to_dict("records") == [{"setting": "head.penalties", "importance": 1.0}]
    assert "(importance 1.00)" in tuned.summary()


def test_a_search_is_continued_and_ends_where_one_in_one_go_does(plan: Plan) -> None:
    search = plan(RIDGE, {"head.penalties": PENALTIES, "head.inner_folds": {"kind": "int", "low": 2, "high": 9}})
    said: list[str] = []
    tune(search, trials=2, name="s")
    parts = tune(search, trials=1, name="s", report=said.append)
    assert said[1].startswith("trial 3 (1 of 1): RMSE ")
    whole = tune(search, trials=3, name="s", storage="other.journal", output=Path("whole"))
    pd.testing.assert_frame_equal(trials_of(parts).drop(columns="seconds"), trials_of(whole).drop(columns="seconds"))
    said.clear()
    assert tune(search, trials=0, name="s", report=said.append) == parts
    assert said == []
    none_begun = tune(search, trials=5, timeout=0, name="s")
    assert none_begun == parts


def test_several_processes_share_a_study_from_its_first_moment(plan: Plan) -> None:
    space = {"head.penalties": PENALTIES, "trainer.batch_size": {"kind": "int", "low": 1, "high": 10**9}}
    search = plan(RIDGE, space)
    running = [process(2, "shared.db", RIDGE) for _ in range(2)]
    for one in running:
        _, err = one.communicate(timeout=120)
        assert (one.returncode, err) == (0, "")
    trials = trials_of(tune(search, trials=0, storage="shared.db"))
    assert trials["trial"].tolist() == [1, 2, 3, 4]
    assert set(trials["state"]) == {"finished"}
    assert trials["trainer.batch_size"].nunique() == 4  # none drew what another drew


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_search_goes_on_and_its_trial_counts_as_failed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*RIDGE, "split.folds=12"]
    space = {"head.penalties": PENALTIES, "head.inner_folds": {"kind": "int", "low": 2, "high": 40}}
    search = plan(overrides, space)
    running = process(50, "killed.db", overrides)
    until_a_trial_is_told(running)
    stop_during_a_trial(running, "killed.db")
    running.kill()
    running.communicate()
    monkeypatch.setattr(study, "SILENCE_S", 1)
    time.sleep(2.5)  # SQLite keeps whole seconds: more than one of them must lie between
    trials = trials_of(tune(search, trials=1, storage="killed.db"))
    assert trials["state"].tolist()[:1] + trials["state"].tolist()[-1:] == ["finished", "finished"]
    assert (trials["state"] == "failed").sum() == 1
    assert "running" not in set(trials["state"])


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupted_search_writes_what_it_has_found(plan: Plan) -> None:
    overrides = [*RIDGE, "split.folds=12"]
    plan(overrides, {"head.penalties": PENALTIES, "head.inner_folds": {"kind": "int", "low": 2, "high": 40}})
    running = process(50, "study.db", overrides)
    until_a_trial_is_told(running)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert err.strip().endswith("KeyboardInterrupt")
    assert "'run' keeps its finished trials" in out
    assert compose(["outputs/run-tune/best.yaml"]).head.kind == "ridge"
    trials = pd.read_csv("outputs/run-tune/trials.csv")
    assert trials["state"].tolist()[0] == "finished"
    assert len(trials) < 50
    assert "running" not in set(trials["state"])
    assert set(trials.loc[trials["state"] == "failed", "error"]) <= {"interrupted"}


def test_a_trial_that_cannot_be_trained_fails_alone(plan: Plan) -> None:
    space = {"head.weight_decay": {"kind": "choice", "values": [0.01, 1e38]}}
    said: list[str] = []
    overrides = [*MLP, "trainer.max_epochs=2", "head.learning_rate=0.01", "split.folds=0"]
    tuned = tune(plan(overrides, space), trials=4, report=said.append)
    trials = trials_of(tuned)
    assert set(trials["state"]) == {"finished", "failed"}
    failed = trials[trials["state"] == "failed"]
    assert set(failed["head.weight_decay"]) == {1e38}
    assert failed["error"].str.startswith("the loss is no number").all()
    assert any(f"trial {failed['trial'].iloc[0]} of 4 failed: the loss is no number" in line for line in said)


def test_bad_data_end_the_search_at_once_with_its_sentence(here: Path, plan: Plan) -> None:
    pd.read_csv("table.csv").assign(cluster=1).to_csv(here / "table.csv", index=False)
    said: list[str] = []
    with pytest.raises(DataError, match="1 clusters do not fill every part"):
        tune(plan(RIDGE, {"head.penalties": PENALTIES}), trials=5, report=said.append)
    assert len(said) == 1
    assert not Path("outputs/run-tune/best.yaml").exists()


def test_settings_that_want_more_proteins_than_there_are_fail_alone(plan: Plan) -> None:
    space = {"head.minimum_leaf_size": {"kind": "choice", "values": [5, 200]}}
    overrides = [*COMMON, "head=trees", "head.trees=3", "split.folds=0"]
    trials = trials_of(tune(plan(overrides, space), trials=5))
    assert set(trials.loc[trials["state"] == "failed", "head.minimum_leaf_size"]) == {200}
    assert set(trials.loc[trials["state"] == "finished", "head.minimum_leaf_size"]) == {5}


def test_embeddings_are_made_once_unless_the_encoder_is_searched(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count(1)
    real, last = fitting.encode, 0

    def counting(*arguments: Any) -> Any:
        nonlocal last
        last = next(calls)
        return real(*arguments)

    monkeypatch.setattr(fitting, "encode", counting)
    ridge = [*RIDGE, "split.folds=0"]
    penalties = {"kind": "choice", "values": [f"[{penalty}]" for penalty in range(1, 40)]}
    tune(plan(ridge, {"head.penalties": penalties}), trials=3)
    assert last == 1
    blocks = {"kind": "choice", "values": ["[amino_acids]", "[whole_chain]", "[termini]"]}
    searched = [override for override in ridge if not override.startswith("encoder.blocks")]
    tuned = tune(plan(searched, {"encoder.blocks": blocks}), trials=4, name="encoders")
    assert last == 1 + trials_of(tuned)["encoder.blocks"].nunique() > 2


def test_trials_of_a_fine_tuned_model_leave_nothing_in_the_store(here: Path, plan: Plan) -> None:
    from tiny_models import save_tiny_model

    table = pd.read_csv("table.csv").head(220)
    table.assign(sequence=table["sequence"].str[:30]).to_csv(here / "table.csv", index=False)
    model = [f"encoder.model={save_tiny_model('esm2', here / 'model', layers=1)}", "encoder.device=cpu", "store=store"]
    common = ["data.path=table.csv", "encoder=language_model", *model, "split.calibration_share=0.35", "split.folds=0"]

    def stored() -> dict[str, int]:
        counts = {}
        for file in Path("store").glob("*.sqlite"):
            with closing(sqlite3.connect(file)) as store:
                (counts[file.name],) = store.execute("SELECT count(*) FROM embedding").fetchone()
        return counts

    tune(plan([*common, "head=ridge"], {"head.penalties": PENALTIES}), trials=1, name="ridge")
    before = stored()
    assert list(before.values()) == [pytest.approx(220, abs=20)]
    lora = [*common, "head=lora", "head.hidden=[4]", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    tune(plan(lora, {"head.rank": {"kind": "int", "low": 1, "high": 2}}), trials=1, name="lora")
    assert stored() == before


def test_a_sweep_searches_the_space_that_the_trials_are_drawn_from(plan: Plan) -> None:
    import optuna
    from wandb.sdk.sweeps.scheduler.optuna import search_space_from_sweep_config

    space = {
        "head.penalties": PENALTIES,
        "head.inner_folds": {"kind": "int", "low": 2, "high": 9},
        "trainer.max_epochs": {"kind": "int", "low": 1, "high": 1000, "log": True},
        "trainer.gradient_clip": {"kind": "float", "low": 0.1, "high": 10, "log": True},
        "trainer.patience": {"kind": "choice", "values": [5, 10]},
    }
    search = plan([override for override in RIDGE if "inner_folds" not in override] + ["split.folds=0"], space)
    write_search_sweep(search, Path("sweep.yaml"))
    assert not Path("outputs").exists()
    tune(search, trials=1)
    (trial,) = optuna.load_study(study_name="run", storage="sqlite:///outputs/run-tune/study.db").trials
    sweep = yaml.safe_load(Path("sweep.yaml").read_text())
    assert search_space_from_sweep_config(sweep["parameters"]) == trial.distributions
    assert len(trial.distributions) == 5


def test_the_command_prints_the_best_settings_and_trains_them(plan: Plan) -> None:
    plan(RIDGE, {"head.penalties": PENALTIES})
    app = typer.Typer()
    app.command()(command)
    options = ["--space", "space.yaml", "--trials", "1", "--study", "mine.db", "--name", "mine", "-o", "found"]
    done = CliRunner().invoke(app, [*RIDGE, *options, "--train"])
    assert done.exit_code == 0, done.output
    best, setting, line = done.stdout.strip().splitlines()
    assert best.startswith("best of 1 trials: RMSE ")
    assert setting.split()[0] == "head.penalties"
    assert line.startswith(
        "enzyme-stability train data.path=table.csv encoder=composition 'encoder.blocks=[amino_acids]'"
    )
    assert line.endswith(f"'head.penalties={setting.split()[1]}'")
    assert "wrote outputs/run" in done.stderr
    assert {file.name for file in Path("found").iterdir()} == {"best.yaml", "history.png", "trials.csv"}
    config = np.array(yaml.safe_load(Path("found/best.yaml").read_text())["head"]["penalties"])
    assert f"[{config[0]:g}]" == setting.split()[1]

    done = CliRunner().invoke(app, [*RIDGE, "--space", "space.yaml", "--sweep", "sweep.yaml"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert Path("sweep.yaml").is_file()
