"""The plain formula that stands beside every figure: what two residues alone say of a substitution."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.sequence import AMINO_ACIDS

FloatArray = npt.NDArray[np.float64]

FORMULA = "z(change of hydropathy) + z(change of volume) + 0.3 BLOSUM62"
"""In words; z: over the standard deviation of the scale among the twenty residues. No unit; higher = more stable."""


@cache
def substitution_matrix(name: str = "BLOSUM62") -> FloatArray:
    """A substitution matrix that Biopython ships, shape (20, 20).

    Source:
        BLOSUM62: Henikoff and Henikoff 1992, doi 10.1073/pnas.89.22.10915.
    """
    from Bio.Align import substitution_matrices

    scores = substitution_matrices.load(name)  # type: ignore[no-untyped-call]
    return np.array([[scores[own][other] for other in AMINO_ACIDS] for own in AMINO_ACIDS], dtype=float)


@cache
def substitution_formula() -> FloatArray:
    """``FORMULA`` for every substitution, shape (20, 20): from the residue of the row to that of the column.

    Source of the scales:
        ``enzyme_stability.encoders.scales``.
    """
    scaled = [SCALES[name] / SCALES[name].std() for name in ("hydropathy", "volume")]
    changes = [scale[None, :] - scale[:, None] for scale in scaled]
    return np.asarray(changes[0] + changes[1] + 0.3 * substitution_matrix())
