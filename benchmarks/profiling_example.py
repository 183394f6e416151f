"""What removing one bottleneck was worth, which a profile of 'predict' had shown: the example in docs/profiling.md.

The changes of residue class in a protein are its counts of residue pairs times a table of noughts and ones. NumPy has
no fast product of integers; of floats it has, and its result is the same to the last bit, as the counts are small. Both
products take turns in one process, on proteins drawn from the sequence pool: alone, among all
descriptors, and in the prediction. Prints a table, writes profiling_example.json and stops where an answer differs.

Needs, of the public data sets, sequences/.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from enzyme_stability import Predictor
from enzyme_stability.data.readers import read_records
from enzyme_stability.encoders import composition
from enzyme_stability.encoders.composition import CompositionEncoder, ResidueBatch
from enzyme_stability.errors import DataError
from enzyme_stability.sequence import Record, clean_sequence
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, keep, machine, number, run, show
from speed import POOL, _draw

_BATCH = 500  # proteins: about what is encoded at once in a prediction


class _IntegerTable:
    """The table as it was: counts are multiplied by it as integers, one conversion more than before."""

    __array_ufunc__ = None  # NumPy leaves the product to this class

    def __init__(self, table: np.ndarray) -> None:
        self._table = table.astype(np.int64)

    def __rmatmul__(self, counts: np.ndarray) -> np.ndarray:
        product: np.ndarray = counts.astype(np.int64) @ self._table
        return product


def main(data: Data = DATA, results: Results = RESULTS, smoke: Smoke = False) -> None:
    """Measure what the faster product is worth; see the top of this file."""
    proteins, runs = (300, 1) if smoke else (10_000, 9)
    pool, facts = data_file(data, POOL), machine()
    with tempfile.TemporaryDirectory() as folder:
        _draw(pool, proteins, Path(folder, "sample.fasta"))
        records = list(read_records(Path(folder, "sample.fasta")))
    rows = {name: _in_turn(work, runs) for name, work in _works(records).items()}
    show(
        f"{len(records):,} proteins, processor time, medians of {runs} runs in turns; answers are the same",
        ("", "integers, s", "floats, s", "before / after"),
        [
            (name, number(row["before_s"], 3), number(row["after_s"], 3), number(row["before_s"] / row["after_s"]))
            for name, row in rows.items()
        ],
    )
    figures = {"proteins": len(records), "runs": runs, "rows": rows}
    print(f"\nfigures are in {keep('profiling_example', results, figures, facts, smoke=smoke).name}")


def _works(records: list[Record]) -> dict[str, Callable[[], Any]]:
    predictor = Predictor.builtin(threads=1)
    residues = [clean_sequence(record.sequence).residues for record in records]
    batches = [ResidueBatch(residues[k : k + _BATCH]) for k in range(0, len(residues), _BATCH)]
    counts = [batch.pairs.astype(np.float64) for batch in batches]
    encoder = predictor.encoder
    assert isinstance(encoder, CompositionEncoder)
    return {
        "the product": lambda: np.concatenate([pairs @ composition._transition_table() for pairs in counts]),
        "descriptors of residue classes": lambda: np.concatenate([composition._class_patterns(b) for b in batches]),
        "all descriptors": lambda: encoder.encode(residues),
        "prediction": lambda: predictor.predict(records),
    }


def _in_turn(work: Callable[[], Any], runs: int) -> dict[str, float]:
    before, after = [], []
    for _ in range(runs):
        with _as_it_was():
            answer, seconds = _timed(work)
        before.append(seconds)
        same, seconds = _timed(work)
        after.append(seconds)
        if not (np.array_equal(answer, same) if isinstance(answer, np.ndarray) else answer == same):
            raise DataError("the two products differ")
    return {"before_s": statistics.median(before), "after_s": statistics.median(after)}


@contextmanager
def _as_it_was() -> Iterator[None]:
    table = _IntegerTable(composition._transition_table())
    with patch.object(composition, "_transition_table", lambda: table):
        yield


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()  # a busy machine does not change it
    return work(), time.process_time() - started


if __name__ == "__main__":
    run(main)
