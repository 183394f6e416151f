"""How the service begins, ends and comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from running_service import LYSOZYME, Running, figure, finished, served, start, until

from enzyme_stability import Predictor, cli
from enzyme_stability.variants.model import DeltaTmModel

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

ONE = {"records": [{"sequence": LYSOZYME}]}


def proteins(count: int) -> dict[str, str]:
    """Lysozymes of different lengths."""
    return {f"protein_{k}": LYSOZYME[k % 50 :] for k in range(count)}


def fasta(sequences: dict[str, str]) -> dict[str, bytes]:
    return {"file": "".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()).encode()}


def result(client: httpx.Client, job: str) -> list[tuple[str, float]]:
    """Names and melting temperatures."""
    lines = client.get(f"/v1/jobs/{job}/result", params={"format": "jsonl"}).raise_for_status().text.splitlines()
    return [(row["id"], row["tm_celsius"]) for row in map(json.loads, lines)]


def expected(builtin: Predictor, sequences: dict[str, str]) -> list[tuple[str, float | None]]:
    distinct = sorted(set(sequences.values()))
    known = {one: row.tm_celsius for one, row in zip(distinct, builtin.predict(distinct), strict=True)}
    return [(name, known[sequence]) for name, sequence in sequences.items()]


def errors_in(running: Running) -> list[str]:
    return [line for line in running.said.read_text().splitlines() if '"level": "error"' in line or "Traceback" in line]


# The end


def test_a_request_under_way_is_answered_before_the_service_ends(tmp_path: Path) -> None:
    with served("--database", f"sqlite:///{tmp_path / 'service.db'}") as running:
        body = {"records": [{"sequence": LYSOZYME * 8}] * 1500}
        with running.client as client, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, "/v1/predict", json=body)
            until(lambda: figure(client, "queue_requests") or answer.done())
            assert not answer.done()
            code = running.end()
            assert answer.result().status_code == 200
            assert len(answer.result().json()["predictions"]) == 1500
            with pytest.raises(httpx.ConnectError):
                client.get("/healthz")
        assert code in {0, -signal.SIGTERM}
        assert not errors_in(running)
    with sqlite3.connect(tmp_path / "service.db") as database:  # nothing of what was answered is left unlogged
        assert database.execute("SELECT count(*) FROM predictions").fetchone() == (1500,)


def test_the_interrupt_of_a_terminal_ends_it_without_an_error() -> None:
    with served("--database", "none") as running:
        assert running.end(signal.SIGINT) == 0
        assert not errors_in(running)


def test_an_answer_that_takes_too_long_is_cut_off_at_the_end_of_the_patience() -> None:
    with served("--database", "none", "--set", "drain_timeout_s=0.5") as running:
        body = json.dumps({"records": [{"sequence": LYSOZYME * 50}] * 1200}).encode()
        with running.client as client, ThreadPoolExecutor(1) as pool:
            pool.submit(client.post, "/v1/predict", content=body)
            until(lambda: figure(client, "queue_requests"))
            began = time.monotonic()
            running.end()
            assert time.monotonic() - began < 20


# Coming back


def test_a_job_survives_the_process_that_works_on_it(tmp_path: Path, builtin: Predictor) -> None:
    file = tmp_path / "service.db"
    many = proteins(6_000)
    first = start("--database", f"sqlite:///{file}")
    try:
        with first.client as client:
            job = client.post("/v1/jobs", files=fasta(many)).raise_for_status().json()["id"]
            until(lambda: client.get(f"/v1/jobs/{job}").json()["finished"] > 0)
    finally:
        first.kill()
    with sqlite3.connect(file) as database:
        state, finished_there = database.execute("SELECT state, finished FROM jobs").fetchone()
        assert state == "running"
        assert 0 < finished_there < len(many)
        database.execute("UPDATE jobs SET claimed_until = '2000-01-01 00:00:00.000000'")  # instead of waiting for it
    database.close()
    with served("--database", f"sqlite:///{file}") as second, second.client as client:
        assert finished(client, job) | {"finished": len(many), "state": "done"} == finished(client, job)
        assert result(client, job) == expected(builtin, many)
        assert not errors_in(second)


def test_a_job_is_handed_over_at_once_when_the_service_ends_as_it_should(tmp_path: Path, builtin: Predictor) -> None:
    url = f"sqlite:///{tmp_path / 'service.db'}"
    many = proteins(6_000)
    with served("--database", url) as first, first.client as client:
        job = client.post("/v1/jobs", files=fasta(many)).raise_for_status().json()["id"]
        until(lambda: client.get(f"/v1/jobs/{job}").json()["finished"] > 0)
        first.end()
        assert not errors_in(first)
    with served("--database", url) as second, second.client as client:
        assert finished(client, job)["state"] == "done"
        assert result(client, job) == expected(builtin, many)


# Several workers


def test_two_workers_share_the_requests_the_jobs_and_the_metrics(tmp_path: Path, builtin: Predictor) -> None:
    counted = 'requests_total{method="POST",route="/v1/predict",status="200"}'

    with served("--workers", "2", "--database", f"sqlite:///{tmp_path / 'service.db'}") as running:

        def workers() -> list[psutil.Process]:
            children = [one for one in running.process.children() if one.status() != psutil.STATUS_ZOMBIE]
            return [one for one in children if "spawn_main" in " ".join(one.cmdline())]

        def ask(_: int) -> int:
            with running.client as client:
                return client.post("/v1/predict", json=ONE).status_code

        pair = until(lambda: two if len(two := workers()) == 2 else None)
        with running.client as client, ThreadPoolExecutor(8) as pool:
            many = proteins(3_000)
            jobs = [client.post("/v1/jobs", files=fasta(many)).raise_for_status().json()["id"] for _ in range(3)]
            assert set(pool.map(ask, range(60))) == {200}
            until(lambda: figure(client, counted) == 60)
            for job in jobs:
                assert finished(client, job)["finished"] == len(many)
                assert result(client, job) == expected(builtin, many)
            seen = client.get("/metrics").text
            assert all(f'pid="{one.pid}"' in seen for one in pair)

            pair[0].kill()
            assert set(pool.map(ask, range(20))) >= {200}
            until(lambda: len(workers()) == 2 and pair[0].pid not in {one.pid for one in workers()})
            assert set(pool.map(ask, range(20))) == {200}
            assert figure(client, counted) >= 80
        began = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - began < 20
        assert not [one for one in pair if one.is_running()]


# The beginning


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str | Path) -> str:
    """The sentence with which ``serve`` ends at once."""
    monkeypatch.setattr(sys, "argv", ["enzyme-stability", "serve", "--threads", "1", "--port", "0", *map(str, options)])
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.alarm(30)  # a service that begins after all would not end by itself
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(monkeypatch, capsys, "--database", "none", "--port", str(port), "--workers", workers)
    assert f"port {port}: Address already in use" in said


def test_what_is_wrong_with_the_settings_is_said_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], builtin: Predictor
) -> None:
    def damaged(name: str, folder: Path, pattern: str) -> Path:
        shutil.copytree(folder, tmp_path / name)
        file = next((tmp_path / name).glob(pattern))
        file.write_bytes(file.read_bytes()[:-9])
        return tmp_path / name

    changes = DeltaTmModel.load("delta_tm").folder
    for options, words in (
        (("--model", damaged("head", builtin.folder, "*plain.onnx")), "is damaged"),
        (("--model", damaged("growth", builtin.folder, "*temperature.onnx")), "is damaged"),
        (("--model", damaged("manifest", builtin.folder, "*.json")), "predictor.json"),
        (("--delta-tm-model", damaged("changes", changes, "*.json")), "delta_tm.json"),
        (("--model", tmp_path / "nowhere"), "nowhere"),
        (("--keys", tmp_path / "no_keys.json"), "no_keys.json does not exist"),
        (("--database", "mysql://u:secret@host/x"), "not supported"),
        (("--database", "no url"), "no URL"),
        (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
        (("--log-level", "loud"), "loud"),
        (("--set", "most_records"), "most_records"),
    ):
        given = options if "--database" in options else (*options, "--database", "none")
        said = refused(monkeypatch, capsys, *given)
        assert words in said, said
        assert "secret" not in said


def test_the_port_may_come_from_the_environment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with served("--database", "none", PORT=str(port)) as running:
        assert running.port == port
        with running.client as client:
            assert client.post("/v1/predict", json=ONE).status_code == 200
            assert "server" not in client.get("/healthz").headers


def test_requests_that_come_at_once_after_the_start_are_answered(tmp_path: Path) -> None:
    with served("--database", f"sqlite:///{tmp_path / 'new' / 'service.db'}") as running, running.client as client:
        job = client.post("/v1/jobs", json=ONE)
        assert job.status_code == 202
        assert finished(client, job.json()["id"])["state"] == "done"
