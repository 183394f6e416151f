"""Is a protein like those a predictor learned from? Errors grow where it is not, so every row carries the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from enzyme_stability.sequence import AMINO_ACIDS, CleanSequence

UNLIKE = "unlike every protein learned from"
"""What the domain check says of a protein far from all that the predictor remembers."""

_DNA_LETTERS = frozenset("ACGT")
_LEAST_DEVIATION = 1e-3  # of a residue that hardly any protein learned from has
_DNA_MINIMUM = 30  # residues; a shorter protein of only A, C, G and T may exist


@dataclass(frozen=True)
class ApplicabilityDomain:
    """Bounds learned from the proteins a predictor was trained and calibrated on.

    Attributes:
        minimum_length: Residues; shorter proteins are flagged.
        maximum_length: Residues; longer proteins are flagged.
        minimum_similarity: Kernel similarity (0..1) to the nearest landmark protein; below it a protein is flagged.
        composition_mean: Mean amino-acid frequencies, shape (20,).
        composition_deviation: Their standard deviations between proteins, shape (20,).
        maximum_composition_distance: Root mean square of the standardised frequencies; above it a protein is flagged.
        nonstandard_share: Share of non-standard residues above which a protein is flagged.
    """

    minimum_length: int
    maximum_length: int
    minimum_similarity: float
    composition_mean: tuple[float, ...]
    composition_deviation: tuple[float, ...]
    maximum_composition_distance: float
    nonstandard_share: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ApplicabilityDomain:
        """The bounds as ``dataclasses.asdict`` and JSON leave them."""
        bounds: dict[str, Any] = {
            key: tuple(map(float, value)) if key.startswith("composition") else float(value)
            for key, value in values.items()
        }
        for frequencies in ("composition_mean", "composition_deviation"):
            if len(bounds[frequencies]) != len(AMINO_ACIDS):
                raise ValueError(f"{frequencies} must have {len(AMINO_ACIDS)} values")
        for length in ("minimum_length", "maximum_length"):
            bounds[length] = int(bounds[length])
        return cls(**bounds)

    @classmethod
    def fit(
        cls,
        lengths: np.ndarray,
        frequencies: np.ndarray,
        calibration_frequencies: np.ndarray,
        calibration_similarity: np.ndarray,
        flagged_share: float,
        nonstandard_share: float,
    ) -> ApplicabilityDomain:
        """Learn bounds that flag ``flagged_share`` of proteins by each check.

        Args:
            lengths: Residues of the training proteins, shape (n,).
            frequencies: Their amino-acid frequencies, shape (n, 20).
            calibration_frequencies: Frequencies of proteins the model has not seen, shape (m, 20).
            calibration_similarity: Their similarity to the nearest landmark, shape (m,).
            flagged_share: Share flagged by each check.
            nonstandard_share: Kept as it is.
        """
        mean, deviation = frequencies.mean(axis=0), frequencies.std(axis=0)
        distance = _composition_distance(calibration_frequencies, mean, deviation)
        low, high = np.quantile(lengths, [flagged_share / 2, 1 - flagged_share / 2])
        return cls(
            minimum_length=int(np.floor(low)),
            maximum_length=int(np.ceil(high)),
            minimum_similarity=float(np.quantile(calibration_similarity, flagged_share)),
            composition_mean=tuple(mean.tolist()),
            composition_deviation=tuple(deviation.tolist()),
            maximum_composition_distance=float(np.quantile(distance, 1 - flagged_share)),
            nonstandard_share=nonstandard_share,
        )

    def reasons(
        self, sequences: list[CleanSequence], frequencies: np.ndarray, similarity: np.ndarray
    ) -> list[list[str]]:
        """Why each protein is outside the domain; an empty list where it is inside."""
        distance = _composition_distance(
            frequencies, np.array(self.composition_mean), np.array(self.composition_deviation)
        )
        return [
            self._reasons(sequence, float(d), float(s))
            for sequence, d, s in zip(sequences, distance, similarity, strict=True)
        ]

    def _reasons(self, sequence: CleanSequence, distance: float, similarity: float) -> list[str]:
        found = []
        if len(sequence.residues) >= _DNA_MINIMUM and _DNA_LETTERS.issuperset(sequence.residues):
            found.append("looks like DNA, not protein")
        if sequence.length < self.minimum_length:
            found.append(f"shorter than the proteins learned from ({self.minimum_length} residues)")
        if sequence.length > self.maximum_length:
            found.append(f"longer than the proteins learned from ({self.maximum_length} residues)")
        if sequence.nonstandard > self.nonstandard_share * sequence.length:
            found.append(f"{sequence.nonstandard / sequence.length:.0%} non-standard residues")
        if distance > self.maximum_composition_distance:
            found.append("unusual amino-acid composition")
        if similarity < self.minimum_similarity:
            found.append(UNLIKE)
        return found


def _composition_distance(frequencies: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    standardised = (frequencies - mean) / np.maximum(deviation, _LEAST_DEVIATION)
    distance: np.ndarray = np.sqrt((standardised**2).mean(axis=1))
    return distance
