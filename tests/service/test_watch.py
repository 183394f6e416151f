"""The gauges that the service sets by itself from its database."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from running_service import until

from enzyme_stability import Predictor, Record
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.feedback import Measured, record_feedback
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.serving.job_store import JobStore
from enzyme_stability.serving.telemetry import Telemetry
from enzyme_stability.serving.watch import Watch


def gauge(telemetry: Telemetry, line: str) -> float | None:
    """Value of the line of the exposition that begins so."""
    for shown in telemetry.exposition()[0].decode().splitlines():
        if shown.startswith(f"enzyme_stability_{line} "):
            return float(shown.rsplit(" ", 1)[1])
    return None


def test_gauges_follow_what_the_database_holds(tmp_path: Path) -> None:
    choose = random.Random(0)
    records = [Record(f"p{k}", "".join(choose.choices(AMINO_ACIDS, k=200))) for k in range(120)]
    predictor = Predictor.builtin(threads=1)
    rows = predictor.predict(records)
    database = Database(f"sqlite:///{tmp_path / 'service.db'}")
    database.migrate()
    log = PredictionLog(database, keep_days=1, keep_rows=1000)
    log.add(records, rows, model=predictor.name, model_hash=predictor.digest, coverage=0.9, latency_s=0.1)
    assert log.flush(30)
    jobs = JobStore(database)
    jobs.submit(records[:3], {"coverage": 0.9})
    measured = [Measured(r.id, row.tm_celsius - 3, r.sequence) for r, row in zip(records[:5], rows, strict=False)]
    record_feedback(database, predictor, measured)
    telemetry = Telemetry()
    watch = Watch(database, jobs, lambda: predictor, telemetry, pause_s=3600)
    watch.start()
    until(lambda: (gauge(telemetry, "drift_checked_timestamp") or 0) > 0)
    watch.close(30)
    log.close(5)
    database.close()
    assert gauge(telemetry, 'jobs{state="queued"}') == 1
    assert gauge(telemetry, "feedback_rows") == 5
    assert gauge(telemetry, "feedback_bias_celsius") == pytest.approx(3)
    assert gauge(telemetry, "feedback_asked_coverage") == pytest.approx(0.9)
    drifted = gauge(telemetry, 'drift_psi{quantity="share_of_W"}')  # random chains have four times as many
    assert drifted is not None
    assert drifted > 1


def test_what_cannot_be_looked_at_leaves_the_rest_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(f"sqlite:///{tmp_path / 'service.db'}")  # without its tables
    telemetry = Telemetry()
    watch = Watch(database, JobStore(database), lambda: Predictor.builtin(threads=1), telemetry, pause_s=3600)
    watch.start()
    until(lambda: "look at drift" in caplog.text)
    watch.close(30)
    database.close()
    assert {"look at jobs", "look at feedback"} <= {message.partition(":")[0] for message in caplog.messages}
