"""Who may use the service: a file of hashed API keys, and a limit of requests for each."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from enzyme_stability.config.base import Strict
from enzyme_stability.errors import ConfigError, EnzymeStabilityError, OverloadedError

_PREFIX = "es_"  # lets people and secret scanners see what it is
_RANDOM_BYTES = 32
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$"

_log = logging.getLogger(__name__)


class UnauthorisedError(EnzymeStabilityError):
    """An API key is missing, unknown or revoked."""


class ApiKey(Strict):
    """What is kept of an API key.

    A plain SHA-256 is enough, and quick: a key is 256 random bits and not a password that somebody made up, so nobody
    finds it by trying, however fast the hash.

    Attributes:
        name: Who it was given to; the owner of the jobs that are sent with it.
        sha256: Of the key, hexadecimal. The key itself is not kept.
        created: Day.
        requests_per_minute: Limit; None for no limit.
        revoked: Day since which it no longer counts.
    """

    name: str = Field(pattern=_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: dt.date
    requests_per_minute: int | None = Field(None, gt=0)
    revoked: dt.date | None = None


class _KeysFile(Strict):
    keys: tuple[ApiKey, ...] = ()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys in a file, the revoked ones included.

    Raises:
        ConfigError: The file cannot be read, or is not one of keys.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; make a first key with 'keys create NAME --file {path}'") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is no file of API keys: it is not JSON") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no file of API keys: it holds no object with 'keys'")
    return _KeysFile.parse(values, str(path)).keys


def create_key(path: Path, name: str, requests_per_minute: int | None = None) -> str:
    """Add a key to a file, which is made where it is missing.

    Args:
        path: File of the keys.
        name: Letters, digits and ``. _ @ -``. It may be that of a revoked key, which the new one then replaces: it
            owns the same jobs.
        requests_per_minute: Limit; None for no limit.

    Returns:
        The key, which nobody can read from the file.

    Raises:
        ConfigError: The name is taken or cannot be one, or the file cannot be written.
    """
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    entry = ApiKey.parse(
        {
            "name": name,
            "sha256": _sha256(key),
            "created": dt.datetime.now(dt.UTC).date(),
            "requests_per_minute": requests_per_minute,
        },
        "the key",
    )
    with _changed(path) as keys:
        if any(other.name == name and other.revoked is None for other in keys):
            raise ConfigError(f"{path} has a key of {name} already; revoke it first, or choose another name")
        keys.append(entry)
    return key


def revoke_key(path: Path, name: str) -> None:
    """Mark the key of a name as revoked; services that read the file refuse it from their next request on.

    Raises:
        ConfigError: There is no such key, or it is revoked already, or the file cannot be written.
    """
    read_keys(path)  # of a missing file it says so, where an empty list would say that the name is unknown
    with _changed(path) as keys:
        valid = [index for index, key in enumerate(keys) if key.name == name and key.revoked is None]
        if not valid:
            known = ", ".join(key.name for key in keys if key.revoked is None) or "none"
            raise ConfigError(f"{path} has no valid key of {name}; valid keys: {known}")
        for index in valid:
            keys[index] = keys[index].model_copy(update={"revoked": dt.datetime.now(dt.UTC).date()})


def presented_key(scope: Mapping[str, Any]) -> str | None:
    """The API key in the headers of an ASGI request: ``Authorization: Bearer KEY``, or else ``X-API-Key: KEY``."""
    values: dict[bytes, str] = {name: value.decode("latin-1").strip() for name, value in scope["headers"]}
    scheme, _, bearer = values.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return values.get(b"x-api-key") or None


class Access:
    """Lets in who has a valid key, as often as its limit allows. May be used by several threads.

    A changed file counts from the next request on. One that has become unreadable is logged, and the keys read last
    stay valid. Each process of a service counts its own requests.

    Args:
        path: File of the keys.
        now: Clock in seconds.

    Raises:
        ConfigError: The file cannot be read, or is not one of keys.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._stamp = _stamp(path)
        self._keys = read_keys(path)

    def check(self, presented: str | None) -> str:
        """Count a request.

        Args:
            presented: The key that came with it.

        Returns:
            Name of the key.

        Raises:
            UnauthorisedError: The key is missing, unknown or revoked.
            OverloadedError: The limit of the key is used up.
        """
        with self._lock:
            self._read_again()
            if not presented:
                raise UnauthorisedError("an API key is needed; send it as 'Authorization: Bearer KEY'")
            key = self._find(presented)
            if key is None:
                raise UnauthorisedError("this API key is unknown; check that it is complete")
            if key.revoked is not None:
                raise UnauthorisedError("this API key was revoked; ask for another one")
            if key.requests_per_minute is not None:
                self._count(key, key.requests_per_minute)
            return key.name

    def _find(self, presented: str) -> ApiKey | None:
        """The key with this hash; always compares with all of them, so that the time says nothing."""
        sha256 = _sha256(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, sha256):
                found = key
        return found

    def _count(self, key: ApiKey, per_minute: int) -> None:
        now = self._now()
        bucket = self._buckets.get(key.sha256)
        if bucket is None or bucket.capacity != per_minute:
            bucket = self._buckets[key.sha256] = _Bucket(per_minute, per_minute, now)
        if (wait_s := bucket.take(now)) > 0:
            raise OverloadedError(
                f"the limit of {per_minute} requests per minute of this API key is used up; try again in a moment",
                wait_s,
            )

    def _read_again(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            _log.error("the API keys read last stay valid: %s", error)
            return
        known = {key.sha256 for key in self._keys}
        self._buckets = {sha256: bucket for sha256, bucket in self._buckets.items() if sha256 in known}
        _log.info("read %d API keys again", len(self._keys))


@dataclass(slots=True)
class _Bucket:
    """Requests that a key has left; they come back evenly over the minute."""

    capacity: int
    left: float
    at: float

    def take(self, now: float) -> float:
        """Take one request; seconds to wait where there is none."""
        per_second = self.capacity / 60
        self.left = min(self.capacity, self.left + max(0.0, now - self.at) * per_second)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / per_second
        self.left -= 1
        return 0.0


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What differs once a file was changed; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@contextmanager
def _changed(path: Path) -> Iterator[list[ApiKey]]:
    """The keys of a file, which are written back in one step; two who change it at once do not undo each other."""
    try:
        final = path.resolve()
        unfinished = final.with_name(f"{final.name}.lock")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} is just being changed; where nobody does, delete {unfinished}") from None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links and a NUL in the name are no OSError
        raise ConfigError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            keys = list(read_keys(final)) if final.exists() else []
            yield keys
            values = _KeysFile(keys=tuple(keys)).model_dump(mode="json", exclude_none=True)
            file.write(json.dumps(values, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        unfinished.replace(final)
    except BaseException as error:  # not after success: the file of this name may be that of somebody else by then
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
        raise
