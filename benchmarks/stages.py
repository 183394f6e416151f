"""Times the stages of prediction one by one in this process and prints the seconds as JSON; speed.py runs it.

    python benchmarks/stages.py count FILE     read the file and count residues: the limit of what any method can reach
    python benchmarks/stages.py stages FILE    every stage alone on one thread, then prediction by length of the protein

Needs the base install. FILE is anything that 'enzyme-stability predict' reads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from enzyme_stability import Predictor, Record
from enzyme_stability.data.readers import read_records
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.sequence import CleanSequence, clean_sequence

LENGTH_EDGES = (0, 150, 300, 500, 1000, 10**9)
"""Residues at which one bucket of lengths ends and the next begins."""

_BUCKET = 10_000  # proteins of a bucket at most
_CHUNK = 1024  # sequences encoded at once, as in prediction

T = TypeVar("T")


def count(records: Iterable[Record]) -> tuple[int, int]:
    """How many sequences and residues there are, and (for the work's sake) of which kind."""
    sequences, kinds = 0, np.zeros(256, dtype=np.int64)
    for record in records:
        sequences += 1
        kinds += np.bincount(np.frombuffer(record.sequence.encode(), np.uint8), minlength=256)
    return sequences, int(kinds.sum())


def stages(path: str) -> dict[str, Any]:
    """Seconds of each stage over the whole file, one thread."""
    predictor = Predictor.builtin(threads=1)
    manifest = predictor.manifest
    encoder = CompositionEncoder(manifest["encoder"]["blocks"])
    head = OnnxHead(predictor.folder / manifest["heads"]["plain"]["file"], threads=1)
    records, reading = _timed(lambda: list(read_records(path)))
    (sequences, residues), counting = _timed(lambda: count(records))
    clean, cleaning = _timed(lambda: [clean_sequence(record.sequence) for record in records])
    descriptors, encoding = _timed(lambda: _encode(encoder, clean))
    _, running = _timed(lambda: head.predict(descriptors))
    return {
        "sequences": sequences,
        "residues": residues,
        "seconds": {
            "reading": reading,
            "counting residues": counting,
            "residue policy": cleaning,
            "descriptors": encoding,
            "model": running,
        },
        "by_length": _by_length(predictor, records),
    }


def _encode(encoder: CompositionEncoder, clean: list[CleanSequence]) -> np.ndarray:
    residues = [sequence.residues for sequence in clean]
    return np.concatenate([encoder.encode(residues[k : k + _CHUNK]) for k in range(0, len(residues), _CHUNK)])


def _by_length(predictor: Predictor, records: list[Record]) -> list[dict[str, Any]]:
    predictor.predict(records[:1])  # loads the model
    found = []
    for low, high in pairwise(LENGTH_EDGES):
        bucket = [record for record in records if low <= len(record.sequence) < high][:_BUCKET]
        if not bucket:
            continue
        _, seconds = _timed(lambda bucket=bucket: sum(1 for _ in predictor.predict_records(bucket)))
        residues = sum(len(record.sequence) for record in bucket)
        name = f"{low}-{high - 1}" if high < LENGTH_EDGES[-1] else f"{low} and more"
        found.append({"length": name, "sequences": len(bucket), "residues": residues, "seconds": seconds})
    return found


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def main() -> None:
    """Run the stage named on the command line."""
    match sys.argv[1:]:
        case ["count", path]:
            sequences, residues = count(read_records(path))
            print(json.dumps({"sequences": sequences, "residues": residues}))
        case ["stages", path]:
            print(json.dumps(stages(path)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
