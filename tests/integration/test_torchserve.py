"""Exported predictors inside a real TorchServe answer as they do here, row for row."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from enzyme_stability import Predictor
from enzyme_stability.cli import main
from enzyme_stability.configuration import compose
from enzyme_stability.prediction import COLUMNS
from enzyme_stability.training import train
from tiny_models import WIDTH, save_tiny_model

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="TorchServe needs Java")

PATIENCE_S = 90.0
BATCH = 4


@pytest.fixture(scope="module")
def on_embeddings(tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame) -> Iterator[Predictor]:
    """A predictor on the embeddings of a tiny language model, trained here."""
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENZYME_STABILITY_STORE", str(folder / "store"))
        patched.setenv("HF_HUB_OFFLINE", "1")
        model = save_tiny_model("esm2", folder / "tiny", width=WIDTH, layers=1)
        made_up_proteins[:220].to_csv(folder / "table.csv", index=False)
        settings = {
            "data.path": f'"{folder / "table.csv"}"',
            "head": "ridge",
            "head.inner_folds": 3,
            "encoder": "language_model",
            "encoder.model": f'"{model}"',
            "encoder.device": "cpu",
            "split.calibration_share": 0.4,
            "split.folds": 0,
            "output": f'"{folder / "run"}"',
        }
        yield train(compose([f"{name}={value}" for name, value in settings.items()]))


@pytest.fixture(scope="module")
def address(on_embeddings: Predictor) -> Iterator[str]:
    """A server with the built-in predictor, which takes requests in batches, and the one on embeddings."""
    with ExitStack() as at_end:
        # Not the folder of the test: TorchServe keeps a socket in it, whose path must be short.
        folder = Path(at_end.enter_context(tempfile.TemporaryDirectory(prefix="ts")))
        for model, name in (("builtin", "builtin"), (str(on_embeddings.folder), "on_embeddings")):
            run("export", model, "--format", "torchserve", "--output", str(folder / "store"), "--name", name)
        inference, management, metrics = free_ports(3)
        settings = {
            "inference_address": f"http://127.0.0.1:{inference}",
            "management_address": f"http://127.0.0.1:{management}",
            "metrics_address": f"http://127.0.0.1:{metrics}",
            "enable_model_api": "true",
            "disable_system_metrics": "true",
        }
        (folder / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        server = at_end.enter_context(_started(folder))
        wait_for(f"http://127.0.0.1:{inference}/ping", server, folder)
        for archive, size in (("builtin.mar", BATCH), ("on_embeddings.mar", 1)):
            query = f"url={archive}&batch_size={size}&max_batch_delay=2000&initial_workers=1&synchronous=true"
            added = httpx.post(f"http://127.0.0.1:{management}/models?{query}", timeout=PATIENCE_S)
            assert added.status_code == 200, (added.text, log(folder))
        yield f"http://127.0.0.1:{inference}/predictions"


class _started:  # noqa: N801 - reads as a sentence
    """TorchServe in a process group of its own, all of which ends with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> subprocess.Popen[bytes]:
        store, config = str(self._folder / "store"), str(self._folder / "config.properties")
        options = ["--start", "--foreground", "--disable-token-auth", "--ncs", "--model-store", store]
        own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._folder)) | {"TS_CONFIG_FILE": config}
        with (self._folder / "log").open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ts.model_server", *options],
                cwd=self._folder,
                stdout=out,
                stderr=out,
                env=os.environ | own | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self._process

    def __exit__(self, *_: object) -> None:
        # Java and its workers are in the group; asked politely they take seconds, and there is nothing to keep.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)


def run(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["enzyme-stability", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code


def free_ports(count: int) -> list[int]:
    with ExitStack() as at_end:
        sockets = [at_end.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(url: str, server: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(url, timeout=5)
            return
        time.sleep(0.1)
    raise AssertionError(log(folder))


def log(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-5000:]


def post(url: str, body: bytes) -> tuple[int, Any]:
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=PATIENCE_S)
    return answer.status_code, answer.json()


def ask(address: str, name: str, instances: list[Any]) -> list[dict[str, Any]]:
    status, content = post(f"{address}/{name}", json.dumps({"instances": instances}).encode())
    assert status == 200, content
    rows: list[dict[str, Any]] = content["predictions"]
    return rows


def as_json(rows: list[Any]) -> list[dict[str, Any]]:
    return [{name: asdict(row)[name] for name in COLUMNS} for row in rows]


def test_sequences_get_the_rows_of_predict(address: str, builtin: Predictor, odd_sequences: list[str]) -> None:
    sequences = [*odd_sequences[:40], "MK1"]
    assert ask(address, "builtin", sequences) == as_json(builtin.predict(sequences))


def test_requests_that_come_together_get_their_own_rows(
    address: str, builtin: Predictor, odd_sequences: list[str]
) -> None:
    asked = [odd_sequences[k : k + k + 1] for k in range(1, BATCH)]
    bodies = [json.dumps({"data": sequences}).encode() for sequences in asked] + [b"no JSON"]
    with ThreadPoolExecutor(BATCH) as pool:
        *good, bad = pool.map(lambda body: post(f"{address}/builtin", body), bodies)
    assert good == [(200, {"predictions": as_json(builtin.predict(sequences))}) for sequences in asked]
    assert bad == (400, {"error": "the request is no JSON"})


def test_embeddings_and_sequences_get_the_rows_of_a_predictor_trained_on_embeddings(
    address: str, on_embeddings: Predictor, odd_sequences: list[str]
) -> None:
    vectors = np.random.default_rng(3).normal(size=(3, WIDTH)).astype(np.float32)
    names = [f"embedding_{k}" for k in (1, 2, 3)]
    expected = as_json(on_embeddings.predict_embeddings(names, vectors))
    assert ask(address, "on_embeddings", vectors.tolist()) == expected
    assert ask(address, "on_embeddings", odd_sequences[:3]) == as_json(on_embeddings.predict(odd_sequences[:3]))
