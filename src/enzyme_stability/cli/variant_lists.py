"""The commands 'variants' and 'combine'."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from enzyme_stability.cli.common import Threads, say
from enzyme_stability.cli.variants import (
    Database,
    DeltaModel,
    Exclude,
    Format,
    Interval,
    Keep,
    LanguageModel,
    Msa,
    Name,
    Offset,
    Output,
    WildType,
    records_of,
    write_rows,
)
from enzyme_stability.errors import UnsupportedVariantError, VariantError


def variants(
    wild_type: WildType,
    listed: Annotated[
        list[str], typer.Argument(metavar="VARIANTS...", help="Variants such as A123V or A123V:G45P, or files of them.")
    ],
    output: Output = "-",
    output_format: Format = None,
    model: DeltaModel = "delta_tm",
    name: Name = None,
    offset: Offset = 0,
    msa: Msa = None,
    database: Database = None,
    language_model: LanguageModel = None,
    language_score: Annotated[
        str, typer.Option(help="masked-marginals, wild-type-marginals or pseudo-likelihood.")
    ] = "masked-marginals",
    coverage: Interval = 0.9,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad variant.")] = False,
    threads: Threads = 0,
) -> None:
    """Predict the change of Tm of the variants in a list, in its order; several substitutions are added up.

    delta_tm_celsius = Tm(variant) - Tm(wild type); positive = more stable.
    """
    from enzyme_stability.data.writers import open_writer
    from enzyme_stability.sequence import clean_sequence
    from enzyme_stability.variant import fitting_offset
    from enzyme_stability.variants.evidence import Evidence
    from enzyme_stability.variants.listing import checked, parsed, read_list
    from enzyme_stability.variants.model import DeltaTmModel
    from enzyme_stability.variants.rows import ADDITIVE, OK, VARIANT_COLUMNS, estimate, rounded
    from enzyme_stability.variants.scan import SIGN

    started = time.monotonic()
    loaded = DeltaTmModel.load(model, threads)
    evidence = Evidence(loaded, msa, database, language_model, language_score, threads, say)
    (record,) = records_of(wild_type, name, single=True)
    chain = clean_sequence(record.sequence).chain
    texts = list(read_list(listed))
    read = [parsed(text, offset) for text in texts]
    fitting = [checked(one, chain) for one in read]
    faults = [one for one in fitting if isinstance(one, VariantError)]
    if strict and faults:
        raise faults[0]
    good = [one for one in fitting if not isinstance(one, VariantError)]
    alignment, language_scores = evidence.of(record)
    found = loaded.predict(
        record.sequence, good, alignment=alignment, language_scores=language_scores, coverage=coverage
    )
    extra = evidence.scores(chain, good, loaded.family(chain, alignment).score)
    values = iter(zip(*found, *extra.values(), strict=True))
    with open_writer(output, VARIANT_COLUMNS | dict.fromkeys(extra, float), format=output_format) as writer:
        for text, one in zip(texts, fitting, strict=True):
            if isinstance(one, VariantError):
                kind = "unsupported" if isinstance(one, UnsupportedVariantError) else "error"
                writer.write({"id": record.id, "variant": text, "status": f"{kind}: {one}"})
                continue
            said = [float(value) for value in next(values)]
            several = len(one.substitutions) > 1 and not loaded.is_corrected_for(chain)
            writer.write(
                {
                    "id": record.id,
                    "variant": str(one),
                    "substitutions": len(one.substitutions),
                    **estimate(said[0], said[1], said[2], said[3]),
                    "status": ADDITIVE if several else OK,
                    **{key: rounded(value, 4) for key, value in zip(extra, said[4:], strict=True)},
                }
            )
    better = fitting_offset([one for one in read if not isinstance(one, VariantError)], chain) if faults else None
    if better is not None and better != offset:
        say(f"more of the variants would fit with --offset {better}")
    failures = f", {len(faults)} not predicted (see the status column)" if faults else ""
    say(f"{len(good):,} variants{failures} in {time.monotonic() - started:.1f} s ({loaded.name}); {SIGN}")


def combine(
    wild_type: WildType,
    output: Output = "-",
    output_format: Format = None,
    model: DeltaModel = "delta_tm",
    name: Name = None,
    offset: Offset = 0,
    msa: Msa = None,
    database: Database = None,
    language_model: LanguageModel = None,
    candidates: Annotated[int, typer.Option(min=2, help="Size of the shortlist that designs are made from.")] = 20,
    minimum: Annotated[int, typer.Option(min=2, help="Substitutions in a design, at least.")] = 2,
    maximum: Annotated[int, typer.Option(min=2, help="Substitutions in a design, at most: the mutation budget.")] = 5,
    designs: Annotated[int, typer.Option(min=1, help="How many designs.")] = 10,
    separation: Annotated[int, typer.Option(min=1, help="Residues between two substitutions, at least.")] = 1,
    keep: Keep = "",
    exclude: Exclude = "",
    coverage: Interval = 0.9,
    threads: Threads = 0,
) -> None:
    """Propose designs of several substitutions under the assumption that their effects add up.

    delta_tm_celsius = Tm(variant) - Tm(wild type); positive = more stable.
    """
    from enzyme_stability.variant import parse_positions
    from enzyme_stability.variants.designs import combine as propose
    from enzyme_stability.variants.designs import shortlist
    from enzyme_stability.variants.evidence import Evidence
    from enzyme_stability.variants.model import DeltaTmModel
    from enzyme_stability.variants.rows import VARIANT_COLUMNS, design_rows
    from enzyme_stability.variants.scan import SIGN

    loaded = DeltaTmModel.load(model, threads)
    evidence = Evidence(loaded, msa, database, language_model, "masked-marginals", threads, say)
    (record,) = records_of(wild_type, name, single=True)
    alignment, language_scores = evidence.of(record)
    found = loaded.scan(
        record.sequence,
        name=record.id,
        alignment=alignment,
        language_scores=language_scores,
        offset=offset,
        coverage=coverage,
    )
    places = frozenset(parse_positions(keep, found.wild_type, offset=offset))
    chosen = shortlist(found, candidates, keep=places, exclude=exclude.upper())
    made = propose(
        found,
        chosen,
        minimum=minimum,
        maximum=maximum,
        designs=designs,
        keep=places,
        exclude=exclude.upper(),
        minimum_separation=separation,
        coverage=coverage,
    )
    write_rows(output, VARIANT_COLUMNS, design_rows(record.id, made), output_format)
    say(f"{len(made)} designs, effects added up ({loaded.name}); {SIGN}")
