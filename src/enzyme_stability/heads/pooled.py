"""What the heads on one embedding a protein share: examples to learn from, scaling, memory of the proteins, export."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from enzyme_stability.heads.graph import Graph, require_onnx

_LANDMARKS = 500
"""Training proteins a head remembers, to say how near to them a protein is."""


@dataclass(frozen=True)
class Examples:
    """Proteins to learn from.

    Attributes:
        embeddings: Shape (n, width), float32.
        tm: degC, shape (n,).
        growth_temperature: degC, NaN where unknown, shape (n,).
        weights: How much each protein counts, above 0, shape (n,).
        clusters: Homology cluster of each protein, shape (n,).
        validation: Proteins that decide when to stop and are not learned from, shape (n,), bool.
        residues: Sequences, where the head reads them itself; else empty.
    """

    embeddings: np.ndarray
    tm: np.ndarray
    growth_temperature: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    validation: np.ndarray
    residues: tuple[str, ...] = ()

    def __getitem__(self, rows: np.ndarray) -> Examples:
        """The proteins of a mask or of indices."""
        arrays = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "residues"}
        chosen = tuple(np.array(self.residues, dtype=object)[rows]) if self.residues else ()
        return Examples(**arrays, residues=chosen)


@dataclass(frozen=True)
class Scaling:
    """Centre and spread of the features; a feature that never varies keeps its size.

    Attributes:
        mean: Shape (width,), float32.
        deviation: Shape (width,), float32.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Scaling:
        """Of features (n, width); NaN is left out."""
        wide = features.astype(np.float64)
        deviation = np.nanstd(wide, axis=0)
        return cls(
            np.nanmean(wide, axis=0).astype(np.float32), np.where(deviation < 1e-6, 1, deviation).astype(np.float32)
        )

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scaled features, float32."""
        scaled: np.ndarray = (features.astype(np.float32) - self.mean) / self.deviation
        return scaled

    def add_to(self, graph: Graph, features: str) -> str:
        """The same in a graph."""
        centred = graph.add("Sub", features, graph.constant(self.mean))
        return graph.add("Div", centred, graph.constant(self.deviation))


class FittedHead(Protocol):
    """A trained head: a piece of graph."""

    def add_to(self, graph: Graph, features: str) -> dict[str, str]:
        """Add its nodes; ``features`` (n, k) are scaled. Gives the names of ``tm``, ``lower`` and ``upper`` (n, 1)."""
        ...


@dataclass(frozen=True)
class Memory:
    """Some of the proteins learned from, to say how near to them another is.

    Attributes:
        landmarks: Scaled embeddings over ``unit``, shape (m, width), float16.
        unit: The usual distance between two of them.
    """

    landmarks: np.ndarray
    unit: float

    @classmethod
    def fit(cls, scaled: np.ndarray, seed: int) -> Memory:
        """Remember some of the scaled embeddings (n, width)."""
        chosen = np.random.default_rng(seed).permutation(len(scaled))[:_LANDMARKS]
        landmarks = scaled[chosen].astype(np.float64)
        squares = (landmarks**2).sum(axis=1)
        distances = np.maximum(squares[:, None] + squares[None] - 2 * landmarks @ landmarks.T, 0)
        usual = np.median(distances[np.triu_indices(len(landmarks), 1)]) if len(landmarks) > 1 else 1.0
        unit = float(np.sqrt(max(usual, 1e-12)))
        return cls((landmarks / unit).astype(np.float16), unit)

    def add_to(self, graph: Graph, scaled: str) -> None:
        """Output ``similarity``, exp(-squared distance / usual squared distance) to the nearest; 1 is the same."""
        units = graph.add("Div", scaled, graph.constant(np.array(self.unit, dtype=np.float32)))
        graph.add("ReduceMax", graph.similarity(units, self.landmarks), name="similarity", axes=[1], keepdims=1)


def pooled_to_onnx(head: FittedHead, scaling: Scaling, memory: Memory, growth_scaling: Scaling | None = None) -> bytes:
    """The serialised graph: ``descriptors`` (n, width) and, with ``growth_scaling``, ``growth_temperature`` (n, 1)."""
    require_onnx()
    graph = Graph()
    inputs: dict[str, tuple[int | None, ...]] = {"descriptors": (None, scaling.mean.size)}
    scaled = scaling.add_to(graph, "descriptors")
    memory.add_to(graph, scaled)
    features = scaled
    if growth_scaling is not None:
        inputs["growth_temperature"] = (None, 1)
        features = graph.add("Concat", scaled, growth_scaling.add_to(graph, "growth_temperature"), axis=1)
    for name, value in head.add_to(graph, features).items():
        graph.add("Identity", value, name=name)
    return graph.serialise(inputs)
