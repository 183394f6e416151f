"""Which residues the relatives of a protein have at each place: the evolutionary profile.

Relatives are weighted, so that a hundred near-copies count as one, and where there are few of them the profile leans on
a prior. Per column, with ``N`` effective sequences (the sum of the weights of the rows with a residue there), their
weighted frequencies ``f``, the prior ``g`` and its weight ``b``::

    p(a) = (N f(a) + b g(a)) / (N + b)

Without a prior from elsewhere, it is what BLOSUM62 expects in place of what is seen, with the scores ``s`` of the
matrix and the background ``P``::

    g(a) = sum over c of f(c) P(a|c),  P(a|c) = P(a) exp(lambda s(a, c)), made to sum to 1

Source:
    Pseudocounts: PSI-BLAST, doi 10.1093/nar/25.17.3389. BLOSUM62: doi 10.1073/pnas.89.22.10915.
    Weights by the number of similar rows: doi 10.1073/pnas.1111471108.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.alignment import GAP, NONSTANDARD, Alignment, Codes

FloatArray = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

BACKGROUND: FloatArray = np.array([
    0.07805, 0.01925, 0.05364, 0.06295, 0.03856, 0.07377, 0.02199, 0.05142, 0.05744, 0.09019,
    0.02243, 0.04487, 0.05203, 0.04264, 0.05129, 0.07120, 0.05841, 0.06441, 0.01330, 0.03216,
])  # fmt: skip
"""Frequency of each amino acid in proteins, in the order of ``AMINO_ACIDS``.

Source:
    Robinson and Robinson 1991, doi 10.1073/pnas.88.20.8880; the digits are those of BLAST.
"""

PSEUDOCOUNT = 10.0
"""Effective sequences that the prior counts as; PSI-BLAST's beta (doi 10.1093/nar/25.17.3389)."""

LEAST_COVERAGE = 0.5
"""Share of the wild type's residues that a relative needs to count."""

MOST_ROWS = 20_000
"""Most rows of a profile."""

_MOST_COMPARISONS = 2e11  # of residues, for the weights: some twenty seconds
_LAMBDA = 0.3176  # scale of BLOSUM62 without gaps, with which the P(a|c) sum to 1 under the background
_LEAST_PRIOR = 1e-6
_CELLS_AT_ONCE = 4_000_000
_BITS = (np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F))
_SUM_OF_BYTES = np.uint64(0x0101010101010101)


@dataclass(frozen=True)
class Profile:
    """Residues that evolution accepts at each place of a protein of ``L`` residues.

    Attributes:
        wild_type: Codes of its residues, shape (L,), as in ``Alignment.rows``.
        probabilities: Of each amino acid at each place, shape (L, 20), in the order of ``AMINO_ACIDS``; none is 0.
        effective_sequences: Sum of the weights of the rows that have a residue there, shape (L,).
        gap_share: Weighted share of the rows that have no residue there, shape (L,), 0 to 1.
    """

    wild_type: Codes
    probabilities: FloatArray
    effective_sequences: FloatArray
    gap_share: FloatArray

    @classmethod
    def from_alignment(
        cls, alignment: Alignment, *, prior: npt.ArrayLike | None = None, pseudocount: float = PSEUDOCOUNT
    ) -> Profile:
        """Count what the relatives have, the wild type among them.

        Rows with residues at less than ``LEAST_COVERAGE`` of the places are dropped, equal rows are one. Of more than
        ``MOST_ROWS`` rows, or of as many as make 2e11 comparisons of residues (8,900 for a protein of 2,500), those
        with the most residues of the wild type stay.

        Args:
            alignment: The wild type and its relatives, in any order but for the wild type.
            prior: Probabilities, shape (L, 20), such as those of another model; by BLOSUM62 where not given.
            pseudocount: Effective sequences that the prior counts as.

        Raises:
            ConfigError: ``pseudocount`` is not above 0.
            DataError: The prior is not of shape (L, 20), or its rows are no probabilities.
        """
        if not 0 < pseudocount < np.inf:
            raise ConfigError(f"a pseudocount of {pseudocount} gives no probabilities; it has to be above 0")
        counts = column_counts(alignment)
        residues = counts[:, : len(AMINO_ACIDS)]
        effective = residues.sum(axis=1)
        expected = _blosum_prior(residues) if prior is None else _checked(prior, residues.shape)
        probabilities = (residues + pseudocount * expected) / (effective + pseudocount)[:, None]
        return cls(alignment.rows[0], probabilities, effective, counts[:, GAP] / counts[0].sum())

    @property
    def log_odds(self) -> FloatArray:
        """Natural logarithm of the probabilities over the background, shape (L, 20)."""
        return np.log(self.probabilities / BACKGROUND)

    @property
    def conservation(self) -> FloatArray:
        """Relative entropy of each place to the background in bits, shape (L,): 0 where anything goes."""
        return np.asarray((self.probabilities * self.log_odds).sum(axis=1) / np.log(2))

    def score(self) -> FloatArray:
        """The score ln p(a) - ln p(wild type), shape (L, 20): above 0 where relatives prefer the substitution.

        NaN for the wild type's own residue, and wherever it is not one of the standard twenty.
        """
        known = np.flatnonzero(self.wild_type < len(AMINO_ACIDS))
        own = self.wild_type[known]
        scores = np.full_like(self.probabilities, np.nan)
        scores[known] = np.log(self.probabilities[known] / self.probabilities[known, own][:, None])
        scores[known, own] = np.nan
        return scores


