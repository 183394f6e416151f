"""Keep every prediction in the database, without a request ever waiting for it."""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.errors import ArtifactError, SequenceError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.hashing import sequence_hash
from enzyme_stability.monitoring.retention import prune_in_portions
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import Record, clean_sequence

_BATCH = 1_000  # rows written in one transaction
_RESIDUES_PER_ROW = 1_000  # times the capacity: bounds the memory of what waits
_GATHER_S = 0.2  # a transaction for each request would wear out the disk
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_FIRST_PRUNING_S = 60.0
_PRUNING_S = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Some rows of one request."""

    made_at: dt.datetime
    pairs: Sequence[tuple[Record, Prediction]]
    residues: int
    model: str
    model_hash: str
    coverage: float
    latency_s: float


class PredictionLog:
    """Takes predictions and writes them from a thread of its own; may be used by several threads.

    Rows that cannot be written now wait until the database is back. Rows for which there is no place are dropped, and
    counted. The thread also deletes rows that are not to be kept any longer. A process that forks makes its own log
    afterwards: the thread does not come along. A process that is killed loses the rows of the last moments. Where a
    connection breaks at the very end of a transaction, its rows may be there twice.

    Args:
        database: Need not be up to date or reachable yet.
        keep_days: Days after which a row is deleted.
        keep_rows: Rows that are kept, at most.
        sequences: Whether the sequences themselves are kept; without it only their hash and composition are.
        capacity: Rows that may wait, and in thousands their residues.

    Attributes:
        written: Rows in the database.
        dropped: Rows lost.
        failures: Attempts to write or delete that failed.
        waiting: Rows on their way.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_days: float,
        keep_rows: int,
        sequences: bool = False,
        capacity: int = 50_000,
    ) -> None:
        self.written = self.dropped = self.failures = self.waiting = 0
        self._database = database
        self._keep_days, self._keep_rows = keep_days, keep_rows
        self._sequences = sequences
        self._capacity = capacity
        self._queue: deque[_Answers] = deque()
        self._residues = 0
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._closes_at: float | None = None
        self._prunes_at = time.monotonic() + _FIRST_PRUNING_S
        self._pruning: Iterator[int] | None = None
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    def add(
        self,
        records: Sequence[Record],
        predictions: Sequence[Prediction],
        *,
        model: str,
        model_hash: str,
        coverage: float,
        latency_s: float,
    ) -> None:
        """Take the rows of one request; returns at once and raises nothing, whatever state the database is in.

        Args:
            records: What was asked, with the growth temperatures that were used.
            predictions: The answer to each record.
            model: Name of the predictor.
            model_hash: Its digest.
            coverage: Share of proteins that the intervals are to hold.
            latency_s: Seconds that the request took.
        """
        made_at = dt.datetime.now(dt.UTC)
        pairs = list(zip(records, predictions, strict=False))
        with self._changed:
            for start in range(0, len(pairs), _BATCH):
                asked = pairs[start : start + _BATCH]
                some = asked[: self._capacity - self.waiting]
                residues = sum(len(record.sequence) for record, _ in some)
                full = self._residues + residues > self._capacity * _RESIDUES_PER_ROW
                if full or not some or self._closes_at is not None:
                    self.dropped += len(asked)
                    continue
                self.dropped += len(asked) - len(some)
                self.waiting += len(some)
                self._residues += residues
                self._queue.append(_Answers(made_at, some, residues, model, model_hash, coverage, latency_s))
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more, ``timeout_s`` seconds at most; says whether that is so."""
        self._hurry.set()
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Take nothing more, write what waits, and drop what cannot be written within ``timeout_s`` seconds."""
        with self._changed:
            self._closes_at = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._hurry.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        failed = 0
        while self._wait_for_work():
            if self._queue:
                failed = 0 if self._write(self._next_answers(), failed) else failed + 1
            # Also where rows cannot be written: on a full disk they only can once others are gone.
            if self._closes_at is None and time.monotonic() >= self._prunes_at:
                self._prune()
            if failed:
                self._pause(failed)

    def _wait_for_work(self) -> bool:
        """Wait for rows, or until it is time to prune; False once the log is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._closes_at is not None, max(0, self._prunes_at - time.monotonic())
            )
            if self._closes_at is not None and (not self._queue or time.monotonic() >= self._closes_at):
                self._take_off(len(self._queue), kept=False)
                return False
        if self._queue and self.waiting < _BATCH and self._closes_at is None:
            self._hurry.wait(_GATHER_S)
            self._hurry.clear()
        return True

    def _next_answers(self) -> list[_Answers]:
        answers: list[_Answers] = []
        rows = 0
        with self._changed:
            for some in self._queue:
                rows += len(some.pairs)
                if answers and rows > _BATCH:
                    break
                answers.append(some)
        return answers

    def _write(self, answers: Sequence[_Answers], failed: int) -> bool:
        """Whether the answers are off the queue: written, or of no use to any database."""
        from sqlalchemy import insert

        from enzyme_stability.monitoring.tables import PredictionRow

        kept = True
        try:
            with self._database.session() as session:
                session.execute(
                    insert(PredictionRow), [row for some in answers for row in _rows(some, self._sequences)]
                )
        except Exception as error:
            self.failures += 1
            if isinstance(error, ArtifactError) and not _hopeless(error):
                if not failed:
                    _log.warning("predictions wait to be logged: %s", error)
                return False
            _log.exception("predictions cannot be logged and are dropped")
            kept = False
        if failed:
            _log.warning("predictions are logged again, %d were dropped so far", self.dropped)
        with self._changed:
            self._take_off(len(answers), kept=kept)
        return True

    def _take_off(self, count: int, *, kept: bool) -> None:
        done = [self._queue.popleft() for _ in range(count)]
        rows = sum(len(answers.pairs) for answers in done)
        self.waiting -= rows
        self._residues -= sum(answers.residues for answers in done)
        if kept:
            self.written += rows
        else:
            self.dropped += rows
        self._changed.notify_all()

    def _pause(self, failed: int) -> None:
        closing = self._closes_at is not None
        self._hurry.wait(_FIRST_PAUSE_S if closing else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failed, 16)))
        self._hurry.clear()

    def _prune(self) -> None:
        """Delete one portion, so that rows that come in meanwhile are written in between."""
        try:
            self._pruning = self._pruning or prune_in_portions(
                self._database, keep_days=self._keep_days, keep_rows=self._keep_rows
            )
            if next(self._pruning, None) is not None:
                return
        except Exception as error:  # the thread must go on; it tries again next time
            self.failures += 1
            _log.warning("old predictions cannot be deleted: %s", error)
        self._pruning = None
        self._prunes_at = time.monotonic() + _PRUNING_S


def _hopeless(error: ArtifactError) -> bool:
    """Whether the rows are to blame and not the database: trying them again would end the same way."""
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

    cause = error.__cause__
    return isinstance(cause, StatementError) and (
        not isinstance(cause, DBAPIError) or isinstance(cause, DataError | IntegrityError)
    )


def _rows(answers: _Answers, sequences: bool) -> Iterator[dict[str, Any]]:
    for record, prediction in answers.pairs:
        try:
            clean = None if prediction.status == "error" else clean_sequence(record.sequence)
        except SequenceError:  # predicted from its embedding alone
            clean = None
        yield {
            "made_at": answers.made_at,
            "sequence_hash": clean and sequence_hash(clean.residues),
            "sequence": clean.chain if clean and sequences else None,
            "length": prediction.length,
            # One by one: frequencies of many long sequences at once take a lot of memory.
            "composition": clean and amino_acid_frequencies([clean.residues])[0].round(4).tolist(),
            "similarity": prediction.similarity,
            "growth_temperature_celsius": _finite(record.growth_temperature),
            "tm_celsius": prediction.tm_celsius,
            "tm_lower_celsius": prediction.tm_lower_celsius,
            "tm_upper_celsius": prediction.tm_upper_celsius,
            "coverage": answers.coverage,
            "in_domain": prediction.in_domain,
            "status": prediction.status,
            "model": answers.model[:200],
            "model_hash": answers.model_hash,
            "latency_ms": round(1000 * answers.latency_s, 3),
        }


def _finite(celsius: float | None) -> float | None:
    return celsius if celsius is not None and math.isfinite(celsius) else None
