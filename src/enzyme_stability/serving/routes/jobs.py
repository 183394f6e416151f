"""Routes for large inputs: submit, look, fetch, cancel."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from enzyme_stability.serving import schemas
from enzyme_stability.serving.documentation import FAILURES, JOB_BODY
from enzyme_stability.serving.jobs import JobStatus
from enzyme_stability.serving.requests import authorised, given, service_of
from enzyme_stability.serving.routes.predicting import (
    Column,
    Coverage,
    GrowthTemperature,
    records_given,
    records_sent,
)

router = APIRouter(prefix="/v1/jobs", dependencies=[Depends(authorised)], responses=FAILURES, tags=["jobs"])

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
_GONE: dict[int | str, dict[str, Any]] = {
    404: {"model": schemas.ProblemResponse, "description": "There is no such job."}
}
_NOT_DONE: dict[int | str, dict[str, Any]] = {
    409: {"model": schemas.ProblemResponse, "description": "The job has no result, or none yet."}
}

_ROWS: dict[str, Any] = {"content": {"text/csv": {}, "application/jsonl": {}}, "description": "The rows."}


@router.post("", status_code=202, openapi_extra=JOB_BODY, response_model=schemas.JobAnswer)
async def submit(
    request: Request,
    coverage: Coverage = 0.9,
    growth_temperature: GrowthTemperature = None,
    column: Column = None,
    id_column: Column = None,
    growth_temperature_column: Column = None,
) -> schemas.JobAnswer:
    """Hand in many proteins: JSON as for ``/v1/predict``, or a file as for ``/v1/predict/file``."""
    service = service_of(request)
    jobs = service.jobs
    if request.headers.get("content-type", "").startswith("multipart/"):
        columns = (column, id_column, growth_temperature_column)
        records = await records_sent(request, service.config.most_job_records, growth_temperature, *columns)
    else:
        asked = await given(request, schemas.PredictRequest, service.config.most_job_records)
        records, coverage = iter(records_given(asked)), asked.coverage
    owner = request.state.client
    job = await service.in_database(partial(jobs.submit, records, {"coverage": coverage}, owner=owner))
    return _answer(await service.in_database(partial(jobs.status, job, owner=owner)))


@router.get("/{job}", response_model=schemas.JobAnswer, responses=_GONE)
async def look(request: Request, job: JobId) -> schemas.JobAnswer:
    """How far a job is."""
    service = service_of(request)
    return _answer(await service.in_database(partial(service.jobs.status, job, owner=request.state.client)))


@router.get("/{job}/result", response_class=StreamingResponse, responses={200: _ROWS, **_GONE, **_NOT_DONE})
async def fetch(
    request: Request, job: JobId, as_: Annotated[Literal["csv", "jsonl"], Query(alias="format")] = "csv"
) -> Response:
    """The rows of a job that is done, in the order of its records."""
    service = service_of(request)
    rows = await service.in_database(partial(service.jobs.result, job, owner=request.state.client, format=as_))
    kind = "text/csv" if as_ == "csv" else "application/jsonl"
    return StreamingResponse(
        rows, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{job}.{as_}"'}
    )


@router.delete("/{job}", response_model=schemas.JobAnswer, responses=_GONE)
async def cancel(request: Request, job: JobId) -> schemas.JobAnswer:
    """Cancel a job; one that is done stays done."""
    service = service_of(request)
    return _answer(await service.in_database(partial(service.jobs.cancel, job, owner=request.state.client)))


def _answer(status: JobStatus) -> schemas.JobAnswer:
    return schemas.JobAnswer(
        id=status.id,
        state=status.state,
        records=status.records,
        finished=status.finished,
        message=status.message,
        created_at=status.created_at.isoformat(),
        ended_at=None if status.ended_at is None else status.ended_at.isoformat(),
    )
