"""What Prometheus reads of the service: requests, batches, model, prediction log, jobs, drift and feedback."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError
from enzyme_stability.prediction import Prediction
from enzyme_stability.serving.logs import REQUEST_ID
from enzyme_stability.serving.tracing import NoTracer, RequestSpan, Tracer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder through which several worker processes add up what they count."""

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_RESIDUES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FILL_RATIOS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")

UNMATCHED = "unmatched"
"""Route of requests that belong to none: a label must not grow with what clients think up."""

CLIENT_GONE = 499
"""Status of a request whose client left before the end of the answer, as nginx counts them."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOG = logging.getLogger(__name__)


class Telemetry:
    """The metrics of one service, all with the prefix ``enzyme_stability_``.

    Several of them work side by side in one process, each with a registry of its own. Where the environment variable
    ``PROMETHEUS_MULTIPROC_DIR`` names a folder, the workers of one service share it, and each answers for all.

    Attributes:
        errors: Counter of errors that were answered, by ``kind``.
        rejected: Counter of requests that were not let in, by ``reason``.
        model_failures: Counter of attempts to take over a newly promoted model that failed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Make the metrics.

        Args:
            registry: Where they are registered; a new one by default.

        Raises:
            ConfigError: The folder for several workers cannot be used.
            MissingDependencyError: prometheus_client is not installed.
        """
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingDependencyError("The HTTP service", "serve") from error
        self._registry = registry or prometheus.CollectorRegistry()
        self._folder = _shared_folder()
        self._served: tuple[str, str, str] | None = None
        self._logged = (0, 0, 0)
        self._lock = threading.Lock()
        try:
            self._declare()
        except OSError as error:
            raise ConfigError(f"the folder that {FOLDER} names cannot be written: {error.strerror}") from None
        if self._folder is None:
            prometheus.ProcessCollector(registry=self._registry)

    def _declare(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        common: dict[str, Any] = {"namespace": "enzyme_stability", "registry": self._registry}
        counter: Callable[..., Counter] = partial(Counter, **common)
        histogram: Callable[..., Histogram] = partial(Histogram, **common)
        summed: Callable[..., Gauge] = partial(Gauge, **common, multiprocess_mode="livesum")
        # Not of a worker, but of the database that all share: the last one that looked knows best.
        newest: Callable[..., Gauge] = partial(Gauge, **common, multiprocess_mode="mostrecent")
        served: Callable[..., Gauge] = partial(Gauge, **common, multiprocess_mode="livemax")

        self._requests = counter("requests", "Requests answered.", ["route", "method", "status"])
        self._seconds = histogram("request_seconds", "Seconds to the last byte.", ["route"], buckets=REQUEST_SECONDS)
        self.errors = counter("errors", "Errors answered.", ["kind"])
        self.rejected = counter("rejected", "Requests that were not let in.", ["reason"])
        self.model_failures = counter("model_failures", "Models newly promoted that could not be taken over.")

        self._queue_residues = summed("queue_residues", "Residues that wait to be predicted.")
        self._queue_requests = summed("queue_requests", "Requests that wait to be predicted.")
        self._queue_limit = summed("queue_limit_residues", "Residues that may wait.")
        self._fill = histogram("batch_fill_ratio", "Residues predicted at once, of those allowed.", buckets=FILL_RATIOS)
        self._batch_residues = histogram("batch_residues", "Residues predicted at once.", buckets=BATCH_RESIDUES)
        self._residues = counter("residues", "Residues of answered sequences.")
        self._sequences = counter("sequences", "Sequences answered.", ["status"])
        for status in ("ok", "warning", "error"):
            self._sequences.labels(status)

        self._model = served("model_info", "1 for the model that is served.", ["name", "sha256", "version"])
        self._log_counters = (
            counter("prediction_log_written", "Predictions logged."),
            counter("prediction_log_dropped", "Predictions that were not logged."),
            counter("prediction_log_failures", "Writes to the prediction log that failed."),
        )
        self._log_waiting = summed("prediction_log_waiting", "Predictions that wait to be logged.")
        self._jobs = newest("jobs", "Jobs that are kept.", ["state"])

        self._psi = newest("drift_psi", "Population stability index against the reference.", ["quantity"])
        self._drift_checked = newest("drift_checked_timestamp", "When drift was last checked, seconds since 1970.")
        self._feedback = (
            newest("feedback_rows", "Measured proteins with a prediction."),
            newest("feedback_mae_celsius", "Mean absolute error on measured proteins, degC."),
            newest("feedback_bias_celsius", "Mean of predicted minus measured, degC."),
            newest("feedback_coverage", "Share of measured proteins inside their interval."),
            newest("feedback_asked_coverage", "Share that should be inside."),
        )
        if self._folder is None:  # shared by workers, such a gauge is absent until it is set; alone it would be 0
            for gauge in (self._drift_checked, *self._feedback):
                gauge.set(math.nan)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; ``route`` is the template, not the path."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_batch(self, residues: int, allowed: int) -> None:
        """Count residues that were predicted at once, of those that are allowed."""
        self._batch_residues.observe(residues)
        self._fill.observe(residues / allowed)

    def count_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Count rows that were answered."""
        for prediction in predictions:
            self._sequences.labels(prediction.status).inc()
            self._residues.inc(prediction.length or 0)

    def set_queue(self, requests: int, residues: int, limit_residues: int) -> None:
        """Say what waits to be predicted, and how many residues may."""
        self._queue_requests.set(requests)
        self._queue_residues.set(residues)
        self._queue_limit.set(limit_residues)

    def set_model(self, name: str, sha256: str, version: str) -> None:
        """Say which model is served; one that was served before counts 0 from now on."""
        with self._lock:
            if self._served is not None:
                self._model.labels(*self._served).set(0)
            self._served = (name, sha256, version)
            self._model.labels(*self._served).set(1)

    def set_prediction_log(self, *, written: int, dropped: int, failures: int, waiting: int) -> None:
        """Say how the prediction log of this process stands; all but ``waiting`` count from its start."""
        with self._lock:
            totals = (written, dropped, failures)
            for counter, total, before in zip(self._log_counters, totals, self._logged, strict=True):
                counter.inc(max(0, total - before))
            self._logged = totals
        self._log_waiting.set(waiting)

    def set_jobs(self, counts: Mapping[str, int]) -> None:
        """Say how many jobs are in each state; one that is not named has none."""
        for state in JOB_STATES:
            self._jobs.labels(state).set(counts.get(state, 0))

    def set_drift(self, psi: Mapping[str, float], checked_at: float) -> None:
        """Say what a check of drift found: the index of each quantity, and when (seconds since 1970)."""
        for quantity, value in psi.items():
            self._psi.labels(quantity).set(value)
        self._drift_checked.set(checked_at)

    def set_feedback(
        self,
        *,
        rows: int,
        mae_celsius: float | None = None,
        bias_celsius: float | None = None,
        coverage: float | None = None,
        asked_coverage: float | None = None,
    ) -> None:
        """Say how predictions compare with what was measured; temperatures in degC, None where it is not known."""
        figures = (rows, mae_celsius, bias_celsius, coverage, asked_coverage)
        for gauge, value in zip(self._feedback, figures, strict=True):
            gauge.set(math.nan if value is None else value)

    def exposition(self, accept_header: str = "") -> tuple[bytes, str]:
        """The text for Prometheus and its content type, which is OpenMetrics where the ``Accept`` header asks for it.

        Raises:
            ArtifactError: The folder that the workers share has gone.
        """
        from prometheus_client import CollectorRegistry, exposition, multiprocess

        # Versions and escapings that a client makes up are not passed on: the library fails on some of them.
        open_metrics = "application/openmetrics-text"
        encode, content_type = exposition.choose_encoder(open_metrics if open_metrics in accept_header else "")
        if self._folder is None:
            return encode(self._registry), content_type
        registry = CollectorRegistry()
        try:
            registry.register(_WorkerCollector(_workers(self._folder)))
            multiprocess.MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
            return encode(registry), content_type
        except (OSError, ValueError) as error:
            raise ArtifactError("the metrics that the workers share cannot be read: start the service anew") from error


