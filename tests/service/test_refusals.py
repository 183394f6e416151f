"""What the service refuses, in which words, and what it tells a browser with every answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_service import LYSOZYME, finished, served_here
from starlette.testclient import TestClient

from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.serving.access import create_key, revoke_key
from enzyme_stability.serving.app import create_app
from enzyme_stability.serving.limits import SECURITY_HEADERS

ONE = {"records": [{"sequence": LYSOZYME}]}
ORIGIN = "https://lab.example.org"


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, kind and message of an error, which is in the one form that all have."""
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert said.keys() == {"error"}
    assert said["error"].keys() == {"kind", "message"}
    return answer.status_code, said["error"]["kind"], said["error"]["message"]


# Requests that make no sense


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/v1/predict", {"records": [{"sequence": LYSOZYME, "temperature": 37}]}, "records.0.temperature: Extra"),
        ("/v1/predict", {**ONE, "covrage": 0.9}, "covrage: Extra"),
        ("/v1/predict", {"records": []}, "records: List should have at least 1 item"),
        ("/v1/predict", {"records": [{"id": "a"}]}, "records.0.sequence: Field required"),
        ("/v1/predict", {"records": {"a": LYSOZYME}}, "records: Input should be a valid array"),
        ("/v1/predict", {**ONE, "coverage": 1.5}, "coverage: Input should be less than or equal to 0.99"),
        ("/v1/predict", {**ONE, "coverage": math.nan}, "coverage: Input should be"),
        ("/v1/predict", {**ONE, "growth_temperature_celsius": math.inf}, "growth_temperature_celsius: Input should be"),
        ("/v1/predict", {**ONE, "growth_temperature_celsius": 310}, "growth_temperature_celsius: Input should be"),
        ("/v1/predict", {"records": [{"sequence": LYSOZYME, "id": "x" * 201}]}, "records.0.id: String should have"),
        ("/v1/predict", [ONE], "the body: Input should be an object"),
        ("/predict/", {"data": [LYSOZYME, 7]}, "data.1: Input should be a valid string"),
        ("/predict/", {}, "data: Field required"),
        ("/v1/scan", {"sequence": LYSOZYME, "exclude": "CZ"}, "exclude: String should match"),
        ("/v1/scan", {"sequence": LYSOZYME, "size": 0}, "size: Input should be greater than or equal to 1"),
        ("/v1/scan", {"sequence": "MK1" * 10}, "'1' at position 3 is not an amino acid"),
        ("/v1/feedback", {"records": [{"measured_tm_celsius": math.nan}]}, "records.0.measured_tm_celsius: Input"),
        ("/v1/feedback", {"records": [{"measured_tm_celsius": "hot"}]}, "records.0.measured_tm_celsius: Input"),
        ("/v1/jobs", {"records": []}, "records: List should have at least 1 item"),
    ],
)
def test_the_fault_of_a_request_is_named_with_its_place(client: httpx.Client, route: str, body: Any, said: str) -> None:
    answer = client.post(route, content=json.dumps(body), headers={"Content-Type": "application/json"})
    status, _, message = refusal(answer)
    assert status == 422
    assert said in message


def test_bodies_of_another_kind_are_refused_with_the_kind_that_is_taken(client: httpx.Client) -> None:
    form = client.post("/v1/predict", data={"sequence": LYSOZYME})
    assert refusal(form)[:2] == (422, "invalid_request")
    assert "application/json is taken" in refusal(form)[2]
    assert "multipart/form-data" in refusal(client.post("/v1/predict/file", json=ONE))[2]
    assert "the field 'file'" in refusal(client.post("/v1/predict/file", files={"proteins": b">a\nMK"}))[2]
    both = [("file", b">a\nMK"), ("file", b">b\nMK")]
    assert refusal(client.post("/v1/predict/file", files=both))[0] == 400
    for data, said in ((b"", "empty"), (b"PK\x03\x04", "zip"), (b"\x1f\x8bbroken", "gzip"), (b"\xff\xfe>", "UTF-8")):
        status, kind, message = refusal(client.post("/v1/predict/file", files={"file": data}))
        assert (status, kind) == (422, "bad_data")
        assert said in message


def test_addresses_and_methods_that_there_are_not_are_refused_in_the_same_form(client: httpx.Client) -> None:
    assert refusal(client.get("/v2/predict")) == (404, "not_found", "there is nothing at this address")
    wrong = client.get("/v1/predict")
    assert refusal(wrong) == (405, "not_allowed", "this address does not take such a request")
    assert wrong.headers["allow"] == "POST"


def test_limits_are_named_when_they_are_exceeded() -> None:
    limits = {"most_records": 3, "longest_scan": 100, "largest_body": 2_000, "largest_upload": 4_000}
    with served_here(**limits, largest_unpacked=3_000) as client:
        assert client.get("/v1/model").json()["limits"].items() >= limits.items()
        many = {"records": [{"sequence": "MKV"}] * 4}
        assert refusal(client.post("/v1/predict", json=many))[::2] == (
            413,
            "4 sequences are more than the 3 taken here: send them in parts, or as a file to /v1/jobs",
        )
        for route, content, limit in (
            ("/predict/", {"data": ["MKV"] * 4}, "3"),
            ("/v1/scan", {"sequence": LYSOZYME}, "100"),
            ("/v1/predict", {"records": [{"sequence": "M" * 3_000}]}, "2,000"),
        ):
            status, kind, message = refusal(client.post(route, json=content))
            assert (status, kind) == (413, "too_large"), route
            assert limit in message
        for data, limit in ((b">a\nMK\n" * 4, "3"), (b">a\n" + b"M" * 3_500, "3,000"), (b"M" * 5_000, "4,000")):
            status, kind, message = refusal(client.post("/v1/predict/file", files={"file": data}))
            assert (status, kind) == (413, "too_large"), limit
            assert limit in message


