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
from enzyme_stability.cli.common import Coverage, Model, Profile, Store, Threads, say
from enzyme_stability.errors import ConfigError, DataError, OverloadedError
from enzyme_stability.profiling import profiled

if TYPE_CHECKING:
    from enzyme_stability.client import Client
    from enzyme_stability.prediction import Prediction
    from enzyme_stability.predictor import Predictor

KEY_VARIABLE = "ENZYME_STABILITY_KEY"
_OF_THIS_MACHINE = ("model", "threads", "store", "report")


def predict(
    context: typer.Context,
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
    server: Annotated[
        str | None, typer.Option(help="Address of a running service that predicts instead of this machine.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help=f"File with the API key of the service; else {KEY_VARIABLE} may hold the key.")
    ] = None,
    profile: Profile = None,
) -> None:
    """Predict the melting temperature of every sequence.

    Writes id, length, tm_celsius, tm_lower_celsius, tm_upper_celsius, in_domain, status and note. A bad sequence
    becomes a row with status 'error'; the others still get their answer.
    """
    context.with_resource(profiled(profile))
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.data.writers import open_writer
    from enzyme_stability.embeddings.files import looks_like_embeddings
    from enzyme_stability.prediction import COLUMNS
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.progress import count_along

    started = time.monotonic()
    if output != "-" and Path(output).exists() and Path(sequences).exists() and Path(output).samefile(sequences):
        raise DataError(f"{output} is the input itself: write to another file")
    _check_place(context, server, key_file)
    answering = _service(server, key_file) if server is not None else Predictor.load(model, threads, store)
    if looks_like_embeddings(sequences):
        rows = iter(_from_embeddings(answering, sequences, coverage))
    else:
        records = read_records(
            sequences, column=column, id_column=id_column, growth_temperature_column=growth_temperature_column
        )
        rows = answering.predict_records(
            records, growth_temperature=growth_temperature, coverage=coverage, strict=strict
        )
    tally = _Tally(keep=report is not None)
    rows = count_along(tally.along(rows), "sequences")
    first = list(islice(rows, 1))  # what cannot be read at all fails here, before anything is written
    cut_short: DataError | OverloadedError | None = None
    with _reader_may_leave(), open_writer(output, COLUMNS, format=output_format) as writer:
        try:
            for row in chain(first, rows):
                writer.write({name: getattr(row, name) for name in COLUMNS})
        except (DataError, OverloadedError) as error:  # the rows so far are good: keep them, then say what happened
            cut_short = error
    if report is not None and isinstance(answering, Predictor):
        from enzyme_stability.report import write_report

        write_report(report, tally.kept, answering, coverage, source=sequences)
    say(f"{tally.summary()} in {time.monotonic() - started:.1f} s ({_named(answering)})")
    if cut_short is not None:
        raise cut_short


def _check_place(context: typer.Context, server: str | None, key_file: Path | None) -> None:
    """Refuse options of this machine together with a service, and the other way round."""
    if server is None and key_file is not None:
        raise ConfigError("--key-file is for a service: name it with --server, or leave the key out")
    given = [
        name for name in _OF_THIS_MACHINE if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if server is not None and given:
        raise ConfigError(f"--{given[0]} is for a prediction on this machine: leave it out, or leave out --server")


def _service(server: str, key_file: Path | None) -> Client:
    from enzyme_stability.client import Client

    key = os.environ.get(KEY_VARIABLE) or None
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key_file} cannot be read as a file with a key: {error}") from error
    return Client(server, key=key)


def _from_embeddings(answering: Predictor | Client, path: str, coverage: float) -> list[Prediction]:
    from enzyme_stability.embeddings.files import read_embeddings
    from enzyme_stability.predictor import Predictor

    if not isinstance(answering, Predictor):
        return answering.predict_embeddings(path, coverage=coverage)
    table = read_embeddings(path)
    return answering.predict_embeddings(table.ids, table.vectors, made_by=table.metadata, coverage=coverage)


def _named(answering: Predictor | Client) -> str:
    from enzyme_stability.predictor import Predictor

    if isinstance(answering, Predictor):
        return f"{answering.name} {__version__}"
    model = answering.model()
    return f"{model.name} {model.version} at {answering.url}"


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
