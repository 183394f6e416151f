"""A job: an input too large to be answered at once, worked off part by part behind the scenes."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from enzyme_stability.errors import DataError, EnzymeStabilityError
from enzyme_stability.prediction import COLUMNS, Prediction
from enzyme_stability.sequence import Record

_PART_RESIDUES = 500_000  # so that a part of long chains holds up the requests beside it no longer than others
_QUICK = 1  # of gzip: sequences of random residues hardly get smaller at higher levels


class NoSuchJobError(EnzymeStabilityError):
    """There is no such job, or it is somebody else's; who asks is not told which."""


class JobStateError(EnzymeStabilityError):
    """The result of a job is asked for that has none, or none yet; the message says in what state it is."""


class ClaimLostError(EnzymeStabilityError):
    """A job is no longer this worker's: it was cancelled, or another process has taken it over."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Attributes:
        id: Hexadecimal; who knows it may read the job, with the key it was sent with where there was one.
        state: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        records: In the input.
        finished: Records that are predicted.
        message: Why it failed, or the empty string.
        created_at: When it was sent, UTC.
        ended_at: When it was done, failed or cancelled, UTC.
    """

    id: str
    state: str
    records: int
    finished: int
    message: str
    created_at: dt.datetime
    ended_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to work on a job, until its lease runs out.

    Attributes:
        job: Id of the job.
        worker: Name of who works on it; no two have the same.
        options: As of the request.
    """

    job: str
    worker: str
    options: dict[str, Any]


def in_parts(records: Iterable[Record], part_records: int) -> Iterator[list[Record]]:
    """Cut an input into parts of at most ``part_records`` records, fewer where the chains are long."""
    part: list[Record] = []
    residues = 0
    for record in records:
        if part and (len(part) >= part_records or residues + len(record.sequence) > _PART_RESIDUES):
            yield part
            part, residues = [], 0
        part.append(record)
        residues += len(record.sequence)
    if part:
        yield part


def pack_records(records: Iterable[Record]) -> bytes:
    """Gzip-compressed JSON lines."""
    return _packed(asdict(record) for record in records)


def unpack_records(packed: bytes) -> list[Record]:
    """What ``pack_records`` was given.

    Raises:
        DataError: The bytes are damaged.
    """
    try:
        return [Record(**fields) for fields in _unpacked(packed)]
    except TypeError:
        raise DataError(_DAMAGED) from None


def pack_rows(rows: Iterable[Prediction]) -> bytes:
    """Gzip-compressed JSON lines with the columns of an answer."""
    return _packed({name: getattr(row, name) for name in COLUMNS} for row in rows)


def unpack_rows(packed: bytes) -> list[dict[str, Any]]:
    """The rows of ``pack_rows``, column by column.

    Raises:
        DataError: The bytes are damaged.
    """
    return list(_unpacked(packed))


_DAMAGED = "a part of the job is damaged in the database; send the job again"


def _packed(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines), _QUICK, mtime=0)


def _unpacked(packed: bytes) -> Iterator[dict[str, Any]]:
    try:
        for line in gzip.decompress(packed).splitlines():
            yield json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError):
        raise DataError(_DAMAGED) from None
