"""Proteins that every head can learn from, and what the tests of all heads ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from enzyme_stability.config import Trainer
from enzyme_stability.heads.network import Log
from enzyme_stability.heads.onnx_head import HeadOutput
from enzyme_stability.heads.pooled import Examples

WIDTH = 12
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
_TABLE = np.random.default_rng(3).normal(0, 1, (20, WIDTH)).astype(np.float32)


def embed(sequences: Sequence[str]) -> list[np.ndarray]:
    """Of each residue its letter and, by half, the letter before it: (length, WIDTH)."""
    embedded = []
    for sequence in sequences:
        own = _TABLE[[LETTERS.index(letter) for letter in sequence]]
        embedded.append(own + 0.5 * np.concatenate([np.zeros_like(own[:1]), own[:-1]]))
    return embedded


def sequences_of(count: int, seed: int = 0, shortest: int = 5, longest: int = 40) -> tuple[str, ...]:
    random = np.random.default_rng(seed)
    lengths = random.integers(shortest, longest + 1, count)
    return tuple("".join(random.choice(list(LETTERS), length)) for length in lengths)


def made_up(count: int = 80, seed: int = 0, noise: float = 2.0, longest: int = 40) -> Examples:
    """Tm follows from the embedding, but for ``noise`` degC; every fifth protein is for validation."""
    random = np.random.default_rng(seed)
    residues = sequences_of(count, seed, longest=longest)
    embeddings = np.stack([vectors.mean(axis=0) for vectors in embed(residues)])
    line = embeddings @ random.normal(0, 1, WIDTH)
    tm = 55 + 10 * line / line.std() + 3 * np.sin(4 * embeddings[:, 0]) + random.normal(0, noise, count)
    return Examples(
        embeddings=embeddings,
        tm=tm,
        growth_temperature=np.full(count, np.nan),
        weights=random.uniform(0.5, 1, count),
        clusters=np.arange(count) // 2,
        validation=np.arange(count) % 5 == 4,
        residues=residues,
    )


def repeated(examples: Examples) -> Examples:
    """Each protein once to learn from and once to validate on, so that learning by heart is what pays."""
    twice = examples[np.tile(np.arange(len(examples.tm)), 2)]
    return replace(twice, validation=np.repeat([False, True], len(examples.tm)))


def with_other_validation_tm(examples: Examples, seed: int = 1) -> Examples:
    tm = examples.tm.copy()
    tm[examples.validation] = np.random.default_rng(seed).permutation(tm[examples.validation])
    return replace(examples, tm=tm)


def with_negligible(examples: Examples, tm: float) -> Examples:
    """The first protein counts for next to nothing and has another Tm."""
    temperatures, weights = examples.tm.copy(), examples.weights.copy()
    temperatures[0], weights[0] = tm, 1e-6
    return replace(examples, tm=temperatures, weights=weights)


def trainer(**changes: Any) -> Trainer:
    quick = {"max_epochs": 8, "patience": 8, "batch_size": 16, "accelerator": "cpu"}
    return Trainer.model_validate(quick | changes)


class Killed(Exception):  # noqa: N818 - no error but an end
    """A run that ends in the middle."""


class Journal:
    """Takes down the figures of each epoch, and can end the run after some of them."""

    def __init__(self, epochs: int | None = None) -> None:
        self.figures: list[dict[str, float]] = []
        self.members: list[str] = []
        self._epochs = epochs

    def __call__(self, member: str) -> Log:
        self.members.append(member)

        def log(figures: Mapping[str, float], epoch: int) -> None:
            if epoch == self._epochs:
                raise Killed
            self.figures.append({"epoch": epoch, **figures})

        return log

    def of(self, name: str) -> list[float]:
        return [figures[name] for figures in self.figures]


def rmse(found: HeadOutput, tm: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found.tm - tm) ** 2)))
