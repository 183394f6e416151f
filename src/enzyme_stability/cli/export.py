"""The command 'export'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enzyme_stability.cli.common import say


def export(
    model: Annotated[str, typer.Argument(help="Built-in predictor, or folder or URL of a trained one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    export_format: Annotated[Literal["torchserve"], typer.Option("--format", "-f", help="What will serve it.")] = (
        "torchserve"
    ),
    name: Annotated[str | None, typer.Option(help="Name of the model there; else that of the predictor.")] = None,
) -> None:
    """Pack a predictor for another server: a model archive (.mar) for TorchServe."""
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.torchserve.archive import write_archive

    say(f"wrote {write_archive(Predictor.load(model), output, name)} for {export_format}")
