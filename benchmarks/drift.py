"""How often does drift alarm where nothing has changed, and how soon does it where something has?

Proteins are drawn again and again as if they were the distinct ones of a log, and compared as 'drift' does it: with the
reference of the built-in predictor, or with one made of a quiet time of the same log. Where nothing changes, reference
and draws are disjoint parts of one population. The rule (far by the population stability index and sure by a test) is
shown beside either half of it alone.

A whole proteome is another population than the proteins whose melting was measured and that the predictor learned
from, so against the built-in reference an alarm on proteomes is right; with a reference of one's own it says whether
something changed since.

Needs the extra 'dev' and the folders proteomes/ and enzymes/ of the public data sets; with --table also the prepared
table of the built-in predictor, whose calibration proteins are drawn.
"""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from threadpoolctl import threadpool_limits

from enzyme_stability import Predictor
from enzyme_stability.configuration import compose
from enzyme_stability.data.readers import read_records
from enzyme_stability.errors import DataError, SequenceError
from enzyme_stability.fitting import set_apart
from enzyme_stability.monitoring.drift import PSI_THRESHOLD, SIGNIFICANCE, DriftReport, drift
from enzyme_stability.reference import Reference, logged_rows
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.training_table import read_training_table
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, keep, machine, number, run, show

PROTEOMES = {
    "E. coli": "UP000000625_escherichia_coli",
    "S. cerevisiae": "UP000002311_saccharomyces_cerevisiae",
    "T. maritima": "UP000008183_thermotoga_maritima",
    "A. aeolicus": "UP000000798_aquifex_aeolicus",
    "C. thermophilum": "UP000008066_chaetomium_thermophilum",
    "S. solfataricus": "UP000001974_saccharolobus_solfataricus",
}
GLYCOSIDASES = "3.2.1."
SIZES = (100, 300, 1000, 3000)
SHARES = (0.05, 0.1, 0.25, 0.5)
QUIET_TIME = 1000
"""Distinct proteins of a reference of one's own."""

LOWER_THRESHOLD = 0.1
"""Of the population stability index, for those who want to hear of less."""

MORE_DRAWS = 5
"""Times the draws where nothing changes: alarms are rare there."""

SHIPPED, OWN = "built-in predictor", "own log"
_SHORTEST_PIECE = 30
_SMOKE_PROTEINS, _SMOKE_QUIET_TIME, _SMOKE_DRAWS = 250, 120, 3

Draw = Callable[[int, np.random.Generator], "tuple[Reference, pd.DataFrame] | None"]


@dataclass(frozen=True)
class Case:
    """What is drawn and compared.

    Attributes:
        name: What the draws are.
        compared_with: What the reference is of.
        changed: Whether an alarm is right.
        draw: Reference and rows for a number of proteins; None where there are not so many.
    """

    name: str
    compared_with: str
    changed: bool
    draw: Draw


