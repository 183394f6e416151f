"""Settings of the delta-Tm model: which substitutions to learn from, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from enzyme_stability.config.base import Strict
from enzyme_stability.config.heads import Boosting


class ExpectedProfileSettings(Strict):
    """The network that foretells the profile of a family from one sequence."""

    proteins: int = Field(30_000, ge=100, description="proteins whose relatives are looked for")
    shortest: int = Field(50, ge=10, description="residues of the shortest of them")
    longest: int = Field(600, ge=10, description="residues of the longest of them")
    least_relatives: int = Field(5, ge=1, description="relatives a protein needs to be learned from")
    most_relatives: int = Field(200, ge=1, description="relatives that are aligned, at most")
    sensitivity: float = Field(4.0, ge=1, le=7.5, description="of the search by MMseqs2: 1 quick, 7.5 thorough")
    validation_share: float = Field(0.05, gt=0, lt=1, description="share of the proteins left out of training")
    width: int = Field(256, ge=8, description="numbers in the hidden layers")
    epochs: int = Field(2, ge=1, description="times every column is seen")
    batch: int = Field(2048, ge=16, description="columns a step")
    learning_rate: float = Field(3e-3, gt=0, lt=1, description="highest step size of AdamW")
    pseudocount: float = Field(5.0, gt=0, description="effective sequences at which a column counts half")
    seed: int = Field(0, ge=0)


class DeltaTmConfig(Strict):
    """Training of the delta-Tm model."""

    name: str = Field("delta_tm", min_length=1, description="name of the model")
    description: str = Field("Change of Tm on substitution", description="one sentence for its card")
    table: str = Field("S4346", description="public table, or file, of measured delta Tm")
    auxiliary: tuple[str, ...] = Field(("S8754",), description="tables of ddG that are learned along, as another task")
    auxiliary_weight: float = Field(1.0, ge=0, description="of one measurement of ddG beside one of delta Tm")
    held_out: tuple[str, ...] = Field(
        ("S571", "S669"), description="test tables whose proteins' relatives and mutations are not learned from"
    )
    held_out_identity: float = Field(0.25, gt=0, le=1, description="identity from which a protein counts as a relative")
    largest_change: float = Field(12.0, gt=0, description="degC; larger measured changes are cut to it in training")
    folds: int = Field(5, ge=2, description="folds of homology clusters, for intervals and probabilities")
    pseudocount: float = Field(5.0, gt=0, description="effective sequences that the prior of a profile counts as")
    language_model: str | None = Field(None, description="checkpoint whose scores are a further input; none by default")
    language_score: Literal["masked-marginals", "wild-type-marginals"] = "masked-marginals"
    ensemble: int = Field(3, ge=1, description="times the trees of the value are grown, each from its own seed")
    trees: Boosting = Boosting.model_validate(
        {
            "trees": 150,
            "learning_rate": 0.05,
            "leaves": 6,
            "minimum_leaf_size": 80,
            "l2_penalty": 20.0,
            "feature_share": 0.25,
            "row_share": 0.6,
        }
    )
    coverage: float = Field(0.9, gt=0, lt=1, description="of the intervals in the figures")
    seed: int = Field(0, ge=0)
