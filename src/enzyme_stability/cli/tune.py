"""The command that searches hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import say


def tune(
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="As for 'train': what every trial has in common. What is given here is not searched."),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Further trials; 0 only writes what the study has found so far.")
    ] = 50,
    space: Annotated[
        str | None, typer.Option(help="ridge, trees, mlp, light_attention, lora or a YAML file; else the head's own.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="SQLite file, journal file (.journal) or database URL; else study.db in the folder."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Study to begin or to go on with; else the run_name.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; else the run's with '-tune'.")
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option(help="Write the same search as a sweep of Weights & Biases, and stop.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Train the best settings at the end.")] = False,
) -> None:
    """Search the settings with the least error on proteins of held-out clusters; a search can be continued."""
    from enzyme_stability.search import Search, write_search_sweep

    search = Search.plan(settings or [], space, say)
    if sweep is not None:
        write_search_sweep(search, sweep)
        say(f"wrote {sweep}; start it with: wandb sweep {sweep}")
        return
    from enzyme_stability.tuning import tune as run

    tuned = run(search, trials=trials, timeout=timeout, storage=study, name=name, output=output, report=say)
    print(tuned.summary())
    say(f"settings, trials and their history are in {tuned.folder}")
    if train:
        from enzyme_stability.training import train as train_best

        say(f"wrote {train_best(tuned.config, say).folder}")
