"""What the service tells of a request, in lines and in spans: enough to find it again, nothing of what it asked."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import ASGIApp

from enzyme_stability.errors import ConfigError, MissingDependencyError
from enzyme_stability.serving.logs import LEVELS, REQUEST_ID, JsonFormatter, log_config
from enzyme_stability.serving.telemetry import Measured, Telemetry
from enzyme_stability.serving.tracing import ENDPOINT, NoTracer, OpenTelemetryTracer, Tracer, tracer

CHAIN = "MKVLAARRWQ" * 6
KEY = "es_" + "k" * 43


def line(message: str, *args: object, private: bool = False, **more: Any) -> dict[str, Any]:
    """A record as it is written, read again."""
    record = logging.LogRecord("enzyme_stability.x", logging.INFO, "x.py", 1, message, args, more.pop("exc_info", None))
    record.__dict__.update(more)
    text = JsonFormatter(sequences=private).format(record)
    assert text.isascii()
    assert len(text.splitlines()) == 1
    read: dict[str, Any] = json.loads(text)
    return read


def caught(error: Exception, cause: Exception | None = None) -> tuple[type, Exception, Any]:
    try:
        raise error from cause
    except type(error) as raised:
        return type(raised), raised, raised.__traceback__


@pytest.mark.parametrize("forged", ['\n{"event":"forged"}', "\r\nx", "\u2028x", "\x85x", "\x00\x1b[2J", "\ud800"])
def test_no_text_begins_a_line_of_its_own(forged: str) -> None:
    assert line("asked for %s", f"a{forged}b")["event"] == f"asked for a{forged}b"
    assert line("request", route=f"/a{forged}")["route"] == f"/a{forged}"


def test_a_line_has_time_level_and_request() -> None:
    token = REQUEST_ID.set("r-1")
    try:
        read = line("request", status=200, records=3, created=0.5)
    finally:
        REQUEST_ID.reset(token)
    assert read == {
        "time": "1970-01-01T00:00:00.500Z", "level": "info", "logger": "enzyme_stability.x", "event": "request",
        "request_id": "r-1", "status": 200, "records": 3,
    }  # fmt: skip


def test_sequences_and_ids_are_told_only_where_they_are_asked_for() -> None:
    told = {"sequences": [CHAIN], "ids": ["patient 7"], "password": "p"}
    assert set(line("request", **told)) == {"time", "level", "logger", "event"}
    read = line(f"of {CHAIN}", private=True, **told)
    assert (read["sequences"], read["ids"], read["event"]) == ([CHAIN], ["patient 7"], f"of {CHAIN}")
    assert "password" not in read


def test_messages_lose_chains_and_keys() -> None:
    assert line("%s by %s", CHAIN.lower(), KEY)["event"] == "[60 letters] by [key]"
    assert KEY not in line("by %s", KEY, private=True)["event"]


def test_an_exception_tells_where_and_what_kind_but_not_of_which_input() -> None:
    info = caught(ValueError("protein patient7"), KeyError("MKV"))
    read = line("internal error", exc_info=info)
    assert read["error"] == "ValueError from KeyError"
    assert "in caught" in read["traceback"]
    assert "patient7" not in json.dumps(read)
    assert "MKV" not in json.dumps(read)
    assert "protein patient7" in line("internal error", exc_info=info, private=True)["traceback"]


@pytest.mark.parametrize("args", [("one", "two"), (object(),), ({"a": 1},)])
def test_a_message_that_does_not_fit_its_arguments_is_still_a_line(args: tuple[object, ...]) -> None:
    assert line("%d of %d", *args)["event"] == "%d of %d"


def test_numbers_that_are_none_and_odd_objects_are_still_json() -> None:
    read = line("request", duration_ms=float("nan"), records=socket.AF_INET, client=ValueError)
    assert read["duration_ms"] is None
    assert read["client"] == "<class 'ValueError'>"


SPEAKERS = """
import logging.config, sys
from enzyme_stability.serving.logs import log_config
logging.config.dictConfig(log_config(sys.argv[1]))
for name in ("enzyme_stability.serving", "uvicorn.error", "uvicorn.access", "sqlalchemy.engine.Engine"):
    for number in (10, 20, 30, 40, 50):
        logging.getLogger(name).log(number, "line")
"""


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_counts_for_the_service_and_libraries_speak_from_warnings_on(level: str) -> None:
    done = subprocess.run([sys.executable, "-c", SPEAKERS, level], capture_output=True, text=True, check=True)
    written = [json.loads(text) for text in done.stderr.splitlines()]
    counts = Counter(one["logger"] for one in written)
    above = 5 - LEVELS.index(level)
    libraries = {"sqlalchemy.engine.Engine": min(above, 3)}
    assert counts == {"enzyme_stability.serving": above, "uvicorn.error": above} | libraries
    assert done.stdout == ""


def test_an_unknown_level_is_explained() -> None:
    with pytest.raises(ConfigError, match="'loud' is unknown; choose one of debug, info"):
        log_config("loud")


SERVICE = """
import asyncio, sys
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from enzyme_stability.serving.logs import log_config
from enzyme_stability.serving.telemetry import Measured, Telemetry
app = FastAPI()

@app.get("/predict/{name}")
async def predict(name: str, request: Request) -> str:
    request.state.records, request.state.client = 3, "lab"
    return name

