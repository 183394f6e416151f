"""The commands 'data ...': prepare, split, leakage, download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from enzyme_stability.cli.common import Root, Threads, say
from enzyme_stability.errors import DataError

data = typer.Typer(no_args_is_help=True, help="Prepare, split, download and check data.")
Recipes = Annotated[str | None, typer.Option("--recipe", help="Prepare the tables of a recipe: tm50 or builtin.")]


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
    say(f"{prepared.summary['raw_rows']:,} raw rows gave {len(prepared.table):,} proteins in {output}")
    for reason, count in prepared.summary["removed"].items():
        say(f"  {count:,} rows left: {reason}")
    if len(prepared.removed):
        say(f"every one of them is in {account}")


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
    test_share: Annotated[
        float, typer.Option(min=0, max=0.8, help="Share of the proteins kept for testing; 0 for none.")
    ] = 0.15,
    threads: Threads = 0,
) -> None:
    """Add the columns cluster, split and fold: alike sequences never come apart."""
    from enzyme_stability.data.splits import add_split, shares_with_test

    done = add_split(
        _read_table(table),
        identity=identity,
        coverage=coverage,
        shares=shares_with_test(test_share),
        folds=folds,
        seed=seed,
        threads=threads or None,
    )
    test = done["split"] == "test"
    if test_output is not None:
        _write_table(done[test], test_output)
    _write_table(done if test_output is None else done[~test], output or table)
    for part, count in done["split"].value_counts().items():
        say(f"{part}: {count:,} proteins")


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
    say(f"wrote {download_dataset(name, root, url=url)}")


def _read_table(path: Path) -> Any:
    from enzyme_stability.data.frames import read_table

    return read_table(path)


def _write_table(table: Any, path: Path) -> None:
    from enzyme_stability.data.frames import write_table

    write_table(table, path)
