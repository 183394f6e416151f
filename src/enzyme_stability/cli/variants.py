"""The command 'scan', and what the commands about mutations share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enzyme_stability.cli.common import Threads, say
from enzyme_stability.errors import ConfigError, DataError, SequenceError

if TYPE_CHECKING:
    from enzyme_stability.data.writers import TableWriter
    from enzyme_stability.sequence import Record
    from enzyme_stability.variants.evidence import Evidence
    from enzyme_stability.variants.model import DeltaTmModel
    from enzyme_stability.variants.scan import Scan

WildType = Annotated[str, typer.Argument(help="The wild type: FASTA, CSV, TSV or Parquet; '-' is standard input.")]
Output = Annotated[str, typer.Option("--output", "-o", help="File to write; '-' is standard output.")]
Format = Annotated[
    str | None, typer.Option("--format", "-f", help="csv, tsv, jsonl or parquet; else by the file's name.")
]
DeltaModel = Annotated[
    str, typer.Option("--model", "-m", help="'delta_tm', the built-in model, or folder or URL of another one.")
]
Name = Annotated[str | None, typer.Option("--id", help="The record to take, where the file has several.")]
Offset = Annotated[
    int, typer.Option(help="Number of the first residue, less 1: 26 where it is number 27; may be negative.")
]
Msa = Annotated[
    Path | None, typer.Option("--msa", help="Alignment of relatives: a3m, aligned FASTA or Stockholm; .gz too.")
]
Database = Annotated[
    Path | None, typer.Option("--database", help="FASTA file of proteins to search for relatives (MMseqs2); .gz too.")
]
LanguageModel = Annotated[
    str | None, typer.Option("--language-model", help="Also score with this masked language model, as esm2_650m.")
]
Interval = Annotated[float, typer.Option(help="Share of variants whose measured change the interval should hold.")]
Keep = Annotated[str, typer.Option(help="Residues that stay as they are: 57,102-110,S195.")]
Exclude = Annotated[str, typer.Option(help="Amino acids that are never introduced, in one word: CPM.")]
PerPosition = Annotated[int, typer.Option(min=1, help="Substitutions at one position in the shortlist, at most.")]


def scan(
    wild_type: WildType,
    output: Output = "-",
    output_format: Format = None,
    model: DeltaModel = "delta_tm",
    name: Name = None,
    offset: Offset = 0,
    msa: Msa = None,
    database: Database = None,
    language_model: LanguageModel = None,
    language_score: Annotated[
        str, typer.Option(help="masked-marginals (a pass a position) or wild-type-marginals (one pass).")
    ] = "masked-marginals",
    plot: Annotated[
        list[Path] | None, typer.Option(help="Also draw a heat map: .png, .svg, or .html to explore.")
    ] = None,
    summary: Annotated[str | None, typer.Option(help="Also write a table with a row a position.")] = None,
    shortlist: Annotated[str | None, typer.Option(help="Also write the best substitutions, spread out.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Substitutions in the shortlist.")] = 20,
    rank_by: Annotated[
        str, typer.Option(help="What the shortlist goes by: delta_tm, lower, probability, or a score.")
    ] = "delta_tm",
    explore: Annotated[
        str | None,
        typer.Option(help="Choose what to measure next: greedy, expected-improvement or thompson; see 'calibrate'."),
    ] = None,
    keep: Keep = "",
    exclude: Exclude = "",
    per_position: PerPosition = 2,
    coverage: Interval = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws of --explore thompson.")] = 0,
    threads: Threads = 0,
) -> None:
    """Predict the change of Tm of every single substitution, the most stabilising first.

    delta_tm_celsius = Tm(variant) - Tm(wild type); positive = more stable.
    """
    from enzyme_stability.data.writers import open_writer
    from enzyme_stability.variant import parse_positions
    from enzyme_stability.variants.calibration import next_candidates
    from enzyme_stability.variants.designs import position_summary
    from enzyme_stability.variants.designs import shortlist as choose
    from enzyme_stability.variants.evidence import Evidence
    from enzyme_stability.variants.heat_map import heat_map
    from enzyme_stability.variants.model import LANGUAGE_MODEL_SCORE, PROFILE_SCORE, DeltaTmModel
    from enzyme_stability.variants.rows import SCAN_COLUMNS, SUMMARY_COLUMNS, candidate_rows, summary_rows
    from enzyme_stability.variants.scan import SIGN

    started = time.monotonic()
    _check_targets(output, summary, shortlist, *map(str, plot or []))
    if language_score == "pseudo-likelihood":
        raise ConfigError("--language-score pseudo-likelihood is for lists: use 'enzyme-stability variants'")
    loaded = DeltaTmModel.load(model, threads)
    evidence = Evidence(loaded, msa, database, language_model, language_score, threads, say)
    records = records_of(wild_type, name, single=bool(plot or msa or explore))
    scores = {PROFILE_SCORE: float} if msa or database else {}
    scores |= {LANGUAGE_MODEL_SCORE: float} if evidence.language_model else {}
    tally: Counter[str] = Counter()
    with open_writer(output, SCAN_COLUMNS | scores, format=output_format) as writer:
        made = _scans(records, loaded, evidence, offset, coverage, writer, tally)
        done = [one for one in made if summary or shortlist or plot]
    if summary:
        write_rows(summary, SUMMARY_COLUMNS, (row for s in done for row in summary_rows(s.id, position_summary(s))))
    if shortlist:
        limits: dict[str, Any] = {"size": size, "exclude": exclude.upper(), "per_position": per_position}
        rows: list[Mapping[str, Any]] = []
        for one in done:
            limits["keep"] = frozenset(parse_positions(keep, one.wild_type, offset=offset))
            if explore:
                chosen = next_candidates(loaded, one, method=explore, seed=seed, **limits)
            else:
                chosen = choose(one, rank_by=rank_by, **limits)
            rows += candidate_rows(one.id, chosen)
        write_rows(shortlist, SCAN_COLUMNS, rows)
    elif explore or keep or exclude:
        say("--explore, --keep and --exclude are about the shortlist: give --shortlist FILE too")
    for path, one in product(plot or [], done):
        heat_map(one, path, coverage)
    failures = f", {tally['failed']} not scanned" if tally["failed"] else ""
    took = time.monotonic() - started
    say(f"{tally['substitutions']:,} substitutions{failures} in {took:.1f} s ({loaded.name}); {SIGN}")


def _scans(
    records: Iterable[Record],
    model: DeltaTmModel,
    evidence: Evidence,
    offset: int,
    coverage: float,
    writer: TableWriter,
    tally: Counter[str],
) -> Iterator[Scan]:
    """Write the scan of each record, and pass it on; one that cannot be scanned is a row that says why."""
    from enzyme_stability.variants.rows import scan_rows

    for record in records:
        try:
            if record.problem:
                raise SequenceError(record.problem)
            alignment, scores = evidence.of(record)
            found = model.scan(
                record.sequence,
                name=record.id,
                alignment=alignment,
                language_scores=scores,
                offset=offset,
                coverage=coverage,
            )
        except SequenceError as error:
            tally["failed"] += 1
            say(f"{record.id}: {error}")
            writer.write({"id": record.id, "status": f"error: {error}"})
            continue
        for note in found.notes:
            say(f"{record.id}: {note}")
        for row in scan_rows(found):
            tally["substitutions"] += 1
            writer.write(row)
        yield found


def records_of(source: str, name: str | None, *, single: bool) -> Iterable[Record]:
    """Records of the file: all, the one of a name, or the only one where ``single`` is set.

    Raises:
        DataError: There is none, or several where there must be one.
        SequenceError: The one record cannot be used.
    """
    from enzyme_stability.data.readers import read_records
    from enzyme_stability.sequence import clean_sequence

    records = read_records(source)
    if name is None and not single:
        return records
    every = list(records)
    found = [record for record in every if name in (None, record.id)]
    shown = ", ".join(record.id for record in every[:5]) + ", ..." * (len(every) > 5)
    if not found:
        raise DataError(f"{source} has no record{'' if name is None else f' {name}; it has {shown}'}")
    if len(found) > 1 and name is not None:
        raise DataError(f"{source} has {len(found)} records {name}, and one is needed: give each a name of its own")
    if len(found) > 1:
        raise DataError(f"{source} has {len(found)} records, and one is needed: choose with --id among {shown}")
    try:
        if found[0].problem:
            raise SequenceError(found[0].problem)
        clean_sequence(found[0].sequence)
    except SequenceError as error:
        raise SequenceError(f"{found[0].id}: {error}") from None
    return found


def _check_targets(*targets: str | None) -> None:
    """Make sure that no table or picture is written over another one of the same command."""
    given = Counter("-" if target == "-" else str(Path(target).resolve()) for target in targets if target)
    for target, times in given.items():
        if times > 1:
            name = "standard output" if target == "-" else target
            raise ConfigError(f"{name} would take {times} outputs of this command: name a file for each")


def write_rows(
    target: str, columns: Mapping[str, type], rows: Iterable[Mapping[str, Any]], output_format: str | None = None
) -> None:
    """Write one table."""
    from enzyme_stability.data.writers import open_writer

    with open_writer(target, columns, format=output_format) as writer:
        for row in rows:
            writer.write(row)
