"""The command line: one thin function a command. Errors of the package's own family end with exit code 2."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from enzyme_stability import __version__
from enzyme_stability.cli.artefacts import pull, push
from enzyme_stability.cli.calibrate import calibrate
from enzyme_stability.cli.common import say
from enzyme_stability.cli.data import data
from enzyme_stability.cli.delta_tm import delta_tm
from enzyme_stability.cli.embedding import embed
from enzyme_stability.cli.export import export
from enzyme_stability.cli.keys import keys
from enzyme_stability.cli.models import models
from enzyme_stability.cli.monitor import monitor
from enzyme_stability.cli.predicting import predict
from enzyme_stability.cli.registry import promote, registry, rollback
from enzyme_stability.cli.serve import serve
from enzyme_stability.cli.submit import submit
from enzyme_stability.cli.training import card, evaluate, info, train
from enzyme_stability.cli.tune import tune
from enzyme_stability.cli.variant_lists import combine, variants
from enzyme_stability.cli.variants import scan
from enzyme_stability.errors import EnzymeStabilityError, MissingDependencyError

app = typer.Typer(
    name="enzyme-stability",
    help="Melting temperature (Tm) of enzymes from sequence, with calibrated intervals and nothing to download.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (predict, scan, variants, combine, embed, train, tune, evaluate, calibrate, card, info, push, pull, serve)
for command in (*_COMMANDS, promote, rollback, export):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(delta_tm, name="delta-tm")
app.add_typer(keys, name="keys")
app.add_typer(monitor, name="monitor")
app.add_typer(submit, name="submit")
app.add_typer(registry, name="registry")

_PACKAGES = {
    "parquet": ("pyarrow",),
    "train": ("hydra", "lightgbm", "matplotlib", "onnx", "onnxmltools", "pandas", "scipy", "sklearn"),
    "plm": ("h5py", "huggingface_hub", "lightning", "peft", "safetensors", "torch", "transformers"),
    "track": ("mlflow", "tensorboard", "wandb"),
    "tune": ("optuna",),
    "gcp": ("fsspec", "gcsfs"),
    "client": ("httpx",),
    "serve": ("alembic", "fastapi", "h11", "multipart", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"),
    "evidently": ("evidently",),
    "postgres": ("psycopg",),
    "traces": ("opentelemetry",),
    "profile": ("pyinstrument",),
    "torchserve": ("model_archiver", "ts"),
}
_EXTRA_OF = {package: extra for extra, packages in _PACKAGES.items() for package in packages}


def main() -> None:
    """Run the command line; turn the package's errors into one sentence and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a letter that the terminal's encoding lacks is no reason to stop
    try:
        app()
    except EnzymeStabilityError as error:
        say(f"error: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        say(f"error: {MissingDependencyError(f'This command ({package})', _EXTRA_OF[package])}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)


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
