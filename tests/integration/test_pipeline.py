"""The DVC pipeline: from a few hundred real proteins to a card, to a bucket and back, by DVC itself."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("dvc")

from dvc.cli import main as dvc_main
from dvc.cli import parse_args
from dvc.repo import Repo
from gcp_storage_emulator.server import Server, create_server

from enzyme_stability import Predictor

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "pipeline.md").read_text(encoding="utf-8")
ROWS = 500
STAGES = ["raw", "prepare", "split", "embed", "train", "evaluate", "card"]
QUICK: dict[str, Any] = {
    "split": {"calibration_share": 0.3, "folds": 2},
    "head": {
        "thresholds_celsius": [60],
        "inner_folds": 2,
        "ridges": [{"block_weights": {"amino_acids": 1}, "landmarks": 60}],
        "trees": {"trees": 20, "learning_rate": 0.1, "minimum_leaf_size": 8},
    },
}


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", "-C", str(folder), *author, *arguments], check=True, capture_output=True)


def console_commands() -> list[str]:
    """What the page has a reader type."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@contextmanager
def opened(folder: Path) -> Iterator[Repo]:
    """What a command of DVC given in this folder works on; relative paths count from there."""
    with chdir(folder), Repo() as repo:
        yield repo


def reproduce(folder: Path, **options: Any) -> list[str]:
    """The stages that were carried out, or would be."""
    with opened(folder) as repo:
        return [stage.name for stage in repo.reproduce(**options)]


def change_settings(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), changes), sort_keys=False))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(values[key], changes[key]) for key in changes if isinstance(values.get(key), dict)}
    return {**values, **changes, **both}


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """The commands of this installation are found, and nobody is asked for a newer DVC."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patched.setenv("CI", "1")
        yield


@pytest.fixture(scope="module")
def bucket() -> Iterator[Server]:
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.address = f"http://127.0.0.1:{port}"
    with server:
        yield server


@pytest.fixture(scope="module")
def raw(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first proteins of the real tables, laid out as all of them are."""
    folder = tmp_path_factory.mktemp("raw")
    shutil.copytree(data_root / "tm" / "tm50", folder / "tm" / "tm50", copy_function=shutil.copyfile)
    for name, rows in {"Tm50Train.csv": ROWS, "Tm50Test.csv": 100}.items():
        path = folder / "tm" / "tm50" / name
        path.chmod(0o644)
        path.write_text("".join(path.read_text("utf-8-sig").splitlines(keepends=True)[: rows + 1]))
    return folder


@pytest.fixture(scope="module")
def origin(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the pipeline's own files, quick settings and a link to the raw tables; nothing made yet."""
    folder = tmp_path_factory.mktemp("pipeline") / "origin"
    unwanted = shutil.ignore_patterns("__pycache__", "pretrained", "cache", "tmp", "config.local")
    for name in (".dvc", "deploy/pipeline", "src/enzyme_stability"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=unwanted)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    (folder / ".gitignore").open("a").write("/data\n")  # a link is no folder
    change_settings(folder, QUICK)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "pipeline")
    (folder / "data").symlink_to(raw)
    return folder


@pytest.fixture(scope="module")
def finished(origin: Path) -> Path:
    """The repository after the first run, which is committed."""
    assert reproduce(origin) == STAGES
    git(origin, "add", "dvc.lock")
    git(origin, "commit", "--quiet", "-m", "first run")
    return origin


