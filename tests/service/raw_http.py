"""Requests as bytes, for clients that do not keep to the rules."""

from __future__ import annotations

import io
import json
import re
import socket
import time
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from running_service import LYSOZYME, Running

PATIENCE_S = 1
"""Seconds that the besieged service waits for a request to arrive."""

ONE = json.dumps({"records": [{"id": "a", "sequence": LYSOZYME}]}).encode()
"""Body of a request to predict."""

_PRIVATE = re.compile(
    rb"Traceback|site-packages|\.py\b|/tmp/|/root|/home|/usr/|/etc/|/dev/|" + re.escape(str(Path.home())).encode()
)


def said(data: bytes) -> bytes:
    """What the service said, which gives nothing away."""
    assert not _PRIVATE.search(data), data
    return data


def message(answer: httpx.Response) -> str:
    """The sentence of an error."""
    said(answer.content + str(answer.headers).encode())
    return str(answer.json()["error"]["message"])


def connected(running: Running) -> socket.socket:
    """A new connection."""
    return socket.create_connection(("127.0.0.1", running.port), timeout=20)


class _Answers(io.BufferedReader):
    """Stays open from one answer to the next, with what it has read ahead."""

    def close(self) -> None:
        pass


def answers(connection: socket.socket, count: int = 1) -> list[tuple[int, bytes]]:
    """Status and body of the next answers."""
    stream = _Answers(connection.makefile("rb", buffering=0))
    found = []
    for _ in range(count):
        answer = HTTPResponse(SimpleNamespace(makefile=lambda *_: stream))
        answer.begin()
        said(str(answer.getheaders()).encode())
        found.append((answer.status, said(answer.read())))
    return found


def exchange(running: Running, sent: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to some bytes."""
    with closing(connected(running)) as connection:
        connection.sendall(sent)
        return answers(connection)[0]


def request(body: bytes = b"", *headers: str, line: str = "POST /v1/predict HTTP/1.1") -> bytes:
    """A request with these headers, and the length of the body unless they tell another one."""
    told = any(header.lower().startswith(("content-length", "transfer")) for header in headers)
    given = ["Host: x", *headers, *([] if told else [f"Content-Length: {len(body)}"])]
    return "\r\n".join([line, *given, "", ""]).encode("latin-1") + body


def closes_within(connection: socket.socket, seconds: float, drip: bytes = b"") -> None:
    """Fail unless the service hangs up, however the client may dribble on."""
    patience = time.monotonic() + seconds
    connection.settimeout(0.2)
    while time.monotonic() < patience:
        try:
            connection.sendall(drip)
            if not connection.recv(65536):
                return
        except TimeoutError:
            continue
        except OSError:
            return
    pytest.fail("the connection is still open")
