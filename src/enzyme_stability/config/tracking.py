"""Where the curves of a training run go."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from enzyme_stability.config.base import Strict


class Tracking(Strict):
    """Trackers of a training run; several can be on at once."""

    csv: bool = Field(True, description="write the metrics to metrics.csv in the run's folder")
    tensorboard: bool = Field(False, description="write TensorBoard events to tensorboard/ in the run's folder")
    wandb: bool = Field(False, description="log to Weights & Biases")
    mlflow: bool = Field(False, description="log to MLflow")
    project: str = Field(
        "enzyme-stability", min_length=1, description="project in Weights & Biases, experiment in MLflow"
    )
    entity: str | None = Field(None, description="team or user in Weights & Biases; none is the key's own")
    wandb_mode: Literal["auto", "online", "offline"] = Field(
        "auto", description="auto: online where a key is known (WANDB_API_KEY or netrc), offline where none is"
    )
    mlflow_uri: str | None = Field(
        None, description="address of an MLflow server or store; none is mlruns/ in the run's folder"
    )
    tags: tuple[str, ...] = Field((), description="words to find the run by in Weights & Biases and MLflow")

    @field_validator("mlflow_uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        if uri and "@" in urlsplit(uri).netloc:  # settings are saved with the run
            raise ValueError(
                "an address holds no password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return uri