def test_a_service_without_a_database_says_that_it_takes_neither_jobs_nor_feedback() -> None:
    with served_here() as client:
        assert client.post("/v1/predict", json=ONE).status_code == 200
        record = {"sequence": LYSOZYME, "measured_tm_celsius": 70}
        for answer in (client.post("/v1/jobs", json=ONE), client.post("/v1/feedback", json={"records": [record]})):
            assert refusal(answer)[0] == 422
            assert "keeps no database" in refusal(answer)[2]


# Keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of keys, and the keys of some people."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    limits = {"ann": None, "bob": None, "hasty": 2, "gone": None}
    made = {name: create_key(file, name, limit) for name, limit in limits.items()}
    revoke_key(file, "gone")
    return file, made


@pytest.fixture(scope="module")
def guarded(
    keys: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A service that asks for a key, and the keys."""
    database = tmp_path_factory.mktemp("guarded") / "service.db"
    with served_here(keys=keys[0], database=f"sqlite:///{database}", cors_origins=(ORIGIN,)) as client:
        yield client, keys[1]


def test_who_has_no_valid_key_learns_nothing(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, keys = guarded
    routes = ("/predict/", "/v1/predict", "/v1/predict/file", "/v1/predict/embeddings", "/v1/scan", "/v1/jobs")
    gone = {"X-API-Key": keys["gone"]}
    for headers in ({}, {"X-API-Key": "es_guessed"}, {"Authorization": f"Basic {keys['ann']}"}, gone):
        for route in (*routes, "/v1/feedback"):
            answer = client.post(route, json=ONE, headers=headers)
            assert refusal(answer)[:2] == (401, "unauthorised"), route
            assert answer.headers["www-authenticate"] == "Bearer"
        for route in ("/v1/model", f"/v1/jobs/{'0' * 32}", f"/v1/jobs/{'0' * 32}/result"):
            assert client.get(route, headers=headers).status_code == 401, route
    for route in ("/", "/page/app.js", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert client.get(route).status_code == 200, route


def test_a_key_is_taken_from_either_header(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, keys = guarded
    for headers in ({"X-API-Key": keys["ann"]}, {"Authorization": f"Bearer {keys['ann']}"}):
        assert client.post("/v1/predict", json=ONE, headers=headers).status_code == 200


def test_a_key_that_is_used_too_often_is_told_when_to_come_back(
    guarded: tuple[httpx.Client, dict[str, str]],
) -> None:
    client, keys = guarded
    answers = [client.get("/v1/model", headers={"X-API-Key": keys["hasty"]}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refusal(answers[2])[1] == "overloaded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_the_jobs_of_one_key_are_nobody_elses(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, keys = guarded
    ann, bob = ({"X-API-Key": keys[name]} for name in ("ann", "bob"))
    job = client.post("/v1/jobs", json=ONE, headers=ann).json()["id"]
    for path in ("", "/result"):
        assert refusal(client.get(f"/v1/jobs/{job}{path}", headers=bob))[1] == "no_such_job"
    assert refusal(client.delete(f"/v1/jobs/{job}", headers=bob))[1] == "no_such_job"
    with httpx.Client(base_url=client.base_url, headers=ann, timeout=60) as hers:
        assert finished(hers, job)["state"] == "done"


# What a browser is told


def test_no_page_of_another_origin_may_ask_unless_it_is_listed(
    client: httpx.Client, guarded: tuple[httpx.Client, dict[str, str]]
) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    asked = {"Origin": ORIGIN}
    closed = client.post("/v1/predict", json=ONE, headers=asked)
    assert closed.status_code == 200
    assert not [name for name in closed.headers if name.startswith("access-control")]
    assert client.options("/v1/predict", headers=asked | preflight).status_code == 405

    listed, keys = guarded
    granted = listed.options("/v1/predict", headers=asked | preflight)
    assert granted.status_code == 200
    assert granted.headers["access-control-allow-origin"] == ORIGIN
    for key, status in ((keys["ann"], 200), ("none", 401)):
        answer = listed.post("/v1/predict", json=ONE, headers=asked | {"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
    other = {"Origin": "https://lab.example.org.evil.example"}
    assert "access-control-allow-origin" not in listed.options("/v1/predict", headers=other | preflight).headers


def test_every_answer_carries_the_security_headers_and_an_id(client: httpx.Client) -> None:
    answers = [
        *(client.get(path) for path in ("/", "/page/app.js", "/page/none", "/healthz", "/metrics", "/v1/model", "/no")),
        client.post("/v1/predict", json=ONE),
        client.post("/v1/predict", json={}),
        client.put("/v1/predict"),
        client.post("/v1/predict", content=b"x" * (9 << 20)),
        client.post("/v1/predict", content=b"{}", headers={"Content-Encoding": "br"}),
    ]
    assert {answer.status_code for answer in answers} >= {200, 404, 405, 413, 415, 422}
    for answer in answers:
        assert answer.headers.items() >= SECURITY_HEADERS.items(), answer.request.url
        assert answer.headers["x-request-id"]
    for answer in answers:
        kept = answer.request.url.path.startswith(("/v1", "/predict"))
        assert (answer.headers.get("cache-control") == "no-store") is kept, answer.request.url


def test_an_internal_error_is_told_like_the_others_and_without_its_reason() -> None:
    app = create_app(ServingConfig(threads=1))

    async def broken() -> None:
        raise RuntimeError("a secret of /etc/enzymes")

    app.add_api_route("/broken", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers.items() >= SECURITY_HEADERS.items()
    assert answer.json()["error"]["kind"] == "internal"
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert "etc" not in answer.text
