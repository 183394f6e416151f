"""The terms on which a version of a predictor is promoted."""

from __future__ import annotations

from pydantic import Field

from enzyme_stability.config.base import Strict


class PromotionTerms(Strict):
    """What a version must keep to on each table of the benchmark."""

    most_lost_celsius: float = Field(
        0.2, ge=0, description="the mean absolute error may be larger than that of the current version by so much"
    )
    nominal_coverage: float = Field(0.9, ge=0.5, le=0.99, description="coverage that the intervals are asked for")
    lowest_coverage: float = Field(0.85, ge=0, le=1, description="observed coverage must be at least this")
    highest_coverage: float = Field(0.97, ge=0, le=1, description="and at most this")
    most_changed_celsius: float = Field(
        0.01, ge=0, description="an answer may depend on order, batch and letter case by so much"
    )
    most_times_slower: float = Field(1.5, gt=0, description="times as long as the current version it may take")
