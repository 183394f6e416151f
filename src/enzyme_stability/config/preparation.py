"""Settings of the preparation of data."""

from __future__ import annotations

from pydantic import Field

from enzyme_stability.config.base import Strict


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
