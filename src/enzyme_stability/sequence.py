"""One protein sequence: the record that flows through the package and the written residue policy.

The policy (``clean_sequence``):

====================  =============================================================================
in the input          what happens
====================  =============================================================================
lower case, blanks    upper-cased, blanks removed: the same protein
``*`` at the end      removed: a stop codon
``*`` inside          error: not one protein chain
``-`` ``.``           removed, with a note: an aligned sequence
``U``, ``O``          counted as ``C``, ``K`` (the closest standard residue), with a note
``B`` ``J`` ``X``     left out of the descriptors, with a note; they count in the length and towards
``Z``                 the share of non-standard residues that the domain check looks at
anything else         error naming the character and its position
====================  =============================================================================

Fewer than ``MINIMUM_LENGTH`` residues is an error. Nothing is ever truncated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

from enzyme_stability.errors import SequenceError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The twenty standard residues, in the order of every table in the package."""

SUBSTITUTED = {"U": "C", "O": "K"}
UNKNOWN = "BJXZ"

MINIMUM_LENGTH = 10
"""Residues in the shortest peptide known to fold, chignolin (doi 10.1016/j.str.2004.05.022)."""

_NOTHING_SPECIAL = re.compile(f"[{AMINO_ACIDS}]+")
_NOT_A_RESIDUE = re.compile(f"[^{AMINO_ACIDS}{UNKNOWN}{''.join(SUBSTITUTED)}]")
_LEFT_OUT = str.maketrans(SUBSTITUTED) | str.maketrans("", "", UNKNOWN)
_IN_PLACE = str.maketrans(SUBSTITUTED) | str.maketrans(UNKNOWN, "X" * len(UNKNOWN))
_GAPS = str.maketrans("", "", "-.")
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)  # str.upper would turn a stray sharp s into two serines


@dataclass(frozen=True, slots=True)
class Record:
    """A named sequence as it was read, before any cleaning.

    Attributes:
        id: Name of the record, as in the file (FASTA: the header up to the first blank).
        sequence: Residues as they stand in the file.
        growth_temperature: Growth temperature of the organism in degC, where known.
        problem: Why the record could not be read, or the empty string.
    """

    id: str
    sequence: str
    growth_temperature: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CleanSequence:
    """A sequence after the residue policy.

    Attributes:
        residues: Standard residues only, upper case.
        length: Residues of the chain, the non-standard ones included.
        chain: All ``length`` residues in their places, with ``X`` for each that is left out of ``residues``.
        nonstandard: How many residues were not one of the standard twenty.
        notes: What was changed, in words; empty where nothing was.
    """

    residues: str
    length: int
    chain: str
    nonstandard: int = 0
    notes: tuple[str, ...] = ()


def clean_sequence(text: str) -> CleanSequence:
    """Apply the residue policy of this module to one sequence.

    Raises:
        SequenceError: The text is empty, too short, holds something that is no residue or a stop codon inside.
    """
    if _NOTHING_SPECIAL.fullmatch(text) and len(text) >= MINIMUM_LENGTH:
        return CleanSequence(text, len(text), text)
    residues = "".join(text.split()).translate(_UPPER)
    notes: list[str] = []
    if gaps := residues.count("-") + residues.count("."):
        residues = residues.translate(_GAPS)
        notes.append(f"{gaps} gap{'s' * (gaps > 1)} removed")
    residues = residues.removesuffix("*")
    if not residues:
        raise SequenceError("the sequence is empty")
    if found := _NOT_A_RESIDUE.search(residues):
        raise SequenceError(_explain(found.group(), found.start() + 1))
    if len(residues) < MINIMUM_LENGTH:
        raise SequenceError(
            f"a length of {len(residues)} is too short to fold; at least {MINIMUM_LENGTH} residues are needed"
        )
    counts = {letter: residues.count(letter) for letter in (*SUBSTITUTED, *UNKNOWN)}
    notes += [f"{n} {letter} counted as {SUBSTITUTED[letter]}" for letter in SUBSTITUTED if (n := counts[letter])]
    notes += [f"{n} {letter} left out" for letter in UNKNOWN if (n := counts[letter])]
    standard = residues.translate(_LEFT_OUT)
    if len(standard) < MINIMUM_LENGTH:
        raise SequenceError(f"only {len(standard)} of {len(residues)} residues are known; {MINIMUM_LENGTH} are needed")
    chain = residues.translate(_IN_PLACE)
    return CleanSequence(standard, len(residues), chain, sum(counts.values()), tuple(notes))


def _explain(character: str, position: int) -> str:
    if character == "*":
        return f"stop codon '*' at position {position}, inside the chain: give one protein a record"
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    return f"'{shown}' at position {position} is not an amino acid"
