"""Spans of a request, as the service itself leaves them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from running_service import LYSOZYME

from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.serving import service
from enzyme_stability.serving.app import create_app
from enzyme_stability.serving.tracing import OpenTelemetryTracer


def test_a_request_has_spans_of_its_prediction_and_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(service, "tracer", lambda: OpenTelemetryTracer(provider))

    async def ask() -> httpx.Response:
        app = create_app(ServingConfig(threads=1))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as one:
            body: dict[str, Any] = {"records": [{"sequence": LYSOZYME}]}
            return await one.post("/v1/predict", json=body)

    assert asyncio.run(ask()).status_code == 200
    spans = {span.name: span for span in kept.get_finished_spans()}
    request, predict, queue = (spans[name] for name in ("POST /v1/predict", "predict", "queue"))
    assert predict.parent.span_id == request.context.span_id
    assert queue.parent.span_id == predict.context.span_id
    assert predict.attributes == {"enzyme_stability.records": 1, "enzyme_stability.residues": len(LYSOZYME)}
    assert request.start_time <= queue.start_time <= queue.end_time <= predict.end_time <= request.end_time
