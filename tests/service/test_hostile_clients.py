"""Clients that break the rules of HTTP, are slow or many: each gets a refusal at most, everybody else their answers."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import closing

import pytest
from raw_http import ONE, PATIENCE_S, answers, closes_within, connected, exchange, request
from running_service import LYSOZYME, Running, figure, until

pytestmark = pytest.mark.usefixtures("others_are_answered")


# Too slow


def test_a_head_that_never_ends_is_not_waited_for(besieged: Running) -> None:
    connections = [connected(besieged) for _ in range(20)]
    for connection in connections[:10]:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nX-Slow: ")
    for connection in connections:
        closes_within(connection, 20 * PATIENCE_S, b"x" if connection in connections[:10] else b"")


def test_a_body_that_does_not_come_is_a_408(besieged: Running) -> None:
    for body in (b"", ONE[:20]):
        began = time.monotonic()
        status, text = exchange(besieged, request(body, f"Content-Length: {len(ONE)}"))
        assert status == 408
        assert json.loads(text)["error"]["kind"] == "timed_out"
        assert PATIENCE_S - 0.1 <= time.monotonic() - began < 15 * PATIENCE_S


def test_a_body_in_drops_has_no_more_time_than_another(besieged: Running) -> None:
    with closing(connected(besieged)) as connection:
        connection.sendall(request(b"", "Transfer-Encoding: chunked"))
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.1):
                try:
                    connection.sendall(b"1\r\n[\r\n")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert answers(connection)[0][0] == 408
        stop.set()
        dripping.join()


def test_a_body_that_nobody_reads_does_not_hold_its_connection(besieged: Running) -> None:
    with closing(connected(besieged)) as connection:
        connection.sendall(request(b"", "Transfer-Encoding: chunked", line="POST /nowhere HTTP/1.1"))
        assert answers(connection)[0][0] == 404
        closes_within(connection, 40, b"1\r\n[\r\n")


# Lengths that lie, and what is no HTTP


def test_what_follows_a_body_that_is_longer_than_it_says_is_no_part_of_it(besieged: Running) -> None:
    with closing(connected(besieged)) as connection:
        connection.sendall(request(ONE + b"\x00\x01 more\r\n\r\n", f"Content-Length: {len(ONE)}"))
        assert [status for status, _ in answers(connection, 2)] == [200, 400]


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: -1",),
        ("Content-Length: 1e3",),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: " + "9" * 40,),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, gzip",),
        ("Content-Length: 99999999999",),
    ],
    ids=["negative", "real", "two", "huge", "both", "encoding", "large"],
)
def test_a_length_that_makes_no_sense_is_refused_at_once(besieged: Running, headers: tuple[str, ...]) -> None:
    status, text = exchange(besieged, request(b"5\r\nhello\r\n0\r\n\r\n", *headers))
    assert status in {400, 413, 422, 501}
    assert text.startswith((b'{"error"', b"Invalid HTTP"))


def test_chunks_beyond_the_limit_are_refused_before_they_end(besieged: Running) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with closing(connected(besieged)) as connection:
        connection.sendall(request(b"", "Transfer-Encoding: chunked") + 9 * chunk)
        status, text = answers(connection)[0]
    assert status == 413
    assert b"8,388,608 bytes" in text


@pytest.mark.parametrize(
    "garbage",
    [
        os.urandom(64) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n" * 20,  # TLS
        b"GET /healthz\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\nSet-Cookie: b\r\n c\r\n\x01: d\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["noise", "tls", "http0.9", "blanks", "no-host", "nul", "split", "bytes"],
)
def test_what_is_no_request_is_answered_like_other_faults(besieged: Running, garbage: bytes) -> None:
    status, text = exchange(besieged, garbage)
    assert (status, json.loads(text)["error"]["kind"]) == (400, "malformed")


def test_a_flood_of_headers_is_refused(besieged: Running) -> None:
    for headers in (
        [f"X-{k}: y" for k in range(200)],
        [f"X-{k}: {'y' * 1000}" for k in range(33)],
        ["X-Long: " + "x" * 100_000],
    ):
        status, text = exchange(besieged, request(ONE, *headers))
        assert status in {400, 431}
        assert json.loads(text)["error"]["kind"] in {"malformed", "headers_too_large"}


def test_an_id_that_would_break_a_line_is_not_repeated(besieged: Running) -> None:
    with besieged.client as client:
        for odd in ("a b", "x" * 65, "<script>", "a%0d%0aSet-Cookie:b", "\u00e9".encode()):
            answer = client.get("/healthz", headers={"X-Request-ID": odd})
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
        assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_other_methods_and_versions_get_their_answer(besieged: Running) -> None:
    for method in ("TRACE", "CONNECT", "PROPFIND", "get", "DELETE"):
        assert exchange(besieged, request(ONE, line=f"{method} /v1/predict HTTP/1.1"))[0] == 405, method
    assert exchange(besieged, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] in {400, 404}
    assert exchange(besieged, b"GET /healthz HTTP/1.0\r\n\r\n") == (200, b'{"status":"alive"}')
    assert exchange(besieged, request(ONE, "Expect: 100-continue"))[0] in {100, 200}
    upgrade = request(b"", "Connection: Upgrade", "Upgrade: websocket", line="GET /healthz HTTP/1.1")
    assert exchange(besieged, upgrade)[0] == 200


def test_requests_that_do_not_wait_for_their_answers_get_them_in_order(besieged: Running) -> None:
    lines = ("GET /healthz", "GET /v1/model", "GET /none", "POST /v1/predict")
    with closing(connected(besieged)) as connection:
        connection.sendall(
            b"".join(request(ONE if "POST" in line else b"", line=f"{line} HTTP/1.1") for line in lines * 5)
        )
        assert [status for status, _ in answers(connection, 20)] == [200, 200, 404, 200] * 5


# Addresses and names


@pytest.mark.parametrize(
    "path",
    [
        *("/page/../../../../../../etc/passwd", "/page/%2e%2e/%2e%2e/app.py", "/page/..%2f..%2fapp.py"),
        *("/page/..%5c..%5capp.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/%00", "/page/app.js%00.html"),
        *("/page/", "/page/.", "/page", "//etc/passwd", "/v1/jobs/..%2f..%2fetc%2fpasswd", "/page/" + "a" * 5000),
        *("/page/%ff%fe", "/page/con", "/v1/jobs/%0d%0aX:y", "/page/app.js/.."),
    ],
)  # fmt: skip
def test_a_path_leads_to_nothing_but_the_page(besieged: Running, path: str) -> None:
    status, text = exchange(besieged, request(line=f"GET {path} HTTP/1.1"))
    assert status in {307, 400, 404, 405, 422}
    assert b"root:" not in text


def test_names_that_look_like_addresses_are_only_names(besieged: Running) -> None:
    fasta = f">a\n{LYSOZYME}\n".encode()
    names = (
        "http://169.254.169.254/latest",
        "gs://bucket/x.fasta",
        "../../etc/passwd",
        "/etc/passwd",
        "x.pt",
        "a\x00b",
        "|id",
    )
    with besieged.client as client:
        for name in names:
            rows = (
                client.post("/v1/predict/file", files={"file": (name, fasta)}).raise_for_status().json()["predictions"]
            )
            assert [row["id"] for row in rows] == ["a"], name
        for name in names:
            body = {"records": [{"id": name, "sequence": LYSOZYME}, {"sequence": name}]}
            rows = client.post("/v1/predict", json=body).raise_for_status().json()["predictions"]
            assert [(row["id"], row["status"]) for row in rows] == [(name, "ok"), ("record_2", "error")]


# Many at once


def test_clients_that_leave_early_do_not_keep_the_others_waiting(besieged: Running) -> None:
    heavy = json.dumps({"records": [{"sequence": LYSOZYME * 10}] * 4000}).encode()
    for k in range(200):
        connection = connected(besieged)
        connection.sendall(request(heavy) if k % 20 == 0 else request(ONE)[: 60 + k])
        connection.close()
    began = time.monotonic()
    with besieged.client as client:
        until(lambda: client.post("/v1/predict", content=ONE).status_code == 200)
    assert time.monotonic() - began < 20


def test_what_nobody_waits_for_any_more_is_not_worked_on(besieged: Running) -> None:
    heavy = request(json.dumps({"records": [{"sequence": LYSOZYME * 10}] * 3500}).encode())
    with besieged.client as client:
        answered = figure(client, 'sequences_total{status="ok"}')
        connection = connected(besieged)
        connection.sendall(heavy)
        until(lambda: figure(client, "queue_requests"))
        connection.close()
        until(lambda: not figure(client, "queue_requests"))
        assert client.post("/v1/predict", content=ONE).status_code == 200
        assert figure(client, 'sequences_total{status="ok"}') == answered + 1
