"""The commands 'registry ...', 'promote' and 'rollback'."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import Root, Threads, say
from enzyme_stability.errors import ConfigError

registry = typer.Typer(no_args_is_help=True, help="Keep versions of predictors, and say which one is in production.")
Where = Annotated[
    str,
    typer.Option(
        "--registry",
        "-r",
        envvar="ENZYME_STABILITY_REGISTRY",
        help="Folder or address of the registry, as gs://bucket/registry.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the predictor in the registry.")]
AliasName = Annotated[str, typer.Argument(help="Such as staging or production.")]


@registry.command()
def add(
    model: Annotated[str, typer.Argument(help="Built-in predictor, or folder or URL of a trained one.")],
    where: Where,
    name: Annotated[str | None, typer.Option(help="Name in the registry; else the predictor's own.")] = None,
    note: Annotated[str, typer.Option(help="Kept with the version.")] = "",
) -> None:
    """Add a predictor as the next version of its name; the very same one is not added twice."""
    from enzyme_stability.promotion import add as add_version
    from enzyme_stability.registry import Registry

    known, version = add_version(Registry(where), model, name, note)
    say(f"{known} version {version.number} is in {where} (SHA-256 of its manifest: {version.sha256[:12]})")


@registry.command(name="list")
def list_(
    where: Where,
    name: Annotated[str | None, typer.Argument(help="Only this predictor.")] = None,
) -> None:
    """List predictors, their versions and what the aliases name."""
    from enzyme_stability.registry import Registry

    shelf = Registry(where)
    names = shelf.names() if name is None else [name]
    if not any(map(shelf.versions, names)):
        say(f"{where} holds no predictor{'' if name is None else f' called {name}'}")
    print("name\tversion\tsha256\tadded_at\taliases\tnote")
    for one in names:
        aliases = shelf.aliases(one)
        for version in shelf.versions(one):
            named = ",".join(alias for alias, of in aliases.items() if of.version == version.number)
            note = " ".join(version.note.split())
            print(f"{one}\t{version.number}\t{version.sha256[:12]}\t{version.added_at}\t{named or '-'}\t{note or '-'}")


@registry.command()
def benchmark(
    name: Name,
    tables: Annotated[list[str], typer.Argument(help="Public tables such as tm50_test, or tables of your own.")],
    where: Where,
    root: Root = Path("data"),
    terms: Annotated[
        list[str] | None, typer.Option("--set", help="A term other than usual: --set lowest_coverage=0.8.")
    ] = None,
) -> None:
    """Say what every version is judged on before it is promoted; the tables are copied into the registry."""
    from enzyme_stability.data.preparation import prepare_test_table
    from enzyme_stability.promotion import set_benchmark, terms_of
    from enzyme_stability.registry import Registry

    prepared = {Path(table).stem: prepare_test_table(table, root).table for table in tables}
    set_benchmark(Registry(where), name, prepared, terms_of(terms or []))
    for label, table in prepared.items():
        say(f"{name} is judged on {label}: {len(table):,} proteins")


def promote(
    version: Annotated[str, typer.Argument(help="NAME@VERSION, as mine@3.")],
    alias: AliasName,
    where: Where,
    override: Annotated[str, typer.Option(help="Promote whatever is found; say why, it is kept.")] = "",
    threads: Threads = 0,
) -> None:
    """Let an alias name a version, where that is no worse than the one it replaces; else exit with 1.

    Judged on the benchmark of the registry: error, coverage of the intervals, invariance, speed.
    """
    from enzyme_stability.promotion import promote as promote_version
    from enzyme_stability.promotion import verdict_in_words
    from enzyme_stability.registry import Registry

    name, _, number = version.partition("@")
    if not number.isdecimal():
        raise ConfigError(f"{version!r} is no version: give NAME@VERSION, as in mine@3")
    shelf = Registry(where)
    verdict = promote_version(shelf, name, int(number), alias, override=override.strip(), threads=threads, report=print)
    say(verdict_in_words(name, int(number), alias, verdict, override.strip()))
    if not verdict.passed and not override.strip():
        sys.exit(1)


def rollback(name: Name, alias: AliasName, where: Where) -> None:
    """Let an alias name the version that it named before."""
    from enzyme_stability.registry import Registry

    now = Registry(where).roll_back(name, alias)
    say(f"{name}@{alias} is version {now.version} again")
