"""Numbers that describe a substitution: the two residues, and what the protein's family has at the place.

The way back is described by the same numbers with the two residues exchanged and the family as it is. The model takes
half the difference of the two descriptions' values, which makes it antisymmetric by construction.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from enzyme_stability.encoders.scales import CHARGE, SCALES
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.baseline import substitution_formula, substitution_matrix
from enzyme_stability.variants.profile import BACKGROUND

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

UNKNOWN = len(AMINO_ACIDS)
"""Index of a residue that is not known, ``X``."""

_PROPERTIES = (*SCALES, "charge", "aromatic", "branched")

NAMES = (
    "formula",
    *(f"change of {name}" for name in _PROPERTIES),
    *(f"BLOSUM62 of {pair}" for pair in ("the substitution", "the wild type", "the new residue")),
    *(f"{name} of the wild type" for name in _PROPERTIES),
    "ln p(new) - ln p(wild type)",
    "log-odds of the wild type",
    "log-odds of the new residue",
    "entropy of the place",
    "ln(1 + effective sequences)",
    "expected hydropathy",
    "expected volume",
)
"""Of the columns of ``substitution_features``."""

LANGUAGE_MODEL = "score of a language model"
"""Of the last column, where there is one."""

RISING = ("formula", "ln p(new) - ln p(wild type)", LANGUAGE_MODEL)
"""Columns in which a prediction may only rise."""


def indices(wild_type: str) -> IntArray:
    """Residues as columns of ``AMINO_ACIDS``, shape (L,); anything else is ``UNKNOWN``."""
    table = np.full(256, UNKNOWN, dtype=np.int64)
    table[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(UNKNOWN)
    found: IntArray = table[np.frombuffer(wild_type.encode("latin-1", "replace"), np.uint8)]
    return found


@cache
def properties() -> FloatArray:
    """Property scales, standardised over the twenty residues, shape (20, scales).

    Source:
        ``enzyme_stability.encoders.scales``; aromatic: F, H, W, Y; branched at the beta carbon: I, T, V.
    """
    aromatic, branched = (np.array([a in letters for a in AMINO_ACIDS], dtype=float) for letters in ("FHWY", "ITV"))
    columns = np.stack([*SCALES.values(), CHARGE.astype(float), aromatic, branched], axis=1)
    return np.asarray((columns - columns.mean(axis=0)) / columns.std(axis=0))


@cache
def _pair_features() -> FloatArray:
    """What depends on the two residues alone, shape (20, 20, features)."""
    table, matrix = properties(), substitution_matrix()
    own = np.diag(matrix)
    columns = [
        substitution_formula()[:, :, None],
        table[None, :] - table[:, None],
        *(part[:, :, None] for part in (matrix, *np.broadcast_arrays(own[:, None], own[None]))),
        np.broadcast_to(table[:, None], (UNKNOWN, UNKNOWN, table.shape[1])),
    ]
    return np.concatenate(columns, axis=2)


def both_ways(
    probabilities: FloatArray,
    effective_sequences: FloatArray,
    places: IntArray,
    before: IntArray,
    after: IntArray,
    language_scores: FloatArray | None = None,
) -> npt.NDArray[np.float32]:
    """Substitutions and their ways back, one beside the other: what the model takes.

    Args:
        probabilities: As for ``substitution_features``, and so are the next four.
        effective_sequences: Shape (L,).
        places: Shape (n,).
        before: Shape (n,).
        after: Shape (n,).
        language_scores: ln p(a) - ln p(wild type) by a language model, shape (L, 20); None where it is no input.

    Returns:
        Shape (n, 2 features).
    """
    ways = [
        substitution_features(probabilities, effective_sequences, places, *pair)
        for pair in ((before, after), (after, before))
    ]
    if language_scores is None:
        return np.concatenate(ways, axis=1)
    scores = language_scores[places, after].astype(np.float32)[:, None]
    return np.concatenate([ways[0], scores, ways[1], -scores], axis=1)


def substitution_features(
    probabilities: FloatArray, effective_sequences: FloatArray, places: IntArray, before: IntArray, after: IntArray
) -> npt.NDArray[np.float32]:
    """Everything the model sees of substitutions in one direction, before scores of a language model.

    Args:
        probabilities: Of each residue at each place of the chain in the protein's family, shape (L, 20).
        effective_sequences: Behind them, shape (L,); 0 where they were foretold from the sequence alone.
        places: Place of each substitution, from 0, shape (n,).
        before: Residue that is replaced, as a column of ``AMINO_ACIDS``, shape (n,).
        after: Residue in its place, likewise.

    Returns:
        Shape (n, features), in the order of ``NAMES``.
    """
    logarithm = np.log(probabilities)
    odds = logarithm - np.log(BACKGROUND)
    means = probabilities @ properties()[:, [_PROPERTIES.index("hydropathy"), _PROPERTIES.index("volume")]]
    site = np.column_stack([-(probabilities * logarithm).sum(axis=1), np.log1p(effective_sequences), means])
    fit = [logarithm[places, after] - logarithm[places, before], odds[places, before], odds[places, after]]
    return np.column_stack([_pair_features()[before, after], *fit, site[places]]).astype(np.float32)
