"""Every setting, declared once: types, bounds and defaults. YAML files hold values only and are validated here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from enzyme_stability.errors import ConfigError

CompositionBlock = Literal[
    "amino_acids", "whole_chain", "window_patterns", "dipeptides", "class_patterns", "termini"
]  # fmt: skip


def _given(value: object) -> str:
    """The offending value, where it is short enough to help."""
    return "" if isinstance(value, dict) else f" (got {value!r:.80})"


class Strict(BaseModel):
    """Frozen settings that refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str) -> Self:
        """Validate ``values``; ``source`` says in the error where they came from.

        Raises:
            ConfigError: A name is unknown or a value is out of bounds; every such setting is named.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}{_given(e['input'])}" for e in error.errors()]
            raise ConfigError(f"{source} has settings that cannot be used:\n" + "\n".join(lines)) from None


class PreparationSettings(Strict):
    """What counts as usable, as the same protein, as the same measurement and as too near to a held-out protein."""

    tm_minimum_celsius: float = Field(default=20.0, description="Below it no folded protein was ever melted in water")
    tm_maximum_celsius: float = Field(default=110.0, description="Above it the measurement would be under pressure")
    curve_r2_minimum: float = Field(default=0.9, ge=0, le=1, description="Least R2 of the melting curve, where known")
    same_protein_identity: float = Field(default=0.98, gt=0, le=1, description="Identity that makes one protein of two")
    same_protein_coverage: float = Field(default=0.95, gt=0, le=1, description="... over this share of both chains")
    same_number_celsius: float = Field(default=0.05, ge=0, description="How near a copied number is to its original")
    held_out_identity: float = Field(default=0.3, gt=0, le=1, description="Identity to a held-out protein to leave for")
    held_out_coverage: float = Field(default=0.5, gt=0, le=1, description="... over this share of either chain")


class Recipe(Strict):
    """Which tables to prepare and which to keep away from."""

    tables: tuple[str, ...] = Field(min_length=1, description="Names of declared tables, or paths of files")
    held_out: tuple[str, ...] = Field(default=(), description="Test tables whose relatives must not be learnt from")
    settings: PreparationSettings = PreparationSettings()


class TrainingData(Strict):
    """Which table a model learns from."""

    path: Path = Field(description="table made by 'data prepare': CSV or Parquet")
    growth_temperature_columns: tuple[str, ...] = Field(
        ("growth_temperature_celsius",),
        description="columns given to the second set of trees; the first that has a value counts",
    )
    calibration_share: float = Field(0.1, gt=0, lt=0.5, description="share of proteins kept for the intervals")
    cluster_identity: float = Field(0.3, gt=0, le=1, description="sequences this alike share a cluster")
    cluster_coverage: float = Field(0.5, gt=0, le=1, description="share of both sequences the match must cover")


class Composition(Strict):
    """Descriptors that need no language model."""

    kind: Literal["composition"] = "composition"
    blocks: tuple[CompositionBlock, ...] = Field(
        ("amino_acids", "whole_chain", "dipeptides", "class_patterns", "termini"),
        min_length=1,
        description="descriptor blocks, in order",
    )


class LandmarkRidge(Strict):
    """Level 1: kernel ridge regression on landmark proteins (Nystroem)."""

    block_weights: dict[CompositionBlock, Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="share of each block in the squared distance"
    )
    landmarks: int = Field(1000, ge=10, description="training proteins that the kernel compares with")
    sharpness: float = Field(1.0, gt=0, description="kernel = exp(-sharpness * squared distance / median)")
    penalty: float = Field(0.05, gt=0, description="ridge penalty")


class Trees(Strict):
    """Level 2: gradient-boosted trees (LightGBM) on descriptors and level-1 predictions."""

    blocks: tuple[CompositionBlock, ...] = Field(
        ("amino_acids", "whole_chain"), min_length=1, description="descriptor blocks used"
    )
    trees: int = Field(600, ge=1, description="trees of each of the four models")
    learning_rate: float = Field(0.02, gt=0, le=1)
    leaves: int = Field(12, ge=2)
    minimum_leaf_size: int = Field(30, ge=1)
    l2_penalty: float = Field(5.0, ge=0)
    feature_share: float = Field(0.3, gt=0, le=1, description="features offered to each tree")
    row_share: float = Field(0.8, gt=0, le=1, description="proteins offered to each tree")
    huber_celsius: float = Field(6.0, gt=0, description="residual beyond which the Huber loss is linear")
    quantiles: tuple[float, float] = Field((0.1, 0.9), description="levels of the raw interval")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.quantiles[0] < self.quantiles[1] < 1:
            raise ValueError("quantiles must rise and lie between 0 and 1")
        return self


class StackedHead(Strict):
    """The head of the built-in models: landmark ridges below, trees above."""

    kind: Literal["stacked"] = "stacked"
    ridges: tuple[LandmarkRidge, ...] = Field(min_length=1)
    thresholds_celsius: tuple[float, ...] = Field(description="extra level-1 targets: is Tm at least this?")
    inner_folds: int = Field(5, ge=2, description="folds for the out-of-fold values that level 2 learns from")
    trees: Trees

    def blocks(self) -> set[str]:
        """Descriptor blocks that the head looks at."""
        return {*self.trees.blocks}.union(*(ridge.block_weights for ridge in self.ridges))


class Interval(Strict):
    """How the raw interval of the trees becomes one that can be trusted."""

    upper_tail_share: float = Field(0.5, gt=0, lt=1, description="share of the misses that may lie above the interval")


class Domain(Strict):
    """When a protein counts as unlike the training data."""

    flagged_share: float = Field(0.02, gt=0, lt=0.5, description="share of calibration proteins each check flags")
    nonstandard_share: float = Field(0.05, ge=0, le=1, description="non-standard residues above this are flagged")


class TrainConfig(Strict):
    """Everything that decides what a training run gives."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the predictor")
    description: str = Field(description="one sentence for the model card")
    data: TrainingData
    encoder: Composition
    head: StackedHead
    interval: Interval
    domain: Domain
    output: Path = Field(description="folder of the predictor")
    cross_validation_folds: int = Field(5, ge=0, description="homology-held-out folds to report; 0 for none")
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1, description="threads of the trees; more are slower on small tables")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.cross_validation_folds == 1:
            raise ValueError("cross_validation_folds is 1, which leaves nothing to learn from: 0, or 2 and more")
        made = self.encoder.blocks
        if len(set(made)) < len(made):
            raise ValueError("encoder.blocks has a block twice")
        if absent := self.head.blocks().difference(made):
            raise ValueError(f"head uses blocks that encoder.blocks does not make: {', '.join(sorted(absent))}")
        return self
