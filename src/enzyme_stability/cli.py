"""The command line: one thin function a command. Errors of the package's own family end with exit code 2."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from enzyme_stability import __version__
from enzyme_stability.errors import DataError, EnzymeStabilityError, MissingDependencyError

if TYPE_CHECKING:
    from enzyme_stability.predictor import Prediction

app = typer.Typer(
    name="enzyme-stability",
    help="Melting temperature (Tm) of enzymes from sequence, with calibrated intervals and nothing to download.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(no_args_is_help=True, help="Prepare, split, download and check data.")
app.add_typer(data, name="data")

Model = Annotated[str, typer.Option("--model", "-m", help="Built-in predictor ('builtin', 'tm50') or a folder.")]
Coverage = Annotated[float, typer.Option(help="Share of proteins whose Tm the interval should hold.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads; 0 takes all cores.")]
Root = Annotated[Path, typer.Option("--root", help="Folder with the raw public tables.")]
Recipes = Annotated[str | None, typer.Option("--recipe", help="Prepare the tables of a recipe: tm50 or builtin.")]

_EXTRA_OF = dict.fromkeys(
    ("hydra", "lightgbm", "matplotlib", "onnx", "onnxmltools", "pandas", "scipy", "sklearn"), "train"
)
_EXTRA_OF |= {"pyarrow": "parquet"}


def main() -> None:
    """Run the command line; turn the package's errors into one sentence and exit code 2."""
    try:
        app()
    except EnzymeStabilityError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        _say(f"error: {MissingDependencyError(f'This command ({package})', _EXTRA_OF[package])}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"enzyme-stability {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def predict(
    sequences: Annotated[str, typer.Argument(help="FASTA, CSV, TSV or Parquet, plain or .gz; '-' is standard input.")],
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
) -> None:
    """Predict the melting temperature of every sequence.

    Writes id, length, tm_celsius, tm_lower_celsius, tm_upper_celsius, in_domain, status and note. A bad sequence
    becomes a row with status 'error'; the others still get their answer.
    """
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.data.writers import open_writer
    from enzyme_stability.predictor import COLUMNS, Predictor
    from enzyme_stability.progress import count_along

    started = time.monotonic()
    if output != "-" and Path(output).exists() and Path(sequences).exists() and Path(output).samefile(sequences):
        raise DataError(f"{output} is the input itself: write to another file")
    predictor = Predictor.load(model, threads)
    records = read_records(
        sequences, column=column, id_column=id_column, growth_temperature_column=growth_temperature_column
    )
    rows = predictor.predict_records(records, growth_temperature=growth_temperature, coverage=coverage, strict=strict)
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
    _say(f"{tally.summary()} in {time.monotonic() - started:.1f} s ({predictor.name} {__version__})")
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


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="tm50, builtin, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, such as data.path=mine.csv head.trees.trees=300.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the settings and stop.")] = False,
) -> None:
    """Train a predictor on a table made by 'data prepare' and write it to a folder."""
    from enzyme_stability.configuration import compose

    settings = compose(config, overrides or [])
    if show:
        print(settings.model_dump_json(indent=2))
        return
    from enzyme_stability.training import train as run

    started = time.monotonic()
    predictor = run(settings, _say)
    _say(f"wrote {predictor.folder} after {time.monotonic() - started:.0f} s")


@app.command()
def evaluate(
    table: Annotated[str, typer.Argument(help="A public table such as tm50_test, or a table of your own.")],
    model: Model = "builtin",
    root: Root = Path("data"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures and pictures.")] = Path(
        "evaluation"
    ),
    train_table: Annotated[
        Path | None, typer.Option("--train", help="What the predictor learned from: for baselines and leakage.")
    ] = None,
    with_growth_temperature: Annotated[
        bool, typer.Option("--with-growth-temperature", help="Give the predictor the growth temperature.")
    ] = False,
    coverage: Coverage = 0.9,
) -> None:
    """Compare predictions with measured temperatures: metrics, baselines, published predictors, plots."""
    from enzyme_stability.assessment import assess
    from enzyme_stability.predictor import Predictor

    evaluation = assess(
        Predictor.load(model),
        table,
        root=root,
        output=output,
        train=train_table,
        with_growth_temperature=with_growth_temperature,
        coverage=coverage,
    )
    print(evaluation.summary())
    _say(f"figures, pictures and predictions are in {output}")


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="A built-in predictor or a folder.")],
    evaluations: Annotated[Path, typer.Argument(help="Folder with the results of 'evaluate'.")],
) -> None:
    """Write the model card of a predictor from its training run and its evaluations."""
    from enzyme_stability.assessment import write_card
    from enzyme_stability.predictor import Predictor

    _say(f"wrote {write_card(Predictor.load(model), evaluations)}")


