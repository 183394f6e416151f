"""Measured variants of one protein correct its scan: from a table on the command line to what to measure next."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_scan
from test_scan import OTHER, WILD_TYPE, Cli, Outcome, assert_refused, read_table

from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import SIGN

cli, alignment = test_scan.cli, test_scan.alignment  # fixtures

MEASURED = 40
METHODS = ("greedy", "expected-improvement", "thompson")
WILD_TYPE_TM = 55.0

Calibrate = Callable[..., Outcome]


class Truth(NamedTuple):
    """A protein as it might be.

    Attributes:
        delta_tm: True delta Tm by variant in degC: what the model says, plus an effect of each position.
        measured: What an experiment says of some variants, by variant in degC.
    """

    delta_tm: dict[str, float]
    measured: dict[str, float]

    def error(self, rows: Sequence[dict[str, str]]) -> float:
        """Mean absolute error of a scan in degC, on the variants that were not measured."""
        unmeasured = [row for row in rows if row["variant"] not in self.measured]
        return float(np.mean([abs(float(r["delta_tm_celsius"]) - self.delta_tm[r["variant"]]) for r in unmeasured]))


@pytest.fixture(scope="module")
def truth() -> Truth:
    random = np.random.default_rng(1)
    delta = DeltaTmModel.builtin(1).scan(WILD_TYPE).estimate.delta_tm + random.normal(4, 6, (len(WILD_TYPE), 1))
    true = {
        f"{own}{place + 1}{to}": float(delta[place, column])
        for place, own in enumerate(WILD_TYPE)
        for column, to in enumerate(AMINO_ACIDS)
        if to != own
    }
    chosen = random.choice(sorted(true), MEASURED, replace=False).tolist()
    return Truth(true, {name: round(true[name] + random.normal(0, 0.5), 2) for name in chosen})


def write_measured(truth: Truth, *further: tuple[str, str], path: str = "measured.csv") -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerows([("variant", "delta_tm_celsius"), *truth.measured.items(), *further])


@pytest.fixture
def calibrate(cli: Cli, truth: Truth) -> Calibrate:
    """Corrects the built-in model into the folder ``mine``."""
    write_measured(truth)

    def run(*options: str | Path, table: str = "measured.csv", output: str = "mine") -> Outcome:
        return cli("calibrate", table, "--wild-type", "wt.fasta", "-o", output, "--threads", "1", *options)

    return run


def test_a_corrected_scan_is_closer_to_the_truth_where_nothing_was_measured(
    cli: Cli, calibrate: Calibrate, truth: Truth
) -> None:
    outcome = calibrate()
    assert outcome.code == 0
    assert outcome.out.startswith(f"{MEASURED} measured variants: the correction helps: ")
    assert "positive = more stable" in outcome.out
    assert "enzyme-stability scan wt.fasta --model mine" in outcome.err
    plain, corrected = cli("scan", "wt.fasta"), cli("scan", "wt.fasta", "--model", "mine")
    assert SIGN in corrected.err
    assert len(corrected.rows) == len(plain.rows)
    assert truth.error(corrected.rows) < 0.75 * truth.error(plain.rows)
    told = {row["variant"]: float(row["delta_tm_celsius"]) for row in corrected.rows}
    assert np.mean([abs(told[name] - value) for name, value in truth.measured.items()]) < 1
    assert corrected.out == cli("scan", "wt.fasta", "--model", "mine").out


def test_other_proteins_are_not_corrected(cli: Cli, calibrate: Calibrate) -> None:
    calibrate()
    Path("other.fasta").write_text(f">other\n{OTHER}\n>longer\n{WILD_TYPE}A\n")
    assert cli("scan", "other.fasta", "--model", "mine").out == cli("scan", "other.fasta").out


def test_several_substitutions_are_told_together(cli: Cli, calibrate: Calibrate, truth: Truth) -> None:
    calibrate()
    names = list(truth.measured)
    first, second = names[0], next(name for name in names if name[1:-1] != names[0][1:-1])
    outcome = cli("variants", "wt.fasta", first, second, f"{first}:{second}", "--model", "mine")
    one, other, both = outcome.rows
    assert [row["status"] for row in outcome.rows] == ["ok"] * 3
    half = [float(row["delta_tm_upper_celsius"]) - float(row["delta_tm_celsius"]) for row in (one, other, both)]
    assert max(half[:2]) <= half[2] + 0.01
    scan = {row["variant"]: row for row in cli("scan", "wt.fasta", "--model", "mine").rows}
    for row in (one, other):
        assert row["delta_tm_celsius"] == scan[row["variant"]]["delta_tm_celsius"]


def test_the_folder_holds_a_complete_model(cli: Cli, calibrate: Calibrate, tmp_path: Path) -> None:
    calibrate("--name", "our esterase")
    model = DeltaTmModel.load(tmp_path / "mine", threads=1)
    assert model.name == "our esterase"
    assert {path.name for path in model.files()} <= {path.name for path in (tmp_path / "mine").iterdir()}
    assert "our esterase" in cli("scan", "wt.fasta", "--model", "mine").err
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert cli("scan", "wt.fasta", "--model", "moved").code == 0


def test_a_folder_gets_the_name_of_the_protein_where_none_is_given(cli: Cli, calibrate: Calibrate) -> None:
    calibrate()
    Path("odd.fasta").write_text(f">sp|../P1|X\n{WILD_TYPE}\n")
    before = set(Path.cwd().iterdir())
    outcome = cli("calibrate", "measured.csv", "--wild-type", "odd.fasta", "--threads", "1")
    assert outcome.code == 0
    (made,) = set(Path.cwd().iterdir()) - before
    assert made.is_dir()
    assert not set(made.name) & set("|/.")
    assert cli("scan", "odd.fasta", "--model", made.name).code == 0


# What to measure next


@pytest.mark.parametrize("method", METHODS)
def test_proposals_are_new_and_the_same_each_time(cli: Cli, calibrate: Calibrate, truth: Truth, method: str) -> None:
    calibrate()
    options = ("--model", "mine", "--explore", method, "--size", "15", "--keep", "1-10", "--exclude", "c")
    tables = []
    for output in ("first.csv", "second.csv"):
        assert cli("scan", "wt.fasta", "-o", "scan.csv", "--shortlist", output, *options).code == 0
        tables.append(Path(output).read_bytes())
    assert tables[0] == tables[1]
    proposed = read_table("first.csv")
    assert len(proposed) == 15
    assert not {row["variant"] for row in proposed} & truth.measured.keys()
    assert min(int(row["position"]) for row in proposed) > 10
    assert "C" not in {row["substitution"] for row in proposed}
    scan = {row["variant"]: row for row in read_table("scan.csv")}
    assert all(row == scan[row["variant"]] for row in proposed)


def test_the_seed_moves_the_draws_of_thompson_sampling_alone(cli: Cli, calibrate: Calibrate) -> None:
    calibrate()
    proposed: dict[tuple[str, str], list[str]] = {}
    for method in METHODS:
        for seed in ("0", "1"):
            options = ("--explore", method, "--seed", seed, "--shortlist", "next.csv", "-o", "scan.csv")
            cli("scan", "wt.fasta", "--model", "mine", *options)
            proposed[method, seed] = [row["variant"] for row in read_table("next.csv")]
    same = {method: proposed[method, "0"] == proposed[method, "1"] for method in METHODS}
    assert same == {"greedy": True, "expected-improvement": True, "thompson": False}


def test_exploring_needs_measurements_of_this_protein(cli: Cli, calibrate: Calibrate) -> None:
    calibrate()
    Path("other.fasta").write_text(f">other\n{OTHER}\n")
    options = ("--explore", "thompson", "--shortlist", "next.csv", "-o", "scan.csv")
    assert_refused(cli("scan", "wt.fasta", *options), "knows no measured variants", "enzyme-stability calibrate")
    assert_refused(cli("scan", "other.fasta", "--model", "mine", *options), "knows no measured variants")
    bad = ("--model", "mine", "--explore", "luck", *options[2:])
    assert_refused(cli("scan", "wt.fasta", *bad), "luck", "thompson")
    assert not Path("next.csv").exists()


# Tables


def test_melting_temperatures_are_compared_with_the_wild_types_row(
    cli: Cli, calibrate: Calibrate, truth: Truth
) -> None:
    calibrate()
    rows = [("mutation", "Tm (°C)"), ("WT", WILD_TYPE_TM)]
    rows += [(name, round(WILD_TYPE_TM + value, 2)) for name, value in truth.measured.items()]
    for name, table in (("tm.csv", rows), ("without.csv", [rows[0], *rows[2:]])):
        Path(name).write_text("".join(f"{variant},{value}\n" for variant, value in table), encoding="utf-8")
    assert calibrate(table="tm.csv", output="from_tm").code == 0
    assert_refused(calibrate(table="without.csv", output="from_less"), "without.csv", "WT")
    assert calibrate("--wild-type-tm", str(WILD_TYPE_TM), table="without.csv", output="from_given").code == 0
    expected = [float(row["delta_tm_celsius"]) for row in cli("scan", "wt.fasta", "--model", "from_given").rows]
    found = [float(row["delta_tm_celsius"]) for row in cli("scan", "wt.fasta", "--model", "mine").rows]
    # the row of the wild type is a measurement like others; it does not change the values of the rest
    assert found == pytest.approx(expected, abs=0.02)


def test_rows_that_cannot_be_used_are_named(calibrate: Calibrate, truth: Truth) -> None:
    write_measured(truth, ("A8V", "1"), ("junk", "2"), ("A7G", "high"), ("A7del", "1"), ("A7L", "500"), ("A7I", ""))
    outcome = calibrate()
    assert outcome.code == 0
    assert outcome.out.startswith(f"{MEASURED} measured variants")
    lines = [line for line in outcome.err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 6
    assert lines[0].startswith("left out: line 42 (A8V): A8V: the wild type has T at position 8")
    assert lines[-1] == "left out: 1 further rows"
    for words in ("line 43 (junk)", "'high' is not a finite number", "A7del is a deletion"):
        assert words in outcome.err


def test_numbers_of_another_scheme_are_explained(calibrate: Calibrate) -> None:
    assert_refused(calibrate("--offset", "3"), "with an offset of 0")
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (bytes(range(256)), "not a text table"),
        (b"variant,activity\nA7V,3\n", "'delta_tm_celsius' or 'tm_celsius'"),
        (b"variant,delta_tm_celsius\nA7V,3\nA7G,1\n", "at least 5"),
    ],
)
def test_a_table_without_enough_is_refused(calibrate: Calibrate, content: bytes, words: str) -> None:
    Path("table.csv").write_bytes(content)
    assert_refused(calibrate(table="table.csv"), "table.csv", words)
    assert not Path("mine").exists()


def test_what_cannot_be_done_is_one_sentence(cli: Cli, calibrate: Calibrate) -> None:
    Path("mine").mkdir()
    assert_refused(calibrate(), "mine exists already")
    assert list(Path("mine").iterdir()) == []
    assert_refused(calibrate(output="wt.fasta/mine"), "wt.fasta/mine")
    assert_refused(calibrate(table="none.csv", output="new"), "none.csv")
    assert_refused(calibrate("--id", "nobody", output="new"), "no record nobody")
    assert_refused(calibrate("--model", "nowhere", output="new"), "nowhere")
    Path("short.fasta").write_text(">short\nMKV\n")
    assert_refused(cli("calibrate", "measured.csv", "--wild-type", "short.fasta"), "short: a length of 3")


# Relatives


def test_the_family_is_kept_in_the_folder(cli: Cli, calibrate: Calibrate, alignment: Path) -> None:
    outcome = calibrate("--msa", alignment)
    assert outcome.code == 0
    assert "3 relatives" in outcome.err
    without, along = (cli("scan", "wt.fasta", "--model", "mine", *more).rows for more in ((), ("--msa", alignment)))
    assert [float(row["delta_tm_celsius"]) for row in without] == pytest.approx(
        [float(row["delta_tm_celsius"]) for row in along], abs=0.02
    )
    assert calibrate(output="plain").code == 0
    assert cli("scan", "wt.fasta", "--model", "mine").out != cli("scan", "wt.fasta", "--model", "plain").out
    assert "family" not in json.loads(Path("plain/delta_tm.json").read_text(encoding="utf-8"))
    Path("other.fasta").write_text(f">other\n{OTHER}\n")
    assert cli("scan", "other.fasta", "--model", "mine").out == cli("scan", "other.fasta").out


def test_a_corrected_model_can_be_corrected_anew(cli: Cli, calibrate: Calibrate) -> None:
    calibrate()
    assert calibrate("--model", "mine", output="again").code == 0
    assert cli("scan", "wt.fasta", "--model", "again").out == cli("scan", "wt.fasta", "--model", "mine").out
