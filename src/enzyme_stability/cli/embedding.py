"""The command 'embed'."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from enzyme_stability.cli.common import Store, Threads, say

_SHOWN = 5


def embed(
    sequences: Annotated[str, typer.Argument(help="FASTA, CSV, TSV or Parquet, plain or .gz; '-' is standard input.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .h5, .parquet, .pt, .safetensors or .npy.")
    ],
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", help="Language model: name as in 'models list', hub id or folder.")
    ] = "prot_bert",
    pooling: Annotated[
        Literal["mean", "residues"], typer.Option(help="One vector a protein, or one a residue (.h5 only).")
    ] = "mean",
    layer: Annotated[int, typer.Option(help="Hidden layer; -1 is the last.")] = -1,
    window: Annotated[
        int | None, typer.Option(min=1, help="Residues given at once; else the most the model takes.")
    ] = None,
    overlap: Annotated[int, typer.Option(min=0, help="Residues that windows of a long protein share.")] = 256,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="auto is bfloat16 where the hardware has it.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or mps; auto takes a GPU where there is one.")] = "auto",
    token_budget: Annotated[
        int | None, typer.Option(min=1, help="Tokens in a batch, which bounds memory; else what suits the device.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column with the sequences, where a table has several.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the names.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad sequence.")] = False,
    threads: Threads = 0,
    store: Store = None,
) -> None:
    """Embed every sequence with a protein language model and write the embeddings.

    What was embedded before is looked up; an interrupted command goes on where it stopped when it is given again.
    """
    from enzyme_stability.config import LanguageModel
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.embeddings.encoder import LanguageModelEncoder
    from enzyme_stability.embeddings.export import export_embeddings

    started = time.monotonic()
    settings = {
        "model": encoder,
        "layer": layer,
        "window": window,
        "overlap": overlap,
        "precision": precision,
        "device": device,
        "token_budget": token_budget,
    }
    model = LanguageModelEncoder(
        LanguageModel.parse(settings, "embed"), pooling, store=store, threads=threads, report=say
    )
    records = read_records(sequences, column=column, id_column=id_column)
    done = export_embeddings(records, model, output, strict=strict, report=say)
    for name, reason in done.left_out[:_SHOWN]:
        say(f"left out {name}: {reason}")
    if (more := len(done.left_out) - _SHOWN) > 0:
        say(f"left out {more:,} more")
    say(f"{done.written:,} embeddings in {output} after {time.monotonic() - started:.1f} s")
