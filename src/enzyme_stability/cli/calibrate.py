"""The command that corrects a predictor for a user's own measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import Coverage, Model, Threads, say

_SHOWN = 5  # rows left out that are named; the rest are counted


def calibrate(
    measurements: Annotated[Path, typer.Argument(help="Your own table: sequence and tm_celsius, at least 20 rows.")],
    model: Model = "builtin",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder to write; else one of the predictor's name.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new predictor; else the old one with '-recalibrated'.")
    ] = None,
    coverage: Coverage = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the bootstrap.")] = 0,
    threads: Threads = 0,
) -> None:
    """Correct a predictor for your kind of measurement, say whether that helped, and write a new predictor."""
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.recalibration import recalibrate

    predictor = Predictor.load(model, threads)
    name = name or f"{predictor.name}-recalibrated"
    done = recalibrate(
        predictor, measurements, output or Path(name), name=name, coverage=coverage, seed=seed, report=say
    )
    for row in done.left_out[:_SHOWN]:
        say(f"left out: {row}")
    if len(done.left_out) > _SHOWN:
        say(f"left out: {len(done.left_out) - _SHOWN:,} further rows")
    print(done.summary())
    say(f"wrote {done.predictor.folder}")
