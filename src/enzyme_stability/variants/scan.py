"""What the delta-Tm model says of every substitution in a protein."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Substitution, Variant

FloatArray = npt.NDArray[np.float64]

SIGN = "delta Tm = Tm(variant) - Tm(wild type) in °C; positive = more stable"
"""Said in every output."""


class Estimate(NamedTuple):
    """Change of Tm of several variants, arrays of one shape; NaN where there is no answer.

    Attributes:
        delta_tm: Tm(variant) - Tm(wild type) in degC; positive is more stable.
        lower: Lower end of its interval in degC.
        upper: Upper end of its interval in degC.
        probability: That the variant is more stable than the wild type, 0 to 1.
    """

    delta_tm: FloatArray
    lower: FloatArray
    upper: FloatArray
    probability: FloatArray


@dataclass(frozen=True, slots=True)
class Candidate:
    """One substitution with what the model says of it.

    Attributes:
        place: Place in the sequence, from 0.
        position: Number of the residue, offset included.
        wild_type: Residue of the wild type.
        substitution: Residue in its place.
        delta_tm: As in ``Estimate``, and so are the others.
        lower: In degC.
        upper: In degC.
        probability: From 0 to 1.
    """

    place: int
    position: int
    wild_type: str
    substitution: str
    delta_tm: float
    lower: float
    upper: float
    probability: float

    @property
    def variant(self) -> Variant:
        """The variant with this substitution alone."""
        offset = self.position - self.place - 1
        return Variant((Substitution(self.position, self.wild_type, self.substitution),), offset)


@dataclass(frozen=True)
class Scan:
    """All substitutions in one protein.

    Attributes:
        id: Name of the protein.
        wild_type: Its residues, ``L`` of them; ``X`` where one is unknown.
        estimate: Arrays of shape (L, 20), a row a place in the sequence, a column a residue in the order of
            ``AMINO_ACIDS``. NaN for the wild type's own residue and wherever the wild type is unknown.
        offset: Number of the first residue, less 1.
        scores: Further scores by name, arrays of the same shape; the higher the better.
        notes: What was changed in the sequence when it was read.
        uncorrected: delta Tm without the correction by the protein's own measured variants, in degC, shape (L, 20);
            None where there is no such correction.
    """

    id: str
    wild_type: str
    estimate: Estimate
    offset: int = 0
    scores: dict[str, FloatArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    uncorrected: FloatArray | None = None

    def candidate(self, place: int, column: int) -> Candidate:
        """One substitution: at a place, from 0, to a residue by its column."""
        values = (float(table[place, column]) for table in self.estimate)
        return Candidate(place, place + self.offset + 1, self.wild_type[place], AMINO_ACIDS[column], *values)
