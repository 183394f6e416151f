"""What the service takes and gives, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE
from enzyme_stability.errors import TooLargeError
from enzyme_stability.sequence import AMINO_ACIDS

_LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRCKGTDVQ"
    "AWIRGCRL"
)

Name = Annotated[str, StringConstraints(max_length=200)]
GrowthTemperature = Annotated[
    float,
    Field(
        ge=LOWEST_GROWTH_TEMPERATURE,
        le=HIGHEST_GROWTH_TEMPERATURE,
        allow_inf_nan=False,
        description="Growth temperature of the organism in degC, where it is known.",
    ),
]
Coverage = Annotated[
    float,
    Field(ge=0.5, le=0.99, allow_inf_nan=False, description="Share of proteins whose Tm the interval should hold."),
]
Sequence = Annotated[str, Field(description="Amino-acid sequence, one letter a residue.")]


T = TypeVar("T")


def _not_too_many(value: T, info: ValidationInfo) -> T:
    """Refuse before each one is looked at, which takes its time; the context says how many are taken."""
    if isinstance(value, list) and info.context is not None and len(value) > info.context:
        raise TooLargeError(
            f"{len(value):,} sequences are more than the {info.context:,} taken here: send them in parts, or as a file "
            "to /v1/jobs"
        )
    return value


# Of a million faults, the first will do.
Records = Annotated[list[T], FailFast(), Field(min_length=1), BeforeValidator(_not_too_many)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GivenRecord(_Given):
    """A protein."""

    id: Name | None = Field(None, description="Its name; else its place in the list, record_1 and so on.")
    sequence: Sequence
    growth_temperature_celsius: GrowthTemperature | None = None


class PredictRequest(_Given):
    """Proteins to predict."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "records": [
                        {"id": "lysozyme", "sequence": _LYSOZYME, "growth_temperature_celsius": 41},
                        {"id": "not_a_protein", "sequence": "MK1"},
                    ],
                    "coverage": 0.9,
                }
            ]
        },
    )

    records: Records[GivenRecord]
    coverage: Coverage = 0.9
    growth_temperature_celsius: GrowthTemperature | None = Field(
        None, description="degC, for records without one of their own."
    )


class OldRequest(_Given):
    """Sequences alone, as in the first version of the service."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"data": [_LYSOZYME]}]})

    data: Records[str]

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class ScanRequest(_Given):
    """A protein all of whose single substitutions are asked for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"id": "lysozyme", "sequence": _LYSOZYME, "keep": [35, 52], "size": 10}]},
    )

    id: Name = "protein"
    sequence: Sequence
    offset: int = Field(0, ge=-100_000, le=100_000, description="Added to the position in the sequence.")
    keep: list[int] = Field(default_factory=list, max_length=10_000, description="Positions not to touch.")
    exclude: str = Field("", max_length=20, pattern=f"^[{AMINO_ACIDS}]*$", description="Amino acids not to introduce.")
    size: int = Field(20, ge=1, le=1_000, description="Substitutions in the shortlist.")
    coverage: Coverage = 0.9


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    sha256: str = Field(description="Of the manifest, which holds those of all files: names the model exactly.")
    version: str = Field(description="Of the package.")


class PredictedRow(BaseModel):
    """One row of the answer; temperatures in degC, null where there is no answer."""

    id: str
    length: int | None
    tm_celsius: float | None
    tm_lower_celsius: float | None
    tm_upper_celsius: float | None
    in_domain: bool | None
    status: str = Field(description="ok, warning (the sequence was changed, see the note) or error")
    note: str


class PredictResponse(BaseModel):
    """Rows in the order of the records."""

    model: ModelName
    coverage: float
    predictions: list[PredictedRow]


class ScannedRow(BaseModel):
    """One substitution; the most stabilising comes first."""

    variant: str
    position: int
    wild_type: str
    substitution: str
    delta_tm_celsius: float | None
    delta_tm_lower_celsius: float | None
    delta_tm_upper_celsius: float | None
    probability_stabilising: float | None
    status: str


class ShortlistedRow(BaseModel):
    """A substitution of the shortlist, best first."""

    model_config = ConfigDict(extra="allow")

    variant: str
    delta_tm_celsius: float | None


class ScanResponse(BaseModel):
    """All single substitutions of a protein, and a shortlist."""

    model: ModelName
    id: str
    length: int
    sign: str = Field(description="What a positive number means.")
    notes: list[str] = Field(description="What was changed in the sequence.")
    rows: list[ScannedRow]
    shortlist: list[ShortlistedRow]


class JobAnswer(BaseModel):
    """Where a job stands."""

    id: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    records: int
    finished: int
    message: str
    created_at: str
    ended_at: str | None


class GivenMeasurement(_Given):
    """A measured melting temperature."""

    id: Name | None = None
    sequence: Sequence | None = None
    sequence_sha256: str | None = Field(
        None, pattern="^[0-9a-fA-F]{64}$", description="Of the cleaned residues, instead of the sequence."
    )
    measured_tm_celsius: float = Field(allow_inf_nan=False)
    organism: Name | None = None
    growth_temperature_celsius: GrowthTemperature | None = None
    source: Name | None = None


class FeedbackRequest(_Given):
    """Measured melting temperatures of proteins that were predicted."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"records": [{"id": "lysozyme", "sequence": _LYSOZYME, "measured_tm_celsius": 75.5, "source": "DSC"}]}
            ]
        },
    )

    records: Records[GivenMeasurement]


class FeedbackRowAnswer(BaseModel):
    """What became of one measurement."""

    id: str
    status: str
    note: str


class FeedbackResponse(BaseModel):
    """What became of each measurement."""

    accepted: int
    rows: list[FeedbackRowAnswer]


class ModelResponse(BaseModel):
    """The model that answers, its card and the limits of the service."""

    name: str
    sha256: str
    version: str
    description: str
    takes_growth_temperature: bool
    coverage: float
    card: str = Field(description="Markdown.")
    limits: dict[str, int]


class Problem(BaseModel):
    """Why there is no answer."""

    kind: str
    message: str


class ProblemResponse(BaseModel):
    """The body of every answer that is an error."""

    error: Problem
