"""A run's curves reach every tracker, survive a crash, and never stand in the way of the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from enzyme_stability.config import Tracking
from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.tracking import Tracker

KEY = "0123456789abcdef" * 3
HYPERPARAMETERS = {"head": {"kind": "mlp", "learning_rate": 0.01}, "layers": [8, 4], "data": Path("a.csv"), "seed": 7}


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, no home folder with a netrc file, no waiting for servers that are not there."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "parity.png"
    Image.fromarray(np.full((6, 9, 3), 200, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def predictor(tmp_path: Path) -> Path:
    folder = tmp_path / "predictor"
    (folder / "heads").mkdir(parents=True)
    (folder / "predictor.json").write_text("{}")
    (folder / "heads" / "plain.onnx").write_bytes(b"graph")
    return folder


def track(folder: Path, said: list[str], **settings: Any) -> Tracker:
    return Tracker.open(Tracking(**settings), folder, "first", HYPERPARAMETERS, said.append)


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(folder / "metrics.csv")
    return [{name: value for name, value in row.items() if not pd.isna(value)} for row in table.to_dict("records")]


def curve(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Folder and reports of a run that all four trackers followed, offline although there is a key."""
    folder, said = tmp_path_factory.mktemp("all") / "a run", list[str]()
    image, model = folder.parent / "parity.png", folder.parent / "predictor" / "heads"
    Image.fromarray(np.full((6, 9, 3), 200, dtype=np.uint8)).save(image)
    model.mkdir(parents=True)
    (model / "plain.onnx").write_bytes(b"graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("HOME", str(folder.parent / "home"))
        settings = {"tensorboard": True, "wandb": True, "mlflow": True, "wandb_mode": "offline", "tags": ("plain",)}
        with track(folder, said, **settings) as tracker:
            tracker.metrics({"loss": 2.0}, 1)
            tracker.metrics({"loss": float("nan"), "mae": 5.5}, 2)
            tracker.picture("parity plot", image)
            (model.parent / "split.csv").write_text("secret")
            tracker.artefact(model.parent, [model / "plain.onnx"], "first predictor")
            tracker.summary({"test/mae": 4.25})
    return folder, said


def test_csv_has_a_row_for_each_step_and_the_final_figures(everywhere: tuple[Path, list[str]]) -> None:
    assert rows(everywhere[0]) == [{"step": 1, "loss": 2.0}, {"step": 2, "mae": 5.5}, {"test/mae": 4.25}]
    assert "2,nan,5.5," in (everywhere[0] / "metrics.csv").read_text()  # and no empty cell


def test_tensorboard_shows_curves_pictures_and_hyperparameters(everywhere: tuple[Path, list[str]]) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    runs = EventMultiplexer().AddRunsFromDirectory(str(everywhere[0] / "tensorboard")).Reload()
    (name,) = runs.Runs()  # the final figures are no run of their own
    events = runs.GetAccumulator(name)
    assert [(e.step, e.value) for e in events.Scalars("mae")] == [(2, 5.5)]
    assert np.isnan(events.Scalars("loss")[1].value)
    assert [(e.step, e.value) for e in events.Scalars("test/mae")] == [(2, 4.25)]
    (shown,) = events.Images("parity plot")
    assert (shown.step, shown.width, shown.height) == (2, 9, 6)
    text = events.Tensors("hyperparameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "head.learning_rate: 0.01" in text
    compared = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"head.learning_rate" in compared


@pytest.fixture(scope="module")
def wandb_records(everywhere: tuple[Path, list[str]]) -> list[dict[str, Any]]:
    """What would be uploaded to Weights & Biases."""
    (run,) = (everywhere[0] / "wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    read = subprocess.run(
        [wandb, "leet", "inspect", "--json", run],
        env=os.environ | {"HOME": str(everywhere[0].parent / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in read.stdout.splitlines()]


def texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def test_wandb_says_how_to_upload_a_run_that_is_kept_offline(everywhere: tuple[Path, list[str]]) -> None:
    (run,) = (everywhere[0] / "wandb").glob("offline-run-*")
    assert everywhere[1] == [f"Weights & Biases keeps the run offline; upload it with: wandb sync '{run}'"]


def test_wandb_has_curves_pictures_settings_and_the_predictor(wandb_records: list[dict[str, Any]]) -> None:
    history = [record["history"]["item"] for record in wandb_records if record["type"] == "history"]
    points = [(point.get("step"), point.get("loss"), point.get("mae")) for point in history[:2]]
    assert points == [(1, 2, None), (2, "NaN", 5.5)]
    (start,) = (record["run"] for record in wandb_records if record["type"] == "run")
    assert (start["display_name"], start["project"], start["tags"]) == ("first", "enzyme-stability", ["plain"])
    assert start["config"]["update"]["head.learning_rate"] == 0.01
    assert start["config"]["update"]["layers"] == "[8, 4]"
    updates = [record["summary"]["update"] for record in wandb_records if record["type"] == "summary"]
    summary = {name: value for update in updates for name, value in update.items()}
    assert (summary["test/mae"], summary["parity plot.width"]) == (4.25, 9)
    (artifact,) = (record["artifact"] for record in wandb_records if record["type"] == "artifact")
    assert (artifact["name"], artifact["type"]) == ("first-predictor", "model")
    assert [file["path"] for file in artifact["manifest"]["contents"]] == ["heads/plain.onnx"]
    assert wandb_records[-1]["exit"]["exit_code"] == 0


def test_wandb_learns_neither_the_machine_nor_the_program(wandb_records: list[dict[str, Any]]) -> None:
    said = set(texts(wandb_records))
    assert socket.gethostname() not in said
    assert [text for text in said if sys.argv[0] in text or str(Path.cwd()) in text] == []


def test_mlflow_has_curves_parameters_and_files(everywhere: tuple[Path, list[str]]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient((everywhere[0] / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("enzyme-stability")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["plain"]) == ("first", "FINISHED", "true")
    assert run.data.params["head.learning_rate"] == "0.01"
    assert curve(client, run, "mae") == [(2, 5.5)]
    assert np.isnan(curve(client, run, "loss")[1][1])
    assert curve(client, run, "test/mae") == [(2, 4.25)]
    files = {
        file.path
        for path in ("pictures", "first predictor/heads")
        for file in client.list_artifacts(run.info.run_id, path)
    }
    assert files == {"pictures/parity plot.png", "first predictor/heads/plain.onnx"}


def test_no_file_holds_the_key(everywhere: tuple[Path, list[str]]) -> None:
    folder = everywhere[0].parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_wandb_without_a_key_goes_offline_and_a_resumed_run_keeps_its_id(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    for _ in range(2):
        with track(tmp_path / "run", said, wandb=True, csv=False) as tracker:
            tracker.metrics({"loss": 1.0}, 1)
    assert [sentence.split(";")[0] for sentence in said] == [
        "Weights & Biases keeps the run offline for want of a key (WANDB_API_KEY)"
    ] * 2
    parts = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")]
    assert len(parts) == 2
    assert len(set(parts)) == 1  # each is named after the run's id
    assert capfd.readouterr() == ("", "")


def test_a_resumed_mlflow_run_goes_on_with_its_curves(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    said: list[str] = []
    for step in (1, 2):
        with track(tmp_path, said, mlflow=True, csv=False, project="resumed") as tracker:
            tracker.metrics({"loss": float(step)}, step)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("resumed").experiment_id])
    assert curve(client, run, "loss") == [(1, 1.0), (2, 2.0)]
    assert run.info.status == "FINISHED"
    assert said == []


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
def test_a_run_that_breaks_off_is_marked(tmp_path: Path, error: type[BaseException], status: str) -> None:
    from mlflow import MlflowClient

    with pytest.raises(error), track(tmp_path, [], mlflow=True):
        raise error
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("enzyme-stability").experiment_id])
    assert run.info.status == status


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_every_row_survives_a_kill(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from enzyme_stability.config import Tracking
from enzyme_stability.tracking import Tracker
tracker = Tracker.open(Tracking(), Path(sys.argv[1]), "killed", {}, print)
for step in range(5):
    tracker.metrics({"loss": step / 2}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert rows(tmp_path) == [{"step": step, "loss": step / 2} for step in range(5)]


def test_a_tracker_that_breaks_is_reported_once_and_the_others_go_on(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    said: list[str] = []
    with track(tmp_path, said, mlflow=True) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        (tmp_path / "metrics.csv").unlink()
        (tmp_path / "metrics.csv").mkdir()
        tracker.metrics({"loss": 0.5}, 2)
        tracker.metrics({"loss": 0.25}, 3)
    assert len(said) == 1
    assert said[0].startswith("CSV is switched off for the rest of the run: ")
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("enzyme-stability").experiment_id])
    assert curve(client, run, "loss") == [(1, 1.0), (2, 0.5), (3, 0.25)]


@pytest.fixture
def failing_server() -> Iterator[str]:
    """Address of a server that answers 500 to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET  # noqa: N815 - the name that http.server asks for

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_fails_costs_its_own_curves(tmp_path: Path, failing_server: str) -> None:
    said: list[str] = []
    with track(tmp_path, said, mlflow=True, mlflow_uri=failing_server) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert [sentence.partition(":")[0] for sentence in said] == ["MLflow does not track this run"]
    assert "\n" not in said[0]
    assert rows(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_a_server_that_is_not_there_is_given_up_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said: list[str] = []
    uri = f"http://127.0.0.1:{port}/{KEY}"
    with track(tmp_path, said, mlflow=True, mlflow_uri=uri) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert len(said) == 1
    assert f"127.0.0.1:{port}/***" in said[0]
    assert KEY not in said[0]


def test_wandb_that_cannot_be_reached_costs_its_own_curves(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    program = """
import sys
from pathlib import Path
from enzyme_stability.config import Tracking
from enzyme_stability.tracking import Tracker
with Tracker.open(Tracking(wandb=True), Path(sys.argv[1]), "lonely", {}, print) as tracker:
    tracker.metrics({"loss": 1.0}, 1)
"""
    environment = os.environ | {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": address, "WANDB_INIT_TIMEOUT": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    (sentence,) = ended.stdout.splitlines()
    assert sentence.startswith("Weights & Biases does not track this run: ")
    assert ended.stderr == ""
    assert rows(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_a_folder_that_cannot_be_made_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    said: list[str] = []
    with track(tmp_path / "run", said, wandb=True, mlflow=True) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert len(said) == 1
    assert said[0].startswith("the run is not tracked:")


def test_a_picture_or_folder_that_is_missing_switches_nothing_off(
    tmp_path: Path, picture: Path, predictor: Path
) -> None:
    said: list[str] = []
    picture.write_bytes(picture.read_bytes()[:40])
    tracker = track(tmp_path / "run", said)
    tracker.picture("parity", picture)
    tracker.picture("parity", tmp_path / "none.png")
    tracker.artefact(tmp_path, [tmp_path / "none"], "predictor")
    tracker.artefact(predictor, sorted(predictor.rglob("*.onnx")), "predictor")
    tracker.metrics({"loss": 1.0}, 1)
    assert [sentence.partition(":")[0] for sentence in said] == [
        f"the picture {picture} is not tracked",
        f"the picture {tmp_path / 'none.png'} is not tracked",
        "the predictor is not tracked",
    ]
    assert rows(tmp_path / "run") == [{"step": 1, "loss": 1.0}]


def test_a_missing_package_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[track\]"):
        track(tmp_path / "run", [], wandb=True)
    assert not (tmp_path / "run").exists()


def test_a_silent_tracker_takes_everything_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracker.silent() as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        tracker.picture("parity", tmp_path / "none.png")
        tracker.artefact(tmp_path, [tmp_path / "none"], "predictor")
        tracker.summary({"mae": 5.0})
    assert list(tmp_path.iterdir()) == []
