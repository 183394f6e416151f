"""Answers requests inside TorchServe; this file is copied into every model archive.

A request is JSON: ``{"instances": [...]}`` or ``{"data": [...]}`` with sequences as text, or with embeddings as lists
of numbers. Its answer is ``{"predictions": [...]}`` with the rows of ``enzyme-stability predict``, in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.errors import ConfigError, DataError, EnzymeStabilityError
from enzyme_stability.prediction import COLUMNS, Prediction
from enzyme_stability.predictor import Predictor
from enzyme_stability.sequence import Record

FOLDER = "predictor"
"""Of the predictor within the archive."""

_loaded: list[Predictor] = []

Answer = dict[str, Any]


def handle(data: Sequence[dict[str, Any]] | None, context: Any) -> list[Answer] | None:
    """What TorchServe calls: once without data to load the predictor, then with one batch of requests at a time."""
    if data is None:
        _loaded[:] = [Predictor(Path(context.system_properties["model_dir"], FOLDER))]
        return None
    answers = answer(_loaded[0], [request.get("body", request.get("data")) for request in data])
    for place, (status, _) in enumerate(answers):
        context.set_response_status(code=status, idx=place)
        context.set_response_content_type(place, "application/json")
    return [content for _, content in answers]


def answer(predictor: Predictor, bodies: Sequence[Any]) -> list[tuple[int, Answer]]:
    """HTTP status and content for the body of each request; sequences of all requests are predicted together."""
    answers: list[tuple[int, Answer]] = [(200, {})] * len(bodies)
    asked: dict[int, list[Record]] = {}
    for place, body in enumerate(bodies):
        try:
            given = _instances(body)
            if isinstance(given[0], list):
                answers[place] = _rows(_from_embeddings(predictor, given))
            else:
                asked[place] = _records(given)
        except EnzymeStabilityError as error:
            answers[place] = _refusal(error)
    try:
        rows = predictor.predict_records(record for records in asked.values() for record in records)
        for place, records in asked.items():
            answers[place] = _rows(list(islice(rows, len(records))))
    except EnzymeStabilityError as error:
        for place in asked:
            answers[place] = _refusal(error)
    return answers


def _instances(body: Any) -> list[Any]:
    if isinstance(body, bytes | bytearray | str):
        try:
            body = json.loads(body)
        except ValueError:
            raise DataError("the request is no JSON") from None
    given = body.get("instances", body.get("data")) if isinstance(body, dict) else None
    if not isinstance(given, list) or not given:
        raise DataError('the request must be {"instances": [...]} with sequences or embeddings')
    return given


def _records(given: list[Any]) -> list[Record]:
    """Named by their place; what is no text becomes a row with an error, as in a file."""
    return [
        Record(f"sequence_{k}", one) if isinstance(one, str) else Record(f"sequence_{k}", "", problem="no text")
        for k, one in enumerate(given, 1)
    ]


def _from_embeddings(predictor: Predictor, given: list[Any]) -> list[Prediction]:
    try:
        vectors = np.array(given, dtype=np.float32)
    except (OverflowError, TypeError, ValueError):
        raise DataError("embeddings must be lists of numbers of one length") from None
    if not np.isfinite(vectors).all():
        raise DataError("an embedding holds a number that is not finite")
    return predictor.predict_embeddings([f"embedding_{k}" for k in range(1, len(given) + 1)], vectors)


def _rows(predictions: list[Prediction]) -> tuple[int, Answer]:
    return 200, {"predictions": [{name: getattr(row, name) for name in COLUMNS} for row in predictions]}


def _refusal(error: EnzymeStabilityError) -> tuple[int, Answer]:
    return (400 if isinstance(error, ConfigError | DataError) else 503), {"error": str(error)}
