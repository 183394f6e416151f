"""The commands 'variants' and 'combine': lists however they are written, numbering that does not fit, and designs."""

from __future__ import annotations

import gzip
import json
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
import test_scan
from test_scan import OTHER, WILD_TYPE, Cli, assert_refused, save_language_model

from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.scan import SIGN

cli, alignment = test_scan.cli, test_scan.alignment  # fixtures

HEADER = [
    *("id", "variant", "substitutions", "delta_tm_celsius", "delta_tm_lower_celsius", "delta_tm_upper_celsius"),
    *("probability_stabilising", "status"),
]
GOOD = ["A7V", "G9P", "E16L", "C6I"]
ROUNDING = 0.005


def listed(rows: list[dict[str, str]]) -> list[str]:
    return [row["variant"] for row in rows]


def numbered_from_0(count: int) -> list[str]:
    """The first substitutions to alanine or glycine, their residues numbered from 0."""
    return [f"{own}{k}{'G' if own == 'A' else 'A'}" for k, own in enumerate(WILD_TYPE[:count])]


# Ways in


def test_variants_keep_their_order_and_agree_with_the_scan(cli: Cli) -> None:
    outcome = cli("variants", "wt.fasta", *GOOD, "A7V")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split(",") == HEADER
    assert SIGN in outcome.err
    assert listed(outcome.rows) == [*GOOD, "A7V"]
    scan = {row["variant"]: row for row in cli("scan", "wt.fasta").rows}
    for row in outcome.rows:
        assert row["substitutions"] == "1"
        for column in HEADER[3:]:
            assert row[column] == scan[row["variant"]][column]


@pytest.mark.parametrize("written", ["a7v", "p.Ala7Val", "Ala7Val", "p.(Ala7Val)", " A7V "])
def test_spellings_of_one_variant_are_one_answer(cli: Cli, written: str) -> None:
    assert cli("variants", "wt.fasta", written).out == cli("variants", "wt.fasta", "A7V").out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", b"# what to try\nA7V\n\n  # and\n G9P \nE16L\nC6I\n"),
        ("list.txt", b"\xef\xbb\xbfA7V\r\nG9P\r\nE16L\r\nC6I"),
        ("list", "\n".join(GOOD).encode()),
        ("list.csv", b'\xef\xbb\xbfname,Mutation\r\nq,A7V\r\n,\r\nr,G9P\r\ns,E16L\r\nt,"C6I"\r\n'),
        ("list.csv", b'# from the bench\nmutant;"value; degC"\nA7V;1,5\nG9P;2\nE16L;0,1\nC6I;\n'),
        ("list.tsv", b"x\tvariant\n1\tA7V\n2\tG9P\n3\tE16L\n4\tC6I\n"),
        ("list.csv.gz", gzip.compress(b"variants\nA7V\nG9P\nE16L\nC6I\n")),
        ("list.csv", "mutations\nA7V\nG9P\nE16L\nC6I\n".encode("utf-16")),
    ],
    ids=["comments", "CRLF", "no suffix", "CSV", "semicolons", "TSV", "gzip", "UTF-16"],
)
def test_files_say_the_same_as_arguments(cli: Cli, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    outcome = cli("variants", "wt.fasta", name)
    assert outcome.out == cli("variants", "wt.fasta", *GOOD).out


def test_files_and_arguments_go_together(cli: Cli) -> None:
    Path("list.txt").write_text("G9P\nWT\n")
    assert listed(cli("variants", "wt.fasta", "A7V", "list.txt", "C6I").rows) == ["A7V", "G9P", "WT", "C6I"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n# nothing\n", "is empty"),
        (bytes(range(256)), "holds no text"),
        (b"variant\0A7V", "holds no text"),
        (gzip.compress(b"variant\nA7V\n")[:-4], "cannot be read"),
        (b'variant\n"A7V\nG9P\n', "line 3"),
        (b"variant,note\nA7V,G9P,good\n", "line 2: 3 fields, but the header has 2"),
    ],
    ids=["empty", "comments", "binary", "NUL", "cut off", "open quote", "comma in a field"],
)
def test_a_file_that_is_no_list_is_refused(cli: Cli, content: bytes, words: str) -> None:
    Path("list.csv").write_bytes(content)
    assert_refused(cli("variants", "wt.fasta", "list.csv"), "list.csv", words)


