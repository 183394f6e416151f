"""Every setting, declared once: types, bounds and defaults. YAML files hold values only and are validated here."""

from __future__ import annotations

from enzyme_stability.config.base import Strict
from enzyme_stability.config.encoders import Composition, CompositionBlock, Encoder, LanguageModel
from enzyme_stability.config.heads import (
    Boosting,
    Head,
    LandmarkRidge,
    LightAttention,
    Lora,
    Mlp,
    Neural,
    Ridge,
    StackedHead,
    StackedTrees,
    Trees,
)
from enzyme_stability.config.preparation import PreparationSettings, Recipe
from enzyme_stability.config.search import SearchSpace
from enzyme_stability.config.tracking import Tracking
from enzyme_stability.config.training import Domain, Interval, Split, TrainConfig, Trainer, TrainingData

__all__ = [
    "Boosting",
    "Composition",
    "CompositionBlock",
    "Domain",
    "Encoder",
    "Head",
    "Interval",
    "LandmarkRidge",
    "LanguageModel",
    "LightAttention",
    "Lora",
    "Mlp",
    "Neural",
    "PreparationSettings",
    "Recipe",
    "Ridge",
    "SearchSpace",
    "Split",
    "StackedHead",
    "StackedTrees",
    "Strict",
    "Tracking",
    "TrainConfig",
    "Trainer",
    "TrainingData",
    "Trees",
]