@app.command()
def info(
    model: Annotated[str | None, typer.Argument(help="A built-in predictor or a folder; without it, a list.")] = None,
) -> None:
    """Show the card of a predictor, or list the built-in ones."""
    from enzyme_stability.predictor import Predictor

    if model is None:
        for name in Predictor.builtin_names():
            predictor = Predictor.builtin(name)
            print(f"{name}\t{predictor.digest[:12]}\t{predictor.manifest['description']}")
        return
    predictor = Predictor.load(model)
    card = predictor.folder / "CARD.md"
    if card.is_file():
        print(card.read_text(encoding="utf-8"))
    else:
        print(f"# {predictor.name}\n\n{predictor.manifest['description']}\n\nThis predictor has no card yet.")


@data.command()
def prepare(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables of your own, or names of public ones.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Clean table: .parquet or .csv.")] = Path("clean.csv"),
    removed: Annotated[
        Path | None, typer.Option(help="Table of every raw row that left and why; else beside the output.")
    ] = None,
    recipe: Recipes = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="Test table whose relatives must not be learnt from; may be repeated.")
    ] = None,
    root: Root = Path("data"),
    unit: Annotated[
        Literal["celsius", "kelvin"] | None, typer.Option(help="Unit of your own tables, where no column says.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Make one clean table of raw ones: merged, checked, every lost row accounted for."""
    from enzyme_stability.data import preparation
    from enzyme_stability.data.frames import SUMMARY_SUFFIX

    if (recipe is None) == (not tables):
        raise DataError("give either tables or --recipe")
    if recipe is not None:
        prepared = preparation.prepare_recipe(
            preparation.load_recipe(f"prepare_{recipe}"), root, threads=threads or None
        )
    else:
        prepared = preparation.prepare(
            tables or [],
            root=root,
            held_out=held_out or [],
            unit=unit,
            threads=threads or None,
        )
    account = removed or output.with_name(f"{output.stem}.removed.csv")
    _write_table(prepared.table, output)
    _write_table(prepared.removed, account)
    output.with_suffix(SUMMARY_SUFFIX).write_text(json.dumps(prepared.summary, indent=1) + "\n", encoding="utf-8")
    _say(f"{prepared.summary['raw_rows']:,} raw rows gave {len(prepared.table):,} proteins in {output}")
    for reason, count in prepared.summary["removed"].items():
        _say(f"  {count:,} rows left: {reason}")
    if len(prepared.removed):
        _say(f"every one of them is in {account}")


@data.command()
def split(
    table: Annotated[Path, typer.Argument(help="A table made by 'data prepare'.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; else the table itself.")
    ] = None,
    test_output: Annotated[Path | None, typer.Option(help="Write the test proteins here, and nowhere else.")] = None,
    identity: Annotated[float, typer.Option(help="Sequences this alike share a cluster (0 to 1).")] = 0.3,
    coverage: Annotated[float, typer.Option(help="Share of both sequences the match must cover.")] = 0.5,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    threads: Threads = 0,
) -> None:
    """Add the columns cluster, split and fold: alike sequences never come apart."""
    from enzyme_stability.data.splits import add_split

    done = add_split(
        _read_table(table), identity=identity, coverage=coverage, folds=folds, seed=seed, threads=threads or None
    )
    test = done["split"] == "test"
    if test_output is not None:
        _write_table(done[test], test_output)
    _write_table(done if test_output is None else done[~test], output or table)
    for part, count in done["split"].value_counts().items():
        _say(f"{part}: {count:,} proteins")


@data.command()
def leakage(
    train_table: Annotated[Path, typer.Argument(help="Training sequences: FASTA or a table.")],
    test_table: Annotated[Path, typer.Argument(help="Test sequences: FASTA or a table.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Nearest training protein of each row.")] = None,
    threads: Threads = 0,
) -> None:
    """Report how many test proteins have a relative in the training table."""
    from enzyme_stability.data.leakage import leakage as compare
    from enzyme_stability.data.readers import read_records

    learnt, asked = (list(read_records(path)) for path in (train_table, test_table))
    report = compare([r.sequence for r in learnt], [r.sequence for r in asked], threads=threads or None)
    print(report)
    if output is not None:
        from pandas import DataFrame

        nearest = [learnt[k].id if k >= 0 else None for k in report.nearest]
        table = {"id": [r.id for r in asked], "nearest": nearest, "identity": report.best_identity}
        _write_table(DataFrame(table), output)


@data.command()
def download(
    name: Annotated[str | None, typer.Argument(help="Name of a public table; without it, a list.")] = None,
    root: Root = Path("data"),
    url: Annotated[str | None, typer.Option(help="A mirror to use instead.")] = None,
) -> None:
    """Fetch a public table from its source, resumed where it stopped, checked against its checksum."""
    from enzyme_stability.data.download import download_dataset, downloadable

    if name is None:
        for table, where in downloadable().items():
            print(f"{table}\t{where}")
        return
    _say(f"wrote {download_dataset(name, root, url=url)}")


def _read_table(path: Path) -> Any:
    from enzyme_stability.data.frames import read_table

    return read_table(path)


def _write_table(table: Any, path: Path) -> None:
    from enzyme_stability.data.frames import write_table

    write_table(table, path)
