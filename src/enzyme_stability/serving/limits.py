"""What a request may be before the application sees it, and what every answer says to a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enzyme_stability.serving.answers import error_response

MOST_HEADERS = 100
"""Headers of a request."""

LARGEST_HEADERS = 32 << 10
"""Bytes of the names and values of all headers."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every answer, for those that the application leaves out."""

_NOT_KEPT = ("/v1", "/predict")
_LINGER_S = 2.0
_MOST_DIGITS = 18
_GONE: Message = {"type": "http.disconnect"}

_Headers = Iterable[tuple[bytes, bytes]]


class Limits:
    """Refuses requests that are too large, too slow or in a form that nobody here reads.

    What is refused is answered at once and its connection closed, however much of the body is still to come. A client
    that leaves before its whole request has arrived is no error.

    Args:
        app: The application behind.
        largest_body: Bytes that a request to a path may have.
        body_timeout_s: Seconds within which the whole body has to arrive.
    """

    def __init__(self, app: ASGIApp, *, largest_body: Callable[[str], int], body_timeout_s: float) -> None:
        self._app = app
        self._largest_body = largest_body
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._largest_body(scope["path"]), self._body_timeout_s)
        body.refusal = _refusal(scope["headers"], body.largest)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if started or body.refusal is None:
                started = True
                await send(message)

        if body.refusal is None:
            try:
                await self._app(scope, body.receive, answer)
            except Exception:  # for want of the rest of the body, which is no fault of the application
                if body.refusal is None and not body.client_left:
                    raise
        if body.refusal is not None and not started:
            waits = any(name == b"expect" for name, _ in scope["headers"])
            await _refuse(body.refusal, receive, send, body_follows=not (waits or body.complete or body.late))


class _Body:
    """The body of one request, counted and timed as it arrives."""

    def __init__(self, receive: Receive, largest: int, timeout_s: float) -> None:
        self._receive = receive
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._bytes = 0
        self.largest = largest
        self.timeout_s = timeout_s
        self.complete = self.late = self.client_left = False
        self.refusal: Response | None = None

    async def receive(self) -> Message:
        """The next part; for the application, a body that is refused half-way ends as if the client had left."""
        if self.refusal is not None:
            return _GONE
        if self.complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self.late = True
            self.refusal = _closing(408, "timed_out", f"the request took more than {self.timeout_s:g} s to arrive")
            return _GONE
        if message["type"] != "http.request":
            self.client_left = True
            return message
        self._bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._bytes > self.largest:
            self.refusal = _too_large(self.largest)
            return _GONE
        return message


def _refusal(headers: _Headers, largest: int) -> Response | None:
    """Why a request is not even read, by its headers."""
    headers = list(headers)
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > LARGEST_HEADERS:
        message = f"more than {MOST_HEADERS} headers, or {LARGEST_HEADERS:,} bytes of them, are not read here"
        return _closing(431, "headers_too_large", message)
    for encoding in _values(headers, b"content-encoding"):
        if encoding.lower() not in {b"", b"identity"}:
            message = "the body has a Content-Encoding, which is not taken here: send it as it is"
            return _closing(415, "unsupported", message, {"Accept-Encoding": "identity"})
    lengths = set(_values(headers, b"content-length"))
    if any(not length.isdigit() for length in lengths) or len(lengths) > 1:
        return _closing(400, "malformed", "the Content-Length of the request is no number of bytes")
    if any(len(length) > _MOST_DIGITS or int(length) > largest for length in lengths):
        return _too_large(largest)
    return None


def _values(headers: _Headers, wanted: bytes) -> Iterable[bytes]:
    return (value.strip() for name, value in headers if name == wanted)


def _too_large(largest: int) -> Response:
    return _closing(413, "too_large", f"the request has more than the {largest:,} bytes taken here: send less at once")


def _closing(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return error_response(status, kind, message, {"Connection": "close", **(headers or {})})


async def _refuse(response: Response, receive: Receive, send: Send, *, body_follows: bool) -> None:
    """Answer, and only then close the connection.

    Closed while the client is still sending, it would be reset, and the client might never see the answer; so what it
    sends for a moment is thrown away first.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": body_follows})
    if body_follows:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class SecurityHeaders:
    """Adds to every answer what a browser should know of it; answers with data are kept in no cache.

    Args:
        app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        data = any(path == start or path.startswith(f"{start}/") for start in _NOT_KEPT)
        added = [*self._headers, *([(b"cache-control", b"no-store")] if data else [])]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": given + [pair for pair in added if pair[0] not in names]}
            await send(message)

        await self._app(scope, receive, answer)