def column_counts(alignment: Alignment) -> FloatArray:
    """Sum of the weights of the rows with each code in each column, shape (L, 22); the rows of ``from_alignment``."""
    rows = _choose(alignment.rows)
    return _count(rows, sequence_weights(rows))


def sequence_weights(rows: Codes, identity: int = 80) -> FloatArray:
    """1 over the number of rows, itself included, that are at least ``identity`` percent identical to a row.

    Identity is over the columns in which both have one of the standard residues; without such columns, rows are not
    similar. The time grows with the square of the number of rows.

    Args:
        rows: As in ``Alignment.rows``, shape (n, L).
        identity: Whole percent.

    Returns:
        Shape (n,).
    """
    # A bit for each of the five binary digits of a code: 64 residues are compared at once.
    known = _pack(rows < len(AMINO_ACIDS))
    digits = [_pack((rows >> digit) & 1) for digit in range(5)]
    similar = np.ones(len(rows))
    for row in range(len(rows) - 1):
        both = known[:, row + 1 :] & known[:, row, None]
        differ = np.zeros_like(both)
        for digit in digits:
            differ |= digit[:, row + 1 :] ^ digit[:, row, None]
        shared = _count_bits(both)
        near = (100 * _count_bits(differ & both) <= (100 - identity) * shared) & (shared > 0)
        similar[row] += np.count_nonzero(near)
        similar[row + 1 :] += near
    return 1 / similar


def _choose(rows: Codes) -> Codes:
    """The rows that count, equal ones merged; sorted, so that their order in the file makes no difference at all."""
    covering = rows[(rows < len(AMINO_ACIDS)).mean(axis=1) >= LEAST_COVERAGE]
    distinct = sorted({row.tobytes() for row in (rows[0], *covering)})
    chosen = np.frombuffer(b"".join(distinct), dtype=np.uint8).reshape(len(distinct), -1)
    most = int(min(MOST_ROWS, (_MOST_COMPARISONS / rows.shape[1]) ** 0.5))
    if len(chosen) <= most:
        return chosen
    identical = np.count_nonzero((chosen == rows[0]) & (chosen < len(AMINO_ACIDS)), axis=1)
    return chosen[np.argsort(-identical, kind="stable")[:most]]


def _count(rows: Codes, weights: FloatArray) -> FloatArray:
    """Sum of the weights of the rows with each code in each column, shape (L, 22)."""
    length, codes = rows.shape[1], NONSTANDARD + 1
    counts = np.zeros(length * codes)
    first_bin = np.arange(length) * codes
    step = max(1, _CELLS_AT_ONCE // length)
    for start in range(0, len(rows), step):
        bins = (first_bin + rows[start : start + step]).ravel()
        counts += np.bincount(bins, np.repeat(weights[start : start + step], length), len(counts))
    return counts.reshape(length, codes)


def _blosum_prior(residues: FloatArray) -> FloatArray:
    """What BLOSUM62 expects in each column, shape (L, 20); the background where no row has a residue."""
    total = residues.sum(axis=1, keepdims=True)
    frequencies = np.divide(residues, total, out=np.zeros_like(residues), where=total > 0)
    return np.where(total > 0, frequencies @ _substitutions(), BACKGROUND)


@cache
def _substitutions() -> FloatArray:
    """Probability of each amino acid (columns) in place of each (rows), shape (20, 20)."""
    from Bio.Align import substitution_matrices

    matrix = substitution_matrices.load("BLOSUM62")  # type: ignore[no-untyped-call]
    scores = np.array([[matrix[own][other] for other in AMINO_ACIDS] for own in AMINO_ACIDS], dtype=float)
    expected = BACKGROUND * np.exp(_LAMBDA * scores)
    return np.asarray(expected / expected.sum(axis=1, keepdims=True))


def _checked(prior: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    try:
        given = np.asarray(prior, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"the prior of the profile is no table of numbers of shape {shape}") from None
    if given.shape != shape:
        raise DataError(f"the prior of the profile has the shape {given.shape}, and the protein takes {shape}")
    sums = given.sum(axis=1)
    wrong = ~((given >= 0).all(axis=1) & (np.abs(sums - 1) < 0.01))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(f"row {place + 1} of the prior of the profile holds no probabilities: its sum is {sums[place]}")
    floored = np.maximum(given, _LEAST_PRIOR)  # a zero would be a logarithm of minus infinity
    return np.asarray(floored / floored.sum(axis=1, keepdims=True))


def _pack(bits: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Words:
    """Bits, shape (n, L), in words of 64: shape (words, n)."""
    packed = np.packbits(bits, axis=1)
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _count_bits(words: Words) -> npt.NDArray[np.int64]:
    """Bits that are set in each column of words, shape (n,).

    Source:
        Warren, Hacker's Delight, 2nd edition, section 5-1.
    """
    odd, pairs, nibbles = _BITS
    words = words - ((words >> np.uint64(1)) & odd)
    words = (words & pairs) + ((words >> np.uint64(2)) & pairs)
    words = (words + (words >> np.uint64(4))) & nibbles
    return np.asarray(((words * _SUM_OF_BYTES) >> np.uint64(56)).sum(axis=0, dtype=np.int64))