class _WorkerCollector:
    """CPU and memory of every worker, told apart by the label ``pid``."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        from prometheus_client import Metric, ProcessCollector

        metrics: dict[str, Metric] = {}
        for pid in self._pids:
            for one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                metric = metrics.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    metric.add_sample(sample.name, {**sample.labels, "pid": str(pid)}, sample.value)
        return metrics.values()


def _shared_folder() -> Path | None:
    from prometheus_client import values

    if not (named := os.environ.get(FOLDER)):
        return None
    if not Path(named).is_dir():
        raise ConfigError(f"{FOLDER} names no folder: make it, and empty it before every start")
    if not values.ValueClass._multiprocess:  # decided once, when the library is imported
        raise ConfigError(f"{FOLDER} was set too late: set it before the process starts")
    return Path(named)


def _workers(folder: Path) -> list[int]:
    """Those that live. What one that died has counted stays; what it had waiting went with it."""
    from prometheus_client.multiprocess import mark_process_dead

    known = {int(path.stem.rpartition("_")[2]) for path in folder.glob("*_*.db")}
    live = [pid for pid in known if Path(f"/proc/{pid}").exists() or not Path("/proc/self").exists()]
    for pid in known.difference(live):
        with suppress(FileNotFoundError):  # another worker is asked at the same time
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return sorted(live)


class Measured:
    """ASGI middleware: counts, times, traces and logs every request, and gives each an id.

    An ``X-Request-ID`` of 1 to 64 letters, digits, dots, dashes and underscores is kept. The id goes back with the
    answer, into every line that is logged meanwhile, and to ``request.state.request_id``. The line of the request tells
    ``request.state.records``, ``.residues`` and ``.client`` (the name of its API key) where they are set.

    An exception that nobody handled is logged and answered with 500. Within an answer it is passed on, so that the
    server cuts the connection and no client takes the half for the whole.
    """

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, tracer: Tracer | None = None, *, routes: Iterable[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: Any ASGI application; the route is read from what Starlette and FastAPI leave in the scope.
            telemetry: Where to count.
            tracer: Where spans go; nowhere by default.
            routes: Templates such as ``/v1/jobs/{id}``, for requests that are answered before they reach their route.
        """
        from starlette.routing import compile_path

        self.app, self.telemetry, self.tracer = app, telemetry, tracer or NoTracer()
        self.routes = [(compile_path(route)[0], route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, measured if it is a request of HTTP."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        tracer = NoTracer() if scope["path"] in _PROBES else self.tracer
        token = REQUEST_ID.set(request_id)
        try:
            with tracer.request(request_id, headers) as span:
                await _Exchange(self, scope, receive, send, span, request_id).run()
        finally:
            REQUEST_ID.reset(token)


class _Exchange:
    """One request and its answer, as they pass by."""

    def __init__(
        self, measured: Measured, scope: Scope, receive: Receive, send: Send, span: RequestSpan, request_id: str
    ) -> None:
        self._measured, self._scope, self._receive, self._send = measured, scope, receive, send
        self._span, self._request_id = span, request_id
        self._path = scope["path"].removeprefix(scope.get("root_path", ""))  # a mount changes both on the way
        self._started = time.perf_counter()
        self._status: int | None = None
        self._gone = self._over = False

    async def run(self) -> None:
        from starlette.responses import JSONResponse

        try:
            await self._measured.app(self._scope, self.receive, self.send)
        except Exception as error:
            if self._gone:
                return
            _LOG.error("internal error", exc_info=error)
            if self._status is None or self._status < 500:  # else who has answered it has counted it
                self._measured.telemetry.errors.labels("internal").inc()
            if self._status is None:
                message = f"an internal error; its operator finds the reason in the log under {self._request_id}"
                answer = JSONResponse({"error": {"kind": "internal", "message": message}}, 500)
                await answer(self._scope, self.receive, self.send)
            elif not self._over:
                raise
        finally:
            self._end()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._over:
            self._gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            others = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"x-request-id"]
            message = {**message, "headers": [*others, (b"x-request-id", self._request_id.encode())]}
        try:
            await self._send(message)
        except OSError:  # how a server may say that nobody listens any more
            self._gone = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._end()

    def _end(self) -> None:
        """Count the request, once."""
        if self._over:
            return
        self._over = True
        seconds = time.perf_counter() - self._started
        status = CLIENT_GONE if self._gone else self._status or 500
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        route = self._route()
        self._measured.telemetry.observe_request(route, method, status, seconds)
        self._span.answered(method, route, status)
        level = logging.DEBUG if self._path in _PROBES else logging.ERROR if status >= 500 else logging.INFO
        fields = {"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 2)}
        fields |= {name: self._scope["state"].get(name) for name in ("records", "residues", "client")}
        _LOG.log(level, "request", extra=fields)

    def _route(self) -> str:
        # Newer versions of FastAPI leave the prefix of an included router out of the route itself.
        effective = self._scope.get("fastapi", {}).get("effective_route_context")
        for route in (effective, self._scope.get("route")):
            template = getattr(route, "path_format", None) or getattr(route, "path", None)
            if isinstance(template, str):
                return template
        return next((route for pattern, route in self._measured.routes if pattern.match(self._path)), UNMATCHED)
