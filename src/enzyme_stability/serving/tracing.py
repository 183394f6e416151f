"""Spans of a request for OpenTelemetry, where somebody collects them; otherwise next to nothing happens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from enzyme_stability.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Environment variable with the address of the collector, such as http://collector:4318."""


class RequestSpan(Protocol):
    """The span of a whole request."""

    def answered(self, method: str, route: str, status: int) -> None:
        """Say what was answered; the route is known only once the request has reached it."""


class Tracer(Protocol):
    """Where spans go. Attributes are numbers and names of the service's own, never sequences, ids or keys."""

    def request(self, request_id: str, headers: Mapping[str, str]) -> AbstractContextManager[RequestSpan]:
        """The span of a request, below that of the caller where the headers name one (W3C traceparent)."""

    def span(self, name: str, **attributes: float | str) -> AbstractContextManager[None]:
        """A part of what the current span does."""

    def interval(self, name: str, start_ns: int, end_ns: int, **attributes: float | str) -> None:
        """A part of what the current span did, elsewhere and earlier, as waiting in the queue.

        Args:
            name: Of the part.
            start_ns: ``time.time_ns()`` at its start.
            end_ns: The same at its end.
            attributes: What to know of it.
        """

    def close(self) -> None:
        """Send what is left."""


class NoTracer:
    """Keeps no spans."""

    def request(self, request_id: str, headers: Mapping[str, str]) -> AbstractContextManager[RequestSpan]:
        """See ``Tracer``."""
        del request_id, headers
        return _NOWHERE

    def span(self, name: str, **attributes: float | str) -> AbstractContextManager[None]:
        """See ``Tracer``."""
        del name, attributes
        return _NOTHING

    def interval(self, name: str, start_ns: int, end_ns: int, **attributes: float | str) -> None:
        """See ``Tracer``."""

    def close(self) -> None:
        """See ``Tracer``."""


class OpenTelemetryTracer:
    """Makes spans with the OpenTelemetry SDK.

    An exception marks its span as failed by its type alone: what it says may quote the input.
    """

    def __init__(self, provider: TracerProvider) -> None:
        """Make a tracer.

        Args:
            provider: Where the spans go; it is used by this tracer alone, and not made the one of the process.
        """
        self._provider = provider
        self._tracer = provider.get_tracer("enzyme_stability")

    @contextmanager
    def request(self, request_id: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """See ``Tracer``."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract(headers)
        attributes = {"enzyme_stability.request_id": request_id}
        with self._tracer.start_as_current_span(
            "request",
            caller,
            SpanKind.SERVER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield _OpenRequestSpan(span)

    @contextmanager
    def span(self, name: str, **attributes: float | str) -> Iterator[None]:
        """See ``Tracer``."""
        with self._tracer.start_as_current_span(
            name, attributes=_prefixed(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _mark_failed(span, type(error).__name__)
                raise

    def interval(self, name: str, start_ns: int, end_ns: int, **attributes: float | str) -> None:
        """See ``Tracer``."""
        self._tracer.start_span(name, attributes=_prefixed(attributes), start_time=start_ns).end(end_ns)

    def close(self) -> None:
        """See ``Tracer``."""
        self._provider.shutdown()


class _OpenRequestSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, method: str, route: str, status: int) -> None:
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500:
            _mark_failed(self._span, str(status))


class _NoRequestSpan:
    def answered(self, method: str, route: str, status: int) -> None:
        pass


_NOTHING = nullcontext()
_NOWHERE: AbstractContextManager[RequestSpan] = nullcontext(_NoRequestSpan())


def tracer(endpoint: str | None = None) -> Tracer:
    """The tracer that the operator has asked for.

    Args:
        endpoint: Address of the collector, to which ``/v1/traces`` is added; that of ``OTEL_EXPORTER_OTLP_ENDPOINT``
            where not given, and no spans at all where there is neither. The other ``OTEL_`` variables (sampler,
            headers, service name) count as OpenTelemetry says.

    Raises:
        ConfigError: The address is none of http or https.
        MissingDependencyError: Spans are asked for, and the SDK is not installed.
    """
    address = endpoint or os.environ.get(ENDPOINT)
    if not address:
        return NoTracer()
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"the address for traces must start with http:// or https://, not {address!r}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingDependencyError("Tracing", "traces") from error
    from enzyme_stability import __version__

    name = os.environ.get("OTEL_SERVICE_NAME") or "enzyme-stability"
    # Closed by its owner: at the end of the process nobody is left to wait for a collector.
    provider = TracerProvider(
        resource=Resource.create({"service.name": name, "service.version": __version__}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces")))
    return OpenTelemetryTracer(provider)


def _prefixed(attributes: Mapping[str, float | str]) -> dict[str, float | str]:
    return {f"enzyme_stability.{name}": value for name, value in attributes.items()}


def _mark_failed(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)
