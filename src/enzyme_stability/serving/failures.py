"""Which HTTP status each error has, and what is said of it: never a path, a traceback or a part of the machine."""

from __future__ import annotations

import logging
import math
import re

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from enzyme_stability.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    EnzymeStabilityError,
    MissingDependencyError,
    OverloadedError,
    SequenceError,
    TooLargeError,
    VariantError,
)
from enzyme_stability.serving.access import UnauthorisedError
from enzyme_stability.serving.answers import error_response
from enzyme_stability.serving.jobs import JobStateError, NoSuchJobError
from enzyme_stability.serving.requests import InvalidRequestError, service_of

_log = logging.getLogger(__name__)

STATUS: tuple[tuple[type[EnzymeStabilityError], int, str], ...] = (
    (InvalidRequestError, 422, "invalid_request"),
    (UnauthorisedError, 401, "unauthorised"),
    (NoSuchJobError, 404, "no_such_job"),
    (JobStateError, 409, "not_done"),
    (OverloadedError, 429, "overloaded"),
    (TooLargeError, 413, "too_large"),
    (SequenceError, 422, "bad_sequence"),
    (VariantError, 422, "bad_variant"),
    (DataError, 422, "bad_data"),
    (ConfigError, 422, "bad_setting"),
    (MissingDependencyError, 501, "not_installed"),
    (ArtifactError, 503, "not_available"),
)
"""The first that fits counts."""

_FOLDERS = re.compile(r"(?<![\w.~/-])/(?!v1/)(?:[^\s/'\"]+/)+")  # of a path of the machine
_TOLD = "the service cannot answer this now; its operator finds the reason in the log"
_SENTENCES = {404: "there is nothing at this address", 405: "this address does not take such a request"}
_KINDS = {400: "malformed", 404: "not_found", 405: "not_allowed", 413: "too_large", 415: "unsupported"}


def handle_failures(app: FastAPI) -> None:
    """Answer every error in one form."""

    async def own(request: Request, error: Exception) -> Response:
        status, kind = next((s, k) for family, s, k in STATUS if isinstance(error, family))
        if status >= 500:
            _log.error("%s: %s", kind, error)
        service_of(request).telemetry.errors.labels(kind).inc()
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if isinstance(error, OverloadedError):
            service_of(request).telemetry.rejected.labels(kind).inc()
            headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        message = _TOLD if isinstance(error, ArtifactError) else _FOLDERS.sub("", str(error))
        return error_response(status, kind, message, headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
        kind = _KINDS.get(error.status_code, "refused")
        service_of(request).telemetry.errors.labels(kind).inc()
        message = _SENTENCES.get(error.status_code, str(error.detail))
        return error_response(error.status_code, kind, message, dict(error.headers or {}))

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        service_of(request).telemetry.errors.labels("invalid_request").inc()
        return error_response(422, "invalid_request", "; ".join(faults))

    async def late(request: Request, error: Exception) -> Response:
        del error
        service_of(request).telemetry.errors.labels("timed_out").inc()
        return error_response(504, "timed_out", "the answer took too long: send fewer sequences, or make it a job")

    async def left(request: Request, error: Exception) -> Response:
        del request, error
        return Response(status_code=499)  # nobody reads it

    async def unforeseen(request: Request, error: Exception) -> Response:
        _log.error("internal error", exc_info=error)
        service_of(request).telemetry.errors.labels("internal").inc()
        return error_response(500, "internal", "an internal error; its operator finds the reason in the log")

    app.add_exception_handler(EnzymeStabilityError, own)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(TimeoutError, late)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, unforeseen)
