"""Settings of the encoders: what turns a sequence into numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from enzyme_stability.config.base import Strict

CompositionBlock = Literal[
    "amino_acids", "whole_chain", "window_patterns", "dipeptides", "class_patterns", "termini"
]  # fmt: skip


class Composition(Strict):
    """Descriptors that need no language model."""

    kind: Literal["composition"] = "composition"
    blocks: tuple[CompositionBlock, ...] = Field(
        ("amino_acids", "whole_chain", "dipeptides", "class_patterns", "termini"),
        min_length=1,
        description="descriptor blocks, in order",
    )


class LanguageModel(Strict):
    """A pretrained protein language model."""

    kind: Literal["language_model"] = "language_model"
    model: str = Field(description="name as in 'models list', hub id or local folder")
    layer: int = Field(-1, description="hidden layer; -1 is the last")
    window: int | None = Field(None, ge=1, description="residues given at once; null is the most the model takes")
    overlap: int = Field(256, ge=0, description="residues that neighbouring windows of a long sequence share")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 where the hardware has it, or as told"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto takes a GPU where there is one"
    )
    token_budget: int | None = Field(None, ge=1, description="tokens in a batch; null suits the device")


Encoder = Annotated[Composition | LanguageModel, Field(discriminator="kind")]
