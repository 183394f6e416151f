"""Embeds the sequences of a file and writes the embeddings to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enzyme_stability.embeddings.encoder import LanguageModelEncoder, in_parts
from enzyme_stability.embeddings.files import open_embedding_writer
from enzyme_stability.embeddings.precomputed import made_by
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.errors import DataError, SequenceError
from enzyme_stability.progress import Meter
from enzyme_stability.sequence import Record, clean_sequence


@dataclass(frozen=True)
class Exported:
    """What became of the records.

    Attributes:
        written: Embeddings in the file.
        left_out: Why each of the others is not: name of the record and reason.
    """

    written: int
    left_out: list[tuple[str, str]]


def export_embeddings(
    records: Iterable[Record],
    encoder: CompositionEncoder | LanguageModelEncoder,
    path: Path,
    *,
    strict: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the embedding of every record, in order.

    Args:
        records: Sequences; they are all read before the first is embedded, so that the longest come first.
        encoder: What embeds them.
        path: File to write; its ending decides the format.
        strict: Raise at the first record that cannot be embedded.
        report: Called with progress now and then where there is no terminal.

    Raises:
        SequenceError: ``strict`` is set and a record is bad.
        DataError: No record can be embedded, or the file cannot be written.
    """
    ids: list[str] = []
    residues: list[str] = []
    left_out = []
    for record in records:
        try:
            if record.problem:
                raise SequenceError(record.problem)
            residues.append(clean_sequence(record.sequence).residues)
            ids.append(record.id)
        except SequenceError as error:
            if strict:
                raise SequenceError(f"record {record.id}: {error}") from None
            left_out.append((record.id, str(error)))
    if not ids:
        raise DataError("there is no sequence that can be embedded")
    pooling = "mean" if isinstance(encoder, CompositionEncoder) else encoder.pooling
    with open_embedding_writer(path, encoder.width, made_by(encoder), pooling) as writer:
        for part, arrays in _embedded(residues, encoder, report):
            writer.write(ids[part], arrays)
    return Exported(len(ids), left_out)


def _embedded(
    residues: list[str], encoder: CompositionEncoder | LanguageModelEncoder, report: Callable[[str], None]
) -> Iterator[tuple[slice, Sequence[np.ndarray]]]:
    if isinstance(encoder, CompositionEncoder):
        for part in in_parts(residues):
            yield part, list(encoder.encode(residues[part]))
        return
    unique = set(residues)
    with Meter(len(unique), sum(map(len, unique)), report) as meter:
        if encoder.keeps:
            encoder.prepare(residues, meter.advance)
        for part in in_parts(residues):
            advance = (lambda *_: None) if encoder.keeps else meter.advance
            yield part, encoder.encode(residues[part], advance)
