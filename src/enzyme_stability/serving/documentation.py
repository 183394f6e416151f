"""What the OpenAPI description says beyond the routes themselves: bodies, failures, keys."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from enzyme_stability.serving import schemas

_PLACE = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (
    schemas.PredictRequest,
    schemas.OldRequest,
    schemas.ScanRequest,
    schemas.FeedbackRequest,
)

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ProblemResponse, "description": why}
    for status, why in {
        400: "The request is malformed.",
        401: "An API key is needed.",
        408: "The request did not arrive in time.",
        413: "The request is over a limit.",
        415: "The body is of a kind that is not taken here.",
        422: "The request is understood, but cannot be answered.",
        429: "The service is busy, or the key is used too often: see Retry-After.",
        503: "The service is starting or ending.",
        504: "The answer took too long.",
    }.items()
}

FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def body_of(form: type[BaseModel]) -> dict[str, Any]:
    """For a route that reads its body itself."""
    schema = {"$ref": _PLACE.format(model=form.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": body_of(schemas.PredictRequest)["requestBody"]["content"] | FILE_BODY["requestBody"]["content"],
    }
}


def describe(app: FastAPI, *, keys: bool) -> None:
    """Make ``app.openapi`` complete."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, bodies = models_json_schema([(form, "validation") for form in _BODIES], ref_template=_PLACE)
            components = described.setdefault("components", {})
            components.setdefault("schemas", {}).update(bodies["$defs"])
            for schema in ("HTTPValidationError", "ValidationError"):  # faults are told in the form of all others
                components["schemas"].pop(schema, None)
            if keys:
                components["securitySchemes"] = {
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "bearer": {"type": "http", "scheme": "bearer"},
                }
                described["security"] = [{"key": []}, {"bearer": []}]
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
