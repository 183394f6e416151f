"""Predictions, feedback, and jobs with their parts.

Revisions only go forward: going back would throw away what users sent.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "predictions",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("sequence_hash", sa.String(64)),
        sa.Column("sequence", sa.Text),
        sa.Column("length", sa.Integer),
        sa.Column("composition", sa.JSON),
        sa.Column("similarity", sa.Double),
        sa.Column("growth_temperature_celsius", sa.Double),
        sa.Column("tm_celsius", sa.Double),
        sa.Column("tm_lower_celsius", sa.Double),
        sa.Column("tm_upper_celsius", sa.Double),
        sa.Column("coverage", sa.Double, nullable=False),
        sa.Column("in_domain", sa.Boolean),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("model_hash", sa.String(64), nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
    )
    op.create_index("ix_predictions_hash", "predictions", ["sequence_hash", "model_hash"])
    op.create_index("ix_predictions_time", "predictions", ["made_at"])
    op.create_table(
        "feedback",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("sequence_hash", sa.String(64), nullable=False),
        sa.Column("sequence", sa.Text),
        sa.Column("measured_tm_celsius", sa.Double, nullable=False),
        sa.Column("organism", sa.String(200)),
        sa.Column("growth_temperature_celsius", sa.Double),
        sa.Column("source", sa.String(200)),
        sa.Column("tm_celsius", sa.Double),
        sa.Column("tm_lower_celsius", sa.Double),
        sa.Column("tm_upper_celsius", sa.Double),
        sa.Column("coverage", sa.Double),
        sa.Column("model", sa.String(200)),
        sa.Column("model_hash", sa.String(64)),
    )
    op.create_index("ix_feedback_time", "feedback", ["received_at"])
    op.create_index("ix_feedback_hash", "feedback", ["sequence_hash"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(200)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("finished", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("claimed_by", sa.String(200)),
        sa.Column("claimed_until", _TIME),
    )
    op.create_index("ix_jobs_state", "jobs", ["state", "created_at"])
    op.create_table(
        "job_parts",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("given", sa.LargeBinary, nullable=False),
        sa.Column("answered", sa.LargeBinary),
    )
