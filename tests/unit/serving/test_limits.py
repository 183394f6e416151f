"""What does not reach the application, and what its clients are told instead: over real connections."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message

from enzyme_stability.serving.limits import LARGEST_HEADERS, MOST_HEADERS, SECURITY_HEADERS, Limits, SecurityHeaders
from served_app import running

SMALL = 1_000
LARGE = 5_000
TIMEOUT_S = 0.5


class Seen:
    """Bodies that the application behind has read to their end."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []


SEEN = Seen()


def guarded() -> SecurityHeaders:
    app = FastAPI()

    @app.post("/{path:path}")
    async def echo(request: Request) -> dict[str, int]:
        body = await request.body()
        SEEN.bodies.append(body)
        return {"bytes": len(body)}

    @app.get("/v1/own")
    async def own() -> PlainTextResponse:
        return PlainTextResponse("own", headers={"Cache-Control": "max-age=5", "X-Frame-Options": "SAMEORIGIN"})

    @app.get("/{path:path}")
    async def read() -> PlainTextResponse:
        return PlainTextResponse("hello")

    limited = Limits(app, largest_body=lambda path: LARGE if path == "/large" else SMALL, body_timeout_s=TIMEOUT_S)
    return SecurityHeaders(limited)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip(request.param)
    with running(guarded(), http=request.param) as address:
        yield address


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.bodies.clear()


def assert_refused(response: httpx.Response, status: int, kind: str) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["connection"] == "close"
    error = response.json()["error"]
    assert error.keys() == {"kind", "message"}
    assert error["kind"] == kind
    assert SEEN.bodies == []
    return str(error["message"])


def in_pieces(*pieces: bytes, pause_s: float = 0.0) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        time.sleep(pause_s)


