"""Variants of a protein: ``A123V``, or several substitutions joined as in ``A123V:G45P``.

The number of a residue is its place in the sequence, counted from 1, plus the ``offset``: 26 where the first residue of
the sequence is number 27, -20 where a tag of 20 residues precedes number 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from enzyme_stability.errors import UnsupportedVariantError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS

WILD_TYPE = "WT"
"""How the protein without any substitution is written."""

THREE_LETTERS = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E", "Gly": "G", "His": "H",
    "Ile": "I", "Leu": "L", "Lys": "K", "Met": "M", "Phe": "F", "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W",
    "Tyr": "Y", "Val": "V", "Ter": "*", "Asx": "B", "Glx": "Z", "Pyl": "O", "Sec": "U", "Xaa": "X", "Xle": "J",
}  # fmt: skip

_ANY_CASE = re.IGNORECASE | re.ASCII  # else a dotless i would count as I, and digits of every script as numbers
_NUMBER = "-?[0-9]{1,9}"
_JOINED = re.compile(r"\s*[:,+;/]\s*|\s+")
_ALLELES = re.compile(r"\]\s*;\s*\[")
_WILD_TYPES = re.compile(r"wt|wild[ _-]?type|p\.=|p\.\(=\)", _ANY_CASE)
_SUBSTITUTION = re.compile(f"([A-Z])({_NUMBER})([A-Z=])", _ANY_CASE)
_THREE = re.compile("|".join(THREE_LETTERS), _ANY_CASE)
_OTHER_KINDS = (  # looked for in this order: 'delins' is neither a plain deletion nor an insertion
    (re.compile(r"delins|indel", _ANY_CASE), "a deletion with an insertion"),
    (re.compile(r"del|\u0394|\u2206|^[A-Z]-?\d+-$", re.IGNORECASE), "a deletion"),
    (re.compile(r"ins|dup|^-\d+[A-Z]+$", _ANY_CASE), "an insertion"),
    (re.compile(r"fs", _ANY_CASE), "a frame shift"),
    (re.compile(r"\*|stop", _ANY_CASE), "a stop codon"),
    (re.compile(r"^[A-Z]-?\d+[A-Z]{2,}$", _ANY_CASE), "an insertion"),
)
_NEARLY = (
    (re.compile(f"[A-Z]|[A-Z]{{2}}{_NUMBER}[A-Z]", _ANY_CASE), "if a letter names the chain, leave it out; "),
    (re.compile(r"[A-Z]\d+[a-z][A-Z]", re.ASCII), "a number has no letter, count the residues of the sequence; "),
)
_CLOSEST_SHOWN = 2


class Substitution(NamedTuple):
    """One residue replaced by another.

    Attributes:
        position: Number of the residue, offset included.
        wild_type: Residue of the wild type.
        substitution: Residue in its place.
    """

    position: int
    wild_type: str
    substitution: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.substitution}"


@dataclass(frozen=True, slots=True)
class Variant:
    """Substitutions in one protein, in the order of their positions; none is the wild type.

    Attributes:
        substitutions: At most one a position.
        offset: Number of the first residue of the sequence, less 1.
    """

    substitutions: tuple[Substitution, ...]
    offset: int = 0

    @classmethod
    def parse(cls, text: str, *, offset: int = 0) -> Variant:
        """Read a variant: ``A123V``, ``p.Ala123Val``, ``WT``, or several joined by one of ``: , + / ;`` or a blank.

        Lower case counts as upper case; ``A123=`` is the wild type's own residue.

        Raises:
            UnsupportedVariantError: It is an insertion, a deletion, a frame shift or a stop codon.
            VariantError: It is no variant, is of two alleles, or has two substitutions at one position.
        """
        stripped = text.strip()
        if _WILD_TYPES.fullmatch(stripped):
            return cls((), offset)
        if _ALLELES.search(stripped):
            raise VariantError(f"{stripped} is of two alleles, and so of two proteins; give each a variant of its own")
        parts = [part for part in _JOINED.split(stripped) if part]
        if not parts:
            raise VariantError("the variant is empty; write it like A123V, or WT for the wild type")
        found = sorted(_parse_one(part) for part in parts)
        often = Counter(position for position, _, _ in found).most_common(1)[0]
        if often[1] > 1:
            raise VariantError(f"{stripped} has {often[1]} substitutions at position {often[0]}")
        return cls(tuple(found), offset)

    def __str__(self) -> str:
        return ":".join(map(str, self.substitutions)) or WILD_TYPE

    @property
    def places(self) -> list[int]:
        """Places of the substitutions in the sequence, from 0."""
        return [one.position - self.offset - 1 for one in self.substitutions]

    def check(self, wild_type: str) -> None:
        """Make sure that the wild type has the residues that the variant replaces.

        Raises:
            VariantError: A position is outside the sequence, or holds another residue; the message says which, and
                where it would fit.
        """
        for one, place in zip(self.substitutions, self.places, strict=True):
            name = one if one.wild_type != one.substitution else f"{one.wild_type}{one.position}"
            first, last = self.offset + 1, self.offset + len(wild_type)
            if not 0 <= place < len(wild_type):
                raise VariantError(f"{name}: there is no position {one.position}; the wild type has {first} to {last}")
            if (residue := wild_type[place]) != one.wild_type:
                raise VariantError(
                    f"{name}: the wild type has {residue} at position {one.position}, not {one.wild_type}; "
                    f"{_closest(one, place, wild_type, self.offset)}"
                )

    def apply(self, wild_type: str) -> str:
        """The sequence of the variant.

        Raises:
            VariantError: The variant does not fit the wild type.
        """
        self.check(wild_type)
        residues = list(wild_type)
        for one, place in zip(self.substitutions, self.places, strict=True):
            residues[place] = one.substitution
        return "".join(residues)

    @classmethod
    def between(cls, wild_type: str, other: str, *, offset: int = 0) -> Variant:
        """The substitutions that turn one sequence into another of the same length.

        Raises:
            UnsupportedVariantError: The lengths differ, or one has gaps.
        """
        gaps = ", with gaps" if "-" in wild_type + other else ""
        if gaps or len(wild_type) != len(other):
            raise UnsupportedVariantError(
                f"{len(wild_type)} residues against {len(other)}{gaps}: an insertion or a deletion; "
                "the model knows substitutions only"
            )
        pairs = enumerate(zip(wild_type, other, strict=True), start=offset + 1)
        return cls(tuple(Substitution(k, a, b) for k, (a, b) in pairs if a != b), offset)


def fitting_offset(variants: Iterable[Variant], wild_type: str) -> int | None:
    """The offset under which the most variants fit the wild type, where it is more than under their own.

    Returns:
        None where no other offset fits more of them, or several fit as many.
    """
    places = {residue: {k for k, own in enumerate(wild_type, start=1) if own == residue} for residue in AMINO_ACIDS}
    wanted: Counter[frozenset[tuple[int, str]]] = Counter()
    fitting_now = 0
    for variant in variants:
        needed = frozenset((one.position, one.wild_type) for one in variant.substitutions)
        if needed:
            wanted[needed] += 1
            fitting_now += all(position - variant.offset in places.get(own, ()) for position, own in needed)
    fits: Counter[int] = Counter()
    for needed, times in wanted.items():
        offsets = [{position - place for place in places.get(own, ())} for position, own in needed]
        for offset in set.intersection(*offsets):
            fits[offset] += times
    best = fits.most_common(2)
    if not best or best[0][1] <= fitting_now or (len(best) > 1 and best[0][1] == best[1][1]):
        return None
    return best[0][0]


def parse_positions(text: str, wild_type: str, *, offset: int = 0) -> list[int]:
    """Read a list of residues such as ``57,102-110,S195``.

    Args:
        text: Numbers, ranges and residues with their number, joined by commas or blanks.
        wild_type: The sequence they are about.
        offset: Number of the first residue of the sequence, less 1.

    Returns:
        Their places in the sequence, from 0, in order.

    Raises:
        VariantError: A part is no position, is outside the sequence, or names another residue.
    """
    places: set[int] = set()
    for part in (p for p in re.split(r"[,\s]+", text) if p):
        named = re.fullmatch(f"([A-Za-z])({_NUMBER})", part)
        span = re.fullmatch(f"({_NUMBER})(?:-({_NUMBER}))?", part)
        if named:
            residue = named[1].upper()
            one = Variant((Substitution(int(named[2]), residue, residue),), offset)
            one.check(wild_type)
            places.update(one.places)
        elif span:
            first, last = int(span[1]), int(span[2] or span[1])
            if first > last:
                raise VariantError(f"{part} runs backwards; write {last}-{first}")
            if not offset < first <= last <= offset + len(wild_type):
                raise VariantError(f"{part}: the wild type has positions {offset + 1} to {offset + len(wild_type)}")
            places.update(range(first - offset - 1, last - offset))
        else:
            raise VariantError(f"'{part:.40}' is no position; write 57, 102-110 or S195")
    return sorted(places)


def _parse_one(text: str) -> Substitution:
    bare = text[2:] if text[:2].lower() == "p." else text
    short = _THREE.sub(lambda found: THREE_LETTERS[found.group().title()], bare.strip("()[]"))
    if found := _SUBSTITUTION.fullmatch(short):
        wild_type, position, substitution = (part.upper() for part in found.groups())
        substitution = wild_type if substitution == "=" else substitution
        for residue in (wild_type, substitution):
            if residue not in AMINO_ACIDS:
                raise VariantError(f"{text}: {residue} is not one of the twenty amino acids")
        return Substitution(int(position), wild_type, substitution)
    hint = next((hint for pattern, hint in _NEARLY if pattern.fullmatch(short)), "")
    if not hint and re.search("[0-9]", short):  # a word such as 'model' is no deletion
        for pattern, kind in _OTHER_KINDS:
            if pattern.search(short):
                raise UnsupportedVariantError(f"{text} is {kind}; the model knows substitutions only")
    raise VariantError(f"'{text:.40}' is no variant; {hint}write it like A123V, several as A123V:G45P")


def _closest(one: Substitution, place: int, wild_type: str, offset: int) -> str:
    places = sorted((abs(k - place), k) for k, own in enumerate(wild_type) if own == one.wild_type)
    if not places:
        return f"the wild type has no {one.wild_type}"
    shown: Sequence[int] = sorted(k for _, k in places[:_CLOSEST_SHOWN])
    residues = " and ".join(f"{one.wild_type}{k + offset + 1}" for k in shown)
    nearest = places[0][1]
    return f"the nearest {one.wild_type}: {residues} (with an offset of {one.position - nearest - 1}, it fits)"
