"""The predictor: a trained model with its interval and its domain check, saved as a folder without pickles."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE
from enzyme_stability.domain import ApplicabilityDomain
from enzyme_stability.encoders.composition import CompositionEncoder, amino_acid_frequencies
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, SequenceError
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.sequence import CleanSequence, Record, clean_sequence
from enzyme_stability.uncertainty import ConformalInterval

FORMAT = 1
MANIFEST = "predictor.json"
PLAIN = "plain"
WITH_GROWTH = "with_growth_temperature"
_PRETRAINED = Path(__file__).parent / "pretrained"
_CHUNK_RECORDS = 1024
_CHUNK_RESIDUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of the answer. Temperatures in degC, rounded to 0.01; None where there is no answer.

    Attributes:
        id: Name of the record.
        length: Residues in the chain, the non-standard ones included.
        tm_celsius: Melting temperature.
        tm_lower_celsius: Lower end of the interval.
        tm_upper_celsius: Upper end of the interval.
        in_domain: Whether the protein is like those the predictor learned from.
        status: ``ok``; ``warning`` where the sequence was changed by the residue policy; ``error`` where there is no
            answer.
        note: What was changed, why the protein is out of domain, or what was wrong.
    """

    id: str
    length: int | None
    tm_celsius: float | None
    tm_lower_celsius: float | None
    tm_upper_celsius: float | None
    in_domain: bool | None
    status: str
    note: str


COLUMNS: dict[str, type] = {
    "id": str,
    "length": int,
    "tm_celsius": float,
    "tm_lower_celsius": float,
    "tm_upper_celsius": float,
    "in_domain": bool,
    "status": str,
    "note": str,
}


class Predictor:
    """Turns sequences into melting temperatures with intervals.

    Args:
        folder: A saved predictor.
        threads: Threads of the model; 0 takes all cores.

    Raises:
        ArtifactError: The folder is incomplete, damaged or of another format.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self._threads = threads
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
            self._encoder = CompositionEncoder(self.manifest["encoder"]["blocks"])
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
    def load(cls, where: str | Path, threads: int = 0) -> Predictor:
        """The predictor in a folder, or the built-in one of that name."""
        if str(where) in cls.builtin_names() and not (Path(where) / MANIFEST).exists():
            return cls.builtin(str(where), threads)
        return cls(where, threads)

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

    def model_files(self) -> list[Path]:
        """The files that prediction needs."""
        return [self.folder / MANIFEST, *(path for path, _ in self._files.values())]

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
        out = self._head(kind).predict(self._encoder.encode(residues), growth if kind == WITH_GROWTH else None)
        lower, upper = self._intervals[kind].interval(out.tm, out.lower, out.upper, coverage)
        reasons = self.domain.reasons(sequences, amino_acid_frequencies(residues), out.similarity)
        for sequence, why, *temperatures in zip(sequences, reasons, out.tm, lower, upper, strict=True):
            notes = [*sequence.notes, *([f"out of domain: {', '.join(why)}"] if why else [])]
            rounded = (round(float(t), 2) for t in temperatures)
            yield sequence.length, *rounded, not why, "warning" if sequence.notes else "ok", "; ".join(notes)

    def _head(self, kind: str) -> OnnxHead:
        if kind not in self._heads:
            path, checksum = self._files[kind]
            if not path.is_file():
                raise ArtifactError(f"{path} is missing: the predictor is incomplete")
            if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                raise ArtifactError(f"{path} is damaged: its checksum is not the one in {MANIFEST}")
            head = OnnxHead(path, self._threads)
            if head.width != self._encoder.width:
                raise ArtifactError(f"{path} takes {head.width} descriptors, the encoder makes {self._encoder.width}")
            self._heads[kind] = head
        return self._heads[kind]


def write_predictor(
    folder: Path,
    *,
    name: str,
    description: str,
    encoder: Mapping[str, Any],
    heads: Mapping[str, bytes],
    intervals: Mapping[str, ConformalInterval],
    domain: ApplicabilityDomain,
    training: Mapping[str, Any],
) -> Predictor:
    """Write a predictor folder and open it.

    Args:
        folder: Made if it is not there; files of an earlier predictor are replaced.
        name: Name of the predictor.
        description: One sentence.
        encoder: ``kind`` and its settings.
        heads: Serialised ONNX graphs by kind (``plain``, ``with_growth_temperature``).
        intervals: Calibrated interval of each head.
        domain: The domain check.
        training: What the model card needs to know about the run; JSON values only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("head_*.onnx"), *folder.glob("held_out_folds*"), folder / "CARD.md"):
            old.unlink(missing_ok=True)  # the figures of another model must not stand beside this one
        files = {}
        for kind, graph in heads.items():
            file = f"head_{kind}.onnx"
            (folder / file).write_bytes(graph)
            files[kind] = {"file": file, "sha256": hashlib.sha256(graph).hexdigest()}
        manifest = {
            "format": FORMAT,
            "name": name,
            "description": description,
            "encoder": dict(encoder),
            "heads": files,
            "intervals": {
                kind: {
                    "below": _rounded(interval.below),
                    "above": _rounded(interval.above),
                    "upper_tail_share": interval.upper_tail_share,
                }
                for kind, interval in intervals.items()
            },
            "domain": asdict(domain),
            "training": dict(training),
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write the predictor to {folder}: {error}") from None
    return Predictor(folder)


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), 5) for score in scores]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} is not a predictor: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path} is damaged: it holds no settings")
    missing = [
        key
        for key in ("format", "name", "description", "encoder", "heads", "intervals", "domain")
        if key not in manifest
    ]
    if missing:
        raise ArtifactError(f"{path} lacks {', '.join(missing)}")
    if manifest["format"] != FORMAT:
        raise ArtifactError(f"{path} is of format {manifest['format']}; this version reads format {FORMAT}")
    return manifest


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
