"""Measured variants of one protein correct the model for it, and say what to measure next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.errors import ArtifactError, ConfigError
from enzyme_stability.variants.acquisition import METHODS, next_shortlist
from enzyme_stability.variants.alignment import Alignment
from enzyme_stability.variants.features import FloatArray
from enzyme_stability.variants.gaussian_process import MAXIMUM_JOINT, fit_residuals
from enzyme_stability.variants.manifest import MANIFEST, WITH_RELATIVES
from enzyme_stability.variants.measurements import Judgement, Measurements
from enzyme_stability.variants.model import DeltaTmModel, Family
from enzyme_stability.variants.scan import Candidate, Scan

_CANDIDATES = MAXIMUM_JOINT // 2


@dataclass(frozen=True)
class VariantCalibration:
    """What ``calibrate_on_variants`` gives.

    Attributes:
        model: The corrected model.
        judgement: Whether the correction helps, on values left out.
    """

    model: DeltaTmModel
    judgement: Judgement


def calibrate_on_variants(
    model: DeltaTmModel,
    measurements: Measurements,
    output: Path,
    *,
    name: str,
    alignment: Alignment | None = None,
    language_scores: FloatArray | None = None,
) -> VariantCalibration:
    """Correct a model by measured variants of one protein, and write it to a new folder.

    Args:
        model: The model to start from; it stays as it is. A correction that it carries is replaced.
        measurements: Of one protein, as from ``read_measurements``.
        output: New folder.
        name: Name of the new model.
        alignment: Relatives of the protein; kept in the new model as their profile.
        language_scores: For a model that needs them.

    Raises:
        ArtifactError: ``output`` exists already or cannot be written.
        DataError: There are too few or too many measurements.
        MissingDependencyError: SciPy is not installed.
    """
    if output.exists():
        raise ArtifactError(f"{output} exists already: name a new folder")
    wild_type = measurements.wild_type
    family = model.family(wild_type, alignment)
    plain = model.predict(
        wild_type,
        measurements.variants,
        alignment=alignment,
        language_scores=language_scores,
        corrected=False,
    )
    correction = fit_residuals(
        measurements.variants,
        measurements.delta_tm,
        plain.delta_tm,
        np.log(family.probabilities),
        wild_type,
        repeats=measurements.repeats,
        standard_error=measurements.standard_error,
        noise=measurements.noise,
    )
    manifest = {
        **model.manifest,
        "name": name,
        "description": f"{model.manifest['description']} Corrected by {len(measurements.variants)} variants of one "
        f"protein of {len(wild_type)} residues.",
        "correction": correction.to_dict(),
    }
    manifest.pop("family", None)
    if family.kind == WITH_RELATIVES:
        manifest["family"] = _saved(family)
    _write(model, output, manifest)
    return VariantCalibration(DeltaTmModel(output), correction.judgement)


def next_candidates(
    model: DeltaTmModel,
    found: Scan,
    *,
    size: int = 20,
    method: str = "expected-improvement",
    keep: Collection[int] = frozenset(),
    exclude: str = "",
    per_position: int = 2,
    seed: int = 0,
) -> list[Candidate]:
    """Single substitutions to measure next in a protein whose variants corrected the model.

    Of a large protein the most promising 2,000, by expected change and its uncertainty, are looked at.

    Args:
        model: As from ``calibrate_on_variants``.
        found: Scan of the protein with this model.
        size: How many.
        method: ``greedy`` exploits; ``expected-improvement`` and ``thompson`` also explore.
        keep: Places, from 0, that stay as they are.
        exclude: Residues that are never introduced.
        per_position: At one position, at most.
        seed: Of the draws.

    Raises:
        ConfigError: The model was not corrected by variants of this protein, or a setting is out of bounds.
        DataError: Nothing is left to propose.
    """
    if model.correction is None or found.uncorrected is None:
        raise ConfigError(
            f"{model.name} knows no measured variants of this protein, so there is nothing to explore from: give some "
            "to 'enzyme-stability calibrate' first, or leave --explore out"
        )
    if method not in METHODS:
        raise ConfigError(f"--explore is '{method}'; give one of {', '.join(METHODS)}")
    places, after = np.nonzero(np.isfinite(found.uncorrected))
    promise = found.estimate.upper[places, after]
    best = np.sort(np.argsort(-promise, kind="stable")[:_CANDIDATES])
    cells = list(zip(places[best].tolist(), after[best].tolist(), strict=True))
    variants = [found.candidate(*cell).variant for cell in cells]
    mean, covariance = model.correction.joint(variants, found.uncorrected[places[best], after[best]])
    measured = dict(zip(model.correction.variants, model.correction.measured.tolist(), strict=True))
    proposals = next_shortlist(
        mean,
        np.sqrt(np.maximum(np.diag(covariance), 0)),
        covariance,
        variants,
        measured,
        method=method,
        size=size,
        seed=seed,
        per_position=per_position,
        keep=keep,
        exclude=exclude,
    )
    return [found.candidate(*cells[proposal.index]) for proposal in proposals]


def _saved(family: Family) -> dict[str, Any]:
    return {
        "kind": family.kind,
        "probabilities": np.round(family.probabilities, 6).tolist(),
        "effective_sequences": np.round(family.effective_sequences, 3).tolist(),
    }


def _write(model: DeltaTmModel, output: Path, manifest: dict[str, Any]) -> None:
    """Write the folder under another name first, so that a failure leaves nothing that looks like a model."""
    part = output.with_name(f".{output.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for path in model.files():
            if path.suffix == ".onnx":
                shutil.copyfile(path, part / path.name)
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        part.replace(output)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ArtifactError(f"cannot write the model to {output}: {error.strerror or error}") from None
