"""Training runs that are killed, interrupted, out of space or taken up again: nothing is lost, mixed or overwritten."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pandas as pd
import pytest
import yaml
from quick_runs import configured, epochs, finish, heads_in, overrides, start, stop_when

from enzyme_stability import Predictor, training
from enzyme_stability.cli import main
from enzyme_stability.errors import ConfigError
from enzyme_stability.storage import Mirror
from enzyme_stability.training import train

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

Command = Callable[..., tuple[int, str]]

LONG = ("trainer.max_epochs=20", "trainer.patience=20", "split.folds=2")
"""Long enough to be stopped on the way."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    made_up_proteins.drop(columns="growth_temperature_celsius").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Predictor:
    """A run that was never interrupted."""
    return train(configured("mlp", table, tmp_path_factory.mktemp("runs") / "whole", *LONG))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """The same run, killed while the network of its first fold learned."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    running = start("train", *overrides("mlp", table, folder, *LONG))
    code, _ = stop_when(running, lambda: epochs(folder, "fold_0/member_0/") >= 3, signal.SIGKILL)
    assert code == -signal.SIGKILL
    return folder


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run to go on with."""
    return Path(shutil.copytree(killed, tmp_path / "moved"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs 'train' in this process; exit code and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", "train", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        err = capfd.readouterr().err
        assert "Traceback" not in err
        return int(ended.value.code or 0), err

    return run


def refused(outcome: tuple[int, str]) -> str:
    """The one sentence of a command that did nothing."""
    code, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_as_uninterrupted(folder: Path, whole: Predictor) -> None:
    assert heads_in(folder) == heads_in(whole.folder)
    for name in ("held_out_folds.csv", "split.csv", "metrics.json"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.folder.iterdir()}
    assert Predictor(folder).manifest == whole.manifest


# Killed and taken up again


def test_a_run_killed_in_a_fold_goes_on_to_the_same_heads(command: Command, unfinished: Path, whole: Predictor) -> None:
    before = epochs(unfinished, "fold_0/member_0/")
    code, err = command("--resume", unfinished)
    assert code == 0, err
    assert_as_uninterrupted(unfinished, whole)
    # it went on with the last finished epoch: at most the one that was being saved is there twice
    assert 3 <= before < 20 <= epochs(unfinished, "fold_0/member_0/") <= 21


def test_a_run_killed_in_the_final_fit_goes_on_to_the_same_heads(
    command: Command, table: Path, tmp_path: Path, whole: Predictor
) -> None:
    folder = tmp_path / "run"
    running = start("train", *overrides("mlp", table, folder, *LONG))
    stop_when(running, lambda: epochs(folder, "") >= 3, signal.SIGKILL)
    finished_folds = {path.name: path.stat().st_mtime_ns for path in (folder / "folds").iterdir()}
    assert set(finished_folds) == {"fold_0.parquet", "fold_1.parquet"}
    logged = epochs(folder, "fold_1/member_0/")
    code, err = command("--resume", folder)
    assert code == 0, err
    assert "fold 1 of 2" not in err
    assert epochs(folder, "fold_1/member_0/") == logged == 20
    assert_as_uninterrupted(folder, whole)


def test_a_run_that_broke_off_while_it_was_judged_goes_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Predictor
) -> None:
    config = configured("mlp", table, tmp_path / "run", *LONG, "split.folds=0")

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "assess_run", fails)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert (config.output / "predictor.json").is_file()
    with pytest.raises(ConfigError, match="--resume"):
        train(config)
    assert heads_in(train(config, resume=True).folder) == heads_in(whole.folder)
    assert (config.output / "metrics.json").is_file()


def test_an_unfinished_run_is_not_overwritten_by_a_new_one(command: Command, unfinished: Path, table: Path) -> None:
    before = content(unfinished)
    message = refused(command(*overrides("ridge", table, unfinished)))
    assert f"enzyme-stability train --resume {unfinished}" in message
    assert content(unfinished) == before


def test_a_run_is_not_resumed_with_other_data(command: Command, unfinished: Path, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table.read_text().replace("protein_7,", "protein_7b,"))
    before = content(unfinished)
    message = refused(command("--resume", unfinished, f"data.path={other}"))
    assert "data" in message
    assert "have changed" in message
    assert content(unfinished) == before


def test_a_run_is_resumed_with_the_same_data_from_elsewhere(
    command: Command, unfinished: Path, table: Path, tmp_path: Path, whole: Predictor
) -> None:
    shutil.copy(table, tmp_path / "table.csv")
    code, err = command("--resume", unfinished, f"data.path={tmp_path / 'table.csv'}", "threads=2")
    assert code == 0, err
    assert heads_in(unfinished) == heads_in(whole.folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [("seed=2", "seed"), ("head.dropout=0.4", "head.dropout"), ("split.folds=3", "split.folds"), ("head=ridge", None)],
)
def test_a_run_is_not_resumed_with_other_settings(
    command: Command, unfinished: Path, change: str, named: str | None
) -> None:
    before = content(unfinished)
    message = refused(command("--resume", unfinished, change))
    assert named is None or named in message
    assert content(unfinished) == before


