"""Ask a running service from Python: the methods of ``Predictor``, with nothing to load and no model to keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pydantic import BaseModel, Field

from enzyme_stability.connection import Connection, TooSlowError
from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE
from enzyme_stability.errors import ConfigError, DataError, EnzymeStabilityError, SequenceError, TooLargeError
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import Record

_FIRST_PART = 100  # records; more are sent at once as long as the answers come quickly
_QUICK_S = 2.0
_PART_RESIDUES = 500_000
_PART_MEASUREMENTS = 1000
_LONGEST_ID = 200
_POLL_S = 0.5


class ServiceLimits(BaseModel):
    """What a request may hold."""

    most_records: int = Field(default=1000, gt=0)
    longest_sequence: int = Field(default=40_000, gt=0)
    largest_body: int = Field(default=8 << 20, gt=0)


class ServedModel(BaseModel):
    """The model behind a service, as its card tells."""

    name: str
    sha256: str
    version: str
    description: str = ""
    takes_growth_temperature: bool = False
    coverage: float = 0.9
    card: str = ""
    limits: ServiceLimits = Field(default_factory=ServiceLimits)


class Job(BaseModel):
    """A large input that is predicted behind the scenes.

    Attributes:
        id: Whoever knows it may ask for the job, with the key it was sent with where there was one.
        state: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        records: In the input.
        finished: Records that are predicted.
        message: Why it failed, or the empty string.
        created_at: UTC.
        ended_at: UTC.
    """

    id: str
    state: str
    records: int
    finished: int
    message: str = ""
    created_at: str | None = None
    ended_at: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in {"done", "failed", "cancelled"}


class Feedback(BaseModel):
    """What became of measured temperatures: how many were taken, and a row with ``id``, ``status``, ``note`` each."""

    accepted: int
    rows: list[dict[str, Any]]


class _ModelName(BaseModel):
    sha256: str


class _Predicted(BaseModel):
    model: _ModelName
    predictions: list[Prediction]


class Client:
    """Asks a running service.

    Args:
        url: Address of the service, such as ``https://tm.example.org``.
        key: API key, where the service asks for one.
        timeout_s: Seconds to wait for an answer.
        retries: How often to ask again where the service is busy or cannot be reached.

    Raises:
        ConfigError: The address or the key cannot be one.
        MissingDependencyError: httpx is not installed.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 60, retries: int = 5) -> None:
        self._connection = Connection(url, key, timeout_s, retries)
        self._model: ServedModel | None = None
        self._part = _FIRST_PART

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Address of the service, without a password that may be in it."""
        return self._connection.url

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def model(self) -> ServedModel:
        """The model that answers, asked for once.

        Raises:
            DataError: The service cannot be reached, or the address is that of something else.
            ConfigError: The key is refused.
            OverloadedError: The service is busy.
        """
        if self._model is None:
            self._model = self._connection.ask(ServedModel, "GET", "/v1/model")
        return self._model

    def predict(
        self,
        sequences: Iterable[str | Record],
        *,
        growth_temperature: float | None = None,
        coverage: float = 0.9,
        strict: bool = False,
    ) -> list[Prediction]:
        """Predict every sequence, as ``Predictor.predict`` does; see ``predict_records`` for what is raised."""
        if isinstance(sequences, str | Record):
            sequences = [sequences]
        records = (s if isinstance(s, Record) else Record(f"sequence_{k}", s) for k, s in zip(count(1), sequences))
        return list(
            self.predict_records(records, growth_temperature=growth_temperature, coverage=coverage, strict=strict)
        )

    def predict_records(
        self,
        records: Iterable[Record],
        *,
        growth_temperature: float | None = None,
        coverage: float = 0.9,
        strict: bool = False,
    ) -> Iterator[Prediction]:
        """Predict records part by part, in their order: memory does not grow with their number.

        Args:
            records: What to predict. One that the service could not take is a row with status ``error``.
            growth_temperature: degC, for records without one of their own; None is normal.
            coverage: Share of proteins whose Tm the interval should hold.
            strict: Raise at the first bad sequence.

        Raises:
            ConfigError: A setting is out of bounds, or the key is refused.
            DataError: The service cannot be reached or fails, or changes its model half-way.
            OverloadedError: The service stays busy.
            SequenceError: ``strict`` is set and a sequence is bad.
            TooLargeError: A record alone is over a limit.
        """
        if problem := _out_of_bounds(growth_temperature):
            raise ConfigError(problem)
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage must lie between 0 and 1, got {coverage}")
        model = self.model()
        settings = {"coverage": coverage, "growth_temperature_celsius": growth_temperature}
        return (
            row for part in self._parts(records, model.limits) for row in self._predict_part(part, settings, strict)
        )

    def _parts(self, records: Iterable[Record], limits: ServiceLimits) -> Iterator[list[Record]]:
        part: list[Record] = []
        size = 0
        most = min(_PART_RESIDUES, limits.largest_body // 2)
        try:
            for record in records:
                part.append(record)
                size += len(record.sequence) if isinstance(record.sequence, str) else 0
                if len(part) >= min(self._part, limits.most_records) or size >= most:
                    yield part
                    part, size = [], 0
        except EnzymeStabilityError:  # the file breaks off here: what was read of it still gets its answer
            yield part
            raise
        yield part

    def _predict_part(self, part: Sequence[Record], settings: Mapping[str, Any], strict: bool) -> list[Prediction]:
        problems = [record.problem or self._problem(record) for record in part]
        answers = iter(self._answers([r for r, problem in zip(part, problems, strict=True) if not problem], settings))
        rows = []
        for record, problem in zip(part, problems, strict=True):
            bad = Prediction(record.id, None, None, None, None, None, "error", problem)
            row = bad if problem else replace(next(answers), id=record.id)
            if strict and row.status == "error":
                raise SequenceError(f"record {row.id}: {row.note}")
            rows.append(row)
        return rows

    def _problem(self, record: Record) -> str:
        """Why the service could not take a record, which would cost those beside it their answers too."""
        if not isinstance(record.sequence, str):
            return f"the sequence is no text but {type(record.sequence).__name__}: {record.sequence!r:.40}"
        longest = self.model().limits.longest_sequence
        if len(record.sequence) > longest:
            return f"{len(record.sequence):,} residues are more than the {longest:,} that {self.url} takes"
        return _out_of_bounds(_known(record.growth_temperature))

    def _answers(self, records: Sequence[Record], settings: Mapping[str, Any]) -> list[Prediction]:
        if not records:
            return []
        given = [_as_json(record) for record in records]
        asked = time.monotonic()
        try:
            answer = self._connection.ask(_Predicted, "POST", "/v1/predict", json={"records": given, **settings})
        except (TooLargeError, TooSlowError):
            if len(records) == 1:
                raise
            half = self._part = len(records) // 2
            return [*self._answers(records[:half], settings), *self._answers(records[half:], settings)]
        if time.monotonic() - asked < _QUICK_S and len(records) >= self._part:
            self._part *= 2
        if answer.model.sha256 != self.model().sha256:
            raise DataError(f"{self.url} has changed its model while it answered: run it again for rows of one model")
        if len(answer.predictions) != len(records):
            raise DataError(f"{self.url} gave {len(answer.predictions)} answers for {len(records)} records")
        return answer.predictions

    def predict_embeddings(self, path: str | Path, *, coverage: float = 0.9) -> list[Prediction]:
        """Predict from a file of embeddings made elsewhere: PyTorch, NumPy, safetensors or HDF5.

        Raises:
            DataError: The file cannot be read, here or by the service, or as ``predict_records``.
            ConfigError: The embeddings are not those that the model takes, or as ``predict_records``.
            TooLargeError: The file is over the limit of the service.
        """
        settings = {"coverage": coverage}
        return self._connection.upload(_Predicted, "/v1/predict/embeddings", Path(path), params=settings).predictions

    def scan(
        self,
        sequence: str,
        *,
        id: str = "protein",  # noqa: A002 - the word of the answer
        offset: int = 0,
        keep: Sequence[int] = (),
        exclude: str = "",
        size: int = 20,
    ) -> dict[str, Any]:
        """The change of Tm of every single substitution, and a shortlist.

        Args:
            sequence: The wild type.
            id: Its name.
            offset: Added to the position in the sequence.
            keep: Positions not to touch, counted from 1 plus ``offset``.
            exclude: Amino acids not to introduce, as letters.
            size: Substitutions in the shortlist.

        Returns:
            ``id``, ``length``, ``sign`` (what a positive number means), ``rows`` and ``shortlist``.
        """
        body = {"id": id, "sequence": sequence, "offset": offset, "keep": list(keep), "exclude": exclude, "size": size}
        return self._connection.ask(dict[str, Any], "POST", "/v1/scan", json=body)

    def submit(
        self, source: str | Path | Iterable[Record], *, growth_temperature: float | None = None, coverage: float = 0.9
    ) -> Job:
        """Hand in a job.

        Args:
            source: A FASTA, CSV or TSV file, plain or gzip-compressed; or records, as many as fit into one request.
            growth_temperature: degC, for records without one of their own.
            coverage: Share of proteins whose Tm the interval should hold.
        """
        if isinstance(source, str | Path):
            given = {"coverage": coverage, "growth_temperature": growth_temperature}
            params = {name: value for name, value in given.items() if value is not None}
            return self._connection.upload(Job, "/v1/jobs", Path(source), params=params)
        settings = {"coverage": coverage, "growth_temperature_celsius": growth_temperature}
        records = list(source)
        for record in records:
            if problem := record.problem or self._problem(record):
                raise DataError(f"record {record.id}: {problem}")
        body = {"records": [_as_json(record) for record in records], **settings}
        return self._connection.ask(Job, "POST", "/v1/jobs", repeatable=False, json=body)

    def job(self, job_id: str) -> Job:
        """How far a job is."""
        return self._connection.ask(Job, "GET", _job_path(job_id))

    def wait(self, job_id: str, *, progress: Callable[[Job], None] | None = None) -> Job:
        """Wait until a job is done.

        Args:
            job_id: The job.
            progress: Called with the job each time it was asked for.

        Raises:
            DataError: The job failed or was cancelled, or as ``predict_records``.
        """
        while True:
            job = self.job(job_id)
            if progress is not None:
                progress(job)
            if job.state == "done":
                return job
            if job.ended:
                raise DataError(f"the job {job.id} is {job.state}{job.message and f': {job.message}'}")
            time.sleep(_POLL_S)

    def result(self, job_id: str) -> Iterator[Prediction]:
        """The rows of a job that is done, in the order of its records, one at a time in memory."""
        return self._connection.lines(Prediction, f"{_job_path(job_id)}/result", params={"format": "jsonl"})

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that is done stays done."""
        return self._connection.ask(Job, "DELETE", _job_path(job_id))

    def feedback(self, measurements: Iterable[Mapping[str, Any]]) -> Feedback:
        """Bring back measured temperatures.

        Args:
            measurements: Each with ``measured_tm_celsius`` and either ``sequence`` or ``sequence_sha256``; and, where
                known, ``id``, ``organism``, ``growth_temperature_celsius`` and ``source``.
        """
        given = [dict(one) for one in measurements]
        most = min(_PART_MEASUREMENTS, self.model().limits.most_records)
        parts = [given[start : start + most] for start in range(0, len(given), most)]
        answers = [
            self._connection.ask(Feedback, "POST", "/v1/feedback", repeatable=False, json={"records": part})
            for part in parts
        ]
        return Feedback(
            accepted=sum(answer.accepted for answer in answers), rows=[row for answer in answers for row in answer.rows]
        )


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "id": _encodable(record.id[:_LONGEST_ID]),
        "sequence": _encodable(record.sequence),
        "growth_temperature_celsius": _known(record.growth_temperature),
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode()


def _out_of_bounds(celsius: float | None) -> str:
    low, high = LOWEST_GROWTH_TEMPERATURE, HIGHEST_GROWTH_TEMPERATURE
    if celsius is None or low <= celsius <= high:
        return ""
    return f"a growth temperature of {celsius} degC is not between {low:g} and {high:g}"


def _known(celsius: float | None) -> float | None:
    return None if celsius is None or math.isnan(celsius) else celsius


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
