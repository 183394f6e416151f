"""Predictors that were pushed somewhere and pulled from there."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("gcsfs")

from fsspec.implementations.memory import MemoryFileSystem
from gcp_storage_emulator.server import create_server

from enzyme_stability import Predictor, remote
from enzyme_stability.artefacts import pull, push
from enzyme_stability.cli import artefacts as commands
from enzyme_stability.errors import ArtifactError
from enzyme_stability.storage import put_folder

SEQUENCES = ["MKVLAARRWQEIDNNPGSTYYKLV" * 4, "MSTNQWERTYIPASDFGHKLCVNM" * 7]


@pytest.fixture(scope="module")
def tm50() -> Predictor:
    return Predictor.builtin("tm50", threads=1)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    with create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
        yield "gs://bucket"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))
    MemoryFileSystem.store.clear()
    yield "memory://shelf"
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("shelf", ["bucket", "memory", "tmp_path"])
def test_a_predictor_answers_the_same_after_a_journey(shelf, tm50, tmp_path, request):
    url = f"{request.getfixturevalue(shelf)}/models/tm50"
    assert push(tm50.folder, url).digest == tm50.digest
    back = pull(url, tmp_path / "back")
    assert back.folder == tmp_path / "back"
    assert back.digest == tm50.digest
    for growth in (None, 62.0):
        assert back.predict(SEQUENCES, growth_temperature=growth) == tm50.predict(SEQUENCES, growth_temperature=growth)


def test_a_built_in_predictor_is_known_by_its_name(tm50, tmp_path):
    push("tm50", tmp_path / "pushed")
    assert pull("tm50", tmp_path / "pulled").digest == Predictor(tmp_path / "pushed").digest == tm50.digest


def test_the_readme_is_the_card_below_the_facts_a_hub_reads(memory, tm50, tmp_path):
    yaml = pytest.importorskip("yaml")
    model = tmp_path / "model"
    shutil.copytree(tm50.folder, model)
    manifest = json.loads((model / "predictor.json").read_text())
    (model / "predictor.json").write_text(json.dumps(manifest | {"name": 'my "hot": model # é'}))
    push(model, f"{memory}/model")
    _, front, card = (
        pull(f"{memory}/model", tmp_path / "back").folder.joinpath("README.md").read_text().split("---\n", 2)
    )
    assert yaml.safe_load(front) == {
        "library_name": "enzyme-stability",
        "license": "mit",
        "model_name": 'my "hot": model # é',
        "tags": ["protein", "thermostability"],
    }
    assert card.strip() == (tm50.folder / "CARD.md").read_text().strip()
    push(tmp_path / "back", f"{memory}/again")
    assert MemoryFileSystem.store["/shelf/again/README.md"].getvalue().count(b"library_name") == 1


def test_the_data_of_the_run_stay_at_home(memory, tm50, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tm50.folder, run)
    (run / "checkpoints").mkdir()
    for name in ("split.csv", "held_out_folds.csv", "environment.json", ".hidden", "checkpoints/last.ckpt"):
        (run / name).write_text("measured by us")
    push(run, memory)
    kept = {path.relative_to(folder).as_posix() for folder in [pulled(memory, tmp_path)] for path in folder.rglob("*")}
    assert kept == {"predictor.json", "CARD.md", "README.md", *(path.name for path in tm50.folder.glob("*.onnx"))}


def pulled(url: str, tmp_path: Path) -> Path:
    return pull(url, tmp_path / "pulled").folder


def test_a_folder_without_a_predictor_is_not_pushed(memory, tm50, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match=r"notes is not a predictor: it has no predictor\.json"):
        push(tmp_path / "notes", f"{memory}/model")
    shutil.copytree(tm50.folder, tmp_path / "half")
    (tmp_path / "half" / "head_plain.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"head_plain\.onnx is missing: the predictor is incomplete"):
        push(tmp_path / "half", f"{memory}/model")
    assert dict(MemoryFileSystem.store) == {}


def test_a_push_that_broke_off_is_not_taken_for_a_predictor(bucket, tm50, tmp_path):
    shutil.copytree(tm50.folder, tmp_path / "half", ignore=shutil.ignore_patterns("predictor.json"))
    put_folder(tmp_path / "half", f"{bucket}/model")
    with pytest.raises(ArtifactError, match=r"no predictor was taken over: gs://bucket/model is not a predictor"):
        pull(f"{bucket}/model", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_damaged_predictor_does_not_take_the_place_of_a_good_one(memory, tm50, tmp_path):
    push(tm50.folder, f"{memory}/model")
    pull(f"{memory}/model", tmp_path / "back")
    head = MemoryFileSystem.store["/shelf/model/head_with_growth_temperature.onnx"]
    MemoryFileSystem().pipe_file("/shelf/model/head_with_growth_temperature.onnx", head.getvalue()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"memory://shelf/model/head_with_growth_temperature\.onnx is damaged"):
        pull(f"{memory}/model", tmp_path / "back")
    assert Predictor(tmp_path / "back").predict(SEQUENCES) == tm50.predict(SEQUENCES)
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_a_fine_tuned_predictor_without_its_adapter_is_not_pushed(memory, tm50, tmp_path):
    copy = tmp_path / "tuned"
    shutil.copytree(tm50.folder, copy)
    manifest = json.loads((copy / "predictor.json").read_text())
    manifest["encoder"]["adapter"] = "0" * 64
    (copy / "predictor.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="adapter"):
        push(copy, f"{memory}/model")
    (copy / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (copy / "adapter" / name).write_text("another")
    with pytest.raises(ArtifactError, match="checksum"):
        push(copy, f"{memory}/model")
    assert MemoryFileSystem.store == {}


@pytest.mark.parametrize("file", ["../outside.onnx", "/outside.onnx"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(memory, tm50, tmp_path, file):
    shutil.copytree(tm50.folder, tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "predictor.json").read_text())
    manifest["heads"]["plain"]["file"] = file
    (tmp_path / "model" / "predictor.json").write_text(json.dumps(manifest))
    put_folder(tmp_path / "model", f"{memory}/model")
    with pytest.raises(ArtifactError, match=r"predictor\.json names a file outside of the folder"):
        pull(f"{memory}/model", tmp_path / "back")


def test_the_commands_say_what_is_where(memory, tm50, tmp_path):
    app = typer.Typer()
    app.command()(commands.push)
    app.command()(commands.pull)
    pushed = CliRunner().invoke(app, ["push", "tm50", f"{memory}/model"])
    pulled = CliRunner().invoke(app, ["pull", f"{memory}/model", str(tmp_path / "back")])
    assert (pushed.exit_code, pulled.exit_code) == (0, 0)
    assert pushed.stderr == f"tm50 is at memory://shelf/model (SHA-256 of its manifest: {tm50.digest[:12]})\n"
    assert pulled.stderr == f"tm50 is in {tmp_path / 'back'} (SHA-256 of its manifest: {tm50.digest[:12]})\n"
    assert Path(tmp_path / "back" / "predictor.json").is_file()
