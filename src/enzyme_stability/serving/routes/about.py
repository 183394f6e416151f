"""Routes about the service itself, and its web page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from enzyme_stability import __version__
from enzyme_stability.serving import schemas
from enzyme_stability.serving.documentation import FAILURES
from enzyme_stability.serving.requests import authorised, service_of

router = APIRouter()

_PAGE = Path(__file__).parents[1] / "page"
page = StaticFiles(directory=_PAGE)
"""What the web page is made of."""


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """The web page."""
    return FileResponse(_PAGE / "index.html")


@router.get("/favicon.ico", include_in_schema=False)
async def icon() -> Response:
    """There is none."""
    return Response(status_code=204)


@router.get("/v1/model", response_model=schemas.ModelResponse, responses=FAILURES, tags=["about"])
async def model(request: Request, _: str | None = Depends(authorised)) -> schemas.ModelResponse:
    """The model that answers, its card and the limits of the service."""
    service = service_of(request)
    predictor = service.predictor
    card = predictor.folder / "CARD.md"
    return schemas.ModelResponse(
        name=predictor.name,
        sha256=predictor.digest,
        version=__version__,
        description=str(predictor.manifest["description"]),
        takes_growth_temperature=predictor.takes_growth_temperature,
        coverage=0.9,
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        limits=service.limits,
    )


@router.get("/healthz", tags=["about"])
async def alive() -> dict[str, str]:
    """The process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "Not yet."}}, tags=["about"])
async def ready(request: Request) -> JSONResponse:
    """The model is loaded and requests are welcome."""
    if service_of(request).ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "starting"}, 503)


@router.get("/metrics", tags=["about"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    service = service_of(request)
    service.collect()
    text, kind = service.telemetry.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": kind})