def test_a_finished_run_is_said_to_be_finished_and_left_alone(command: Command, whole: Predictor) -> None:
    before = content(whole.folder)
    said: list[str] = []
    again = train(
        configured("mlp", Path(whole.manifest["training"]["config"]["data"]["path"]), whole.folder, *LONG),
        said.append,
        resume=True,
    )
    assert again.digest == whole.digest
    assert said == [f"the run in {whole.folder} is finished: there is nothing to go on with"]
    code, err = command("--resume", whole.folder)
    assert (code, err.count("is finished")) == (0, 1)
    assert content(whole.folder) == before


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_a_run_cannot_be_resumed(command: Command, folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert f"{folder} holds no run" in refused(command("--resume", tmp_path / folder))
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_multirun_cannot_be_resumed_as_a_whole(command: Command, unfinished: Path) -> None:
    assert "--multirun" in refused(command("--resume", unfinished, "--multirun"))


def test_a_damaged_checkpoint_is_named(command: Command, unfinished: Path) -> None:
    (checkpoint,) = unfinished.glob("checkpoints/fold_0/plain/member_0/last.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    code, err = command("--resume", unfinished)
    assert code == 2
    assert "last.ckpt cannot be read, delete it" in err.splitlines()[-1]


# Interrupted


def test_control_c_ends_with_130_and_says_how_to_go_on(
    command: Command, table: Path, tmp_path: Path, whole: Predictor
) -> None:
    folder = tmp_path / "a run"
    running = start("train", *overrides("mlp", table, folder, *LONG))
    code, err = stop_when(running, lambda: epochs(folder, "fold_0/member_0/") >= 2, signal.SIGINT)
    assert code == 130
    assert f"interrupted; to go on: enzyme-stability train --resume '{folder}'\n" in err
    code, err = command("--resume", folder)
    assert code == 0, err
    assert_as_uninterrupted(folder, whole)


def test_control_c_before_there_is_anything_to_keep_gives_no_such_advice(
    command: Command, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "encode", interrupt)
    code, err = command(*overrides("mlp", table, tmp_path / "run"))
    assert code == 130
    assert "interrupted\n" in err
    assert "--resume" not in err


# Disks


def on_a_disk(options: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run 'train' where ``folder`` is a disk of its own, seen by that command alone."""
    folder.mkdir()
    mount = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o {options} none "$0" && exec "$@"', str(folder))
    try:
        subprocess.run([*mount, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk cannot be mounted here")
    return finish(start("train", *arguments, before=mount))


@pytest.mark.parametrize(("head", "size"), [("mlp", "12k"), ("mlp", "40k"), ("ridge", "100k"), ("ridge", "160k")])
def test_a_full_disk_is_one_sentence(head: str, size: str, table: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    arguments = overrides(head, table, disk / "run")
    code, err = on_a_disk(f"size={size}", disk, *arguments)
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert str(disk / "run") in last
    assert "No space left on device" in last
    assert err.count("error: ") == 1


def test_a_disk_that_cannot_be_written_to_is_one_sentence(table: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    message = refused(on_a_disk("size=1m,ro", disk, *overrides("ridge", table, disk / "run")))
    assert str(disk / "run") in message
    assert "Read-only" in message


def test_files_of_another_making_are_not_deleted(table: Path, tmp_path: Path) -> None:
    for name in ("plots", "checkpoints", "metrics.csv"):
        folder = tmp_path / f"with {name}"
        mine = folder / name / "mine.txt" if "." not in name else folder / name
        mine.parent.mkdir(parents=True)
        mine.write_text("kept")
        with pytest.raises(ConfigError, match=f"holds {name}"):
            train(configured("ridge", table, folder))
        assert mine.read_text() == "kept"
        assert list(content(folder)) == [str(mine.relative_to(folder))]


def test_other_files_in_the_folder_survive_run_after_run(table: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("kept")
    for seed in (1, 2):
        train(configured("ridge", table, tmp_path / "run", f"seed={seed}"))
    assert (tmp_path / "run" / "notes.txt").read_text() == "kept"


# Copied elsewhere


@pytest.mark.parametrize("address", ["file", "memory"])
def test_a_run_goes_on_from_its_mirror(
    address: str, table: Path, tmp_path: Path, whole: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MIRROR_EVERY_S", 0.0)
    url = (tmp_path / "mirror").as_uri() if address == "file" else f"memory://mirrors/{tmp_path.name}"
    config = configured("mlp", table, tmp_path / "run", *LONG, f"mirror={url}")
    tell = training.Tracker.metrics

    def lost(tracker: training.Tracker, values: dict[str, float], step: int | None = None) -> None:
        tell(tracker, values, step)
        if step == 4 and any(name.startswith("fold_1/") for name in values):
            raise MemoryError  # stands for a machine that is gone

    with monkeypatch.context() as patched:
        patched.setattr(training.Tracker, "metrics", lost)
        with pytest.raises(MemoryError):
            train(config)
    shutil.rmtree(config.output)
    elsewhere = tmp_path / "another machine"
    assert Mirror.restore(url, elsewhere) > 0
    assert (elsewhere / "folds" / "fold_0.parquet").is_file()
    again = train(config.model_copy(update={"output": elsewhere}), resume=True)
    assert heads_in(again.folder) == heads_in(whole.folder)
    fs, root = fsspec.url_to_fs(url)
    there = {
        str(Path(name).relative_to(root.lstrip("/") if address == "memory" else root)) for name in _found(fs, root)
    }
    assert {name for name in there if not name.startswith("checkpoints/")} == set(content(elsewhere))


def _found(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    return [name.lstrip("/") if fs.protocol == "memory" else name for name in fs.find(root)]


def test_a_mirror_that_cannot_be_is_refused_at_once(command: Command, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for url in (f"mirror={(folder / 'copy').as_uri()}", "mirror=gopher://x/y"):
        message = refused(command(*overrides("ridge", table, folder, url)))
        assert url.removeprefix("mirror=") in message
    assert train(configured("ridge", table, folder)).name == "run"  # what was refused does not stand in the way


def test_settings_of_the_folder_are_complete(unfinished: Path) -> None:
    settings = yaml.safe_load((unfinished / "config.yaml").read_text())
    assert settings["trainer"]["max_epochs"] == 20
    assert os.path.isabs(settings["output"])  # noqa: PTH117 - as it was given
