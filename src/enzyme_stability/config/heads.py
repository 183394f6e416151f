"""Settings of the heads: what turns an embedding into a melting temperature."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from enzyme_stability.config.base import Strict
from enzyme_stability.config.encoders import CompositionBlock


class LandmarkRidge(Strict):
    """Level 1: kernel ridge regression on landmark proteins (Nystroem)."""

    block_weights: dict[CompositionBlock, Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="share of each block in the squared distance"
    )
    landmarks: int = Field(1000, ge=10, description="training proteins that the kernel compares with")
    sharpness: float = Field(1.0, gt=0, description="kernel = exp(-sharpness * squared distance / median)")
    penalty: float = Field(0.05, gt=0, description="ridge penalty")


class Boosting(Strict):
    """Gradient-boosted trees (LightGBM): four models a head."""

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


class StackedTrees(Boosting):
    """Level 2 of the stack: trees on descriptors and level-1 predictions."""

    blocks: tuple[CompositionBlock, ...] = Field(
        ("amino_acids", "whole_chain"), min_length=1, description="descriptor blocks used"
    )


class StackedHead(Strict):
    """The head of the built-in models: landmark ridges below, trees above."""

    kind: Literal["stacked"] = "stacked"
    ridges: tuple[LandmarkRidge, ...] = Field(min_length=1)
    thresholds_celsius: tuple[float, ...] = Field(description="extra level-1 targets: is Tm at least this?")
    inner_folds: int = Field(5, ge=2, description="folds for the out-of-fold values that level 2 learns from")
    trees: StackedTrees

    def blocks(self) -> set[str]:
        """Descriptor blocks that the head looks at."""
        return {*self.trees.blocks}.union(*(ridge.block_weights for ridge in self.ridges))


class Trees(Boosting):
    """Trees on the embedding as it is; how many is decided on the validation proteins."""

    kind: Literal["trees"] = "trees"
    patience: int = Field(50, ge=1, description="trees without a gain on the validation proteins before stopping")


class Ridge(Strict):
    """A straight line on the embedding; the penalty is chosen over folds of homology clusters."""

    kind: Literal["ridge"] = "ridge"
    penalties: tuple[float, ...] = Field(
        (1, 10, 100, 1e3, 1e4, 1e5),
        min_length=1,
        description="ridge penalties to choose from, on standardised features",
    )
    inner_folds: int = Field(5, ge=2, description="folds the penalty is chosen over")


class Neural(Strict):
    """What every network has."""

    learning_rate: float = Field(1e-3, gt=0, lt=1, description="step size of AdamW")
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    quantiles: tuple[float, float] = Field((0.1, 0.9), description="levels of the raw interval")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.quantiles[0] < self.quantiles[1] < 1:
            raise ValueError("quantiles must rise and lie between 0 and 1")
        return self


class Mlp(Neural):
    """A multilayer perceptron on the pooled embedding."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((512, 256), min_length=1, description="widths between")


class LightAttention(Neural):
    """Attention over residues (Staerk et al. 2021, doi 10.1093/bioadv/vbab035)."""

    kind: Literal["light_attention"] = "light_attention"
    channels: int = Field(64, ge=1, description="channels of the two convolutions")
    kernel: int = Field(9, ge=1, description="residues a convolution sees; odd")
    hidden: int = Field(32, ge=1, description="width of the layer before the output")

    @model_validator(mode="after")
    def _centred(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd, so that it is centred on a residue")
        return self


class Lora(Neural):
    """Low-rank fine-tuning of the language model (Hu et al. 2021, arXiv 2106.09685) with a perceptron on top."""

    kind: Literal["lora"] = "lora"
    learning_rate: float = Field(3e-4, gt=0, lt=1, description="step size of AdamW")
    dropout: float = Field(0.0, ge=0, lt=1)
    rank: int = Field(8, ge=1, description="rank of the updates")
    scale: float = Field(16, gt=0, description="alpha: updates are multiplied by scale / rank")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((32,), description="widths between, of the perceptron")


Head = Annotated[StackedHead | Trees | Ridge | Mlp | LightAttention | Lora, Field(discriminator="kind")]