@pytest.mark.parametrize("argument", ["lst.csv", ".", "folder"])
def test_what_is_neither_file_nor_variant_is_refused(cli: Cli, argument: str) -> None:
    Path("folder").mkdir()
    assert_refused(cli("variants", "wt.fasta", argument), argument, "neither a file nor a variant")


@pytest.mark.skipif(os.name != "posix", reason="arguments are text there")
def test_bytes_that_are_no_text_are_a_row(cli: Cli) -> None:
    outcome = cli("variants", "wt.fasta", os.fsdecode(b"A7\xff"), "A7V")
    assert outcome.code == 0
    assert [row["status"].partition(":")[0] for row in outcome.rows] == ["error", "ok"]


# What becomes of each row


def test_effects_of_several_substitutions_are_the_sum_of_the_single_ones(cli: Cli) -> None:
    single = {row["variant"]: row for row in cli("variants", "wt.fasta", *GOOD).rows}
    triple = cli("variants", "wt.fasta", "E16L,G9P+A7V").rows[0]
    assert (triple["variant"], triple["substitutions"], triple["status"]) == ("A7V:G9P:E16L", "3", "additive")
    parts = [single[name] for name in ("A7V", "G9P", "E16L")]
    total = sum(float(row["delta_tm_celsius"]) for row in parts)
    assert float(triple["delta_tm_celsius"]) == pytest.approx(total, abs=4 * ROUNDING)
    reach = sum((float(r["delta_tm_celsius"]) - float(r["delta_tm_lower_celsius"])) ** 2 for r in parts) ** 0.5
    assert float(triple["delta_tm_lower_celsius"]) == pytest.approx(total - reach, abs=10 * ROUNDING)


def test_the_wild_type_changes_nothing(cli: Cli) -> None:
    for row in cli("variants", "wt.fasta", "WT", "A7A", "p.=").rows:
        assert float(row["delta_tm_celsius"]) == 0
        assert row["probability_stabilising"] == ""
        assert row["status"] == "ok"


@pytest.mark.parametrize(
    ("variant", "status"),
    [
        ("A7del", "unsupported: A7del is a deletion"),
        ("A7_T8insG", "unsupported: A7_T8insG is an insertion"),
        ("A7fs", "unsupported: A7fs is a frame shift"),
        ("A7*", "unsupported: A7* is a stop codon"),
        ("nonsense", "error: 'nonsense' is no variant"),
        ("", "error: the variant is empty"),
        ("A7X", "error: A7X: X is not one of the twenty"),
        ("A7V:A7L", "error: A7V:A7L has 2 substitutions at position 7"),
        ("A700V", "error: A700V: there is no position 700; the wild type has 1 to 60"),
        ("A0V", "error: A0V: there is no position 0"),
        ("A8V", "error: A8V: the wild type has T at position 8, not A; the nearest A: A7 and A26 (with an offset of 1"),
        ("A7V:A8V", "error: A8V: the wild type has T"),
    ],
)
def test_a_bad_variant_is_a_row_that_says_why(cli: Cli, variant: str, status: str) -> None:
    outcome = cli("variants", "wt.fasta", "G9P", variant, "C6I")
    assert outcome.code == 0
    assert "1 not predicted" in outcome.err
    assert [row["status"] == "ok" for row in outcome.rows] == [True, False, True]
    bad = outcome.rows[1]
    assert bad["variant"] == variant
    assert bad["status"].startswith(status)
    assert not any(bad[column] for column in HEADER[2:-1])


