"""Random proteins and relatives of them at a chosen identity."""

from __future__ import annotations

import numpy as np

from enzyme_stability.sequence import AMINO_ACIDS

RANDOM = np.random.default_rng(7)


def protein(length: int) -> str:
    return "".join(RANDOM.choice(list(AMINO_ACIDS), length))


def relative(sequence: str, identity: float) -> str:
    """The same chain with other residues at random places: exactly ``identity`` of them stay."""
    residues = list(sequence)
    for place in RANDOM.choice(len(residues), round(len(residues) * (1 - identity)), replace=False):
        residues[place] = RANDOM.choice([letter for letter in AMINO_ACIDS if letter != residues[place]])
    return "".join(residues)


FOUNDERS = [protein(250) for _ in range(4)]
