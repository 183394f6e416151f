"""Works on jobs in the background, one part at a time, so that requests get their turn in between."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from enzyme_stability.errors import ArtifactError, EnzymeStabilityError, MissingDependencyError, OverloadedError
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import Record
from enzyme_stability.serving.job_store import JobStore
from enzyme_stability.serving.jobs import Claim, ClaimLostError

Predict = Callable[[list[Record], dict[str, Any]], Sequence[Prediction]]
"""Answers the records of a part, in their order, with the options of its job."""

INTERNAL = "internal error"
"""Message of a job that failed for a reason that is not its sender's business."""

_LONGEST_PAUSE_S = 60.0
_BETWEEN_DELETIONS_S = 600.0

_NOT_TOLD = (ArtifactError, MissingDependencyError)  # they name files of the server

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _StoppedError(Exception):
    """The runner is told to end."""


class _FailedError(Exception):
    """The job cannot be done; the message is for its sender."""


class JobRunner:
    """Two threads of this process: one works on the jobs of a store, one keeps the claim meanwhile.

    They do not outlive the process; start a runner after a fork, not before. Where the database does not answer, they
    try again with growing pauses.

    Args:
        store: The jobs.
        predict: Called from the working thread. An ``OverloadedError`` has it wait and try again; another error of the
            package fails the job with its message, all else with ``INTERNAL``.
        poll_s: Seconds between two looks for a job where there is none.
        lease_s: Seconds after which another process takes over from this one, where it was killed.
        keep_days: Days after which an ended job is deleted; None deletes none.

    Attributes:
        worker: Name of this runner, by which it claims jobs.
    """

    def __init__(
        self,
        store: JobStore,
        predict: Predict,
        *,
        poll_s: float = 0.5,
        lease_s: float = 30.0,
        keep_days: float | None = None,
    ) -> None:
        self.worker = f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._store = store
        self._predict = predict
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._keep_days = keep_days
        self._next_deletion = time.monotonic()
        self._stop = threading.Event()
        self._claim: Claim | None = None
        self._working = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._holding = threading.Thread(target=self._hold, name="job-claim", daemon=True)

    def start(self) -> None:
        """Begin; to be called once."""
        self._working.start()
        self._holding.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """End, and let another process go on at once.

        A part that is done within ``timeout_s`` is kept; one that takes longer will be done again by another.
        """
        self._stop.set()
        if self._working.is_alive():
            self._working.join(timeout_s)
        if claim := self._claim:
            with suppress(ArtifactError, ClaimLostError):  # the lease runs out all the same
                self._store.release(claim)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                claim = self._insist(lambda: self._store.claim(self.worker, self._lease_s))
                if claim:
                    self._claim = claim
                    self._finish(claim)
                    self._claim = None
                else:
                    self._delete_old()
                    self._stop.wait(self._poll_s)
            except _StoppedError:  # with the claim, which close gives back
                return
            except Exception:
                _log.exception("the work on jobs broke off, and goes on in a moment")
                self._claim = None
                self._stop.wait(self._poll_s)

    def _finish(self, claim: Claim) -> None:
        try:
            for number in self._insist(lambda: self._store.open_parts(claim)):
                if self._stop.is_set():
                    raise _StoppedError
                self._finish_part(claim, number)
        except ClaimLostError:
            _log.info("job %.8s was cancelled or taken over", claim.job)
        except _FailedError as failure:
            message = str(failure)
            with suppress(ClaimLostError):
                self._insist(lambda: self._store.fail(claim, message))

    def _finish_part(self, claim: Claim, number: int) -> None:
        try:
            records = self._insist(lambda: self._store.given(claim, number))
            rows = self._answer(records, claim)
            if len(rows) != len(records):
                raise RuntimeError(f"{len(rows)} answers for {len(records)} records")
        except (_StoppedError, ClaimLostError):
            raise
        except Exception as error:
            if self._stop.is_set():  # what it works with ends too, and another worker will have better luck
                raise _StoppedError from error
            told = isinstance(error, EnzymeStabilityError) and not isinstance(error, _NOT_TOLD)
            if not told:
                _log.exception("job %.8s failed", claim.job)
            raise _FailedError(str(error) if told else INTERNAL) from None
        self._insist(lambda: self._store.finish_part(claim, number, rows))

    def _answer(self, records: list[Record], claim: Claim) -> Sequence[Prediction]:
        while True:
            try:
                return self._predict(records, claim.options)
            except OverloadedError as error:
                if self._stop.wait(error.retry_after_s):
                    raise _StoppedError from None
            self._insist(lambda: self._store.renew(claim, self._lease_s))  # it may have been cancelled meanwhile

    def _insist(self, ask: Callable[[], _T]) -> _T:
        """Ask the database until it answers."""
        pause_s = self._poll_s
        while True:
            try:
                return ask()
            except ArtifactError as error:
                _log.warning("jobs wait %.1f s for the database: %s", pause_s, error)
            if self._stop.wait(pause_s):
                raise _StoppedError
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _hold(self) -> None:
        while not self._stop.wait(self._lease_s / 3):
            if claim := self._claim:
                try:
                    self._store.renew(claim, self._lease_s)
                except ClaimLostError:
                    pass  # the working thread finds out before it writes anything
                except Exception as error:
                    _log.warning("the claim of job %.8s could not be renewed: %s", claim.job, error)

    def _delete_old(self) -> None:
        if self._keep_days is None or time.monotonic() < self._next_deletion:
            return
        self._next_deletion = time.monotonic() + _BETWEEN_DELETIONS_S
        try:
            if count := self._store.delete_old(self._keep_days):
                _log.info("deleted %d old jobs", count)
        except ArtifactError as error:
            _log.warning("old jobs could not be deleted: %s", error)