def test_without_raw_tables_one_sentence_says_what_to_do(origin: Path, tmp_path: Path) -> None:
    git(origin, "clone", "--quiet", str(origin), str(tmp_path / "clone"))
    words = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(words, cwd=tmp_path / "clone", capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode
    (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "no raw tables in data/tm/tm50" in sentence
    assert "'dvc pull'" in sentence
    assert "'enzyme-stability data download NAME --root data'" in sentence
    assert "Traceback" not in said


def test_what_is_done_is_not_done_again(finished: Path) -> None:
    assert reproduce(finished) == []


def test_the_figures_are_those_of_the_evaluation(finished: Path) -> None:
    made = finished / "outputs" / "pipeline"
    with opened(finished) as repo:
        (shown,) = [file["data"] for file in repo.metrics.show()[""]["data"].values()]
        plotted = {str(Path(name)) for name in repo.plots.show()}
    full = json.loads((made / "evaluation" / "tm50_test.json").read_text())
    assert shown["tm50_test"]["mae"] == full["metrics"]["mae"]["value"]
    assert shown["tm50_test"]["coverage"] == full["intervals"]["overall"]["coverage"]["value"]
    assert shown["held_out_folds"].keys() == shown["tm50_test"].keys()
    assert plotted


def test_the_predictor_comes_with_a_card_and_an_account_of_its_data(finished: Path) -> None:
    made = finished / "outputs" / "pipeline" / "predictor"
    assert "DeepTM's test set" in (made / "CARD.md").read_text()
    assert Predictor.load(str(made)).manifest["training"]["data"]["raw_rows"] == ROWS


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"head": {"trees": {"leaves": 4}}}, ["train"]),
        ({"encoder": {"blocks": ["amino_acids", "whole_chain"]}}, ["embed", "train"]),
        ({"split": {"cluster_identity": 0.4}}, ["split", "train"]),
    ],
    ids=["head", "encoder", "split"],
)
def test_a_setting_puts_only_the_stages_out_of_date_that_it_is_for(
    finished: Path, changes: dict[str, Any], again: list[str]
) -> None:
    change_settings(finished, changes)
    try:
        assert reproduce(finished, dry=True) == again
    finally:
        git(finished, "checkout", "params.yaml")


def test_a_changed_head_is_trained_and_judged_anew_on_the_same_embeddings(finished: Path) -> None:
    change_settings(finished, {"head": {"trees": {"learning_rate": 0.2}}})
    try:
        assert reproduce(finished) == ["train", "evaluate", "card"]
        with opened(finished) as repo:
            settings = repo.params.diff()["diff"]["params.yaml"]
            figures = repo.metrics.diff()["diff"][str(Path("outputs/pipeline/metrics.json"))]
        assert settings == {"head.trees.learning_rate": {"old": 0.1, "new": 0.2, "diff": 0.1}}
        assert figures["tm50_test.mae"]["diff"] != 0
    finally:
        git(finished, "checkout", "params.yaml", "dvc.lock")
        with opened(finished) as repo:
            repo.checkout(force=True)


def test_a_bucket_gives_a_fresh_clone_all_that_was_made(finished: Path, bucket: Server, tmp_path: Path) -> None:
    (documented,) = [command for command in console_commands() if command.startswith("dvc remote add")]
    with chdir(finished):
        assert dvc_main(shlex.split(documented.replace("my-bucket", "bucket"))[1:]) == 0
    git(finished, "commit", "--quiet", "--all", "-m", "bucket")
    fresh = tmp_path / "clone"
    git(finished, "clone", "--quiet", str(finished), str(fresh))
    for folder in (finished, fresh):
        (folder / ".dvc" / "config.local").write_text(
            f"['remote \"bucket\"']\n    endpointurl = {bucket.address}\n    allow_anonymous_login = true\n"
        )
    with opened(finished) as repo:
        assert repo.push() > 0
    with opened(fresh) as repo:
        repo.pull()
    assert reproduce(fresh) == []
    for made in ("raw/tm/tm50/Tm50Train.csv", "embeddings.parquet", "predictor/predictor.json"):
        path = Path("outputs") / "pipeline" / made
        assert (fresh / path).read_bytes() == (finished / path).read_bytes()
    tracked = subprocess.run(["git", "-C", str(fresh), "ls-files"], capture_output=True, text=True, check=True).stdout
    assert not re.search("Tm50Train|^outputs|^data", tracked, re.MULTILINE)


@pytest.mark.parametrize("command", [line for line in console_commands() if line.startswith("dvc ")])
def test_every_documented_command_of_dvc_is_understood(command: str) -> None:
    parse_args(shlex.split(command, comments=True)[1:])  # ends the process on a misspelt option
