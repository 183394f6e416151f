"""Predicts what many requests ask for in common batches, in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from enzyme_stability.errors import OverloadedError
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import Record

Predict = Callable[[list[Record], Any], list[Prediction]]
"""Records, and how they are to be predicted, to rows, in order."""

_SLOWEST = 1_000.0  # residues/s taken for the pace before there is one
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Batch:
    """What was predicted at once."""

    requests: int
    records: int
    residues: int
    seconds: float


@dataclass(eq=False)
class _Waiting:
    records: Sequence[Record]
    how: Any
    answer: asyncio.Future[list[Prediction]]
    begun: Callable[[], None]
    rows: list[Prediction] = field(default_factory=list)
    taken: int = 0

    def take(self, residues: int) -> tuple[list[Record], int]:
        """The next records, up to so many residues but at least one, and how many residues they have."""
        start, size = self.taken, 0
        while self.taken < len(self.records) and (self.taken == start or size + self._next() <= residues):
            size += self._next()
            self.taken += 1
        return list(self.records[start : self.taken]), size

    def _next(self) -> int:
        return len(self.records[self.taken].sequence)

    @property
    def left(self) -> int:
        """Residues not yet taken."""
        return sum(len(record.sequence) for record in self.records[self.taken :])


class Batcher:
    """A bounded queue before a model.

    Requests take turns, so that one with ten thousand sequences does not make one with a single sequence wait for all
    of them. A request that nobody waits for any more is dropped from the queue.

    Args:
        predict: The model; called in one thread.
        batch_residues: Residues predicted at once.
        wait_s: Seconds a lone request waits for others.
        queue_residues: Residues that may wait.
        queue_requests: Requests that may wait.
        told: Called with each batch that is done, in the event loop.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        batch_residues: int,
        wait_s: float,
        queue_residues: int,
        queue_requests: int,
        told: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self._predict, self._told = predict, told
        self._batch_residues, self._wait_s = batch_residues, wait_s
        self._queue_residues, self._queue_requests = queue_residues, queue_requests
        self._queue: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "model")
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pace = 0.0  # residues/s, smoothed
        self.residues = 0
        """Residues that wait."""

    @property
    def requests(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in self._queue:
            waiting.answer.cancel()
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def predict(
        self, records: Sequence[Record], how: Any, begun: Callable[[], None] = lambda: None
    ) -> list[Prediction]:
        """The rows of some records, in order.

        Args:
            records: What is asked.
            how: Given to the model; only requests with an equal one are predicted together.
            begun: Called when the first of the records leave the queue.

        Raises:
            OverloadedError: Too much waits already.
            EnzymeStabilityError: The model refuses.
        """
        if not records:
            return []
        size = sum(len(record.sequence) for record in records)
        if self._queue and (self.residues + size > self._queue_residues or self.requests >= self._queue_requests):
            raise OverloadedError("the service is busy: try again a little later", self.pause_s)
        waiting = _Waiting(records, how, asyncio.get_running_loop().create_future(), begun)
        self._queue.append(waiting)
        self.residues += size
        self._something.set()
        try:
            return await waiting.answer
        finally:
            if waiting in self._queue:  # nobody waits for it any more
                self._queue.remove(waiting)
                self.residues -= waiting.left

    @property
    def pause_s(self) -> float:
        """Seconds until what waits now is done, as far as the pace of late tells."""
        return min(_LONGEST_PAUSE_S, max(1.0, self.residues / (self._pace or _SLOWEST)))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._something.wait()
            if self.residues < self._batch_residues:
                await asyncio.sleep(self._wait_s)
            batch, residues = self._take()
            if not batch:
                self._something.clear()
                continue
            records = [record for _, some in batch for record in some]
            began = time.perf_counter()
            how = batch[0][0].how
            try:
                rows = await loop.run_in_executor(self._thread, self._predict, records, how)
            except Exception:  # it is told to those whose records they are, below
                for waiting, some in batch:
                    try:
                        alone = await loop.run_in_executor(self._thread, self._predict, some, how)
                    except Exception as error:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                    else:
                        self._hand_out([(waiting, some)], alone)
                continue
            seconds = time.perf_counter() - began
            self._pace = 0.8 * (self._pace or residues / seconds) + 0.2 * residues / seconds
            self._hand_out(batch, rows)
            self._told(Batch(len(batch), len(records), residues, seconds))

    def _take(self) -> tuple[list[tuple[_Waiting, list[Record]]], int]:
        """Parts of the requests that come next and are to be predicted alike, and their residues."""
        batch: list[tuple[_Waiting, list[Record]]] = []
        size = 0
        for _ in range(len(self._queue)):
            if batch and size >= self._batch_residues:
                break
            waiting = self._queue.popleft()
            if batch and waiting.how != batch[0][0].how:
                self._queue.appendleft(waiting)
                break
            share = max(1, (self._batch_residues - size) // 2 if self._queue else self._batch_residues - size)
            if not waiting.taken:
                waiting.begun()
            records, residues = waiting.take(share)
            batch.append((waiting, records))
            size += residues
            if waiting.taken < len(waiting.records):
                self._queue.append(waiting)
        self.residues -= size
        return batch, size

    def _hand_out(self, batch: list[tuple[_Waiting, list[Record]]], rows: list[Prediction]) -> None:
        start = 0
        for waiting, records in batch:
            waiting.rows += rows[start : start + len(records)]
            start += len(records)
            if len(waiting.rows) == len(waiting.records) and not waiting.answer.done():
                waiting.answer.set_result(waiting.rows)
