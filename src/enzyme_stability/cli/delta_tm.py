"""The commands that make and judge a delta-Tm model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import Root, Threads, say
from enzyme_stability.cli.variants import Database, DeltaModel

delta_tm = typer.Typer(
    no_args_is_help=True, help="Make and judge models of the change of Tm on substitution (positive = more stable)."
)


@delta_tm.command("expected-profile")
def expected_profile(
    sequences: Annotated[Path, typer.Argument(help="FASTA file of many unlabelled proteins; .gz too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Network to write.")] = Path("expected_profile.onnx"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as proteins=20000; see the documentation.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Train the network that foretells the profile of a protein's family from its sequence alone."""
    from enzyme_stability.config.delta_tm import ExpectedProfileSettings
    from enzyme_stability.variants.expected_profile_training import train_expected_profile

    chosen = ExpectedProfileSettings.parse(_values(settings), "--set")
    figures = train_expected_profile(sequences, chosen, output, say, threads)
    print(
        f"cross-entropy {figures['validation']:.4f} nats on proteins left out, {figures['background']:.4f} for the "
        f"composition of all; {figures['proteins']:,} proteins, {figures['columns']:,} columns"
    )
    say(f"wrote {output}")


@delta_tm.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("outputs/delta_tm"),
    root: Root = Path("data"),
    database: Database = None,
    network: Annotated[
        Path | None, typer.Option(help="Network made by 'delta-tm expected-profile'; else that of the built-in model.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as folds=10 or language_model=esm2_650m.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Train a delta-Tm model on measured variants; relatives of the test tables' proteins are left out first."""
    from enzyme_stability.config.delta_tm import DeltaTmConfig
    from enzyme_stability.variants.model import DeltaTmModel
    from enzyme_stability.variants.training import EXPECTED_PROFILE, train_delta_tm

    config = DeltaTmConfig.parse(_values(settings), "--set")
    network = network or DeltaTmModel.builtin().folder / EXPECTED_PROFILE
    model = train_delta_tm(config, root, network, output, database=database, report=say, threads=threads)
    say(f"wrote {model.folder}")


@delta_tm.command()
def evaluate(
    table: Annotated[str, typer.Argument(help="S571, S669, M1261 or a table of your own.")],
    model: DeltaModel = "delta_tm",
    root: Root = Path("data"),
    database: Database = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures and pictures.")] = Path(
        "evaluation"
    ),
    threads: Threads = 0,
) -> None:
    """Compare predictions with measured changes, beside the plain formula and published methods."""
    from enzyme_stability.variants.evaluation import evaluate_delta_tm
    from enzyme_stability.variants.model import DeltaTmModel

    loaded = DeltaTmModel.load(model, threads)
    print(evaluate_delta_tm(loaded, table, root=root, output=output, database=database, threads=threads).summary())
    say(f"figures, pictures and predictions are in {output}")


@delta_tm.command()
def card(
    model: Annotated[str, typer.Argument(help="Folder of a model.")],
    evaluations: Annotated[Path, typer.Argument(help="Folder with the results of 'delta-tm evaluate'.")],
) -> None:
    """Write the model card from the training and the evaluations."""
    from enzyme_stability.variants.card import write_delta_tm_card
    from enzyme_stability.variants.model import DeltaTmModel

    say(f"wrote {write_delta_tm_card(DeltaTmModel.load(model), evaluations)}")


def _values(settings: list[str] | None) -> dict[str, object]:
    """Settings given as name=value, with dots for those within groups."""
    import yaml

    from enzyme_stability.errors import ConfigError

    values: dict[str, object] = {}
    for setting in settings or []:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ConfigError(f"{setting!r} is no setting: give name=value, as in folds=10")
        *groups, last = name.split(".")
        inside = values
        for group in groups:
            inside = inside.setdefault(group, {})  # type: ignore[assignment]
        try:
            inside[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{setting!r}: the value cannot be read") from None
    return values
