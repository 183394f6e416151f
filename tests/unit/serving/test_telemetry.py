"""Every request is counted once under its route, timed to its last byte and given an id."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enzyme_stability.errors import ArtifactError, ConfigError
from enzyme_stability.prediction import Prediction
from enzyme_stability.serving.telemetry import Measured, Telemetry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Figures:
    """What Prometheus would read."""

    def __init__(self, telemetry: Telemetry) -> None:
        text = telemetry.exposition()[0].decode()
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in plain_text(text)
            for sample in family.samples
        }

    def __call__(self, name: str, /, **labels: str) -> float | None:
        return self.samples.get((f"enzyme_stability_{name}", frozenset(labels.items())))

    def routes(self) -> set[tuple[str, str, str]]:
        """Route, method and status of what was asked."""
        labels = [dict(pairs) for name, pairs in self.samples if name == "enzyme_stability_requests_total"]
        return {(one["route"], one["method"], one["status"]) for one in labels}


def application() -> FastAPI:
    app = FastAPI()
    router = APIRouter()

    @router.get("/jobs/{job}/result")
    async def result(job: str) -> str:
        return job

    @app.get("/healthz")
    async def healthz() -> str:
        return "alive"

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("MKVLAARRWQ")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("two")

        return StreamingResponse(parts())

    @app.get("/afterwards")
    async def afterwards(tasks: BackgroundTasks) -> str:
        tasks.add_task(asyncio.sleep, 0.3)
        return "done"

    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(0.3)
            yield b"two"

        return StreamingResponse(parts())

    @app.get("/id")
    async def own_id(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.request_id, headers={"X-Request-ID": "made-by-the-endpoint"})

    async def asset(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("a page")(scope, receive, send)

    app.include_router(router, prefix="/v1")
    app.routes.append(Mount("/page", routes=[Route("/{name}", asset)]))
    return app


def ask(
    app: ASGIApp, *requests: tuple[str, str], headers: dict[str, str | bytes] | None = None
) -> list[httpx.Response]:
    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.request(method, path, headers=headers) for method, path in requests]

    return asyncio.run(all_of_them())


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def test_requests_are_counted_under_the_template_of_their_route(telemetry: Telemetry) -> None:
    app = Measured(application(), telemetry)
    paths = [f"/v1/jobs/{job}/result" for job in range(5)] + [f"/nowhere/{k}" for k in range(5)]
    ask(app, *(("GET", path) for path in paths), ("GET", "/page/a.css"), ("POST", "/v1/jobs/1/result"))
    figures = Figures(telemetry)
    assert figures("requests_total", route="/v1/jobs/{job}/result", method="GET", status="200") == 5
    assert figures("requests_total", route="unmatched", method="GET", status="404") == 5
    assert figures("requests_total", route="/v1/jobs/{job}/result", method="POST", status="405") == 1
    assert len(figures.routes()) == 4
    assert not any("a.css" in route for route, _, _ in figures.routes())


def test_methods_that_a_client_makes_up_share_a_label(telemetry: Telemetry) -> None:
    ask(Measured(application(), telemetry), ("SPY", "/healthz"), ("SPY2", "/healthz"))
    assert Figures(telemetry)("requests_total", route="/healthz", method="other", status="405") == 2


def test_a_request_refused_before_its_route_still_has_one(telemetry: Telemetry) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("too much", 429)(scope, receive, send)

    ask(
        Measured(refuse, telemetry, routes=["/v1/jobs/{job}", "/page/{asset:path}"]),
        ("GET", "/v1/jobs/7"),
        ("GET", "/page/a/b"),
        ("GET", "/v1/jobs/7/x"),
    )
    assert Figures(telemetry).routes() == {
        (route, "GET", "429") for route in ("/v1/jobs/{job}", "/page/{asset:path}", "unmatched")
    }


def test_an_answer_is_timed_to_its_last_byte_and_no_further(telemetry: Telemetry) -> None:
    ask(Measured(application(), telemetry), ("GET", "/slow"), ("GET", "/afterwards"))
    figures = Figures(telemetry)
    streamed, quick = (figures("request_seconds_sum", route=route) for route in ("/slow", "/afterwards"))
    assert streamed is not None
    assert quick is not None
    assert streamed > 0.25 > quick


@pytest.mark.parametrize("given", ["a-b_c.9", "x" * 64])
def test_a_request_keeps_the_id_it_comes_with(telemetry: Telemetry, given: str) -> None:
    (answer,) = ask(Measured(application(), telemetry), ("GET", "/id"), headers={"X-Request-ID": given})
    assert answer.headers.get_list("x-request-id") == [given]
    assert answer.text == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", 'a"', "é"])
def test_a_bad_id_is_replaced(telemetry: Telemetry, given: str) -> None:
    first, second = ask(
        Measured(application(), telemetry), ("GET", "/id"), ("GET", "/id"), headers={"X-Request-ID": given.encode()}
    )
    assert first.headers["x-request-id"] == first.text != second.text
    assert len(first.text) == 32


@pytest.fixture
def whole(telemetry: Telemetry) -> FastAPI:
    """The application with what Starlette puts around the middleware."""
    app = application()
    app.add_middleware(Measured, telemetry=telemetry)
    return app


def test_an_unforeseen_error_is_an_answer_without_its_reason(
    whole: FastAPI, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    (answer,) = ask(whole, ("GET", "/broken"))
    assert answer.status_code == 500
    assert answer.json()["error"]["kind"] == "internal"
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "MKVLAARRWQ" not in answer.text
    figures = Figures(telemetry)
    assert figures("requests_total", route="/broken", method="GET", status="500") == 1
    assert figures("errors_total", kind="internal") == 1
    assert [record.message for record in caplog.records if record.exc_info] == ["internal error"]


def test_an_answer_that_breaks_off_is_not_made_to_look_whole(whole: FastAPI, telemetry: Telemetry) -> None:
    with pytest.raises(ValueError, match="two"):
        ask(whole, ("GET", "/half"))
    figures = Figures(telemetry)
    assert figures("errors_total", kind="internal") == 1
    assert figures("request_seconds_count", route="/half") == 1


@pytest.mark.parametrize("path", ["/slow", "/id"])
def test_a_client_that_leaves_is_counted_as_gone(telemetry: Telemetry, path: str) -> None:
    """The first message the service gets is the disconnection, as for a client that closes while it waits."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if path == "/id":  # an endpoint that reads its body
            if (await receive())["type"] == "http.disconnect":
                raise RuntimeError("the client has gone")
        else:
            await application()(scope, receive, send)

    async def leave() -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
        await Measured(app, telemetry)(scope, receive, send)

    asyncio.run(leave())
    figures = Figures(telemetry)
    assert {status for _, _, status in figures.routes()} == {"499"}
    assert figures("errors_total", kind="internal") is None


