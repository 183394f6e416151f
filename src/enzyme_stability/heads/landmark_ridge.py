"""Kernel ridge regression on landmark proteins (Nystroem), the first level of the stacked head.

Kernel: ``exp(-|a - b|**2)`` on scaled descriptors. Each descriptor block is scaled so that the median squared distance
between training proteins is its share of ``sharpness``.
Source: Williams and Seeger, NIPS 2000 (Nystroem); Rudi et al. 2015, arXiv 1507.04717 (subsampled kernel ridge).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from enzyme_stability.config import LandmarkRidge as Settings

CLIP = 5.0
"""Standard deviations at which a descriptor is cut off, so that one odd value cannot carry a protein out of reach."""

_FREQUENCY_BLOCKS = ("dipeptides",)  # already on one scale (square roots of frequencies): not standardised
_PROBE = 500  # proteins whose mutual distances give the median
_JITTER = 1e-6
_SAME = 1e-9  # squared distances and deviations below it are rounding


@dataclass(frozen=True)
class DescriptorScaling:
    """``clip((descriptors - mean) / deviation) * weight``; every attribute has shape (width,)."""

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray

    @classmethod
    def fit(cls, descriptors: np.ndarray, columns: dict[str, slice], settings: Settings) -> DescriptorScaling:
        """Learn the scaling of the blocks named in ``settings.block_weights``; other columns get weight 0."""
        width = descriptors.shape[1]
        mean, deviation, weight = np.zeros(width), np.ones(width), np.zeros(width)
        total = sum(settings.block_weights.values())
        for name, share in settings.block_weights.items():
            where = columns[name]
            block = descriptors[:, where].astype(np.float64)
            if name not in _FREQUENCY_BLOCKS:
                mean[where] = block.mean(axis=0)
                spread = block.std(axis=0)
                deviation[where] = np.where(spread > _SAME, spread, 1)
                block = np.clip((block - mean[where]) / deviation[where], -CLIP, CLIP)
            median = np.median(_squared_distances(block[:_PROBE], block[:_PROBE]))
            if median > _SAME:  # a block that never changes says nothing
                weight[where] = np.sqrt(settings.sharpness * share / total / median)
        return cls(mean.astype(np.float32), deviation.astype(np.float32), weight.astype(np.float32))

    def __call__(self, descriptors: np.ndarray) -> np.ndarray:
        """Scaled descriptors, float32, columns of weight 0 left out."""
        scaled = np.clip((descriptors - self.mean) / self.deviation, -CLIP, CLIP) * self.weight
        used: np.ndarray = scaled[:, self.weight > 0].astype(np.float32)
        return used


@dataclass(frozen=True)
class LandmarkRidge:
    """A fitted ridge.

    Attributes:
        landmarks: Scaled descriptors of the landmark proteins, shape (m, used width), float16.
        coefficients: One column per target, shape (m, t).
        offset: Mean of each target, shape (t,).
    """

    landmarks: np.ndarray
    coefficients: np.ndarray
    offset: np.ndarray

    @classmethod
    def fit(
        cls, scaled: np.ndarray, targets: np.ndarray, settings: Settings, random: np.random.Generator
    ) -> LandmarkRidge:
        """Fit on scaled descriptors (n, width) and targets (n, t)."""
        from scipy.linalg import cho_factor, cho_solve

        count = min(settings.landmarks, len(scaled))
        chosen = np.sort(random.choice(len(scaled), count, replace=False))
        landmarks = scaled[chosen].astype(np.float16)  # as stored: what is fitted is what ships
        to_landmarks = kernel(scaled, landmarks)
        offset = targets.mean(axis=0)
        normal = to_landmarks.T @ to_landmarks + settings.penalty * kernel(landmarks, landmarks)
        normal[np.diag_indices_from(normal)] += _JITTER * len(scaled) / count
        solution = cho_solve(cho_factor(normal, lower=True), to_landmarks.T @ (targets - offset))
        return cls(landmarks, solution.astype(np.float32), offset.astype(np.float32))

    def predict(self, scaled: np.ndarray) -> np.ndarray:
        """Predicted targets, shape (n, t), float32."""
        predicted: np.ndarray = (kernel(scaled, self.landmarks) @ self.coefficients + self.offset).astype(np.float32)
        return predicted


def kernel(scaled: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Similarity 0..1 of every protein to every landmark, shape (n, m), float64."""
    similarity: np.ndarray = np.exp(-_squared_distances(scaled.astype(np.float64), landmarks.astype(np.float64)))
    return similarity


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.maximum(0.0, (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T)
    return distances