@pytest.mark.parametrize(("bad", "words"), [("A8V", "T at position 8"), ("A7del", "deletion"), ("junk", "no variant")])
def test_strict_stops_at_the_first_bad_variant(cli: Cli, bad: str, words: str) -> None:
    outcome = cli("variants", "wt.fasta", "A7V", bad, "nonsense", "--strict")
    assert_refused(outcome, bad, words)
    assert outcome.out == ""


def test_a_missing_cell_is_null_in_json(cli: Cli) -> None:
    lines = [json.loads(line) for line in cli("variants", "wt.fasta", "A7del", "WT", "-f", "jsonl").out.splitlines()]
    assert lines[0]["delta_tm_celsius"] is lines[0]["substitutions"] is None
    assert (lines[1]["delta_tm_celsius"], lines[1]["substitutions"]) == (0, 0)


def test_an_unknown_residue_cannot_be_replaced(cli: Cli) -> None:
    Path("x.fasta").write_text(f">x\n{WILD_TYPE[:5]}X{WILD_TYPE[6:]}\n")
    rows = cli("variants", "x.fasta", "C6A", "A7V", "X6A").rows
    assert [row["status"].partition(":")[0] for row in rows] == ["error", "ok", "error"]
    assert "X at position 6" in rows[0]["status"]


# Numbering


def test_numbers_from_0_are_recognised(cli: Cli) -> None:
    names = numbered_from_0(12)
    outcome = cli("variants", "wt.fasta", *names)
    assert "would fit with --offset -1" in outcome.err
    fixed = cli("variants", "wt.fasta", *names, "--offset", "-1")
    assert "would fit" not in fixed.err
    assert {row["status"] for row in fixed.rows} == {"ok"}
    assert listed(fixed.rows) == names


def test_another_offset_is_not_suggested_where_most_variants_fit(cli: Cli) -> None:
    assert "would fit" not in cli("variants", "wt.fasta", *GOOD, "A8V").err


def test_an_offset_moves_the_numbers_alone(cli: Cli) -> None:
    plain, moved = cli("variants", "wt.fasta", "A7V:G9P").rows[0], None
    for offset, name in ((26, "A33V:G35P"), (-20, "A-13V:G-11P")):
        (moved,) = cli("variants", "wt.fasta", name, "--offset", str(offset)).rows
        assert moved == plain | {"variant": name}


# The protein


def test_one_protein_is_needed(cli: Cli) -> None:
    Path("two.fasta").write_text(f">a\n{WILD_TYPE}\n>b\n{OTHER}\n>short\nMKV\n")
    assert_refused(cli("variants", "two.fasta", "A7V"), "3 records", "--id among a, b, short")
    assert_refused(cli("variants", "two.fasta", "A7V", "--id", "short"), "short: a length of 3 is too short")
    assert cli("variants", "two.fasta", "A7V", "--id", "a").rows[0]["status"] == "ok"
    assert_refused(cli("combine", "two.fasta"), "3 records")
    Path("none.fasta").write_text("")
    assert_refused(cli("variants", "none.fasta", "A7V"), "the file is empty")


def test_relatives_add_the_sum_of_their_scores(cli: Cli, alignment: Path) -> None:
    rows = cli("variants", "wt.fasta", "A7V", "G9P", "A7V:G9P", "WT", "A8V", "--msa", alignment).rows
    assert [*rows[0]] == [*HEADER, "profile_score"]
    first, second, both, none = (float(row["profile_score"]) for row in rows[:4])
    assert both == pytest.approx(first + second, abs=2e-4)
    assert none == 0
    assert rows[4]["profile_score"] == ""
    scan = {row["variant"]: row for row in cli("scan", "wt.fasta", "--msa", alignment).rows}
    assert all(scan[row["variant"]]["profile_score"] == row["profile_score"] for row in rows[:2])


