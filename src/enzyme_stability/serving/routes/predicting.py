"""Routes that predict at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from enzyme_stability import __version__
from enzyme_stability.prediction import COLUMNS, Prediction
from enzyme_stability.predictor import Predictor
from enzyme_stability.sequence import Record
from enzyme_stability.serving import schemas
from enzyme_stability.serving.documentation import FAILURES, FILE_BODY, body_of
from enzyme_stability.serving.requests import answered, authorised, given, service_of, uploaded, while_awaited
from enzyme_stability.serving.uploads import embeddings_of, stream_records

router = APIRouter(dependencies=[Depends(authorised)], responses=FAILURES)

Coverage = Annotated[float, Query(ge=0.5, le=0.99, description="Share of proteins whose Tm the interval should hold.")]
GrowthTemperature = Annotated[
    float | None, Query(ge=schemas.LOWEST_GROWTH_TEMPERATURE, le=schemas.HIGHEST_GROWTH_TEMPERATURE)
]
Column = Annotated[str | None, Query(max_length=200)]


@router.post("/predict/", openapi_extra=body_of(schemas.OldRequest), tags=["predict"])
@router.post("/predict", include_in_schema=False)
async def predict_values(request: Request) -> list[float | None]:
    """Melting temperatures alone, in degC: null where a sequence cannot be predicted."""
    service = service_of(request)
    asked = await given(request, schemas.OldRequest, service.config.most_records)
    records = [Record(f"record_{k}", sequence) for k, sequence in enumerate(asked.data, 1)]
    rows = await _predicted(request, records, 0.9, service.predictor)
    return [row.tm_celsius for row in rows]


@router.post(
    "/v1/predict",
    openapi_extra=body_of(schemas.PredictRequest),
    responses={200: {"model": schemas.PredictResponse}},
    tags=["predict"],
)
async def predict(request: Request) -> Response:
    """Melting temperatures with intervals. A bad sequence is a row with status ``error``; the others are answered."""
    service = service_of(request)
    asked = await given(request, schemas.PredictRequest, service.config.most_records)
    predictor = service.predictor
    rows = await _predicted(request, records_given(asked), asked.coverage, predictor)
    return await predictions(predictor, rows, asked.coverage)


@router.post(
    "/v1/predict/file",
    openapi_extra=FILE_BODY,
    responses={200: {"model": schemas.PredictResponse}},
    tags=["predict"],
)
async def predict_file(
    request: Request,
    coverage: Coverage = 0.9,
    growth_temperature: GrowthTemperature = None,
    column: Column = None,
    id_column: Column = None,
    growth_temperature_column: Column = None,
) -> Response:
    """Melting temperatures of the proteins in a FASTA, CSV or TSV file, plain or gzip-compressed."""
    service = service_of(request)
    columns = (column, id_column, growth_temperature_column)
    sent = await records_sent(request, service.config.most_records, growth_temperature, *columns)
    records = await asyncio.to_thread(list, sent)
    predictor = service.predictor
    rows = await _predicted(request, records, coverage, predictor)
    return await predictions(predictor, rows, coverage)


@router.post(
    "/v1/predict/embeddings",
    openapi_extra=FILE_BODY,
    responses={200: {"model": schemas.PredictResponse}},
    tags=["predict"],
)
async def predict_embeddings(request: Request, coverage: Coverage = 0.9) -> Response:
    """Melting temperatures from embeddings (n, d) in a .pt, .npy, .safetensors or HDF5 file."""
    service = service_of(request)
    file = await uploaded(request)
    config = service.config
    table = await asyncio.to_thread(
        embeddings_of, file, largest_unpacked=config.largest_unpacked, most_records=config.most_records
    )
    predictor = service.predictor
    rows = await asyncio.to_thread(
        predictor.predict_embeddings,
        table.ids,
        table.vectors,
        made_by=table.metadata,
        coverage=coverage,
    )
    service.telemetry.count_predictions(rows)
    return await predictions(predictor, rows, coverage)


@router.post(
    "/v1/scan",
    openapi_extra=body_of(schemas.ScanRequest),
    responses={200: {"model": schemas.ScanResponse}},
    tags=["mutations"],
)
async def scan(request: Request) -> Response:
    """The change of Tm of every single substitution in a protein; positive is more stable."""
    service = service_of(request)
    asked = await given(request, schemas.ScanRequest, 1)
    work = service.scan(
        asked.sequence,
        name=asked.id,
        offset=asked.offset,
        keep=asked.keep,
        exclude=asked.exclude,
        size=asked.size,
        coverage=asked.coverage,
    )
    async with asyncio.timeout(service.config.request_timeout_s):
        found = await while_awaited(request, work)
    return await answered(found, len(found["rows"]))


def records_given(asked: schemas.PredictRequest) -> list[Record]:
    """The records of a request."""
    common = asked.growth_temperature_celsius
    return [
        Record(
            one.id or f"record_{k}",
            one.sequence,
            common if one.growth_temperature_celsius is None else one.growth_temperature_celsius,
        )
        for k, one in enumerate(asked.records, 1)
    ]


async def records_sent(
    request: Request,
    most: int,
    growth_temperature: float | None,
    column: str | None,
    id_column: str | None,
    growth_temperature_column: str | None,
) -> Iterator[Record]:
    """The records of an uploaded file, to be read in a thread."""
    config = service_of(request).config
    read = stream_records(
        await uploaded(request),
        largest_unpacked=config.largest_unpacked,
        most_records=most,
        longest_sequence=config.longest_sequence,
        column=column,
        id_column=id_column,
        growth_temperature_column=growth_temperature_column,
    )
    if growth_temperature is None:
        return read
    return (replace(r, growth_temperature=growth_temperature) if r.growth_temperature is None else r for r in read)


async def _predicted(
    request: Request, records: Sequence[Record], coverage: float, predictor: Predictor
) -> list[Prediction]:
    service = service_of(request)
    request.state.records, request.state.residues = len(records), sum(len(record.sequence) for record in records)
    async with asyncio.timeout(service.config.request_timeout_s):
        return await while_awaited(request, service.predict(records, coverage, predictor))


async def predictions(predictor: Predictor, rows: Sequence[Prediction], coverage: float) -> Response:
    """The answer with these rows."""
    content: dict[str, Any] = {
        "model": {"name": predictor.name, "sha256": predictor.digest, "version": __version__},
        "coverage": coverage,
        "predictions": [{name: value for name, value in asdict(row).items() if name in COLUMNS} for row in rows],
    }
    return await answered(content, len(rows))
