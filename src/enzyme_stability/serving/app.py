"""The application: routes, limits, headers, from its first moment to its last."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from enzyme_stability import __version__
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.serving.documentation import describe
from enzyme_stability.serving.failures import handle_failures
from enzyme_stability.serving.limits import Limits, SecurityHeaders
from enzyme_stability.serving.routes import about, feedback, jobs, predicting
from enzyme_stability.serving.service import Service
from enzyme_stability.serving.telemetry import Measured

SETTINGS = "ENZYME_STABILITY_SERVING"
"""Environment variable with the settings as JSON, for the processes of a server with several."""

_DESCRIPTION = "Melting temperature (Tm) of enzymes from sequence, with intervals, and scans of substitutions."
_UPLOADS = ("/v1/predict/file", "/v1/predict/embeddings", "/v1/jobs")


def create_app(config: ServingConfig | None = None) -> FastAPI:
    """The service as an ASGI application."""
    config = config or ServingConfig()
    service = Service(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="enzyme_stability",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for module in (predicting, jobs, feedback, about):
        app.include_router(module.router)
    app.mount("/page", about.page)
    handle_failures(app)
    describe(app, keys=config.keys is not None)

    def largest_body(path: str) -> int:
        return config.largest_upload if path.startswith(_UPLOADS) else config.largest_body

    # The last one added is the first to see a request.
    app.add_middleware(Limits, largest_body=largest_body, body_timeout_s=config.body_timeout_s)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    routes = [*app.openapi()["paths"], "/openapi.json", "/page/{asset:path}"]
    app.add_middleware(Measured, telemetry=service.telemetry, tracer=service.tracer, routes=routes)
    app.add_middleware(SecurityHeaders)  # around all others, for those of an internal error too
    return app


def from_environment() -> FastAPI:
    """The application with the settings that the server's first process has left in the environment."""
    return create_app(ServingConfig.model_validate_json(os.environ[SETTINGS]))