def test_a_language_model_scores_variants_as_a_whole(cli: Cli, tmp_path: Path) -> None:
    save_language_model(tmp_path / "esm")
    found = {}
    for method in ("wild-type-marginals", "masked-marginals", "pseudo-likelihood"):
        options = ("--language-model", "./esm", "--language-score", method, "--threads", "1")
        rows = cli("variants", "wt.fasta", "A7V", "G9P", "A7V:G9P", "WT", "A8V", *options).rows
        assert [*rows[0]] == [*HEADER, "language_model_score"]
        assert rows[4]["language_model_score"] == ""
        found[method] = [float(row["language_model_score"]) for row in rows[:4]]
        assert found[method][3] == 0
        assert len(set(found[method])) == 4
    assert len({tuple(scores) for scores in found.values()}) == 3
    unmasked = found["wild-type-marginals"]
    assert unmasked[2] == pytest.approx(unmasked[0] + unmasked[1], abs=2e-4)
    whole = found["pseudo-likelihood"]
    assert abs(whole[2] - whole[0] - whole[1]) > 2e-4


# Designs


@pytest.fixture
def long(cli: Cli) -> None:  # noqa: ARG001 - the folder is its
    """A protein in ``long.fasta`` that has enough substitutions to choose from."""
    chain = "".join(random.Random(4).choices(AMINO_ACIDS, k=300))
    Path("long.fasta").write_text(f">long\n{chain}\n")


@pytest.mark.usefixtures("long")
def test_designs_add_up_single_substitutions_within_the_budget(cli: Cli) -> None:
    outcome = cli("combine", "long.fasta", "--minimum", "2", "--maximum", "3", "--designs", "6")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split(",") == HEADER
    assert SIGN in outcome.err
    assert "added up" in outcome.err
    single = {row["variant"]: float(row["delta_tm_celsius"]) for row in cli("scan", "long.fasta").rows}
    assert 0 < len(outcome.rows) <= 6
    for row in outcome.rows:
        parts = row["variant"].split(":")
        assert len(parts) == int(row["substitutions"]) in {2, 3}
        assert row["status"] == "additive"
        total = sum(single[part] for part in parts)
        assert float(row["delta_tm_celsius"]) == pytest.approx(total, abs=4 * ROUNDING)
    again = cli("variants", "long.fasta", *listed(outcome.rows)).rows
    for row, other in zip(outcome.rows, again, strict=True):
        assert other["delta_tm_celsius"] == row["delta_tm_celsius"]


@pytest.mark.usefixtures("long")
def test_designs_leave_alone_what_is_kept_and_excluded(cli: Cli) -> None:
    free = cli("combine", "long.fasta").rows
    first, *_, last = free[0]["variant"].split(":")
    place, residue = first[1:-1], last[-1]
    rows = cli("combine", "long.fasta", "--keep", place, "--exclude", residue.lower()).rows
    parts = {part for row in rows for part in row["variant"].split(":")}
    assert parts
    assert all(part[1:-1] != place and part[-1] != residue for part in parts)


@pytest.mark.usefixtures("long")
def test_substitutions_in_a_design_are_as_far_apart_as_asked(cli: Cli) -> None:
    rows = cli("combine", "long.fasta", "--separation", "12", "--candidates", "60", "--maximum", "3").rows
    for row in rows:
        numbers = [int(part[1:-1]) for part in row["variant"].split(":")]
        assert min(b - a for a, b in pairwise(numbers)) >= 12
    assert rows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minimum", "4", "--maximum", "3"), "minimum=4"),
        (("--maximum", "50"), "maximum=50"),
        (("--keep", "1-60"), "no substitution is left"),
        (("--keep", "A1"), "F at position 1"),
        (("--exclude", "7"), "no amino acid"),
        (("--exclude", AMINO_ACIDS), "no substitution is left"),
        (("--separation", "1000"), "separation"),
        (("--coverage", "2"), "coverage"),
    ],
)
def test_designs_that_cannot_be_are_refused(cli: Cli, options: tuple[str, ...], words: str) -> None:
    assert_refused(cli("combine", "wt.fasta", "-o", "designs.csv", *options), words)
    assert not Path("designs.csv").exists()