def main(
    data: Data = DATA,
    table: Annotated[Path | None, typer.Option(help="Prepared table of the built-in predictor.")] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Draws of each size; five times as many where nothing changes.")
    ] = 200,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Draw, compare and count the alarms; see the top of this file."""
    for folder in ("proteomes", "enzymes"):
        data_file(data, folder)
    facts = machine()
    most, quiet_time = (_SMOKE_PROTEINS, _SMOKE_QUIET_TIME) if smoke else (None, QUIET_TIME)
    draws = _SMOKE_DRAWS if smoke else draws
    found: list[dict[str, Any]] = []
    with threadpool_limits(1):
        predictor = Predictor.builtin(threads=1)
        print("predicting ...", flush=True)
        for case in _cases(predictor, data, table, most, quiet_time):
            print(f"{case.name}, compared with {case.compared_with} ...", flush=True)
            found.append(
                {
                    "name": case.name,
                    "compared_with": case.compared_with,
                    "changed": case.changed,
                    "draws": (many := draws if case.changed else draws * MORE_DRAWS),
                    "sizes": {str(size): _counted(case, size, many) for size in SIZES},
                }
            )
    rule = {
        "psi_threshold": PSI_THRESHOLD,
        "lower_threshold": LOWER_THRESHOLD,
        "significance": SIGNIFICANCE,
        "quiet_time_proteins": quiet_time,
    }
    content = {**rule, "cases": found}
    _print(content)
    print(f"\nfigures are in {keep('drift', results, content, facts, smoke=smoke).name}")


def _cases(predictor: Predictor, data: Path, table: Path | None, most: int | None, quiet_time: int) -> list[Case]:
    """All of them; proteins are predicted once and drawn from what was said."""

    def said(residues: Sequence[str]) -> pd.DataFrame:
        distinct = list(dict.fromkeys(residues))
        return logged_rows(distinct, predictor.predict(distinct))

    proteomes = {name: _proteome(data, file, most) for name, file in PROTEOMES.items()}
    rows = {name: said(list(proteins.values())) for name, proteins in proteomes.items()}
    everything = pd.concat(rows.values()).drop_duplicates("sequence_hash", ignore_index=True)
    usual = rows["E. coli"]
    hot = pd.concat([rows["T. maritima"], rows["A. aeolicus"]], ignore_index=True)
    shifts = {
        "hyperthermophilic bacteria": hot,
        "a eukaryote, S. cerevisiae": rows["S. cerevisiae"],
        "pieces of 30 to 50 %, E. coli": said(_pieces(list(proteomes["E. coli"].values()))),
        "one family, ABC transporters": said(_family(data, proteomes, "ABC transporter")),
        "one kind of enzyme, glycosidases": said(_glycosidases(data, most)),
    }
    cases = []
    if table is not None:
        calibration = said(_calibration_residues(predictor, table)[:most])
        cases.append(
            Case("calibration proteins", "the other half of them", False, _apart(calibration, len(calibration) // 2))
        )
        cases.append(Case("calibration proteins", SHIPPED, False, _against(predictor.reference, calibration)))
    cases += [
        Case("E. coli", OWN, False, _apart(usual, quiet_time)),
        Case("six proteomes", OWN, False, _apart(everything, quiet_time)),
        *(Case(name, OWN, True, _after(usual, quiet_time, other)) for name, other in shifts.items()),
        *(Case(f"{share:.0%} hyperthermophilic", OWN, True, _after(usual, quiet_time, hot, share)) for share in SHARES),
    ]
    known = {"E. coli": usual, "six proteomes": everything, **shifts}
    return cases + [Case(name, SHIPPED, True, _against(predictor.reference, other)) for name, other in known.items()]


def _proteome(data: Path, file: str, most: int | None) -> dict[str, str]:
    """Clean residues by id; what cannot be cleaned is left out."""
    found = {}
    for record in read_records(data / "proteomes" / f"{file}.fasta.gz"):
        try:
            found[record.id] = clean_sequence(record.sequence).residues
        except SequenceError:
            continue
        if len(found) == most:
            break
    return found


def _family(data: Path, proteomes: dict[str, dict[str, str]], words: str) -> list[str]:
    """Proteins of all proteomes with ``words`` in their name."""
    found = []
    for name, file in PROTEOMES.items():
        with gzip.open(data / "proteomes" / f"{file}.fasta.gz", "rt", encoding="utf-8") as lines:
            named = [line.split("|")[1] for line in lines if line.startswith(">") and words in line]
        found += [proteomes[name][one] for one in named if one in proteomes[name]]
    return found


def _glycosidases(data: Path, most: int | None) -> list[str]:
    parts = [pd.read_csv(data / "enzymes" / f"brenda_stability_{part}.csv") for part in ("train", "val")]
    enzymes = pd.concat(parts).drop_duplicates("sequence")
    asked = enzymes.loc[enzymes["ec"].str.startswith(GLYCOSIDASES), "sequence"][:most]
    return [clean_sequence(sequence).residues for sequence in asked]


def _pieces(residues: list[str]) -> list[str]:
    """A random stretch of 30 to 50 % of each chain, as of a gene that was cut."""
    random, pieces = np.random.default_rng(0), []
    for chain in residues:
        length = min(len(chain), max(_SHORTEST_PIECE, int(len(chain) * random.uniform(0.3, 0.5))))
        start = int(random.integers(0, len(chain) - length + 1))
        pieces.append(chain[start : start + length])
    return pieces


def _calibration_residues(predictor: Predictor, table: Path) -> list[str]:
    config = compose([predictor.name, f"data.path={table}"])
    proteins = read_training_table(config)
    apart = proteins.loc[set_apart(proteins, config) == "calibration", "residues"].tolist()
    if len(apart) != predictor.manifest["training"]["calibration_proteins"]:
        raise DataError(f"{table.name} is not the table that the predictor {predictor.name} learned from")
    return apart


def _against(reference: Reference, rows: pd.DataFrame) -> Draw:
    def draw(size: int, random: np.random.Generator) -> tuple[Reference, pd.DataFrame] | None:
        return None if size > len(rows) else (reference, rows.sample(size, random_state=random))

    return draw


def _apart(rows: pd.DataFrame, quiet_time: int) -> Draw:
    """Reference and draw are of one population and share no protein."""
    return _after(rows, quiet_time, rows, 0.0)


def _after(usual: pd.DataFrame, quiet_time: int, other: pd.DataFrame, share: float = 1.0) -> Draw:
    """The reference is of ``usual`` proteins; of the draw a share is ``other``, the rest more of the usual ones."""

    def draw(size: int, random: np.random.Generator) -> tuple[Reference, pd.DataFrame] | None:
        changed = round(size * share)
        if size - changed > len(usual) - quiet_time or changed > len(other):
            return None
        order = random.permutation(len(usual))
        before, after = order[:quiet_time], order[quiet_time : quiet_time + size - changed]
        rows = pd.concat([usual.iloc[after], other.sample(changed, random_state=random)], ignore_index=True)
        return Reference.of(usual.iloc[before]), rows

    return draw


def _counted(case: Case, size: int, draws: int) -> dict[str, Any] | None:
    """Share of the draws with an alarm, by the rule and by either half of it, and what moved the farthest."""
    alarms: defaultdict[str, list[bool]] = defaultdict(list)
    farthest: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for seed in range(draws):
        drawn = case.draw(size, np.random.default_rng(seed))
        if drawn is None:
            return None
        report = drift(*drawn)
        for how, alarm in _alarms(report).items():
            alarms[how].append(alarm)
        verdicts[report.verdict] += 1
        farthest.update(report.drifted[:1])
    return {
        "alarm_share": {how: float(np.mean(found)) for how, found in alarms.items()},
        "verdicts": dict(verdicts),
        "farthest": dict(farthest.most_common(3)),
    }


def _alarms(report: DriftReport) -> dict[str, bool]:
    judged = [(one.psi, one.p_value) for one in report.quantities if one.psi is not None and one.p_value is not None]
    return {
        "rule": bool(report.drifted),
        "rule_with_lower_threshold": any(index >= LOWER_THRESHOLD and p <= SIGNIFICANCE for index, p in judged),
        "index_alone": any(index >= PSI_THRESHOLD for index, _ in judged),
        "test_alone": any(p_value <= SIGNIFICANCE for _, p_value in judged),
    }


def _print(content: dict[str, Any]) -> None:
    sizes = [f"{size:,}" for size in SIZES]
    titles = {
        False: "Nothing has changed: share of draws with an alarm (threshold 0.1; index alone, test alone)",
        True: "Something has changed: share of draws with an alarm (threshold 0.1), and what moved the farthest",
    }
    for changed, title in titles.items():
        cases = [case for case in content["cases"] if case["changed"] is changed]
        rows = [
            (f"{case['name']} | {case['compared_with']}", *(_cell(one, changed) for one in case["sizes"].values()))
            for case in cases
        ]
        show(f"{title}; {cases[0]['draws']} draws of so many proteins", ("draws | compared with", *sizes), rows)


def _cell(counted: dict[str, Any] | None, changed: bool) -> str | None:
    if counted is None:
        return None
    rule, lower, index, test = (number(share, 2 if changed else 3) for share in counted["alarm_share"].values())
    if changed:
        return f"{rule} ({lower}) {next(iter(counted['farthest']), '')}".strip()
    return f"{rule} ({lower}; {index}, {test})"


if __name__ == "__main__":
    run(main)
