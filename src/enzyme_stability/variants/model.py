"""The delta-Tm model: the change of the melting temperature on substitution, from sequence.

``delta_tm = tm(variant) - tm(wild type)`` in degC, positive = more stable. What the model knows of a place is the
profile of the protein's family: counted in an alignment of relatives, or else foretold from the sequence alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from enzyme_stability.errors import ArtifactError, ConfigError, VariantError
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.sequence import AMINO_ACIDS, clean_sequence
from enzyme_stability.uncertainty import ConformalInterval
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment
from enzyme_stability.variants.expected_profile import ExpectedProfile
from enzyme_stability.variants.features import UNKNOWN, FloatArray, IntArray, both_ways, indices
from enzyme_stability.variants.gaussian_process import VariantCorrection
from enzyme_stability.variants.manifest import MANIFEST, PLAIN, WITH_RELATIVES, KnownFamily, read_manifest
from enzyme_stability.variants.profile import Profile
from enzyme_stability.variants.scan import Estimate, Scan

PROFILE_SCORE, LANGUAGE_MODEL_SCORE = "profile_score", "language_model_score"

_PRETRAINED = Path(__file__).parents[1] / "pretrained"
_USUAL_COVERAGE = 0.9  # the errors of several substitutions are added up at it
_NORMAL_RANGE = 38.0  # beyond it the tail of a normal distribution is 0 in double precision


class Family(NamedTuple):
    """What is known of a protein's family.

    Attributes:
        probabilities: Of each residue at each place, shape (L, 20).
        effective_sequences: Behind them, shape (L,); 0 where they were foretold from the sequence alone.
        kind: ``PLAIN`` or ``WITH_RELATIVES``: which head goes with it.
        score: Profile score of every substitution, shape (L, 20), or None without relatives.
    """

    probabilities: FloatArray
    effective_sequences: FloatArray
    kind: str
    score: FloatArray | None = None


class DeltaTmModel:
    """Foretells the change of Tm on substitution.

    Args:
        folder: A saved model.
        threads: Threads; 0 takes all cores.

    Raises:
        ArtifactError: The folder is incomplete, damaged or of another format.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.folder = Path(folder)
        self._threads = threads
        self.manifest, declared = read_manifest(self.folder)
        self._parts = {"expected_profile": declared.expected_profile, **declared.heads}
        self._loaded: dict[str, OnnxHead] = {}
        self._intervals = {kind: one.interval() for kind, one in declared.intervals.items()}
        self._likelihood = {kind: (line.intercept, line.slope) for kind, line in declared.probability.items()}
        self._pseudocount = declared.pseudocount
        language_model = declared.language_model
        self.language_model = None if language_model is None else (language_model.model, language_model.method)
        """Checkpoint whose scores are an input, and the method of the scores; None where none is."""
        self.correction = None if declared.correction is None else VariantCorrection.from_dict(declared.correction)
        """What measured variants of one protein add; None where there are none."""
        self._measured_family = None if declared.family is None else _family_from(declared.family)

    @classmethod
    def builtin(cls, threads: int = 0) -> DeltaTmModel:
        """The model that ships with the package."""
        return cls(_PRETRAINED / "delta_tm", threads)

    @classmethod
    def load(cls, where: str | Path, threads: int = 0) -> DeltaTmModel:
        """The model in a folder or at a URL, or the built-in one by its name ``delta_tm``."""
        if "://" in str(where):
            from enzyme_stability.storage import fetch

            where = fetch(str(where))
        if str(where) == "delta_tm" and not (Path(where) / MANIFEST).exists():
            return cls.builtin(threads)
        return cls(where, threads)

    @property
    def name(self) -> str:
        """Name given at training."""
        return str(self.manifest["name"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds those of the model files: names this model exactly."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    def is_corrected_for(self, wild_type: str) -> bool:
        """Whether measured variants of this very protein correct the model."""
        return self.correction is not None and self.correction.wild_type == wild_type

    def family(self, wild_type: str, alignment: Alignment | None = None) -> Family:
        """What is known of the family of a protein.

        Args:
            wild_type: Residues, ``X`` where one is unknown.
            alignment: Relatives; without any, the profile is foretold from the sequence.

        Raises:
            ConfigError: There are relatives, and this model was trained without.
        """
        if alignment is None and self._measured_family is not None and self.is_corrected_for(wild_type):
            return self._measured_family
        expected = self._expected_profile.probabilities(indices(wild_type))
        if alignment is None or len(alignment.rows) < 2:
            return Family(expected, np.zeros(len(wild_type)), PLAIN)
        if WITH_RELATIVES not in self._parts:
            raise ConfigError(f"{self.name} was trained without relatives: leave them out")
        profile = Profile.from_alignment(alignment, prior=expected, pseudocount=self._pseudocount)
        return Family(profile.probabilities, profile.effective_sequences, WITH_RELATIVES, profile.score())

    def scan(
        self,
        sequence: str,
        *,
        name: str = "",
        alignment: Alignment | None = None,
        language_scores: FloatArray | None = None,
        offset: int = 0,
        coverage: float = 0.9,
        corrected: bool = True,
    ) -> Scan:
        """Every substitution in a protein.

        Args:
            sequence: The wild type.
            name: Its name.
            alignment: Relatives, as from ``read_alignment`` or ``search_relatives``.
            language_scores: As from ``language_scores``, shape (L, 20).
            offset: Number of the first residue, less 1.
            coverage: Share of variants whose measured change the interval should hold.
            corrected: Whether a correction by measurements of this protein's variants is applied.

        Raises:
            SequenceError: The sequence cannot be used.
            ConfigError: ``coverage`` is out of bounds, or this model needs the scores of a language model.
        """
        clean = clean_sequence(sequence)
        chain = indices(clean.chain)
        family = self.family(clean.chain, alignment)
        known = np.flatnonzero(chain < UNKNOWN)
        places = np.repeat(known, UNKNOWN)
        after = np.tile(np.arange(UNKNOWN), known.size)
        changed = after != chain[places]
        places, after = places[changed], after[changed]
        found, _ = self._estimate(clean.chain, family, places, chain[places], after, language_scores, coverage)
        uncorrected = None
        if corrected and self.is_corrected_for(clean.chain):
            uncorrected = np.full((len(chain), UNKNOWN), np.nan)
            uncorrected[places, after] = found.delta_tm
            variants = [_single(clean.chain, place, to) for place, to in zip(places, after, strict=True)]
            found = self._corrected(variants, found.delta_tm, coverage)
        tables = [np.full((len(chain), UNKNOWN), np.nan) for _ in found]
        for table, values in zip(tables, found, strict=True):
            table[places, after] = values
        scores = {}
        if family.score is not None:
            scores[PROFILE_SCORE] = family.score
        if language_scores is not None:
            scores[LANGUAGE_MODEL_SCORE] = language_scores
        return Scan(name, clean.chain, Estimate(*tables), offset, scores, clean.notes, uncorrected)

    def predict(
        self,
        sequence: str,
        variants: Sequence[Variant],
        *,
        alignment: Alignment | None = None,
        language_scores: FloatArray | None = None,
        coverage: float = 0.9,
        corrected: bool = True,
    ) -> Estimate:
        """The change of Tm of variants, each array of shape (n,).

        Effects of several substitutions are added up, their intervals as if their errors were independent, unless this
        model was corrected by measurements of the protein's own variants.

        Args:
            sequence: The wild type.
            variants: In any numbering.
            alignment: Relatives, as from ``read_alignment`` or ``search_relatives``.
            language_scores: As from ``language_scores``, shape (L, 20).
            coverage: Share of variants whose measured change the interval should hold.
            corrected: As in ``scan``.

        Raises:
            SequenceError: The sequence cannot be used.
            VariantError: A variant does not fit it, or replaces an unknown residue.
            ConfigError: ``coverage`` is out of bounds, or this model needs the scores of a language model.
        """
        chain = clean_sequence(sequence).chain
        parts: list[tuple[int, int, int, int]] = []
        for row, variant in enumerate(variants):
            variant.check(chain)
            for place, one in zip(variant.places, variant.substitutions, strict=True):
                if unknown := {one.wild_type, one.substitution} - set(AMINO_ACIDS):
                    raise VariantError(f"{one}: {unknown.pop()} is not one of the twenty amino acids")
                if one.wild_type != one.substitution:
                    parts.append((row, place, AMINO_ACIDS.index(one.wild_type), AMINO_ACIDS.index(one.substitution)))
        rows, places, before, after = np.array(parts, dtype=np.int64).reshape(-1, 4).T
        family = self.family(chain, alignment)
        single, deviations = self._estimate(chain, family, places, before, after, language_scores, coverage)
        total = np.zeros(len(variants))
        np.add.at(total, rows, single.delta_tm)
        if corrected and self.is_corrected_for(chain):
            return self._corrected(variants, total, coverage)
        return _added_up(single, deviations, rows, total)

    def _estimate(
        self,
        chain: str,
        family: Family,
        places: IntArray,
        before: IntArray,
        after: IntArray,
        language_scores: FloatArray | None,
        coverage: float,
    ) -> tuple[Estimate, FloatArray]:
        """Estimates of single substitutions, and the standard deviations of the error below and above, (2, n)."""
        if language_scores is not None and language_scores.shape != (len(chain), UNKNOWN):
            raise ConfigError(f"scores of shape {language_scores.shape} are not those of {len(chain)} residues")
        if self.language_model is not None and language_scores is None:
            raise ConfigError(f"{self.name} needs the scores of {self.language_model[0]}; give --language-model")
        taken = None if self.language_model is None else language_scores
        features = both_ways(*family[:2], places, before, after, taken)
        head = self._head(family.kind)
        if features.shape[1] != head.width:
            raise ArtifactError(f"{self.folder} was made by another version: train it again")
        out = head.predict(features)
        lower, upper = self._intervals[family.kind].interval(out.tm, out.lower, out.upper, coverage)
        intercept, slope = self._likelihood[family.kind]
        probability = 1 / (1 + np.exp(-(intercept + slope * out.tm)))
        return Estimate(out.tm, lower, upper, probability), _deviations(self._intervals[family.kind], out)

    def _corrected(self, variants: Sequence[Variant], model_estimate: FloatArray, coverage: float) -> Estimate:
        if self.correction is None:
            raise VariantError("this model was not corrected by measurements")
        mean, deviation = self.correction.predict(variants, model_estimate)
        half = NormalDist().inv_cdf((1 + coverage) / 2) * np.hypot(
            deviation, self.correction.spread * self.correction.noise
        )
        return Estimate(mean, mean - half, mean + half, normal_share(mean, deviation))

    @cached_property
    def _expected_profile(self) -> ExpectedProfile:
        return ExpectedProfile(self._file("expected_profile"), self._threads)

    def _head(self, kind: str) -> OnnxHead:
        if kind not in self._loaded:
            self._loaded[kind] = OnnxHead(self._file(kind), self._threads)
        return self._loaded[kind]

    def files(self) -> list[Path]:
        """The manifest, the networks and the card."""
        card = self.folder / "CARD.md"
        return [self.folder / MANIFEST, *map(self._file, self._parts), *([card] if card.is_file() else [])]

    def _file(self, name: str) -> Path:
        part = self._parts[name]
        path = self.folder / part.file
        if path.parent != self.folder or not path.is_file():
            raise ArtifactError(f"{path} is missing: the model in {self.folder} is incomplete")
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != part.sha256:
                raise ArtifactError(f"{path} is damaged: its checksum is not the one in {MANIFEST}")
        return path


def normal_share(mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Share of a normal distribution above 0, elementwise."""
    z = np.clip(mean / np.maximum(deviation, 1e-12), -_NORMAL_RANGE, _NORMAL_RANGE)
    return np.array([math.erfc(-one / math.sqrt(2)) / 2 for one in z.tolist()])


def _deviations(interval: ConformalInterval, out: HeadOutput) -> FloatArray:
    """Standard deviations of a normal error below and above whose intervals are those of the model, shape (2, n)."""
    lower, upper = interval.interval(out.tm, out.lower, out.upper, _USUAL_COVERAGE)
    return np.stack([out.tm - lower, upper - out.tm]) / NormalDist().inv_cdf((1 + _USUAL_COVERAGE) / 2)


def _added_up(single: Estimate, deviations: FloatArray, rows: IntArray, total: FloatArray) -> Estimate:
    """Estimates of variants from those of their substitutions; ``rows`` says which variant each belongs to."""
    count = np.bincount(rows, minlength=total.size)
    reach = np.stack([single.delta_tm - single.lower, single.upper - single.delta_tm])
    squares = np.zeros((4, total.size))
    for square, part in zip(squares, [*reach, *deviations], strict=True):
        np.add.at(square, rows, part**2)
    below, above, error_below, error_above = np.sqrt(squares)
    # The side of the error on which the sign would change.
    probability = normal_share(total, np.where(total < 0, error_above, error_below))
    probability[count == 0] = np.nan
    alone = count[rows] == 1
    probability[rows[alone]] = single.probability[alone]
    return Estimate(total, total - below, total + above, probability)


def _single(chain: str, place: int, after: int) -> Variant:
    return Variant.parse(f"{chain[place]}{place + 1}{AMINO_ACIDS[after]}")


def _family_from(known: KnownFamily) -> Family:
    probabilities = np.array(known.probabilities)
    return Family(
        probabilities / probabilities.sum(axis=1, keepdims=True), np.array(known.effective_sequences), known.kind
    )
