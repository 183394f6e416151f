"""The way to a running service: tried again where that may help, and explained in one sentence where it does not."""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from enzyme_stability.errors import (
    ConfigError,
    DataError,
    EnzymeStabilityError,
    MissingDependencyError,
    OverloadedError,
    TooLargeError,
)

if TYPE_CHECKING:
    import httpx

Form = TypeVar("Form")

LONGEST_PAUSE_S = 60.0
"""Seconds that a service may ask to wait; one that asks for more is not waited for."""

_CONNECT_S = 10.0
_IDLE_S = 2.0  # below what servers allow, lest a request meets a connection that is just being closed
_FIRST_PAUSE_S = 0.5
_LONGEST_OWN_PAUSE_S = 8.0
_LONGEST_MESSAGE = 500
_BUSY = {429, 503}
_BAD_GATEWAY = 502
_TOO_LATE = {408, 504}


class TooSlowError(DataError):
    """An answer takes longer than either side waits for it."""


class _Problem(BaseModel):
    message: str


class _Failure(BaseModel):
    error: _Problem


class _PassingError(Exception):
    """What may be gone when the service is asked again."""

    def __init__(self, final: EnzymeStabilityError, pause_s: float | None = None) -> None:
        self.final = final
        self.pause_s = pause_s


class Connection:
    """Sends requests to one service.

    Args:
        url: Address of the service.
        key: API key, where the service asks for one.
        timeout_s: Seconds to wait for an answer.
        retries: How often to ask again where the service is busy or cannot be reached.

    Attributes:
        url: The address, without a password that may be in it.

    Raises:
        ConfigError: The address or the key cannot be one.
        MissingDependencyError: httpx is not installed.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, retries: int) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("Asking a service", "client") from error
        try:
            address = httpx.URL(url.strip())
        except httpx.InvalidURL as error:
            raise ConfigError(f"the address of the service cannot be read: {error}") from None
        self.url = str(address.copy_with(userinfo=b"")).rstrip("/")
        if address.scheme not in {"http", "https"} or not address.host or address.query or address.fragment:
            raise ConfigError(f"{self.url:.200} is no address of a service; one looks like https://tm.example.org")
        if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
            raise ConfigError("the API key is empty, or holds blanks or characters that no key has; copy it again")
        self._retries = retries
        try:
            self._http = httpx.Client(
                base_url=address,
                headers={"Accept": "application/json", **({} if key is None else {"X-API-Key": key})},
                timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
                limits=httpx.Limits(keepalive_expiry=_IDLE_S),
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:  # of proxies and certificates
            raise ConfigError(f"the network settings in the environment cannot be used: {error}") from error

    def close(self) -> None:
        """Let go of the network."""
        self._http.close()

    def ask(self, form: type[Form], method: str, path: str, *, repeatable: bool = True, **request: Any) -> Form:
        """Send a request and read its answer.

        Args:
            form: What the JSON of the answer has to be.
            method: HTTP method.
            path: Path of the route.
            repeatable: Whether it does no harm if the service gets the request twice.
            request: Further arguments of httpx, as ``json``.

        Raises:
            ConfigError: The key is refused, or a setting in the request.
            DataError: The service cannot be reached, fails, or is something else.
            OverloadedError: The service stays busy.
            TooLargeError: The request is over a limit.
        """
        try:
            prepared = self._http.build_request(method, path, **request)
        except (TypeError, ValueError) as error:  # a number that is not finite, or something that is neither
            raise ConfigError(f"this cannot be sent as JSON: {error}") from error

        def send() -> Form:
            with self._explained(repeatable):
                response = self._http.send(prepared)
            return self._read(form, response, repeatable)

        return self._persistently(send)

    def upload(self, form: type[Form], path: str, file: Path, **request: Any) -> Form:
        """Send a file, as ``ask``; the service is not told its path.

        Raises:
            DataError: The file cannot be read, or as ``ask``.
        """

        def send() -> Form:
            try:
                content = file.open("rb")
            except OSError as error:
                raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
            with content:
                with self._explained(repeatable=False):
                    response = self._http.post(path, files={"file": ("file", content)}, **request)
                return self._read(form, response, repeatable=False)

        return self._persistently(send)

    def lines(self, form: type[Form], path: str, **request: Any) -> Iterator[Form]:
        """Read an answer in JSON lines as it arrives, as ``ask``; one that breaks off is not asked for again."""
        adapter = TypeAdapter(form)
        try:
            with self._explained(repeatable=False), self._http.stream("GET", path, **request) as response:
                if response.status_code != 200:
                    response.read()
                    self._read(form, response, repeatable=False)
                for line in response.iter_lines():
                    yield self._parsed(adapter, line.encode())
        except _PassingError as problem:
            raise problem.final from problem.__cause__

    def _persistently(self, send: Callable[[], Form]) -> Form:
        for attempt in count():
            try:
                return send()
            except _PassingError as problem:
                if attempt >= self._retries or (problem.pause_s or 0) > LONGEST_PAUSE_S:
                    raise problem.final from problem.__cause__
                pause = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_OWN_PAUSE_S)
                # at random, so that clients turned away together do not come back together
                time.sleep((problem.pause_s or 0) + pause * random.uniform(0.5, 1))  # noqa: S311
        raise AssertionError

    def _read(self, form: type[Form], response: httpx.Response, repeatable: bool) -> Form:
        status = response.status_code
        if status in _BUSY:
            pause = _retry_after(response)
            message = f"{self.url} cannot answer now: {self._message(response)}"
            raise _PassingError(OverloadedError(message, LONGEST_PAUSE_S if pause is None else pause), pause)
        if not response.is_success:
            error = self._refusal(response)
            raise _PassingError(error) if status == _BAD_GATEWAY and repeatable else error
        return self._parsed(TypeAdapter(form), response.content)

    def _parsed(self, adapter: TypeAdapter[Form], content: bytes) -> Form:
        try:
            return adapter.validate_json(content)
        except ValidationError:
            raise self._stranger() from None

    def _stranger(self) -> DataError:
        return DataError(f"{self.url} gives no answers of this service: check the address")

    def _refusal(self, response: httpx.Response) -> EnzymeStabilityError:
        status, message, told = response.status_code, self._message(response), bool(_told(response))
        if response.is_redirect:
            place = _printable(response.headers.get("location", "another address"))
            return ConfigError(f"{self.url} has moved to {place}: give that address")
        if status in {401, 403}:
            return ConfigError(f"{self.url} lets nobody in without a valid API key: {message}")
        if status == 413:
            return TooLargeError(message)
        if status in _TOO_LATE:
            return TooSlowError(f"{self.url} gave no answer in time: {message}")
        if status in {400, 404, 405, 409, 415, 422, 501}:
            return self._stranger() if not told else ConfigError(message) if status == 422 else DataError(message)
        return DataError(f"{self.url} failed: {message}")

    @staticmethod
    def _message(response: httpx.Response) -> str:
        return _printable(_told(response) or f"HTTP status {response.status_code} {response.reason_phrase}".strip())

    @contextmanager
    def _explained(self, repeatable: bool) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if cause := _caused_by(error, ssl.SSLError):
                reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or "TLS failed"
                raise DataError(
                    f"{self.url} cannot be trusted: {_printable(str(reason))}; SSL_CERT_FILE may name the certificate "
                    "of your own authority"
                ) from error
            final = DataError(
                f"{self.url} cannot be reached: {_printable(str(error)) or 'no answer'}; check the address"
            )
            if _caused_by(error, socket.gaierror):
                raise final from error
            raise _PassingError(final) from error
        except httpx.TimeoutException as error:
            raise TooSlowError(f"{self.url} gave no answer in time; send less at once, or try again later") from error
        except httpx.HTTPError as error:
            final = DataError(f"{self.url}: the connection broke off; try again ({_printable(str(error))})")
            if repeatable:
                raise _PassingError(final) from error
            raise final from error


def _told(response: httpx.Response) -> str:
    """What the service itself says of an error; empty where the answer comes from something else."""
    try:
        return _Failure.model_validate_json(response.content).error.message
    except ValidationError:
        return ""


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds after which the service wants to be asked again."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0)
    except (TypeError, ValueError, OverflowError):
        return None


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _printable(text: str) -> str:
    """Text of a stranger on one line, and without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST_MESSAGE].strip()