def test_what_is_no_request_passes_unmeasured(telemetry: Telemetry) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], receive, send))

    async def nothing(*_: Any) -> Any: ...

    asyncio.run(Measured(app, telemetry)({"type": "lifespan"}, nothing, nothing))
    assert seen == [("lifespan", nothing, nothing)]
    assert Figures(telemetry).routes() == set()


def test_figures_of_the_service_are_those_it_was_told(telemetry: Telemetry) -> None:
    telemetry.set_model("first", "aa", "0.1.0")
    telemetry.set_model("second", "bb", "0.1.0")
    telemetry.set_queue(3, 900, 1000)
    telemetry.observe_batch(50, 100)
    telemetry.count_predictions(
        [
            Prediction("a", 40, 50.0, 45.0, 55.0, True, "ok", ""),
            Prediction("b", None, None, None, None, None, "error", "x"),
        ]
    )
    for total in (5, 9, 9):
        telemetry.set_prediction_log(written=total, dropped=1, failures=0, waiting=total)
    telemetry.set_jobs({"running": 2})
    telemetry.set_drift({"length": 0.3}, checked_at=1e9)
    telemetry.set_feedback(rows=12, mae_celsius=4.5, bias_celsius=-1.0, coverage=0.75, asked_coverage=0.9)
    figures = Figures(telemetry)
    assert figures("model_info", name="first", sha256="aa", version="0.1.0") == 0
    assert figures("model_info", name="second", sha256="bb", version="0.1.0") == 1
    assert [figures(f"queue_{name}") for name in ("requests", "residues", "limit_residues")] == [3, 900, 1000]
    assert figures("batch_fill_ratio_bucket", le="0.4") == 0
    assert figures("batch_fill_ratio_bucket", le="0.5") == 1
    assert figures("batch_residues_sum") == 50
    assert figures("residues_total") == 40
    assert [figures("sequences_total", status=status) for status in ("ok", "warning", "error")] == [1, 0, 1]
    assert [figures(f"prediction_log_{name}") for name in ("written_total", "dropped_total", "waiting")] == [9, 1, 9]
    assert [figures("jobs", state=state) for state in ("queued", "running")] == [0, 2]
    assert figures("drift_psi", quantity="length") == 0.3
    assert figures("drift_checked_timestamp") == 1e9
    assert figures("feedback_bias_celsius") == -1


