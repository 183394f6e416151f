"""The manifest of a delta-Tm model: what its folder holds, checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from enzyme_stability.errors import ArtifactError
from enzyme_stability.uncertainty import ConformalInterval

MANIFEST = "delta_tm.json"
FORMAT = 1
PLAIN, WITH_RELATIVES = "plain", "with_relatives"
"""Heads: for proteins whose family is foretold from the sequence, and for those with an alignment of relatives."""


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Part(_Declared):
    """One file of the folder."""

    file: str = Field(pattern=r"^[^/\\\\]+$")
    sha256: str


class Scores(_Declared):
    """Those of a conformal interval."""

    below: tuple[float, ...] = Field(min_length=1)
    above: tuple[float, ...] = Field(min_length=1)
    upper_tail_share: float = Field(gt=0, lt=1)

    def interval(self) -> ConformalInterval:
        """The interval."""
        return ConformalInterval(np.array(self.below), np.array(self.above), self.upper_tail_share)


class Line(_Declared):
    """Of a logistic regression of "more stable" on delta Tm in degC."""

    intercept: float
    slope: float


class Scored(_Declared):
    """The language model whose scores are an input."""

    model: str
    method: Literal["masked-marginals", "wild-type-marginals"]


class KnownFamily(_Declared):
    """Profile of the family of the protein whose measured variants correct the model."""

    kind: Literal["plain", "with_relatives"]
    probabilities: list[Annotated[list[float], Field(min_length=20, max_length=20)]] = Field(min_length=1)
    effective_sequences: list[float]

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        if len(self.probabilities) != len(self.effective_sequences):
            raise ValueError("probabilities and effective_sequences differ in length")
        return self


class DeltaTmManifest(_Declared):
    """What prediction needs of ``delta_tm.json``; there may be more in it."""

    format: int
    name: str
    description: str = ""
    expected_profile: Part
    heads: dict[str, Part]
    intervals: dict[str, Scores]
    probability: dict[str, Line]
    pseudocount: float = Field(gt=0)
    language_model: Scored | None = None
    correction: dict[str, Any] | None = None
    family: KnownFamily | None = None

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if not {PLAIN} <= self.heads.keys() <= {PLAIN, WITH_RELATIVES}:
            raise ValueError(f"heads are {PLAIN} and, where there is one, {WITH_RELATIVES}")
        if not self.heads.keys() == self.intervals.keys() == self.probability.keys():
            raise ValueError("heads, intervals and probabilities do not match")
        return self


def read_manifest(folder: Path) -> tuple[dict[str, Any], DeltaTmManifest]:
    """The manifest of a folder, as it is and checked.

    Raises:
        ArtifactError: It is missing, damaged or of another format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder of a delta-Tm model")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no delta-Tm model: {MANIFEST} is missing") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise ArtifactError(f"{path} has format {manifest['format']}; this version reads {FORMAT}")
    try:
        return manifest, DeltaTmManifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
