"""Settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from enzyme_stability.config.base import Strict
from enzyme_stability.config.encoders import Composition, Encoder, LanguageModel
from enzyme_stability.config.heads import Head, LightAttention, Lora, Neural, StackedHead
from enzyme_stability.config.tracking import Tracking


class TrainingData(Strict):
    """Which table a model learns from."""

    path: str = Field(description="table made by 'data prepare': CSV or Parquet, local or a URL such as gs://...")
    embeddings: str | None = Field(
        None, description="file made by 'embed' of the proteins of the table, by id; null embeds them"
    )
    growth_temperature_columns: tuple[str, ...] = Field(
        ("growth_temperature_celsius",),
        description="columns given to the second model; the first that has a value counts",
    )
    spread_column: str = Field("tm_spread_celsius", description="spread of repeated measurements, where there is one")
    measurement_error_celsius: float = Field(
        3.0, gt=0, description="error of one measurement: the weight of a protein is error^2 / (error^2 + spread^2)"
    )


class Split(Strict):
    """How proteins are set apart: by clusters, so that relatives stay together."""

    calibration_share: float = Field(0.1, gt=0, lt=0.5, description="share of proteins kept for the intervals")
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of the others that decides when to stop; only for heads that stop early"
    )
    cluster_identity: float = Field(0.3, gt=0, le=1, description="sequences this alike share a cluster")
    cluster_coverage: float = Field(0.5, gt=0, le=1, description="share of both sequences the match must cover")
    folds: int = Field(5, ge=0, description="homology-held-out folds to report; 0 for none")

    @model_validator(mode="after")
    def _enough_folds(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds is 1, which leaves nothing to learn from: 0, or 2 and more")
        return self


class Trainer(Strict):
    """How networks are trained, by Lightning."""

    max_epochs: int = Field(100, ge=1)
    patience: int = Field(15, ge=1, description="epochs without a gain on the validation proteins before stopping")
    batch_size: int = Field(256, ge=1, description="proteins in a step, over all processes")
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="as Lightning names it")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = Field(1, ge=1, description="processes a node")
    nodes: int = Field(1, ge=1)
    ensemble: int = Field(1, ge=1, description="networks whose mean is the answer")
    ensemble_by: Literal["seeds", "folds"] = Field(
        "seeds", description="members differ in their seed, or also in the validation proteins"
    )


class Interval(Strict):
    """How the raw interval of the trees becomes one that can be trusted."""

    upper_tail_share: float = Field(0.5, gt=0, lt=1, description="share of the misses that may lie above the interval")


class Domain(Strict):
    """When a protein counts as unlike the training data."""

    flagged_share: float = Field(0.02, gt=0, lt=0.5, description="share of calibration proteins each check flags")
    nonstandard_share: float = Field(0.05, ge=0, le=1, description="non-standard residues above this are flagged")


class TrainConfig(Strict):
    """Everything that decides what a training run gives."""

    run_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the run and its predictor")
    description: str = Field("", description="one sentence for the model card")
    data: TrainingData
    encoder: Encoder
    head: Head
    split: Split
    trainer: Trainer
    tracking: Tracking
    interval: Interval
    domain: Domain
    output: Path = Field(description="folder of the run and its predictor")
    mirror: str | None = Field(None, description="URL that the run folder is copied to as it grows")
    store: Path | None = Field(None, description="folder of the embedding store; null is the shared one")
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1, description="threads of the trees; more are slower on small tables")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if isinstance(self.head, LightAttention | Lora) and not isinstance(self.encoder, LanguageModel):
            raise ValueError(f"head {self.head.kind} needs a language model as encoder")
        if isinstance(self.head, LightAttention | Lora) and self.data.embeddings is not None:
            raise ValueError(f"head {self.head.kind} reads more than one vector a protein: set data.embeddings to null")
        if not isinstance(self.head, Neural) and self.trainer.ensemble > 1:
            raise ValueError(f"head {self.head.kind} is no network, so no ensemble: set trainer.ensemble to 1")
        if isinstance(self.head, Lora) and self.trainer.ensemble > 1:
            raise ValueError("head lora has one adapter, so no ensemble: set trainer.ensemble to 1")
        if isinstance(self.encoder, Composition):
            made = self.encoder.blocks
            if len(set(made)) < len(made):
                raise ValueError("encoder.blocks has a block twice")
            if isinstance(self.head, StackedHead) and (absent := self.head.blocks().difference(made)):
                raise ValueError(f"head uses blocks that encoder.blocks does not make: {', '.join(sorted(absent))}")
        elif isinstance(self.head, StackedHead):
            raise ValueError("head stacked needs encoder composition")
        return self