@app.get("/broken/{name}")
async def broken(name: str) -> None:
    raise ValueError(name)

@app.get("/endless")
async def endless() -> StreamingResponse:
    async def parts():
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.01)
    return StreamingResponse(parts())

@app.get("/healthz")
async def healthz() -> str:
    return "alive"

app.add_middleware(Measured, telemetry=Telemetry())
uvicorn.run(app, port=int(sys.argv[1]), log_config=log_config("info"))
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_a_real_server_tells_each_request_in_one_line() -> None:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", SERVICE, str(port)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    written: list[str] = []
    reading = threading.Thread(target=written.extend, args=(server.stderr,))
    reading.start()

    def wait_for(what: str) -> None:
        until = time.monotonic() + 20
        while not any(what in text for text in written):
            assert time.monotonic() < until, written
            time.sleep(0.02)

    try:
        wait_for("startup complete")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.get("/predict/patient7%0A%7B%22event%22:%22forged%22%7D?key=secret", headers={"X-Request-ID": "r-1"})
            assert client.get("/broken/patient7").status_code == 500
            client.get("/healthz")
            with client.stream("GET", "/endless") as answer:
                next(answer.iter_bytes())
        wait_for('"status": 499')
    finally:
        server.terminate()
        server.wait(20)
        reading.join(20)
    lines = [json.loads(text) for text in written]
    requests = [(one["route"], one["status"]) for one in lines if one["event"] == "request"]
    assert requests == [("/predict/{name}", 200), ("/broken/{name}", 500), ("/endless", 499)]
    first = next(one for one in lines if one["event"] == "request")
    assert (first["request_id"], first["records"], first["client"]) == ("r-1", 3, "lab")
    assert first["duration_ms"] > 0
    assert [one["error"] for one in lines if "error" in one] == ["ValueError"]
    for secret in ("patient7", "secret", "forged"):
        assert secret not in "".join(written)
    assert {"uvicorn.error"} <= {one["logger"] for one in lines}


async def ask(app: ASGIApp, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return await client.request(method, path, headers=headers)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def kept(spans: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    open_tracer = OpenTelemetryTracer(provider)
    yield open_tracer
    open_tracer.close()


def test_a_request_and_its_parts_are_spans_below_the_callers(spans: InMemorySpanExporter, kept: Tracer) -> None:
    app = FastAPI()

    @app.post("/v1/predict")
    async def predict() -> str:
        kept.interval("queue wait", 1_000, 5_000, residues=30)
        with kept.span("predict", residues=30):
            return "done"

    caller = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {"traceparent": caller, "X-Request-ID": "mine"}
    asyncio.run(ask(Measured(app, Telemetry(), kept), "POST", "/v1/predict", headers))
    wait, work, request = spans.get_finished_spans()
    assert [span.name for span in (wait, work, request)] == ["queue wait", "predict", "POST /v1/predict"]
    assert {f"{span.context.trace_id:x}" for span in (wait, work, request)} == {"a" * 32}
    assert request.parent is not None
    assert f"{request.parent.span_id:x}" == "b" * 16
    assert [span.parent and span.parent.span_id for span in (wait, work)] == [request.context.span_id] * 2
    assert (wait.start_time, wait.end_time, dict(wait.attributes or {})) == (
        1_000, 5_000, {"enzyme_stability.residues": 30},
    )  # fmt: skip
    assert (request.attributes or {})["enzyme_stability.request_id"] == "mine"
    assert (request.attributes or {})["http.response.status_code"] == 200


def test_a_failed_span_does_not_say_what_the_input_was(spans: InMemorySpanExporter, kept: Tracer) -> None:
    async def broken(*_: object) -> None:
        with kept.span("predict"):
            raise ValueError(CHAIN)

    answer = asyncio.run(ask(Measured(broken, Telemetry(), kept), "POST", "/v1/predict"))
    part, request = spans.get_finished_spans()
    assert answer.status_code == 500
    assert [span.status.is_ok for span in (part, request)] == [False, False]
    assert [(span.attributes or {})["error.type"] for span in (part, request)] == ["ValueError", "500"]
    assert CHAIN not in part.to_json() + request.to_json()


def test_probes_leave_no_spans(spans: InMemorySpanExporter, kept: Tracer) -> None:
    for path in ("/healthz", "/metrics", "/readyz", "/other"):
        asyncio.run(ask(Measured(FastAPI(), Telemetry(), kept), "GET", path))
    assert [span.name for span in spans.get_finished_spans()] == ["GET unmatched"]


def test_spans_reach_a_collector() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever).start()
        sending = tracer(f"http://127.0.0.1:{collector.server_port}/")
        with sending.span("predict"):
            pass
        sending.close()
        collector.shutdown()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"predict" in body
    assert b"enzyme-stability" in body


def test_traces_are_sent_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert isinstance(tracer(), NoTracer)
    with pytest.raises(ConfigError, match="http://"):
        tracer("collector:4317")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    asked = tracer()
    assert isinstance(asked, OpenTelemetryTracer)
    asked.close()
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[traces\]"):
        tracer()


def test_a_service_without_traces_imports_nothing_of_them() -> None:
    code = """
import sys
from enzyme_stability.serving import telemetry, tracing
with tracing.tracer().request("id", {}) as span, tracing.tracer().span("predict"):
    span.answered("GET", "/", 200)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
