"""The predictor: a trained model with its interval and its domain check, saved as a folder without pickles."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.correction import Correction
from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE
from enzyme_stability.domain import UNLIKE, ApplicabilityDomain
from enzyme_stability.encoders.composition import CompositionEncoder, amino_acid_frequencies
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, SequenceError
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.manifest import ADAPTER, MANIFEST, read_manifest
from enzyme_stability.prediction import Prediction
from enzyme_stability.reference import Reference
from enzyme_stability.sequence import CleanSequence, Record, clean_sequence
from enzyme_stability.uncertainty import ConformalInterval

if TYPE_CHECKING:
    from enzyme_stability.embeddings.encoder import LanguageModelEncoder

PLAIN = "plain"
WITH_GROWTH = "with_growth_temperature"
_PRETRAINED = Path(__file__).parent / "pretrained"
_CHUNK_RECORDS = 1024
_CHUNK_RESIDUES = 2_000_000


class Predictor:
    """Turns sequences into melting temperatures with intervals.

    Args:
        folder: A saved predictor.
        threads: Threads of the model; 0 takes all cores.
        store: Folder of the store of embeddings; None is the one all commands share.

    Raises:
        ArtifactError: The folder is incomplete, damaged or of another format.
    """

    def __init__(self, folder: str | Path, threads: int = 0, store: Path | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self._threads, self._store = threads, store
        self._heads: dict[str, OnnxHead] = {}
        try:
            self._intervals = {
                kind: ConformalInterval(
                    np.array(scores["below"], dtype=float),
                    np.array(scores["above"], dtype=float),
                    float(scores["upper_tail_share"]),
                )
                for kind, scores in self.manifest["intervals"].items()
            }
            self._files = {
                kind: (self.folder / str(head["file"]), str(head["sha256"]))
                for kind, head in self.manifest["heads"].items()
                if kind in self._intervals
            }
            self._encoder_kind = str(self.manifest["encoder"]["kind"])
            correction = self.manifest.get("correction")
            self._correction = None if correction is None else Correction.from_dict(correction)
            self.domain = ApplicabilityDomain.from_dict(self.manifest["domain"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self.folder / MANIFEST} is damaged: {error!r}") from None
        if PLAIN not in self._files or self._files.keys() != self._intervals.keys():
            raise ArtifactError(f"{self.folder / MANIFEST} is damaged: heads and intervals do not match")

    @classmethod
    def builtin(cls, name: str = "builtin", threads: int = 0) -> Predictor:
        """A predictor that ships with the package: ``builtin`` (full range) or ``tm50`` (Tm50 benchmark)."""
        if name not in cls.builtin_names():
            raise ArtifactError(f"no built-in predictor '{name}'; there are: {', '.join(cls.builtin_names())}")
        return cls(_PRETRAINED / name, threads)

    @classmethod
    def load(cls, where: str | Path, threads: int = 0, store: Path | None = None) -> Predictor:
        """The predictor in a folder, at a URL such as gs://bucket/name or in a registry, or a built-in one.

        Args:
            where: Folder, URL, name, or ``registry/NAME@ALIAS`` with an alias or the number of a version.
            threads: Threads of the model; 0 takes all cores.
            store: Folder of the store of embeddings; None is the one all commands share.

        Raises:
            ArtifactError: There is no such predictor, or it is incomplete, damaged or of another format.
        """
        if "@" in str(where):
            from enzyme_stability.registry import Address

            address = Address.parse(where)
            where = where if address is None else address.url()
        if "://" in str(where):
            from enzyme_stability.storage import fetch

            where = fetch(str(where))
        if str(where) in cls.builtin_names() and not (Path(where) / MANIFEST).exists():
            return cls.builtin(str(where), threads)
        return cls(where, threads, store)

    @staticmethod
    def builtin_names() -> list[str]:
        """Names of the predictors that ship with the package."""
        return sorted(path.parent.name for path in _PRETRAINED.glob(f"*/{MANIFEST}"))

    @property
    def name(self) -> str:
        """Name given at training."""
        return str(self.manifest["name"])

    @property
    def takes_growth_temperature(self) -> bool:
        """Whether a growth temperature makes a difference."""
        return WITH_GROWTH in self._intervals

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds those of the model files: names this predictor exactly."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @cached_property
    def reference(self) -> Reference:
        """What drift is measured against; raises ArtifactError where it was trained before that was kept."""
        return Reference.of_manifest(self.manifest)

    def model_files(self) -> list[Path]:
        """The files that prediction needs."""
        adapter = sorted((self.folder / ADAPTER).glob("*")) if self._adapted else []
        return [self.folder / MANIFEST, *(path for path, _ in self._files.values()), *adapter]

    def files(self) -> list[Path]:
        """The files that prediction needs, and the card."""
        card = self.folder / "CARD.md"
        return [*self.model_files(), *([card] if card.is_file() else [])]

    def save(self, folder: str | Path) -> None:
        """Copy the predictor to a new folder.

        Raises:
            ArtifactError: The folder exists already or cannot be written.
        """
        try:
            shutil.copytree(self.folder, folder)
        except OSError as error:
            raise ArtifactError(f"cannot save the predictor to {folder}: {error}") from None

    def predict(
        self,
        sequences: Iterable[str | Record],
        *,
        growth_temperature: float | None = None,
        coverage: float = 0.9,
        strict: bool = False,
    ) -> list[Prediction]:
        """Predict every sequence; a bad one gives a row with status ``error`` and the others their answer.

        Args:
            sequences: Residues as text, or records.
            growth_temperature: degC, for records without one of their own; None is normal.
            coverage: Share of proteins whose Tm the interval should hold.
            strict: Raise at the first bad sequence.

        Returns:
            One row per sequence, in order.

        Raises:
            SequenceError: ``strict`` is set and a sequence is bad.
            ConfigError: ``coverage`` or ``growth_temperature`` is out of bounds.
        """
        if isinstance(sequences, str | Record):
            sequences = [sequences]
        records = (s if isinstance(s, Record) else _record(f"sequence_{k}", s) for k, s in zip(count(1), sequences))
        return list(
            self.predict_records(records, growth_temperature=growth_temperature, coverage=coverage, strict=strict)
        )

    def predict_records(
        self,
        records: Iterable[Record],
        *,
        growth_temperature: float | None = None,
        coverage: float = 0.9,
        strict: bool = False,
    ) -> Iterator[Prediction]:
        """As ``predict``, but streaming: memory does not grow with the number of records."""
        _check_growth_temperature(growth_temperature)
        for interval in self._intervals.values():
            interval.factors(coverage)
        return (
            row
            for chunk in _chunks(records)
            for row in self._predict_chunk(chunk, growth_temperature, coverage, strict)
        )

    def _predict_chunk(
        self, records: Sequence[Record], growth_temperature: float | None, coverage: float, strict: bool
    ) -> list[Prediction]:
        rows: list[Prediction | None] = [None] * len(records)
        groups: dict[str, list[tuple[int, CleanSequence, float]]] = {PLAIN: [], WITH_GROWTH: []}
        for k, record in enumerate(records):
            try:
                if record.problem:
                    raise SequenceError(record.problem)
                clean = clean_sequence(record.sequence)
                known = _known(record.growth_temperature, growth_temperature)
            except (SequenceError, ConfigError) as error:
                if strict:
                    raise SequenceError(f"record {record.id}: {error}") from None
                rows[k] = Prediction(record.id, None, None, None, None, None, "error", str(error))
                continue
            if known is None or not self.takes_growth_temperature:
                groups[PLAIN].append((k, clean, np.nan))
            else:
                groups[WITH_GROWTH].append((k, clean, known))
        for kind, members in groups.items():
            if members:
                where, sequences, growth = zip(*members, strict=True)
                answers = self._answer(kind, list(sequences), np.array(growth), coverage)
                for k, answer in zip(where, answers, strict=True):
                    rows[k] = Prediction(records[k].id, *answer)
        return [row for row in rows if row is not None]

    def _answer(
        self, kind: str, sequences: list[CleanSequence], growth: np.ndarray, coverage: float
    ) -> Iterator[tuple[Any, ...]]:
        residues = [s.residues for s in sequences]
        out = self.raw_output(residues, growth if kind == WITH_GROWTH else None)
        lower, upper = self._intervals[kind].interval(out.tm, out.lower, out.upper, coverage)
        reasons = self.domain.reasons(sequences, amino_acid_frequencies(residues), out.similarity)
        near = out.similarity.tolist()
        for sequence, why, similarity, *temperatures in zip(
            sequences, reasons, near, out.tm, lower, upper, strict=True
        ):
            notes = [*sequence.notes, *([f"out of domain: {', '.join(why)}"] if why else [])]
            rounded = (round(float(t), 2) for t in temperatures)
            status = "warning" if sequence.notes else "ok"
            yield sequence.length, *rounded, not why, status, "; ".join(notes), float(similarity)

    def raw_output(
        self, residues: Sequence[str], growth_temperature: np.ndarray | None = None, *, corrected: bool = True
    ) -> HeadOutput:
        """What the head says of cleaned sequences, before the interval is calibrated.

        Args:
            residues: Standard residues only.
            growth_temperature: degC, shape (n,); None for the head that takes none.
            corrected: Whether a correction to a user's own measurements is applied.
        """
        head = self._head(PLAIN if growth_temperature is None else WITH_GROWTH)
        if isinstance(self.encoder, CompositionEncoder):
            out = head.predict(self.encoder.encode(residues), growth_temperature)
        elif head.pooling == "mean":
            out = head.predict(np.stack(self.encoder.encode(residues)), growth_temperature)
        else:
            out = self._from_residues(head, residues)
        if self._correction is None or not corrected:
            return out
        tm, lower, upper = self._correction.apply(
            out.tm, out.lower, out.upper, amino_acid_frequencies(residues), growth_temperature
        )
        return out._replace(tm=tm, lower=lower, upper=upper)

    def _from_residues(self, head: OnnxHead, residues: Sequence[str]) -> HeadOutput:
        """Part by part: the embeddings of all residues of many proteins would not fit into memory."""
        from enzyme_stability.embeddings.encoder import in_parts

        parts = [head.predict(self.encoder.encode(residues[part])) for part in in_parts(residues)]
        return HeadOutput(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def predict_embeddings(
        self,
        ids: Sequence[str],
        vectors: np.ndarray,
        *,
        made_by: Mapping[str, Any] | None = None,
        coverage: float = 0.9,
    ) -> list[Prediction]:
        """Predict from embeddings made elsewhere; length and composition are unknown and not part of the domain check.

        Args:
            ids: Name of each protein.
            vectors: Embeddings, shape (n, width), made as this predictor makes them.
            made_by: What their file says of how they were made; it must not contradict the predictor.
            coverage: Share of proteins whose Tm the interval should hold.

        Raises:
            ConfigError: The embeddings were made in another way, or this predictor needs the sequences.
        """
        head = self._head(PLAIN)
        settings = self.manifest["encoder"]
        if self._encoder_kind == "composition" or head.pooling != "mean" or self._adapted:
            raise ConfigError(f"{self.name} does not take embeddings; give it sequences")
        if self._correction is not None and self._correction.weights:
            raise ConfigError(f"{self.name} is corrected by the composition of a protein; give it sequences")
        if vectors.ndim != 2 or vectors.shape[1] != head.width:
            raise ConfigError(
                f"these embeddings are {vectors.shape[-1]} wide, and {self.name} takes {head.width}: they are those of "
                f"{settings.get('model')}"
            )
        for name, own in (("revision", settings.get("fingerprint")), ("layer", settings.get("layer"))):
            if (theirs := (made_by or {}).get(name, own)) != own:
                raise ConfigError(f"these embeddings are of {name} {theirs!s:.12}, and {self.name} takes {own!s:.12}")
        out = head.predict(vectors)
        if self._correction is not None:
            unknown = np.zeros((len(vectors), 0))
            tm, lower, upper = self._correction.apply(out.tm, out.lower, out.upper, unknown)
            out = out._replace(tm=tm, lower=lower, upper=upper)
        lower, upper = self._intervals[PLAIN].interval(out.tm, out.lower, out.upper, coverage)
        columns = (np.round(temperatures, 2).tolist() for temperatures in (out.tm, lower, upper))
        inside = (out.similarity >= self.domain.minimum_similarity).tolist()
        similarities = out.similarity.tolist()
        return [
            Prediction(name, None, tm, low, high, near, "ok", "" if near else f"out of domain: {UNLIKE}", similarity)
            for name, near, similarity, tm, low, high in zip(ids, inside, similarities, *columns, strict=True)
        ]

    @property
    def _adapted(self) -> bool:
        return bool(self.manifest["encoder"].get("adapter"))

    @cached_property
    def encoder(self) -> CompositionEncoder | LanguageModelEncoder:
        """What turns residues into the numbers that the head takes."""
        settings = self.manifest["encoder"]
        try:
            if self._encoder_kind == "composition":
                return CompositionEncoder(settings["blocks"])
            from enzyme_stability.embeddings.encoder import LanguageModelEncoder

            adapter = self.folder / ADAPTER if self._adapted else None
            return LanguageModelEncoder.of_predictor(settings, adapter, store=self._store, threads=self._threads)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self.folder / MANIFEST} is damaged: {error!r}") from None

    def _head(self, kind: str) -> OnnxHead:
        if kind not in self._heads:
            path, checksum = self._files[kind]
            if not path.is_file():
                raise ArtifactError(f"{path} is missing: the predictor is incomplete")
            if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                raise ArtifactError(f"{path} is damaged: its checksum is not the one in {MANIFEST}")
            head = OnnxHead(path, self._threads)
            made = self.manifest["encoder"].get("width") or self.encoder.width
            if head.width != made:
                raise ArtifactError(f"{path} takes {head.width} descriptors, the encoder makes {made}")
            self._heads[kind] = head
        return self._heads[kind]


def _record(name: str, sequence: object) -> Record:
    if isinstance(sequence, str):
        return Record(name, sequence)
    return Record(name, "", problem=f"the sequence is no text but {type(sequence).__name__}: {sequence!r:.40}")


def _known(own: float | None, common: float | None) -> float | None:
    """The growth temperature that counts for a record, None where it is unknown."""
    if own is None or math.isnan(own):
        return common
    _check_growth_temperature(own)
    return own


def _check_growth_temperature(celsius: float | None) -> None:
    low, high = LOWEST_GROWTH_TEMPERATURE, HIGHEST_GROWTH_TEMPERATURE
    if celsius is not None and not low <= celsius <= high:
        raise ConfigError(f"a growth temperature of {celsius} degC is not between {low:g} and {high:g}")


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    residues = 0
    try:
        for record in records:
            chunk.append(record)
            residues += len(record.sequence)
            if len(chunk) == _CHUNK_RECORDS or residues > _CHUNK_RESIDUES:
                yield chunk
                chunk, residues = [], 0
    except EnzymeStabilityError:  # the file breaks off here: what was read of it still gets its answer
        yield chunk
        raise
    yield chunk
