"""The command 'predict'."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enzyme_stability import __version__
from enzyme_stability.cli.common import Coverage, Model, Store, Threads, say
from enzyme_stability.errors import DataError

if TYPE_CHECKING:
    from enzyme_stability.prediction import Prediction


def predict(
    sequences: Annotated[
        str,
        typer.Argument(
            help="FASTA, CSV, TSV or Parquet, plain or .gz; '-' is standard input. Or a file of embeddings."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; '-' is standard output.")] = "-",
    output_format: Annotated[
        str | None, typer.Option("--format", "-f", help="csv, tsv, jsonl or parquet; else by the file's name.")
    ] = None,
    model: Model = "builtin",
    column: Annotated[str | None, typer.Option(help="Column with the sequences, where a table has several.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the names.")] = None,
    growth_temperature: Annotated[
        float | None, typer.Option(help="Growth temperature of the organism in degC, where you know it.")
    ] = None,
    growth_temperature_column: Annotated[
        str | None, typer.Option(help="Column with growth temperatures in degC; blanks are unknown.")
    ] = None,
    coverage: Coverage = 0.9,
    report: Annotated[Path | None, typer.Option(help="Also write a page with ranking and plots (.html).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad sequence.")] = False,
    threads: Threads = 0,
    store: Store = None,
) -> None:
    """Predict the melting temperature of every sequence.

    Writes id, length, tm_celsius, tm_lower_celsius, tm_upper_celsius, in_domain, status and note. A bad sequence
    becomes a row with status 'error'; the others still get their answer.
    """
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.data.writers import open_writer
    from enzyme_stability.embeddings.files import looks_like_embeddings, read_embeddings
    from enzyme_stability.prediction import COLUMNS
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.progress import count_along

    started = time.monotonic()
    if output != "-" and Path(output).exists() and Path(sequences).exists() and Path(output).samefile(sequences):
        raise DataError(f"{output} is the input itself: write to another file")
    predictor = Predictor.load(model, threads, store)
    if looks_like_embeddings(sequences):
        table = read_embeddings(sequences)
        made = predictor.predict_embeddings(table.ids, table.vectors, made_by=table.metadata, coverage=coverage)
        rows = iter(made)
    else:
        records = read_records(
            sequences, column=column, id_column=id_column, growth_temperature_column=growth_temperature_column
        )
        rows = predictor.predict_records(
            records, growth_temperature=growth_temperature, coverage=coverage, strict=strict
        )
    tally = _Tally(keep=report is not None)
    rows = count_along(tally.along(rows), "sequences")
    first = list(islice(rows, 1))  # what cannot be read at all fails here, before anything is written
    cut_short: DataError | None = None
    with _reader_may_leave(), open_writer(output, COLUMNS, format=output_format) as writer:
        try:
            for row in chain(first, rows):
                writer.write({name: getattr(row, name) for name in COLUMNS})
        except DataError as error:  # the rows so far are good: keep them, then say what happened
            cut_short = error
    if report is not None:
        from enzyme_stability.report import write_report

        write_report(report, tally.kept, predictor, coverage, source=sequences)
    say(f"{tally.summary()} in {time.monotonic() - started:.1f} s ({predictor.name} {__version__})")
    if cut_short is not None:
        raise cut_short


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End quietly when the reader of a pipe has seen enough, as with '| head'."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


class _Tally:
    """Counts rows on their way to the output, and keeps them where a report will need them."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.kept: list[Prediction] = []
        self.rows_seen = self.errors = self.outside = 0

    def along(self, rows: Iterator[Prediction]) -> Iterator[Prediction]:
        for row in rows:
            self.rows_seen += 1
            self.errors += row.status == "error"
            self.outside += row.in_domain is False
            if self.keep:
                self.kept.append(row)
            yield row

    def summary(self) -> str:
        parts = [f"{self.rows_seen - self.errors:,} of {self.rows_seen:,} sequences predicted"]
        if self.outside:
            parts.append(f"{self.outside:,} out of domain")
        if self.errors:
            parts.append(f"{self.errors:,} with errors (see the note column)")
        return ", ".join(parts)
