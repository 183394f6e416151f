"""The command 'embed'."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from enzyme_stability.cli.common import Profile, Store, Threads, say
from enzyme_stability.errors import ConfigError
from enzyme_stability.profiling import profiled

if TYPE_CHECKING:
    from enzyme_stability.config import Composition, LanguageModel

_SHOWN = 5


def embed(
    context: typer.Context,
    sequences: Annotated[str, typer.Argument(help="FASTA, CSV, TSV or Parquet, plain or .gz; '-' is standard input.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .h5, .parquet, .pt, .safetensors or .npy.")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            "-e",
            help="Language model (name as in 'models list', hub id or folder), composition, or settings for 'train'.",
        ),
    ] = "prot_bert",
    pooling: Annotated[
        Literal["mean", "residues"], typer.Option(help="One vector a protein, or one a residue (.h5 only).")
    ] = "mean",
    layer: Annotated[int | None, typer.Option(help="Hidden layer; -1 is the last.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Residues given at once; else the most the model takes.")
    ] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Residues that windows of a long protein share.")] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"] | None, typer.Option(help="auto is bfloat16 where the hardware has it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; auto takes a GPU where there is one.")] = None,
    token_budget: Annotated[
        int | None, typer.Option(min=1, help="Tokens in a batch, which bounds memory; else what suits the device.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column with the sequences, where a table has several.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the names.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad sequence.")] = False,
    threads: Threads = 0,
    store: Store = None,
    profile: Profile = None,
) -> None:
    """Embed every sequence with a protein language model, or by descriptors, and write the embeddings.

    What a language model has embedded before is looked up; an interrupted command goes on where it stopped when it is
    given again.
    """
    context.with_resource(profiled(profile))
    from enzyme_stability.config import Composition
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.embeddings.encoder import LanguageModelEncoder
    from enzyme_stability.embeddings.export import export_embeddings
    from enzyme_stability.encoders.composition import CompositionEncoder

    started = time.monotonic()
    given = {
        "layer": layer,
        "window": window,
        "overlap": overlap,
        "precision": precision,
        "device": device,
        "token_budget": token_budget,
    }
    settings = _encoder(encoder, {name: value for name, value in given.items() if value is not None})
    model: CompositionEncoder | LanguageModelEncoder
    if isinstance(settings, Composition):
        if pooling != "mean":
            raise ConfigError("descriptors are one vector a protein: leave --pooling out")
        model = CompositionEncoder(settings.blocks)
    else:
        model = LanguageModelEncoder(settings, pooling, store=store, threads=threads, report=say)
    records = read_records(sequences, column=column, id_column=id_column)
    done = export_embeddings(records, model, output, strict=strict, report=say)
    for name, reason in done.left_out[:_SHOWN]:
        say(f"left out {name}: {reason}")
    if (more := len(done.left_out) - _SHOWN) > 0:
        say(f"left out {more:,} more")
    say(f"{done.written:,} embeddings in {output} after {time.monotonic() - started:.1f} s")


def _encoder(name: str, given: dict[str, Any]) -> Composition | LanguageModel:
    from enzyme_stability.config import Composition, LanguageModel
    from enzyme_stability.configuration import compose

    if name.endswith(".yaml"):
        return compose([name, *(f"encoder.{setting}={value}" for setting, value in given.items())]).encoder
    if name == "composition":
        return Composition.parse(given, "embed")
    return LanguageModel.parse({"model": name, **given}, "embed")
