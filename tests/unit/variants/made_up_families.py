"""Families of made-up proteins with relatives, measured variants, and a quick training on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Substitution, Variant
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import Estimate
from enzyme_stability.variants.training import train_delta_tm

_ALIKE = ("AGS", "CV", "DE", "FY", "HN", "IL", "KR", "MT", "PQ", "WHF")
Measured = tuple[str, str, float]


class Nature:
    """Makes proteins, relatives in which residues are replaced by their like, and what substitutions do to Tm."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def protein(self, length: int) -> str:
        return "".join(self.random.choice(list(AMINO_ACIDS), length))

    def relative(self, chain: str, identity: float = 0.7) -> str:
        residues = list(chain)
        for place in self.random.choice(len(chain), round((1 - identity) * len(chain)), replace=False):
            like = next(group for group in _ALIKE if residues[place] in group)
            residues[place] = self.random.choice([other for other in like if other != residues[place]])
        return "".join(residues)

    def measured(self, chain: str, count: int, noise: float = 0.5) -> list[Measured]:
        """Delta Tm of different single substitutions: half a degree a unit of hydropathy, and a loss for any change."""
        everything = [(place, other) for place in range(len(chain)) for other in AMINO_ACIDS if other != chain[place]]
        chosen = [everything[k] for k in self.random.permutation(len(everything))[:count]]
        hydropathy = dict(zip(AMINO_ACIDS, SCALES["hydropathy"].tolist(), strict=True))
        return [
            (
                chain,
                f"{chain[place]}{place + 1}{other}",
                (hydropathy[other] - hydropathy[chain[place]]) / 2 - 0.5 + self.random.normal(0, noise),
            )
            for place, other in chosen
        ]


@dataclass(frozen=True)
class Families:
    """Six families of two measured proteins each, and a test table with a relative of the last family and a stranger.

    Attributes:
        folder: Root of the tables: ``table.csv``, ``test.csv`` and, of ddG, ``variants/S8754.csv``.
        wild_types: The twelve proteins; those of a family side by side.
        database: FASTA file with relatives of the first four families.
        network: Network that foretells profiles.
    """

    folder: Path
    wild_types: tuple[str, ...]
    database: Path
    network: Path

    def config(self, **settings: Any) -> DeltaTmConfig:
        quick = {"trees": 25, "learning_rate": 0.2, "leaves": 5, "minimum_leaf_size": 8, "l2_penalty": 1.0}
        usual = {"table": str(self.folder / "table.csv"), "auxiliary": (), "held_out": (), "folds": 3, "trees": quick}
        return DeltaTmConfig.model_validate(usual | settings)

    def train(self, output: Path, database: Path | None = None, **settings: Any) -> DeltaTmModel:
        return train_delta_tm(
            self.config(**settings),
            self.folder,
            self.network,
            output,
            database=database,
            report=lambda _: None,
            threads=1,
        )


def write_fasta(path: Path, chains: Iterable[str]) -> Path:
    path.write_text("".join(f">{number}\n{chain}\n" for number, chain in enumerate(chains)))
    return path


def write_table(path: Path, rows: Iterable[Measured]) -> Path:
    lines = [f"{chain},{variant},{value:.3f}\n" for chain, variant, value in rows]
    path.write_text("wild_type,variant,delta_tm_celsius\n" + "".join(lines))
    return path


def singles(chain: str, offset: int = 0) -> list[Variant]:
    return [
        Variant((Substitution(place + offset + 1, own, other),), offset)
        for place, own in enumerate(chain)
        for other in AMINO_ACIDS
        if own not in {other, "X"}
    ]


def cells(table: np.ndarray, variants: list[Variant]) -> np.ndarray:
    """Values of a scan for variants of one substitution each."""
    places = [variant.places[0] for variant in variants]
    return np.asarray(table[places, [AMINO_ACIDS.index(variant.substitutions[0].substitution) for variant in variants]])


def assert_same(one: Estimate, other: Estimate) -> None:
    for values, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, others)
