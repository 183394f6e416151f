"""A service as a first sketch has it: each request loads the predictor anew and has one sequence predicted.

``service_load.py`` runs it beside ``enzyme-stability serve``.
"""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from enzyme_stability import Predictor

app = FastAPI()


class Request(BaseModel):
    """One sequence."""

    sequence: str


@app.post("/predict")
def predict(request: Request) -> dict[str, float | None]:
    """Its melting temperature in degC."""
    return {"tm_celsius": Predictor.builtin().predict([request.sequence])[0].tm_celsius}
