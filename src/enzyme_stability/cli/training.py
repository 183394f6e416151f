"""The commands around a predictor: train, evaluate, card, info."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import Coverage, Model, Profile, Root, Store, say
from enzyme_stability.command_line import command_line
from enzyme_stability.errors import ConfigError
from enzyme_stability.processes import process_rank
from enzyme_stability.profiling import profiled


def train(
    context: typer.Context,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings such as data.path=mine.csv head=ridge; first may come builtin, tm50 or a YAML file."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the settings and stop.")] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the interrupted run in this folder.")
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", help="Run every combination of settings such as seed=1,2 head=mlp,ridge.")
    ] = False,
    profile: Profile = None,
) -> None:
    """Train a predictor on a table made by 'data prepare' and write it, and all about the run, to a folder."""
    context.with_resource(profiled(None if process_rank() else profile))
    from enzyme_stability.configuration import compose, sweep
    from enzyme_stability.run_folder import CONFIG, is_unfinished
    from enzyme_stability.training import train as run

    overrides = list(settings or [])
    if resume is not None:
        if multirun:
            raise ConfigError("--resume goes on with one run: leave --multirun out and name the folder of that run")
        if not (resume / CONFIG).is_file():
            raise ConfigError(f"{resume} holds no run to go on with")
        overrides = [str(resume / CONFIG), *overrides]
    runs = list(sweep(overrides)) if multirun else [([], compose(overrides))]
    for apart, composed in runs:
        # The folder of a run may have been moved since it began.
        config = composed if resume is None else composed.model_copy(update={"output": resume})
        if show:
            print(config.model_dump_json(indent=2))
            continue
        if apart:
            say(f"{config.run_name}: {' '.join(apart)}")
        started = time.monotonic()
        try:
            predictor = run(config, say, resume=resume is not None)
        except KeyboardInterrupt:
            if not process_rank():
                again = f"; to go on: {command_line(['enzyme-stability', 'train', '--resume', str(config.output)])}"
                say(f"interrupted{again if is_unfinished(config.output) else ''}")
            raise
        if not process_rank():
            say(f"wrote {predictor.folder} after {time.monotonic() - started:.0f} s")


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
    metrics: Annotated[
        Path | None, typer.Option(help="File for the main figures alone, as JSON for tools that compare runs.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="File of embeddings to predict from instead of the sequences, by id.")
    ] = None,
    store: Store = None,
) -> None:
    """Compare predictions with measured temperatures: metrics, baselines, published predictors, plots."""
    from enzyme_stability.assessment import assess, write_main_figures
    from enzyme_stability.embeddings.files import read_embeddings
    from enzyme_stability.predictor import Predictor

    predictor = Predictor.load(model, store=store)
    evaluation = assess(
        predictor,
        table,
        root=root,
        output=output,
        train=train_table,
        with_growth_temperature=with_growth_temperature,
        coverage=coverage,
        embeddings=None if embeddings is None else read_embeddings(embeddings),
    )
    if metrics is not None:
        write_main_figures(evaluation, predictor, metrics)
    print(evaluation.summary())
    say(f"figures, pictures and predictions are in {output}")


def card(
    model: Annotated[str, typer.Argument(help="A built-in predictor or a folder.")],
    evaluations: Annotated[Path, typer.Argument(help="Folder with the results of 'evaluate'.")],
) -> None:
    """Write the model card of a predictor from its training run and its evaluations."""
    from enzyme_stability.assessment import write_card
    from enzyme_stability.predictor import Predictor

    say(f"wrote {write_card(Predictor.load(model), evaluations)}")


def info(
    model: Annotated[str | None, typer.Argument(help="A built-in predictor or a folder; without it, a list.")] = None,
) -> None:
    """Show the card of a predictor, or list the built-in ones."""
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.variants.manifest import MANIFEST as DELTA_TM_MANIFEST
    from enzyme_stability.variants.model import DeltaTmModel

    if model is None:
        shipped: list[Predictor | DeltaTmModel] = [Predictor.builtin(name) for name in Predictor.builtin_names()]
        shipped.append(DeltaTmModel.builtin())
        for one in shipped:
            print(f"{one.name}\t{one.digest[:12]}\t{one.manifest['description']}")
        return
    about_variants = model == "delta_tm" or (Path(model) / DELTA_TM_MANIFEST).is_file()
    loaded: Predictor | DeltaTmModel = DeltaTmModel.load(model) if about_variants else Predictor.load(model)
    card = loaded.folder / "CARD.md"
    if card.is_file():
        print(card.read_text(encoding="utf-8"))
    else:
        print(f"# {loaded.name}\n\n{loaded.manifest['description']}\n\nThis model has no card yet.")