def test_what_was_never_measured_is_no_number(telemetry: Telemetry) -> None:
    """A coverage of 0 would raise an alert."""
    assert math.isnan(Figures(telemetry)("feedback_coverage") or 0)
    telemetry.set_feedback(rows=0)
    assert Figures(telemetry)("feedback_rows") == 0
    assert math.isnan(Figures(telemetry)("feedback_mae_celsius") or 0)


def test_several_services_in_one_process_count_apart(telemetry: Telemetry) -> None:
    other = Telemetry()
    telemetry.errors.labels("x").inc()
    assert (Figures(telemetry)("errors_total", kind="x"), Figures(other)("errors_total", kind="x")) == (1, None)


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text;version=x"]
)
def test_openmetrics_is_spoken_where_it_is_asked_for(telemetry: Telemetry, accept: str) -> None:
    text, content_type = telemetry.exposition(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in open_metrics(text.decode())}
    assert {"enzyme_stability_residues", "process_cpu_seconds", "process_resident_memory_bytes"} <= names


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=x", "image/png"])
def test_plain_text_is_spoken_otherwise(telemetry: Telemetry, accept: str) -> None:
    assert telemetry.exposition(accept)[1].startswith("text/plain; version=0.0.4")


WORKER = """
import sys, time
from enzyme_stability.serving.telemetry import Telemetry
telemetry = Telemetry()
telemetry.errors.labels("x").inc(int(sys.argv[1]))
telemetry.set_queue(1, int(sys.argv[1]), 100)
telemetry.set_model("m", "aa", "0.1.0")
if sys.argv[2] == "tell":
    sys.stdout.buffer.write(telemetry.exposition()[0])
else:
    telemetry.set_feedback(rows=7, coverage=0.8)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_workers_add_up_and_a_dead_one_leaves_only_its_counts(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def told() -> Samples:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, "10", "tell"], env=environment, capture_output=True, text=True, check=True
        )
        families = list(plain_text(done.stdout))
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def of(samples: Samples, name: str, /, **labels: str) -> float | None:
        return samples.get((f"enzyme_stability_{name}", frozenset(labels.items())))

    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, "5", "wait"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        both = told()
        memory = {dict(labels)["pid"] for name, labels in both if name == "process_resident_memory_bytes"}
        worker.kill()
    one = told()
    assert (of(both, "errors_total", kind="x"), of(both, "queue_residues"), of(both, "queue_requests")) == (15, 15, 2)
    assert of(both, "model_info", name="m", sha256="aa", version="0.1.0") == 1
    assert (of(both, "feedback_coverage"), of(both, "feedback_mae_celsius")) == (
        0.8,
        pytest.approx(math.nan, nan_ok=True),
    )
    assert str(worker.pid) in memory
    assert len(memory) == 2
    assert (of(one, "errors_total", kind="x"), of(one, "queue_residues")) == (25, 10)


def test_a_folder_of_workers_that_cannot_be_used_is_explained(
    tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="names no folder"):
        Telemetry()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="too late"):
        Telemetry()
    monkeypatch.setattr(telemetry, "_folder", tmp_path / "absent")
    with pytest.raises(ArtifactError, match="start the service anew"):
        telemetry.exposition()
