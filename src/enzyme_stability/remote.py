"""One way to speak to every file system behind an address: limited in time, tried again, checked, explained."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, MissingDependencyError

Listing = dict[str, dict[str, Any]]
"""What a file system says about each file, by the file's full name."""

PAUSES_S = (1.0, 2.0, 4.0)
"""Seconds before each further try of a transfer."""

_FIRST_ANSWER_S = 10.0
_SILENCE_S = 120.0
_RETRIED_STATUS = {408, 425, 429}
_NO_USE_RETRYING = (
    FileExistsError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    LookupError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    TypeError,
    ValueError,
)


class MissingFileSystemError(MissingDependencyError):
    """The package for one kind of address is not installed; the message gives the install command."""

    def __init__(self, protocol: str, remedy: str) -> None:
        EnzymeStabilityError.__init__(self, f"{protocol}:// addresses need another package: {remedy}")


def connect(url: str) -> tuple[Any, str]:
    """The file system of an address, and the name of the address in it.

    Raises:
        ArtifactError: The file system cannot be set up, as without credentials.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ImportError as error:
        raise MissingDependencyError("Reading from and writing to URLs", "gcp") from error
    protocol = url.partition("://")[0].lower()
    google = protocol in {"gs", "gcs"}
    if protocol not in known_implementations and protocol not in fsspec.registry:
        raise ConfigError(f"{url}: addresses that begin with {protocol}:// are not known here")
    try:
        if google:
            fs: Any = _google(os.environ.get("STORAGE_EMULATOR_HOST", ""), os.getpid())
            root = fs._strip_protocol(url)
        else:
            fs, root = fsspec.url_to_fs(url)
    except ImportError as error:
        if google:
            raise MissingDependencyError("Reading from and writing to Google Cloud Storage", "gcp") from error
        package = known_implementations.get(protocol, {}).get("class", "fsspec").partition(".")[0]
        remedy = str(error) if package == "fsspec" else f"pip install {package}"
        raise MissingFileSystemError(protocol, remedy) from error
    except Exception as error:  # each client raises a family of its own
        raise ArtifactError(f"{url}: {_reason(error)}") from error
    return fs, root.rstrip("/")


@cache
def _google(emulator: str, process: int) -> Any:  # noqa: ARG001 - both are what a client is kept for
    """The client of one process: its connections do not survive a fork."""
    from aiohttp import ClientTimeout
    from gcsfs.core import GCSFileSystem  # the package's own choice first asks a service that an emulator lacks
    from google.auth.exceptions import DefaultCredentialsError

    logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs the traceback of what is raised anyway
    settings: dict[str, Any] = {
        "skip_instance_cache": True,
        "use_listings_cache": False,
        "requests_timeout": ClientTimeout(sock_connect=_FIRST_ANSWER_S, sock_read=_SILENCE_S),
    }
    if not emulator:
        try:
            return GCSFileSystem(token="google_default", **settings)  # noqa: S106 - the name of a method
        except DefaultCredentialsError:
            if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:
                raise
            # else there are none, and none are needed to read a public bucket
    return GCSFileSystem(token="anon", **settings)  # noqa: S106


def find_file(fs: Any, name: str) -> dict[str, Any] | None:
    """What the file system says about a file, None where there is none; fails soon where nobody answers."""
    fs.invalidate_cache()
    try:
        info: dict[str, Any] = fs.info(name, **_limit(fs))
    except FileNotFoundError:
        return None
    return info


def list_files(fs: Any, root: str) -> Listing:
    """All files of a folder, or the one file that ``root`` is; fails soon where nobody answers.

    Raises:
        FileNotFoundError: There is nothing.
    """
    info = find_file(fs, root)
    if info is None:
        raise FileNotFoundError(root)
    if info["type"] == "file":
        return {root: info}
    found: Listing = fs.find(root, detail=True, **_limit(fs))
    files = {name: info for name, info in found.items() if not name.endswith("/")}  # else a folder's placeholder
    if not files:
        raise FileNotFoundError(root)
    return files


def _limit(fs: Any) -> dict[str, float]:
    """Clients retry for a minute on their own where nobody answers; those that take a time limit get one."""
    return {"timeout": _FIRST_ANSWER_S} if fs.async_impl else {}


def relative_names(listing: Listing, root: str) -> dict[str, PurePosixPath]:
    """Where each file goes below the folder; empty for the file that ``root`` itself is.

    Raises:
        ArtifactError: A name would lead out of the folder.
    """
    names = {}
    for name in listing:
        inside = name == root or name.startswith(f"{root}/")
        relative = name[len(root) :].lstrip("/")
        if not inside or ".." in relative.split("/") or "\\" in relative or ":" in relative.split("/")[0]:
            raise ArtifactError(f"the name {name!r} leads out of the folder; nothing was written")
        names[name] = PurePosixPath(relative)
    return names


def download(fs: Any, name: str, info: dict[str, Any], target: Path) -> None:
    """Transfer a file from a file system, with several tries, and compare it with what ``info`` says of it."""

    def transfer() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(name, str(target))
        _check(target, info, name)

    retried(transfer)


def upload(fs: Any, path: Path, name: str) -> None:
    """Transfer a file to a file system, with several tries, and compare what has arrived with it."""

    def transfer() -> None:
        fs.put_file(str(path), name)
        fs.invalidate_cache()
        _check(path, fs.info(name), name)

    retried(transfer)


def _check(path: Path, info: dict[str, Any], name: str) -> None:
    here, there = path.stat().st_size, info.get("size")
    if info.get("contentEncoding"):  # stored compressed and unpacked on the way
        return
    if there is not None and there != here:
        raise ArtifactError(f"{name} was not transferred completely: {there} bytes there, {here} here; try again")
    if checksum := info.get("md5Hash"):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        if base64.b64encode(digest).decode() != checksum:
            raise ArtifactError(f"{name} was damaged on the way: the MD5 checksums differ; try again")


def retried(action: Callable[[], object]) -> None:
    """Carry out ``action``, again after a pause where it failed for a reason that may pass."""
    for pause in PAUSES_S:
        try:
            action()
            return
        except Exception as error:
            if _is_final(error):
                raise
            time.sleep(pause)
    action()


def _is_final(error: Exception) -> bool:
    """Whether another try would end the same way; what is not known is tried again."""
    status = _status(error)
    if status is not None:
        return status < 500 and status not in _RETRIED_STATUS
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    return full or isinstance(error, _NO_USE_RETRYING) or str(error).startswith("Forbidden")


def _status(error: Exception) -> int | None:
    """The HTTP status, wherever a client keeps it."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            with suppress(TypeError, ValueError):
                return int(getattr(holder, name, ""))
    return None


@contextmanager
def explained(url: str | Path) -> Iterator[None]:
    """Turn whatever fails inside into an ``ArtifactError`` of one sentence about ``url``."""
    try:
        yield
    except EnzymeStabilityError:
        raise
    except Exception as error:  # each client raises a family of its own
        raise ArtifactError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.filename:  # of the local disk
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return "there is nothing at this address; check its spelling and that the bucket exists"
    if isinstance(error, TimeoutError):
        return "there is no answer; check the address and the network"
    if isinstance(error, PermissionError) or _status(error) in {401, 403} or str(error).startswith("Forbidden"):
        return "access is refused; sign in (Google: gcloud auth application-default login) or ask its owner for access"
    text = " ".join(str(error).split())
    return f"{text or type(error).__name__}; try again later"
