"""The one form in which the service tells that it has no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response


def error_response(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """``{"error": {"kind": ..., "message": ...}}``, which is an ASGI application of its own too.

    Args:
        status: HTTP status.
        kind: For programs, in lower case with ``_`` for blanks.
        message: For people: one sentence, without paths of the machine.
        headers: Further headers, such as ``Retry-After``.
    """
    body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
    return Response(body, status, dict(headers or {}), "application/json")
