"""The route by which measured temperatures come back."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request

from enzyme_stability.monitoring.feedback import Measured, record_feedback
from enzyme_stability.serving import schemas
from enzyme_stability.serving.documentation import FAILURES, body_of
from enzyme_stability.serving.requests import authorised, given, service_of

router = APIRouter(dependencies=[Depends(authorised)], responses=FAILURES, tags=["feedback"])


@router.post("/v1/feedback", openapi_extra=body_of(schemas.FeedbackRequest), response_model=schemas.FeedbackResponse)
async def feedback(request: Request) -> schemas.FeedbackResponse:
    """Bring back measured Tm: they are set beside what was predicted, and kept to learn from."""
    service = service_of(request)
    asked = await given(request, schemas.FeedbackRequest, service.config.most_records)
    measured = [
        Measured(
            id=one.id or f"record_{k}",
            sequence=one.sequence,
            sequence_sha256=one.sequence_sha256 and one.sequence_sha256.lower(),
            measured_tm_celsius=one.measured_tm_celsius,
            organism=one.organism,
            growth_temperature_celsius=one.growth_temperature_celsius,
            source=one.source,
        )
        for k, one in enumerate(asked.records, 1)
    ]
    outcomes = await service.in_database(partial(record_feedback, service.database, service.predictor, measured))
    return schemas.FeedbackResponse(
        accepted=sum(one.status != "error" for one in outcomes),
        rows=[schemas.FeedbackRowAnswer(id=one.id, status=one.status, note=one.note) for one in outcomes],
    )
