"""Fetch a public data set once: resumed where it broke off, checked, and only then given its name."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from enzyme_stability.data.tables import find_table, known_tables
from enzyme_stability.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are so far and the bytes there will be, where the server says."""

_CHUNK = 1 << 16


def download(
    url: str,
    target: Path,
    *,
    sha256: Sequence[str] = (),
    progress: Progress | None = None,
    attempts: int = 5,
    first_pause_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """Fetch ``url`` into the file ``target``.

    What has arrived lies in ``<target>.part`` until it is complete and its checksum is right, so an interrupted
    download goes on where it stopped, in this call or in a later one, and ``target`` is never half a file.

    Args:
        url: http or https address.
        target: File to write; its folder is made. A file that is there with the right checksum is left alone.
        sha256: Checksums in hexadecimal, one of which the file must have; without any only the size is checked.
        progress: Called after every piece.
        attempts: How often to try before giving up; each try goes on where the last one stopped.
        first_pause_s: Seconds before the second try; doubled for each one after.
        timeout_s: Seconds without a byte after which a try counts as failed.

    Returns:
        ``target``.

    Raises:
        DataError: The server refuses, cannot be reached, keeps breaking off, or the file is not the expected one.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: only http and https addresses can be downloaded")
    if target.is_file() and _sha256(target) in sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, attempts + 1):
        try:
            _fetch(url, part, progress, timeout_s)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in {408, 429}:  # asking again would get the same answer
                raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
            problem: Exception = error
        except (OSError, http.client.HTTPException) as error:
            problem = error
        if attempt == attempts:
            raise DataError(
                f"{url}: gave up after {attempts} tries, the last one failed with: {problem}; "
                f"run it again to go on from {part}"
            ) from problem
        time.sleep(first_pause_s * 2 ** (attempt - 1))
    if sha256 and (found := _sha256(part)) not in sha256:
        part.unlink()
        raise DataError(
            f"{url}: the file has SHA-256 {found}, expected {' or '.join(sha256)}; it was deleted. The source "
            "has changed, or something on the way changed it"
        )
    part.replace(target)
    return target


def download_dataset(name: str, folder: Path, *, url: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch a declared table to the path under ``folder`` where ``data prepare`` looks for it.

    Args:
        name: Name of the table in ``conf/tables.yaml``.
        folder: The data folder.
        url: A mirror to use instead of the declared address; the checksum stays the declared one.
        progress: See ``download``.

    Raises:
        DataError: The table is unknown, or has no address (the message says where to get it by hand), or as
            ``download``.
    """
    table = find_table(name)
    address = url or table.url
    if address is None:
        raise DataError(
            f"{name} has no address to download from; get it by hand from {table.by_hand} "
            f"and put it at {folder / table.path}"
        )
    return download(address, folder / table.path, sha256=table.sha256, progress=progress)


def downloadable() -> dict[str, str]:
    """Where each declared table comes from: its address, or where a person finds it."""
    return {name: table.url or f"by hand: {table.by_hand}" for name, table in known_tables().items()}


def _fetch(url: str, part: Path, progress: Progress | None, timeout_s: float) -> None:
    there = part.stat().st_size if part.exists() else 0
    # Compressed on the way, the bytes would not be those of the file and could not be continued.
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - http(s) only
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{there}"):
            return  # nothing is missing: the last run ended between the last byte and the rename
        if error.code == 416:
            part.unlink()
            raise OSError(f"the {there} bytes of {part} are no beginning of the file; they were deleted") from error
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
            raise OSError(f"the server sent another range than asked: {response.headers.get('Content-Range')}")
        there = there if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                there += len(chunk)
                if progress:
                    progress(there, total)
    if total is not None and there != total:
        raise OSError(f"the connection ended after {there} of {total} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
