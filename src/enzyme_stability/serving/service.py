"""The models, the queue before them and the records they leave, behind every route of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from enzyme_stability import __version__
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.errors import (
    ArtifactError,
    ConfigError,
    EnzymeStabilityError,
    OverloadedError,
    TooLargeError,
)
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.prediction import Prediction
from enzyme_stability.predictor import Predictor
from enzyme_stability.registry import Address
from enzyme_stability.sequence import Record
from enzyme_stability.serving.access import Access
from enzyme_stability.serving.batching import Batch, Batcher
from enzyme_stability.serving.job_runner import JobRunner
from enzyme_stability.serving.job_store import JobStore
from enzyme_stability.serving.telemetry import Telemetry
from enzyme_stability.serving.tracing import tracer
from enzyme_stability.serving.watch import Watch
from enzyme_stability.variant import parse_positions
from enzyme_stability.variants.designs import shortlist
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.rows import candidate_rows, scan_rows
from enzyme_stability.variants.scan import SIGN

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LIMITS = ("most_records", "longest_sequence", "longest_scan", "largest_body", "largest_upload", "most_job_records")
_DATABASE_PAUSE_S = 10.0  # between two attempts to reach a database that is not there
_DATABASE_PATIENCE_S = 5.0  # before answers begin without it
_DATABASE_THREADS = 4
_DATABASE_QUEUE = 100  # requests that may wait for it


@dataclass(frozen=True)
class _How:
    """What the records of a batch have in common."""

    predictor: Predictor
    coverage: float


class Service:
    """One process of the service.

    Args:
        config: What it is told.

    Attributes:
        telemetry: What it counts.
        tracer: Where its spans go.
        access: Who may use it; None lets everybody in.
    """

    def __init__(self, config: ServingConfig) -> None:
        self.config = config
        self.telemetry = Telemetry()
        self.tracer = tracer()
        self.access = None if config.keys is None else Access(config.keys)
        self._predictor: Predictor | None = None
        self._delta_tm: DeltaTmModel | None = None
        self._given_database = None if config.database is None else Database(config.database)
        self._log: PredictionLog | None = None
        self._jobs: JobStore | None = None
        self._database: Database | None = None
        self._runner: JobRunner | None = None
        self._watch: Watch | None = None
        self._opening: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._scans = ThreadPoolExecutor(1, "scan")
        self._scans_asked = 0
        self._asking = ThreadPoolExecutor(_DATABASE_THREADS, "database")
        self._asked = 0
        self._batcher = Batcher(
            self._predict,
            batch_residues=config.batch_residues,
            wait_s=config.batch_wait_ms / 1000,
            queue_residues=config.queue_residues,
            queue_requests=config.queue_requests,
            told=self._count,
        )

    # From start to end

    def load(self) -> None:
        """Load the models; a second call does nothing.

        Raises:
            ArtifactError: A model cannot be loaded.
        """
        if self._delta_tm is not None:
            return
        self._predictor = self._loaded()
        self._delta_tm = DeltaTmModel.load(self.config.delta_tm_model, self.config.threads)

    def _loaded(self) -> Predictor:
        predictor = Predictor.load(self.config.model, self.config.threads)
        predictor.predict(["MKVLAAGIVGLLLAQWERTYHG"], growth_temperature=37)  # reads the files it will need
        predictor.predict(["MKVLAAGIVGLLLAQWERTYHG"])
        return predictor

    async def start(self) -> None:
        """Begin to answer, with the models loaded.

        Raises:
            ArtifactError: A model cannot be loaded.
        """
        config = self.config
        await asyncio.to_thread(self.load)
        self.telemetry.set_model(self.predictor.name, self.predictor.digest, __version__)
        self._batcher.start()
        address = Address.parse(self.config.model)
        if address is not None and self.config.model_check_s:
            self._following = asyncio.create_task(self._follow(address))
        if self._given_database is not None:
            database = self._given_database
            self._log = PredictionLog(
                database, keep_days=config.keep_days, keep_rows=config.keep_rows, sequences=config.log_sequences
            )
            tried = asyncio.Event()
            self._opening = asyncio.create_task(self._open(database, tried))
            with suppress(TimeoutError):  # with no patience at all, the first jobs would be refused
                async with asyncio.timeout(_DATABASE_PATIENCE_S):
                    await tried.wait()

    async def _follow(self, address: Address) -> None:
        """Take over what the alias names now and then; requests that have begun keep the model they began with."""
        while True:
            await asyncio.sleep(self.config.model_check_s)
            try:
                if await asyncio.to_thread(address.digest) == self.predictor.digest:
                    continue
                newer = await asyncio.to_thread(self._loaded)
            except EnzymeStabilityError as error:
                _log.warning("the model goes on as it is: %s", error)
                self.telemetry.model_failures.inc()
                continue
            _log.info("model %s (%s) takes over from %s", newer.name, newer.digest[:12], self.predictor.digest[:12])
            self._predictor = newer
            self.telemetry.set_model(newer.name, newer.digest, __version__)

    async def _open(self, database: Database, tried: asyncio.Event) -> None:
        """Bring the database up to date, however long it takes until it can be reached."""
        while True:
            try:
                await asyncio.to_thread(database.migrate)
                break
            except ArtifactError as error:
                _log.warning("database not usable, trying again: %s", error)
                tried.set()
                await asyncio.sleep(_DATABASE_PAUSE_S)
        self._database, self._jobs = database, JobStore(database, most_records=self.config.most_job_records)
        predict = self._predict_part(asyncio.get_running_loop())
        self._runner = JobRunner(self._jobs, predict, keep_days=self.config.keep_days)
        self._runner.start()
        if self.config.watch_minutes:
            pause_s = 60 * self.config.watch_minutes
            self._watch = Watch(database, self._jobs, lambda: self.predictor, self.telemetry, pause_s)
            self._watch.start()
        tried.set()

    async def stop(self) -> None:
        """Finish what is under way and let go of everything."""
        for task in (self._opening, self._following):
            if task is not None:
                task.cancel()
        for thread in (self._runner, self._watch):
            if thread is not None:
                await asyncio.to_thread(thread.close, 5.0)
        await self._batcher.close()
        self._scans.shutdown(wait=False, cancel_futures=True)
        self._asking.shutdown(wait=False, cancel_futures=True)
        if self._log is not None:
            await asyncio.to_thread(self._log.close, 5.0)
        if self._database is not None:
            self._database.close()
        self.tracer.close()

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self._delta_tm is not None

    # What there is

    @property
    def predictor(self) -> Predictor:
        """The model of melting temperatures."""
        if self._predictor is None:
            raise OverloadedError("the service is starting: try again in a moment", 1)
        return self._predictor

    @property
    def database(self) -> Database:
        """Where predictions, feedback and jobs are kept."""
        return self._needs(self._database)

    @property
    def jobs(self) -> JobStore:
        """Jobs."""
        return self._needs(self._jobs)

    def _needs(self, part: T | None) -> T:
        if part is not None:
            return part
        if self.config.database is None:
            raise ConfigError("this service keeps no database, and so neither jobs nor feedback")
        raise OverloadedError("the database of the service cannot be reached: try again later", _DATABASE_PAUSE_S)

    @property
    def limits(self) -> dict[str, int]:
        """What a request may hold."""
        return {name: getattr(self.config, name) for name in _LIMITS}

    # Work

    async def predict(
        self, records: Sequence[Record], coverage: float, predictor: Predictor | None = None
    ) -> list[Prediction]:
        """Rows of some records, in order, in common with what others ask for; they are logged.

        Args:
            records: What is asked.
            coverage: Share of proteins whose Tm the interval should hold.
            predictor: The one that answers all of them; None takes the current one.

        Raises:
            OverloadedError: Too much waits already.
        """
        began = time.perf_counter()
        predictor = predictor or self.predictor
        asked = self._usable(records)
        with self.tracer.span("predict", records=len(asked), residues=sum(len(r.sequence) for r in asked)):
            turns = [time.time_ns()]
            rows = await self._batcher.predict(asked, _How(predictor, coverage), lambda: turns.append(time.time_ns()))
            self.tracer.interval("queue", turns[0], turns[-1])
        self.telemetry.count_predictions(rows)
        if self._log is not None:
            self._log.add(
                records,
                rows,
                model=predictor.name,
                model_hash=predictor.digest,
                coverage=coverage,
                latency_s=time.perf_counter() - began,
            )
        return rows

    async def in_database(self, work: Callable[[], T]) -> T:
        """Do work that waits for the database, in threads of its own: predictions need the others meanwhile.

        Raises:
            OverloadedError: Too much waits already.
        """
        if self._asked >= _DATABASE_QUEUE:
            raise OverloadedError("the database of the service is busy: try again a little later", 2)
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, work)
        finally:
            self._asked -= 1

    def _usable(self, records: Sequence[Record]) -> Sequence[Record]:
        """Records too long to be predicted here are rows that say so."""
        longest = self.config.longest_sequence
        if all(len(record.sequence) <= longest for record in records):
            return records
        problem = f"the sequence has more than the {longest:,} residues that this service takes"
        return [r if len(r.sequence) <= longest else Record(r.id, "", problem=problem) for r in records]

    def _predict(self, records: list[Record], how: _How) -> list[Prediction]:
        return list(how.predictor.predict_records(records, coverage=how.coverage))

    def _predict_part(
        self, loop: asyncio.AbstractEventLoop
    ) -> Callable[[list[Record], dict[str, Any]], list[Prediction]]:
        def predict(records: list[Record], options: dict[str, Any]) -> list[Prediction]:
            """From the thread of the jobs; their parts wait their turn like requests."""
            return asyncio.run_coroutine_threadsafe(self.predict(records, options["coverage"]), loop).result()

        return predict

    def _count(self, batch: Batch) -> None:
        self.telemetry.observe_batch(batch.residues, self.config.batch_residues)
        self.collect()

    def collect(self) -> None:
        """Bring what is measured up to date: after each batch, and before it is read."""
        self.telemetry.set_queue(self._batcher.requests, self._batcher.residues, self.config.queue_residues)
        if self._log is not None:
            log = self._log
            self.telemetry.set_prediction_log(
                written=log.written, dropped=log.dropped, failures=log.failures, waiting=log.waiting
            )

    async def scan(
        self, sequence: str, *, name: str, offset: int, keep: Sequence[int], exclude: str, size: int, coverage: float
    ) -> dict[str, Any]:
        """All single substitutions of a protein and a shortlist.

        Raises:
            TooLargeError: The protein is too long.
            OverloadedError: Too many scans wait.
            SequenceError: The sequence cannot be used.
            VariantError: A position to keep is not in the protein.
        """
        if len(sequence) > self.config.longest_scan:
            raise TooLargeError(
                f"{len(sequence):,} residues are more than the {self.config.longest_scan:,} that are scanned here: use "
                "'enzyme-stability scan' on your own machine"
            )
        if self._scans_asked >= self.config.queue_scans:
            raise OverloadedError("several scans wait already: try again a little later", 2)
        kept = ",".join(map(str, keep))
        work = partial(self._scan, sequence, name, offset, kept, exclude, size, coverage)
        self._scans_asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._scans, work)
        finally:
            self._scans_asked -= 1

    def _scan(
        self, sequence: str, name: str, offset: int, keep: str, exclude: str, size: int, coverage: float
    ) -> dict[str, Any]:
        model = self._delta_tm
        if model is None:
            raise OverloadedError("the service is starting: try again in a moment", 1)
        found = model.scan(sequence, name=name, offset=offset, coverage=coverage)
        kept = frozenset(parse_positions(keep, found.wild_type, offset=offset))
        chosen = shortlist(found, size, keep=kept, exclude=exclude)
        return {
            "model": {"name": model.name, "sha256": model.digest, "version": __version__},
            "id": name,
            "length": len(found.wild_type),
            "sign": SIGN,
            "notes": list(found.notes),
            "rows": [{key: value for key, value in row.items() if key != "id"} for row in scan_rows(found)],
            "shortlist": list(candidate_rows(name, chosen)),
        }
