"""Jobs in the database: taken in whole, worked off part by part, given back whole.

A worker holds a job by a claim with a lease, and everything it writes is written only while the claim is its own. So a
worker may end at any point, and any number of them may share a database: a finished part is never done again, and no
row is lost or doubled. The clocks of machines that share a database must agree to a few seconds.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, exists, func, insert, or_, select, update

from enzyme_stability.data.writers import TableWriter, table_as
from enzyme_stability.errors import ArtifactError, DataError, TooLargeError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.tables import JobPart, JobRow
from enzyme_stability.prediction import COLUMNS, Prediction
from enzyme_stability.sequence import Record
from enzyme_stability.serving.jobs import (
    Claim,
    ClaimLostError,
    JobStateError,
    JobStatus,
    NoSuchJobError,
    in_parts,
    pack_records,
    pack_rows,
    unpack_records,
    unpack_rows,
)

STATES = ("queued", "running", "done", "failed", "cancelled")
"""In which a job can be."""

_ID = re.compile("[0-9a-f]{32}")
_IN_MEMORY = 32 << 20  # bytes of an input that is taken in before it lies in a temporary file
_UNENDED = ("queued", "running")
_STATUS = (
    JobRow.id,
    JobRow.state,
    JobRow.records,
    JobRow.finished,
    JobRow.message,
    JobRow.created_at,
    JobRow.ended_at,
)


class JobStore:
    """The jobs of a database; may be used by several threads and processes at once.

    All methods raise ``ArtifactError`` where the database does not answer.

    Args:
        database: With its tables, as ``migrate`` makes them.
        most_records: Largest input.
    """

    def __init__(self, database: Database, *, most_records: int = 1_000_000) -> None:
        self._database = database
        self._most_records = most_records

    def submit(
        self,
        records: Iterable[Record],
        options: Mapping[str, Any],
        owner: str | None = None,
        part_records: int = 512,
    ) -> str:
        """Take in a job, all of it or nothing.

        The records are read one after the other and not kept in memory; the database is busy only once all are there.

        Args:
            records: The input.
            options: Passed on with every part; plain JSON values.
            owner: Name of the API key it was sent with; only with that it can be seen. None for everybody who has
                its id.
            part_records: Records predicted at once.

        Returns:
            Id of the job.

        Raises:
            DataError: There are no records.
            TooLargeError: There are more than ``most_records``.
        """
        job = secrets.token_hex(16)
        sizes: list[tuple[int, int]] = []
        total = 0
        with _spool() as spool:
            for part in in_parts(records, part_records):
                if (total := total + len(part)) > self._most_records:
                    raise TooLargeError(f"a job takes up to {self._most_records:,} sequences; send the rest as another")
                given = pack_records(part)
                spool.write(given)
                sizes.append((len(part), len(given)))
            if not sizes:
                raise DataError("the job has no sequences")
            spool.seek(0)
            with self._database.session() as session:
                row = {"id": job, "owner": owner, "state": "queued", "records": total, "created_at": _now()}
                session.execute(insert(JobRow).values(options=dict(options), **row))
                for number, (count, size) in enumerate(sizes):
                    given = spool.read(size)
                    session.execute(insert(JobPart).values(job_id=job, number=number, records=count, given=given))
        return job

    def status(self, job: str, owner: str | None = None) -> JobStatus:
        """How far a job is.

        Args:
            job: Its id.
            owner: Name of the API key that comes with the question.

        Raises:
            NoSuchJobError: There is no such job, or it was sent with another key.
        """
        if _ID.fullmatch(job):
            with self._database.session(read_only=True) as session:
                seen = or_(JobRow.owner.is_(None), JobRow.owner == owner)
                row = session.execute(select(*_STATUS).where(JobRow.id == job, seen)).one_or_none()
            if row:
                return JobStatus(*row)
        raise NoSuchJobError("there is no such job; it may have been deleted after its time")

    def result(
        self,
        job: str,
        owner: str | None = None,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002 - the word of the command line
    ) -> Iterator[bytes]:
        """The table of a job that is done, part by part; the same text that the command ``predict`` writes.

        Raises:
            NoSuchJobError: As ``status``.
            JobStateError: The job is not done.
        """
        status = self.status(job, owner)
        if status.state != "done":
            raise JobStateError(_why_no_result(status))
        return self._text(job, format)

    def _text(self, job: str, kind: str) -> Iterator[bytes]:
        text = _Text()
        writer = TableWriter(table_as(kind, text, COLUMNS), COLUMNS, "the result")
        with self._database.session(read_only=True) as session:
            parts = session.scalar(select(func.count()).where(JobPart.job_id == job)) or 0
        for number in range(parts):
            with self._database.session(read_only=True) as session:
                answered = session.scalar(select(JobPart.answered).where(_part(job, number)))
            if answered is None:
                raise ArtifactError("the job was deleted while its result was read")
            for row in unpack_rows(answered):
                writer.write(row)
            yield text.taken()

    def cancel(self, job: str, owner: str | None = None) -> JobStatus:
        """End a job where it has not ended yet, and forget its sequences.

        Raises:
            NoSuchJobError: As ``status``.
        """
        self.status(job, owner)
        with self._database.session() as session:
            ended = {"state": "cancelled", "ended_at": _now(), "claimed_by": None}
            where = (JobRow.id == job, JobRow.state.in_(_UNENDED))
            if session.scalar(update(JobRow).where(*where).values(ended).returning(JobRow.id)):
                session.execute(delete(JobPart).where(JobPart.job_id == job))
        return self.status(job, owner)

    def delete_old(self, keep_days: float) -> int:
        """Delete the jobs that ended more than ``keep_days`` days ago; returns how many there were."""
        before = _now() - dt.timedelta(days=keep_days)
        with self._database.session(read_only=True) as session:
            old = session.scalars(select(JobRow.id).where(JobRow.ended_at < before)).all()
        for job in old:  # one at a time, so that others get at the database in between
            with self._database.session() as session:
                session.execute(delete(JobPart).where(JobPart.job_id == job))
                session.execute(delete(JobRow).where(JobRow.id == job))
        return len(old)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each of ``STATES``."""
        with self._database.session(read_only=True) as session:
            found = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
        return dict.fromkeys(STATES, 0) | dict(found)

    def claim(self, worker: str, lease_s: float = 30) -> Claim | None:
        """Take the oldest job that nobody works on: a queued one, or one whose worker let its lease run out.

        Args:
            worker: Name that no other worker has.
            lease_s: Seconds until others may take the job, unless ``renew`` comes before.

        Returns:
            None where there is nothing to do.
        """
        now = _now()
        free = or_(JobRow.state == "queued", (JobRow.state == "running") & (JobRow.claimed_until < now))
        oldest = select(JobRow.id).where(free).order_by(JobRow.created_at, JobRow.id).limit(1)
        claimed = {"state": "running", "claimed_by": worker, "claimed_until": now + dt.timedelta(seconds=lease_s)}
        with self._database.session(read_only=True) as session:  # which, other than a change, waits for nobody
            if session.scalar(oldest) is None:
                return None
        with self._database.session() as session:
            row = session.execute(
                update(JobRow)
                # Which is free is asked again of the row itself: another worker may have been quicker.
                .where(JobRow.id == oldest.with_for_update(skip_locked=True).scalar_subquery(), free)
                .values(claimed)
                .returning(JobRow.id, JobRow.options)
                .execution_options(synchronize_session=False)
            ).one_or_none()
        return Claim(row.id, worker, row.options) if row else None

    def renew(self, claim: Claim, lease_s: float = 30) -> None:
        """Hold a job for another ``lease_s`` seconds from now.

        Raises:
            ClaimLostError: The job is no longer this worker's.
        """
        self._change_held(claim, claimed_until=_now() + dt.timedelta(seconds=lease_s))

    def release(self, claim: Claim) -> None:
        """Let another worker go on at once.

        Raises:
            ClaimLostError: As ``renew``.
        """
        self._change_held(claim, state="queued", claimed_by=None, claimed_until=None)

    def fail(self, claim: Claim, message: str) -> None:
        """End a job that cannot be done, and forget its sequences.

        Raises:
            ClaimLostError: As ``renew``.
        """
        with self._database.session() as session:
            ended = {"state": "failed", "ended_at": _now(), "claimed_by": None}
            text = message.replace("\0", "")  # which PostgreSQL does not take
            failed = update(JobRow).where(_held(claim)).values(message=text, **ended).returning(JobRow.id)
            if session.scalar(failed) is None:
                raise ClaimLostError(_LOST)
            session.execute(delete(JobPart).where(JobPart.job_id == claim.job))

    def open_parts(self, claim: Claim) -> Sequence[int]:
        """Numbers of the parts that are not answered yet, in their order."""
        with self._database.session(read_only=True) as session:
            unanswered = select(JobPart.number).where(JobPart.job_id == claim.job, JobPart.answered.is_(None))
            return session.scalars(unanswered.order_by(JobPart.number)).all()

    def given(self, claim: Claim, number: int) -> list[Record]:
        """The records of a part.

        Raises:
            ClaimLostError: As ``renew``.
            DataError: They are damaged.
        """
        with self._database.session(read_only=True) as session:
            part = select(JobPart.given).join(JobRow, JobRow.id == JobPart.job_id)
            packed = session.scalar(part.where(_part(claim.job, number), _held(claim)))
        if packed is None:
            raise ClaimLostError(_LOST)
        return unpack_records(packed)

    def finish_part(self, claim: Claim, number: int, rows: Sequence[Prediction]) -> None:
        """Keep the rows of a part, in exchange for its records; the last one ends the job. A second call does nothing.

        Raises:
            ClaimLostError: As ``renew``.
        """
        answered = pack_rows(rows)
        unanswered = exists().where(_part(claim.job, number), JobPart.answered.is_(None))
        finished = JobRow.finished + len(rows)
        with self._database.session() as session:
            # The row of the job comes first, in this and every other change, so that no two wait for each other.
            counted = update(JobRow).where(_held(claim), unanswered).values(finished=finished)
            if session.scalar(counted.returning(JobRow.id).execution_options(synchronize_session=False)):
                kept = {"answered": answered, "given": b""}
                session.execute(update(JobPart).where(_part(claim.job, number)).values(kept))
                done = update(JobRow).where(JobRow.id == claim.job, JobRow.finished >= JobRow.records)
                session.execute(done.values(state="done", ended_at=_now(), claimed_by=None))
            elif session.scalar(select(JobRow.id).where(_held(claim))) is None:
                raise ClaimLostError(_LOST)

    def _change_held(self, claim: Claim, **values: object) -> None:
        with self._database.session() as session:
            if session.scalar(update(JobRow).where(_held(claim)).values(values).returning(JobRow.id)) is None:
                raise ClaimLostError(_LOST)


_LOST = "the job was cancelled, or another process has taken it over"


class _Text:
    """What was written since it was taken last."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(data)
        return len(data)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


@contextmanager
def _spool() -> Iterator[tempfile.SpooledTemporaryFile[bytes]]:
    try:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            yield spool
    except OSError as error:
        raise ArtifactError(f"the job cannot be taken in: {error.strerror or error}; try again later") from error


def _held(claim: Claim) -> ColumnElement[bool]:
    return (JobRow.id == claim.job) & (JobRow.state == "running") & (JobRow.claimed_by == claim.worker)


def _part(job: str, number: int) -> ColumnElement[bool]:
    return (JobPart.job_id == job) & (JobPart.number == number)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _why_no_result(status: JobStatus) -> str:
    match status.state:
        case "failed":
            return f"the job has no result, for it failed: {status.message}"
        case "cancelled":
            return "the job has no result, for it was cancelled"
        case _:
            return f"the job is {status.state}: {status.finished:,} of {status.records:,} sequences are done"
