"""The command that corrects a model for a user's own measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import Coverage, Threads, say
from enzyme_stability.cli.variants import Database, LanguageModel, Msa, Name, Offset, records_of
from enzyme_stability.command_line import command_line

_SHOWN = 5  # rows left out that are named; the rest are counted


def calibrate(
    measurements: Annotated[
        Path, typer.Argument(help="Your own table: sequence and tm_celsius; or, with --wild-type, measured variants.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder or URL of a predictor, or a built-in one; 'builtin' or 'delta_tm'."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder to write; else one of the predictor's name.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new predictor; else the old one with '-recalibrated'.")
    ] = None,
    wild_type: Annotated[
        str | None,
        typer.Option(
            help="Correct the scan of this protein; the table has variant, and delta_tm_celsius or tm_celsius."
        ),
    ] = None,
    record: Name = None,
    offset: Offset = 0,
    wild_type_tm: Annotated[
        float | None, typer.Option(help="Tm of the wild type in degC, for tables of Tm without a row WT.")
    ] = None,
    msa: Msa = None,
    database: Database = None,
    language_model: LanguageModel = None,
    coverage: Coverage = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the bootstrap.")] = 0,
    threads: Threads = 0,
) -> None:
    """Correct a predictor for your kind of measurement, or a scan by measured variants of one protein.

    Says whether that helped, on values left out, and writes a new predictor.
    """
    if wild_type is None:
        from enzyme_stability.predictor import Predictor
        from enzyme_stability.recalibration import recalibrate

        predictor = Predictor.load(model or "builtin", threads)
        name = name or f"{predictor.name}-recalibrated"
        done = recalibrate(
            predictor, measurements, output or Path(name), name=name, coverage=coverage, seed=seed, report=say
        )
        _say_left_out(done.left_out)
        print(done.summary())
        say(f"wrote {done.predictor.folder}")
        return
    from enzyme_stability.sequence import clean_sequence
    from enzyme_stability.variants.calibration import calibrate_on_variants
    from enzyme_stability.variants.evidence import Evidence
    from enzyme_stability.variants.measurements import read_measurements
    from enzyme_stability.variants.model import DeltaTmModel

    plain = DeltaTmModel.load(model or "delta_tm", threads)
    (protein,) = records_of(wild_type, record, single=True)
    chain = clean_sequence(protein.sequence).chain
    read = read_measurements(measurements, chain, offset=offset, wild_type_tm=wild_type_tm)
    _say_left_out(read.left_out)
    for note in read.notes:
        say(note)
    name = name or f"{plain.name}-{re.sub(r'[^A-Za-z0-9_-]+', '_', protein.id)}"  # it names a folder too
    alignment, scores = Evidence(plain, msa, database, language_model, "masked-marginals", threads, say).of(protein)
    made = calibrate_on_variants(
        plain, read, output or Path(name), name=name, alignment=alignment, language_scores=scores
    )
    print(f"{len(read.variants)} measured variants: the correction {made.judgement.verdict}")
    use = command_line(["enzyme-stability", "scan", wild_type, "--model", str(made.model.folder)])
    say(f"wrote {made.model.folder}; use it with: {use}")


def _say_left_out(rows: Sequence[str]) -> None:
    for row in rows[:_SHOWN]:
        say(f"left out: {row}")
    if len(rows) > _SHOWN:
        say(f"left out: {len(rows) - _SHOWN:,} further rows")
