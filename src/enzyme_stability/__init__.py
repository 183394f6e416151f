"""Melting temperature of enzymes from sequence, with calibrated intervals and nothing to download."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enzyme_stability.errors import EnzymeStabilityError as EnzymeStabilityError
    from enzyme_stability.prediction import Prediction as Prediction
    from enzyme_stability.predictor import Predictor as Predictor
    from enzyme_stability.sequence import Record as Record
    from enzyme_stability.variant import Variant as Variant
    from enzyme_stability.variants.model import DeltaTmModel as DeltaTmModel

__version__ = "0.1.0"

_HOMES = {
    "DeltaTmModel": "variants.model",
    "EnzymeStabilityError": "errors",
    "Prediction": "prediction",
    "Predictor": "predictor",
    "Record": "sequence",
    "Variant": "variant",
}

__all__ = ["DeltaTmModel", "EnzymeStabilityError", "Prediction", "Predictor", "Record", "Variant", "__version__"]


def __getattr__(name: str) -> Any:
    """Load public names when they are first used, so that ``--help`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