def raw(url: str, request: bytes) -> bytes:
    """What the server says until it closes the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_a_body_up_to_the_limit_of_its_path_is_passed_on(url: str) -> None:
    assert httpx.post(f"{url}/small", content=b"x" * SMALL).json() == {"bytes": SMALL}
    assert httpx.post(f"{url}/large", content=b"x" * LARGE).json() == {"bytes": LARGE}
    assert httpx.post(f"{url}/small", content=in_pieces(b"x" * 600, b"y" * 400)).json() == {"bytes": SMALL}
    assert httpx.get(f"{url}/anything").text == "hello"


def test_one_byte_more_is_refused_by_its_announced_length(url: str) -> None:
    message = assert_refused(httpx.post(f"{url}/small", content=b"x" * (SMALL + 1)), 413, "too_large")
    assert "1,000 bytes" in message
    assert_refused(httpx.post(f"{url}/large", content=b"x" * (LARGE + 1)), 413, "too_large")


def test_a_stream_is_refused_once_it_is_too_long(url: str) -> None:
    pieces = in_pieces(b"x" * 600, b"x" * 600, b"x" * 600, pause_s=0.01)
    assert_refused(httpx.post(f"{url}/small", content=pieces), 413, "too_large")


def test_the_answer_reaches_a_client_that_first_sends_everything(url: str) -> None:
    size = 20 << 20
    for announced in (f"Content-Length: {size}\r\n\r\n".encode(), b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size):
        answer = raw(url, b"POST /small HTTP/1.1\r\nHost: x\r\n" + announced + b"x" * size + b"\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_nothing_is_asked_for_that_would_be_refused(url: str) -> None:
    head = f"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: {SMALL + 1}\r\nExpect: 100-continue\r\n\r\n"
    began = time.monotonic()
    answer = raw(url, head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    assert time.monotonic() - began < 1.5  # and nothing was waited for


def test_a_stream_without_an_end_is_answered_and_cut_off(url: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    began = time.monotonic()
    try:
        response = httpx.post(f"{url}/small", content=endless())
    except httpx.TransportError:
        pass  # cut off before the client looked for an answer
    else:
        assert_refused(response, 413, "too_large")
    assert time.monotonic() - began < 10
    assert SEEN.bodies == []


def test_a_body_that_drips_is_refused_at_the_deadline(url: str) -> None:
    began = time.monotonic()
    pieces = in_pieces(*[b"x"] * 60, pause_s=0.1)
    assert_refused(httpx.post(f"{url}/small", content=pieces), 408, "timed_out")
    assert TIMEOUT_S <= time.monotonic() - began < 8


def test_a_body_that_never_comes_is_refused_at_the_deadline(url: str) -> None:
    answer = raw(url, b"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert SEEN.bodies == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_a_packed_body_is_refused(url: str, encoding: str) -> None:
    response = httpx.post(f"{url}/small", content=b"x", headers={"Content-Encoding": encoding})
    assert_refused(response, 415, "unsupported")
    assert response.headers["accept-encoding"] == "identity"
    assert httpx.post(f"{url}/small", content=b"x", headers={"Content-Encoding": "identity"}).status_code == 200


def test_too_many_headers_are_refused(url: str) -> None:
    many = {f"x-{k}": "1" for k in range(MOST_HEADERS)}
    assert_refused(httpx.get(url, headers=many), 431, "headers_too_large")
    assert_refused(httpx.get(url, headers={"x-long": "1" * LARGEST_HEADERS}), 431, "headers_too_large")
    assert httpx.get(url, headers={f"x-{k}": "1" for k in range(MOST_HEADERS - 20)}).status_code == 200


@pytest.mark.parametrize("length", [b"ten", b"-5", b"1.5", b"+5", b"", b"\xb2"])
def test_a_length_that_is_no_number_never_reaches_the_application(url: str, length: bytes) -> None:
    answer = raw(
        url, b"POST /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert SEEN.bodies == []


def messages_of(headers: list[tuple[bytes, bytes]], path: str = "/small") -> list[Message]:
    """What the middleware itself answers, without a server that looks at the headers before."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(guarded()(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([b"abc"], 400),
        ([b"-1"], 400),
        (["²".encode()], 400),
        ([b"5", b"6"], 400),
        ([b"9" * 5000], 413),
        ([b"1001"], 413),
        ([b"1000", b"1000"], 200),
        ([b"0"], 200),
    ],
)
def test_lengths_that_a_server_lets_through_are_read_with_care(lengths: list[bytes], status: int) -> None:
    start, *rest = messages_of([(b"content-length", length) for length in lengths])
    assert start["status"] == status
    if status != 200:
        assert json.loads(b"".join(part["body"] for part in rest))["error"]["message"]


def test_a_client_that_leaves_half_way_leaves_no_trace(url: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = url.removeprefix("http://").split(":")
    with caplog.at_level(logging.WARNING):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nhalf")
        time.sleep(TIMEOUT_S + 0.3)
    assert caplog.records == []
    assert SEEN.bodies == []
    assert httpx.get(url).status_code == 200


def test_a_fault_of_the_application_is_not_hidden() -> None:
    async def faulty(request: Request) -> PlainTextResponse:
        await request.body()
        raise ZeroDivisionError

    app = Limits(Starlette(routes=[Route("/", faulty)]), largest_body=lambda _: SMALL, body_timeout_s=5)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        return None

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(app(scope, receive, send))


def test_every_answer_tells_a_browser_to_be_careful(url: str) -> None:
    for response in (
        httpx.get(f"{url}/page"),
        httpx.post(f"{url}/v1/predict", content=b"x"),
        httpx.post(f"{url}/small", content=b"x" * (SMALL + 1)),
        httpx.put(f"{url}/small"),
    ):
        assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("path", "kept"),
    [("v1/predict", False), ("predict/", False), ("predict", False), ("", True), ("predictions", True)],
)
def test_answers_with_data_are_kept_in_no_cache(url: str, path: str, kept: bool) -> None:
    assert (httpx.get(f"{url}/{path}").headers.get("cache-control") != "no-store") == kept


def test_a_header_of_the_application_counts(url: str) -> None:
    response = httpx.get(f"{url}/v1/own")
    assert response.headers.get_list("cache-control") == ["max-age=5"]
    assert response.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
