"""Tables of the service's database: predictions, measured temperatures that came back, and jobs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HASH = 64
"""Letters of a SHA-256 in hexadecimal."""

_Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys only


class _Utc(TypeDecorator[dt.datetime]):
    """Points in time, always UTC; SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        del dialect
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=dt.UTC)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {float: Double, dt.datetime: _Utc, dict[str, Any]: JSON, list[float]: JSON}  # noqa: RUF012 - SQLAlchemy's way


class PredictionRow(Base):
    """One prediction that was given; temperatures in degC.

    Attributes:
        sequence_hash: SHA-256 of the cleaned residues, hexadecimal.
        sequence: The sequence, only where the service is told to keep it.
        composition: Amino-acid frequencies, 20 numbers in the order of ``AMINO_ACIDS``.
        similarity: To the nearest protein learned from, 0..1.
        model_hash: Digest of the predictor.
        latency_ms: Of the whole request that the row was part of.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_hash", "sequence_hash", "model_hash"),
        Index("ix_predictions_time", "made_at"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    made_at: Mapped[dt.datetime]
    sequence_hash: Mapped[str | None] = mapped_column(String(HASH))
    sequence: Mapped[str | None] = mapped_column(Text)
    length: Mapped[int | None]
    composition: Mapped[list[float] | None]
    similarity: Mapped[float | None]
    growth_temperature_celsius: Mapped[float | None]
    tm_celsius: Mapped[float | None]
    tm_lower_celsius: Mapped[float | None]
    tm_upper_celsius: Mapped[float | None]
    coverage: Mapped[float]
    in_domain: Mapped[bool | None]
    status: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(200))
    model_hash: Mapped[str] = mapped_column(String(HASH))
    latency_ms: Mapped[float]


class FeedbackRow(Base):
    """A measured Tm that came back, beside what was predicted; temperatures in degC.

    Attributes:
        sequence: Kept where it was sent, since it is sent to be learned from.
        coverage: Share of proteins that the interval was to hold; None where nothing was predicted.
    """

    __tablename__ = "feedback"
    __table_args__ = (Index("ix_feedback_time", "received_at"), Index("ix_feedback_hash", "sequence_hash"))

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    received_at: Mapped[dt.datetime]
    name: Mapped[str] = mapped_column(String(200))
    sequence_hash: Mapped[str] = mapped_column(String(HASH))
    sequence: Mapped[str | None] = mapped_column(Text)
    measured_tm_celsius: Mapped[float]
    organism: Mapped[str | None] = mapped_column(String(200))
    growth_temperature_celsius: Mapped[float | None]
    source: Mapped[str | None] = mapped_column(String(200))
    tm_celsius: Mapped[float | None]
    tm_lower_celsius: Mapped[float | None]
    tm_upper_celsius: Mapped[float | None]
    coverage: Mapped[float | None]
    model: Mapped[str | None] = mapped_column(String(200))
    model_hash: Mapped[str | None] = mapped_column(String(HASH))


class JobRow(Base):
    """A large input on its way.

    Attributes:
        id: Random, hexadecimal; who knows it may read the job.
        owner: Name of the API key it was sent with.
        state: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        options: As of the request.
        records: In the input.
        finished: Records of parts that are done.
        message: Why it failed.
        claimed_by: Process that works on it.
        claimed_until: When another process may take it over.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[dt.datetime]
    ended_at: Mapped[dt.datetime | None]
    state: Mapped[str] = mapped_column(String(16))
    options: Mapped[dict[str, Any]]
    records: Mapped[int]
    finished: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(Text, default="")
    claimed_by: Mapped[str | None] = mapped_column(String(200))
    claimed_until: Mapped[dt.datetime | None]


class JobPart(Base):
    """Some records of a job, and their rows once they are predicted; both JSON, gzip-compressed."""

    __tablename__ = "job_parts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    records: Mapped[int]
    given: Mapped[bytes] = mapped_column(LargeBinary)
    answered: Mapped[bytes | None] = mapped_column(LargeBinary)
