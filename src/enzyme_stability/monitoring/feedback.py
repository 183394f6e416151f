"""Measured temperatures that come back, each stored beside what was predicted for the same protein."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE
from enzyme_stability.errors import DataError, EnzymeStabilityError, SequenceError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.hashing import sequence_hash
from enzyme_stability.monitoring.tables import FeedbackRow, PredictionRow
from enzyme_stability.sequence import Record, clean_sequence

if TYPE_CHECKING:
    from enzyme_stability.predictor import Predictor

LOWEST_TM, HIGHEST_TM = -20.0, 160.0
"""degC. Nothing outside was ever measured on a protein in water: a slip of the pen, or another unit."""

COVERAGE = 0.9
"""Of the interval where a protein is predicted now, because no prediction of it was logged."""

LONGEST_TEXT = 200
"""Letters of a name, an organism or a source."""

_log = logging.getLogger(__name__)
_PREDICTED = ("tm_celsius", "tm_lower_celsius", "tm_upper_celsius", "coverage", "model", "model_hash")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_STORED = re.compile("[\0\ud800-\udfff]")
_PORTION = 500  # hashes asked for at once: databases bound the values of a statement

_Key = tuple[str, float, str | None]
"""What makes two measurements the same one: hash of the protein, Tm and source."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A Tm that came back, as it was sent.

    Attributes:
        id: Name of the record.
        measured_tm_celsius: Tm in degC.
        sequence: Residues; or None, where only their hash is given away.
        sequence_sha256: SHA-256 of the cleaned residues, hexadecimal.
        organism: Where the protein is from, where known.
        growth_temperature_celsius: Of the organism, where known.
        source: Assay, run or publication; tells repeated measurements apart.
        problem: Why the record could not be read, or the empty string.
    """

    id: str
    measured_tm_celsius: float | None
    sequence: str | None = None
    sequence_sha256: str | None = None
    organism: str | None = None
    growth_temperature_celsius: float | None = None
    source: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FeedbackOutcome:
    """What became of one record.

    Attributes:
        id: Name of the record.
        status: ``ok``; ``warning`` where there is nothing to compare it with, or it was there already; ``error`` where
            it was not stored.
        note: The prediction it is compared with, or what was wrong.
    """

    id: str
    status: str
    note: str


@dataclass(frozen=True, slots=True)
class _Checked:
    name: str
    hash: str
    chain: str | None
    tm: float
    organism: str | None
    growth: float | None
    source: str | None

    @property
    def key(self) -> _Key:
        return self.hash, self.tm, self.source


def record_feedback(
    database: Database,
    predictor: Predictor | None,
    records: Sequence[Measured],
    *,
    received_at: dt.datetime | None = None,
) -> list[FeedbackOutcome]:
    """Store measured temperatures, each with the prediction it will be compared with.

    That is the newest logged prediction of the protein, one of ``predictor`` before those of other models. Where none
    was logged the protein is predicted now, its growth temperature given where it is known. Without a sequence or a
    predictor the measurement is stored alone. One that is stored already (same protein, Tm and source) is not stored
    again, but gains what it lacked, as its sequence.

    Args:
        database: Holds the logged predictions, and takes the measurements.
        predictor: The current predictor; None where there is none at hand.
        records: What came back.
        received_at: Time of arrival; None is now.

    Returns:
        An outcome for each record, in order. A bad record costs itself only.

    Raises:
        ArtifactError: The database cannot be read or written.
    """
    outcomes: dict[int, FeedbackOutcome] = {}
    checked: dict[int, _Checked] = {}
    for k, record in enumerate(records):
        name = record.id or f"record_{k + 1}"
        try:
            checked[k] = _check(record, name)
        except (DataError, SequenceError) as error:
            outcomes[k] = FeedbackOutcome(name, "error", str(error))
    current = None if predictor is None else predictor.digest
    with database.session(read_only=True) as session:
        predictions = _logged(session, {m.hash for m in checked.values()}, current)
    unseen = {k: measured for k, measured in checked.items() if measured.hash not in predictions}
    made, reasons = _predicted(predictor, unseen)
    when = received_at or dt.datetime.now(dt.UTC)
    with database.session() as session:
        known = _stored(session, {m.hash for m in checked.values()})
        for k, measured in checked.items():
            prediction = predictions.get(measured.hash) or made.get(k) or {}
            columns = _columns(measured, prediction)
            if (row := known.get(measured.key)) is not None:
                for name in (name for name in columns if getattr(row, name) is None):
                    setattr(row, name, columns[name])
                outcomes[k] = FeedbackOutcome(measured.name, "warning", "this measurement is stored already")
                continue
            row = known[measured.key] = FeedbackRow(received_at=when, **columns)
            session.add(row)
            status = "ok" if prediction else "warning"
            note = f"predicted {prediction['tm_celsius']:.2f} degC" if prediction else reasons[k]
            outcomes[k] = FeedbackOutcome(measured.name, status, note)
    return [outcomes[k] for k in range(len(records))]


def _check(record: Measured, name: str) -> _Checked:
    """A record as it can be stored.

    Raises:
        DataError: Something is missing, out of bounds or contradicts itself.
        SequenceError: The sequence is bad.
    """
    if record.problem:
        raise DataError(record.problem)
    tm = _temperature(record.measured_tm_celsius, "measured_tm_celsius", LOWEST_TM, HIGHEST_TM)
    if tm is None:
        raise DataError("there is no measured Tm")
    bounds = LOWEST_GROWTH_TEMPERATURE, HIGHEST_GROWTH_TEMPERATURE
    growth = _temperature(record.growth_temperature_celsius, "growth_temperature_celsius", *bounds)
    given = (record.sequence_sha256 or "").strip().lower()
    if given and not _SHA256.fullmatch(given):
        raise DataError("sequence_sha256 is no SHA-256 in hexadecimal, 64 letters")
    chain, own = None, given
    if record.sequence is not None and record.sequence.strip():
        clean = clean_sequence(record.sequence)
        chain, own = clean.chain, sequence_hash(clean.residues)
    if not own:
        raise DataError("there is neither a sequence nor its sequence_sha256")
    if given and given != own:
        raise DataError("sequence_sha256 is not that of the sequence")
    organism, source = (_text(getattr(record, field), field) for field in ("organism", "source"))
    return _Checked(_text(name, "id") or name, own, chain, tm, organism, growth, source)


def _temperature(value: object, name: str, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} is {value!r:.40}, which is no temperature")
    if not low <= value <= high:
        raise DataError(f"{name} is {value:g}, which is not within {low:g} to {high:g} degC")
    return float(value)


def _text(value: str | None, name: str) -> str | None:
    text = (value or "").strip()
    if len(text) > LONGEST_TEXT:
        raise DataError(f"{name} has {len(text)} letters; {LONGEST_TEXT} are the most")
    if _NOT_STORED.search(text):
        raise DataError(f"{name} holds a character that no database takes: a null, or half of a surrogate pair")
    return text or None


def _portions(hashes: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(hashes)
    return (ordered[start : start + _PORTION] for start in range(0, len(ordered), _PORTION))


def _stored(session: Session, hashes: Collection[str]) -> dict[_Key, FeedbackRow]:
    parts = (session.scalars(select(FeedbackRow).where(FeedbackRow.sequence_hash.in_(p))) for p in _portions(hashes))
    return {(row.sequence_hash, row.measured_tm_celsius, row.source): row for rows in parts for row in rows}


def _logged(session: Session, hashes: Collection[str], model_hash: str | None) -> dict[str, dict[str, Any]]:
    """The prediction of each protein that counts, as columns of ``FeedbackRow``, by the hash of the protein."""
    others_after = case((PredictionRow.model_hash == model_hash, 0), else_=1)
    newest_first = PredictionRow.made_at.desc(), PredictionRow.id.desc()
    place = func.row_number().over(partition_by=PredictionRow.sequence_hash, order_by=[others_after, *newest_first])
    found: dict[str, dict[str, Any]] = {}
    for part in _portions(hashes):
        of_these = PredictionRow.sequence_hash.in_(part), PredictionRow.tm_celsius.is_not(None)
        ranked = select(PredictionRow.id, place.label("place")).where(*of_these).subquery()
        first = select(PredictionRow).join(ranked, PredictionRow.id == ranked.c.id).where(ranked.c.place == 1)
        for row in session.scalars(first):
            found[str(row.sequence_hash)] = {column: getattr(row, column) for column in _PREDICTED}
    return found


def _predicted(
    predictor: Predictor | None, unseen: dict[int, _Checked]
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Predictions made now, and for each protein without one the reason."""
    nowhere = "nothing was predicted for this protein, so there is nothing to compare it with"
    reasons = dict.fromkeys(unseen, nowhere)
    asked = {k: Record(m.name, m.chain, m.growth) for k, m in unseen.items() if m.chain is not None}
    if predictor is None or not asked:
        return {}, reasons
    try:
        rows = predictor.predict(asked.values(), coverage=COVERAGE)
    except EnzymeStabilityError as error:  # the measurements are good, whatever the predictor lacks
        _log.warning("measurements are stored without predictions: %s", error)
        return {}, reasons | dict.fromkeys(asked, "the predictor failed, so there is nothing to compare it with")
    of_model = {"coverage": COVERAGE, "model": predictor.name[:LONGEST_TEXT], "model_hash": predictor.digest}
    made = {
        k: {column: getattr(row, column) for column in _PREDICTED[:3]} | of_model
        for k, row in zip(asked, rows, strict=True)
        if row.tm_celsius is not None
    }
    return made, reasons


def _columns(measured: _Checked, prediction: dict[str, Any]) -> dict[str, Any]:
    """Columns of ``FeedbackRow`` but for the time."""
    return {
        "name": measured.name,
        "sequence_hash": measured.hash,
        "sequence": measured.chain,
        "measured_tm_celsius": measured.tm,
        "organism": measured.organism,
        "growth_temperature_celsius": measured.growth,
        "source": measured.source,
        **{column: prediction.get(column) for column in _PREDICTED},
    }
