"""How a route gets at what it was sent, checks who sent it, and answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from enzyme_stability.errors import DataError, EnzymeStabilityError, TooLargeError
from enzyme_stability.serving.access import presented_key
from enzyme_stability.serving.service import Service

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)

_SMALL = 64 << 10  # bytes that are parsed or written without leaving the event loop
_FAULTS = 5


class InvalidRequestError(EnzymeStabilityError):
    """A request is not what the route takes."""


def service_of(request: Request) -> Service:
    """The service behind the route."""
    service: Service = request.app.state.service
    return service


def authorised(request: Request) -> str | None:
    """Name of the key that a request comes with; None where no keys are asked for.

    Raises:
        UnauthorisedError: There is no valid key.
        OverloadedError: The key is used too often.
    """
    access = service_of(request).access
    name = None if access is None else access.check(presented_key(request.scope))
    request.state.client = name
    return name


async def beside(work: Callable[[], T], size: int) -> T:
    """Do ``work`` on so many bytes: in a thread where that takes long enough for others to notice."""
    return work() if size < _SMALL else await asyncio.to_thread(work)


async def while_awaited(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do ``work``, and drop it where the client leaves before it is done.

    Raises:
        ClientDisconnect: The client has left.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def given(request: Request, form: type[Body], most_records: int) -> Body:
    """The body of a request.

    Raises:
        InvalidRequestError: It is no JSON of that form; the first faults are named.
        TooLargeError: It has too many bytes or records.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in {"application/json", "text/json"} and not kind.endswith("+json"):
        raise InvalidRequestError(f"the body is {kind}, and application/json is taken here")
    body = await _json_of(request, service_of(request).config.largest_body)
    try:
        return await beside(lambda: form.model_validate_json(body, context=most_records), len(body))
    except ValidationError as error:
        raise InvalidRequestError(_explained(error)) from None


async def _json_of(request: Request, largest: int) -> bytes:
    """On some addresses a file may come, which may be larger."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise TooLargeError(f"JSON has more than the {largest:,} bytes taken here: send a file, or less at once")
    return bytes(body)


def _explained(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(str(step) for step in fault['loc']) or 'the body'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:_FAULTS]
    ]
    more = error.error_count() - len(faults)
    return "; ".join(faults) + (f"; and {more} more" if more else "")


async def answered(content: Mapping[str, Any], rows: int, status: int = 200) -> Response:
    """JSON of something with so many rows."""
    text = await beside(lambda: json.dumps(content, allow_nan=False, separators=(",", ":")).encode(), 200 * rows)
    return Response(text, status_code=status, media_type="application/json")


async def uploaded(request: Request) -> Any:
    """The file of a form, as Starlette spools it.

    Raises:
        DataError: There is none, or more than one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise InvalidRequestError("send the file as multipart/form-data, in the field 'file'")
    form = await request.form(max_files=1, max_fields=8)
    file = form.get("file")
    if file is None or isinstance(file, str):
        raise DataError("no file came: send it in the field 'file'")
    return file
