"""The description of the service is true: whatever is sent, the answer is one that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from running_service import finished
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
WAIT_S = 30


ROUTES = (
    *("POST /predict/", "POST /v1/predict", "POST /v1/predict/file", "POST /v1/predict/embeddings", "POST /v1/scan"),
    *("POST /v1/jobs", "GET /v1/jobs/{job}", "DELETE /v1/jobs/{job}", "GET /v1/jobs/{job}/result"),
    *("POST /v1/feedback", "GET /v1/model", "GET /healthz", "GET /readyz", "GET /metrics"),
)


@pytest.fixture(scope="module")
def described(client: httpx.Client) -> Any:
    """The description, as a client finds it."""
    return schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))


def test_every_route_is_described(described: Any) -> None:
    operations = [found.ok() for found in described.get_all_operations()]
    assert {operation.label for operation in operations} == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_whatever_is_sent_the_answer_is_one_that_is_described(described: Any, route: str, mode: GenerationMode) -> None:
    method, path = route.split()
    operation = described[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    def sent(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=WAIT_S)

    try:
        sent()
    except Unsatisfiable:  # nothing can be wrong about a request that has nothing in it
        assert mode is GenerationMode.NEGATIVE
        assert not list(operation.iter_parameters())


def test_the_examples_of_the_description_are_answered(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    forms = description["components"]["schemas"]
    answered = set()
    for path, operations in description["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in forms.get(body.get("schema", {}).get("$ref", "").rpartition("/")[2], {}).get("examples", []):
            answer = client.post(path, content=json.dumps(example), headers={"Content-Type": "application/json"})
            assert answer.is_success, (path, answer.text)
            answered.add(path)
    assert answered == {"/predict/", "/v1/predict", "/v1/scan", "/v1/jobs", "/v1/feedback"}


def test_a_job_and_its_result_are_as_described(client: httpx.Client, described: Any, examples: Path) -> None:
    form: dict[str, Any] = {"body": {"file": examples.read_bytes()}, "media_type": "multipart/form-data"}
    sent = [described[route]["POST"].Case(**form) for route in ("/v1/predict/file", "/v1/jobs")]
    answers = [case.call_and_validate(checks=CHECKS, timeout=WAIT_S) for case in sent]
    assert [answer.status_code for answer in answers] == [200, 202]
    job = finished(client, answers[1].json()["id"])["id"]
    described["/v1/jobs/{job}"]["GET"].Case(path_parameters={"job": job}).call_and_validate(checks=CHECKS)
    result = described["/v1/jobs/{job}/result"]["GET"]
    for kind in ("csv", "jsonl"):
        case = result.Case(path_parameters={"job": job}, query={"format": kind})
        assert case.call_and_validate(checks=CHECKS, timeout=WAIT_S).status_code == 200
    media = client.get("/openapi.json").json()["paths"]["/v1/jobs/{job}/result"]["get"]["responses"]["200"]["content"]
    assert media.keys() == {"text/csv", "application/jsonl"}
