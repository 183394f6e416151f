"""What the commands share: options that mean the same everywhere, and how messages reach the user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Built-in predictor ('builtin', 'tm50'), or folder or URL of a trained one."),
]
Coverage = Annotated[float, typer.Option(help="Share of proteins whose Tm the interval should hold.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads; 0 takes all cores.")]
Root = Annotated[Path, typer.Option("--root", help="Folder with the raw public tables.")]
Store = Annotated[
    Path | None, typer.Option(help="Folder where embeddings are kept; else the one that all commands share.")
]
Profile = Annotated[
    Path | None, typer.Option("--profile", help="Folder for a profile of the command: where time and memory go.")
]


def say(message: str) -> None:
    """Print a message for the user, apart from results: on standard error."""
    print(message, file=sys.stderr)
