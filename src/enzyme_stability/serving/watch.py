"""Looks now and then at drift and at what was measured, for the gauges of the service."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable

from enzyme_stability.errors import EnzymeStabilityError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.predictor import Predictor
from enzyme_stability.serving.job_store import JobStore
from enzyme_stability.serving.telemetry import Telemetry

DRIFT_HOURS = 24
"""Hours over which inputs and predictions are compared with the reference."""

FEEDBACK_DAYS = 90
"""Days over which measured temperatures are compared with predictions."""

_MOST_ROWS = 20_000  # the newest ones; more would not change what is seen, and take memory

_log = logging.getLogger(__name__)


class Watch:
    """A thread that sets gauges; what it cannot look at is logged and left as it is.

    Args:
        database: Up to date.
        jobs: Of the same database.
        predictor: Tells the model that is served now.
        telemetry: Where the gauges are.
        pause_s: Seconds between two looks.
    """

    def __init__(
        self,
        database: Database,
        jobs: JobStore,
        predictor: Callable[[], Predictor],
        telemetry: Telemetry,
        pause_s: float,
    ) -> None:
        self._database, self._jobs, self._predictor, self._telemetry = database, jobs, predictor, telemetry
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; to be called once."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            for look in (self.look_at_jobs, self.look_at_feedback, self.look_at_drift):
                try:
                    look()
                except EnzymeStabilityError as error:
                    _log.warning("%s: %s", look.__name__.replace("_", " "), error)
                except Exception:
                    _log.exception("%s", look.__name__.replace("_", " "))
            if self._stop.wait(self._pause_s):
                return

    def look_at_jobs(self) -> None:
        """Count the jobs in each state."""
        self._telemetry.set_jobs(self._jobs.counts())

    def look_at_feedback(self) -> None:
        """Compare predictions with what was measured lately."""
        from enzyme_stability.monitoring.performance import gauges

        since = dt.datetime.now(dt.UTC) - dt.timedelta(days=FEEDBACK_DAYS)
        found = gauges(self._database, since=since, model_hash=self._predictor().digest)
        self._telemetry.set_feedback(
            rows=int(found["rows"]),
            mae_celsius=found.get("mae_celsius"),
            bias_celsius=found.get("bias_celsius"),
            coverage=found.get("coverage"),
            asked_coverage=found.get("asked_coverage"),
        )

    def look_at_drift(self) -> None:
        """Compare what was asked and answered lately with the reference of the predictor."""
        from enzyme_stability.monitoring.drift import stability_indices
        from enzyme_stability.monitoring.history import logged

        since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=DRIFT_HOURS)
        predictor = self._predictor()
        rows = logged(self._database, since, model_hash=predictor.digest, most=_MOST_ROWS)
        self._telemetry.set_drift(stability_indices(predictor.reference, rows), time.time())
