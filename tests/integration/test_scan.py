"""The command 'scan' as people use it: every substitution ranked, odd input explained, the same bytes each time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from enzyme_stability.cli import main
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.scan import SIGN

HEADER = [
    *("id", "variant", "position", "wild_type", "substitution", "delta_tm_celsius", "delta_tm_lower_celsius"),
    *("delta_tm_upper_celsius", "probability_stabilising", "status"),
]
WILD_TYPE = "FMIPPCATGFYLTLPEPVMRQCSNHAVLRVRWITKWVCDFYKPHMIINNWQWVYQEVYWN"
OTHER = WILD_TYPE[::-1]
RELATIVES = {
    "wt": WILD_TYPE,
    "changed": f"{WILD_TYPE[:5]}A{WILD_TYPE[6:20]}K{WILD_TYPE[21:]}",
    "shorter": f"{WILD_TYPE[:30]}-----{WILD_TYPE[35:50]}EEE{WILD_TYPE[53:]}",
    "longer": f"G{WILD_TYPE[1:40]}aaa{WILD_TYPE[40:]}",
}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out)))


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs the command line in this process, in a folder with the wild type in ``wt.fasta``; never a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("wt.fasta").write_text(f">wt a protein\n{WILD_TYPE}\n")

    def run(*arguments: str | Path, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        outcome = Outcome(int(ended.value.code or 0), *capfd.readouterr())
        assert "Traceback" not in outcome.err
        return outcome

    return run


@pytest.fixture
def scanned(cli: Cli) -> Callable[..., Outcome]:
    """Scans what is given as the content of a file."""

    def scan(content: str | bytes, *options: str, name: str = "given.fasta") -> Outcome:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return cli("scan", name, *options)

    return scan


@pytest.fixture
def alignment(tmp_path: Path) -> Path:
    path = tmp_path / "relatives.a3m"
    path.write_text("".join(f">{name}\n{row}\n" for name, row in RELATIVES.items()))
    return path


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


def save_language_model(folder: Path) -> None:
    """Write a tiny ESM-2 with its head and random weights."""
    import torch
    import transformers

    from tiny_models import esm_config, save_tokeniser, stir

    torch.manual_seed(6)
    language_model = transformers.EsmForMaskedLM(esm_config("rotary"))
    stir(language_model)
    language_model.save_pretrained(folder)
    save_tokeniser("esm2", folder)


def read_table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def values(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], str]:
    """delta Tm by wild-type residue, position and substitution."""
    return {(r["wild_type"], r["position"], r["substitution"]): r["delta_tm_celsius"] for r in rows}


# What comes out


def test_every_substitution_is_a_row_and_the_most_stabilising_comes_first(cli: Cli) -> None:
    outcome = cli("scan", "wt.fasta")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split(",") == HEADER
    expected = {(own, str(k), to) for k, own in enumerate(WILD_TYPE, 1) for to in AMINO_ACIDS if to != own}
    assert len(outcome.rows) == 19 * len(WILD_TYPE)
    assert set(values(outcome.rows)) == expected
    delta = [float(row["delta_tm_celsius"]) for row in outcome.rows]
    assert delta == sorted(delta, reverse=True)
    for row in outcome.rows:
        assert row["variant"] == row["wild_type"] + row["position"] + row["substitution"]
        middle = float(row["delta_tm_celsius"])
        assert float(row["delta_tm_lower_celsius"]) <= middle <= float(row["delta_tm_upper_celsius"])
        assert 0 <= float(row["probability_stabilising"]) <= 1
        assert row["status"] == "ok"


def test_the_sign_is_said_beside_the_results(cli: Cli) -> None:
    assert SIGN in cli("scan", "wt.fasta").err
    assert "positive = more stable" in SIGN


def test_a_scan_is_the_same_bytes_whatever_the_threads_and_the_company(
    cli: Cli, scanned: Callable[..., Outcome]
) -> None:
    alone = cli("scan", "wt.fasta", "--threads", "1").out
    assert cli("scan", "wt.fasta", "--threads", "1").out == alone
    assert cli("scan", "wt.fasta", "--threads", "2").out == alone
    crowd = scanned(f">before\n{OTHER}\n>wt\n{WILD_TYPE}\n>after\n{OTHER * 4}\n").out.splitlines()
    assert [crowd[0], *(line for line in crowd if line.startswith("wt,"))] == alone.splitlines()


def test_a_wider_interval_holds_a_narrower_one(cli: Cli) -> None:
    narrow, wide = (
        {row["variant"]: row for row in cli("scan", "wt.fasta", "--coverage", share).rows} for share in ("0.5", "0.95")
    )
    for variant, row in narrow.items():
        assert row["delta_tm_celsius"] == wide[variant]["delta_tm_celsius"]
        assert float(wide[variant]["delta_tm_lower_celsius"]) < float(row["delta_tm_lower_celsius"])
        assert float(wide[variant]["delta_tm_upper_celsius"]) > float(row["delta_tm_upper_celsius"])


@pytest.mark.parametrize("coverage", ["0", "1", "1.5", "nan"])
def test_a_coverage_out_of_bounds_is_refused(cli: Cli, coverage: str) -> None:
    assert_refused(cli("scan", "wt.fasta", "--coverage", coverage), "coverage")


@pytest.mark.parametrize("offset", [26, -20, 0])
def test_an_offset_changes_the_numbers_and_nothing_else(cli: Cli, offset: int) -> None:
    plain, shifted = cli("scan", "wt.fasta").rows, cli("scan", "wt.fasta", "--offset", str(offset)).rows
    for row, other in zip(plain, shifted, strict=True):
        number = int(row["position"]) + offset
        name = f"{row['wild_type']}{number}{row['substitution']}"
        assert other == row | {"position": str(number), "variant": name}


def test_formats_hold_the_same_rows(cli: Cli) -> None:
    rows = cli("scan", "wt.fasta").rows
    for name in ("scan.tsv", "scan.jsonl", "scan.parquet", "scan.csv.gz"):
        assert cli("scan", "wt.fasta", "-o", name).out == ""
    tsv = list(csv.DictReader(io.StringIO(Path("scan.tsv").read_text()), delimiter="\t"))
    zipped = list(csv.DictReader(io.StringIO(gzip.decompress(Path("scan.csv.gz").read_bytes()).decode())))
    lines = [json.loads(line) for line in Path("scan.jsonl").read_text().splitlines()]
    parquet = pq.read_table("scan.parquet")
    assert tsv == zipped == rows
    assert lines == parquet.to_pylist()
    assert list(lines[0]) == parquet.column_names == HEADER
    assert [{name: str(value) for name, value in line.items()} for line in lines] == rows


# Odd proteins


def test_an_unknown_residue_has_no_rows_and_keeps_its_number(scanned: Callable[..., Outcome]) -> None:
    outcome = scanned(f">x\n{WILD_TYPE[:5]}X{WILD_TYPE[6:]}\n")
    assert "1 X left out" in outcome.err
    assert {int(row["position"]) for row in outcome.rows} == set(range(1, 61)) - {6}
    assert all(row["wild_type"] == WILD_TYPE[int(row["position"]) - 1] for row in outcome.rows)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (f">wt\n{WILD_TYPE.lower()}\n", ""),
        (f">wt\n{WILD_TYPE}*\n", ""),
        (f">wt\r\n{WILD_TYPE[:30]}\r\n{WILD_TYPE[30:]}\r\n", ""),
        (gzip.compress(f">wt\n{WILD_TYPE}\n".encode(), mtime=0), ""),
        (f">wt\n{WILD_TYPE[:10]}--{WILD_TYPE[10:]}\n", "2 gaps removed"),
        (f">wt\n{WILD_TYPE.replace('C', 'U')}\n", "3 U counted as C"),
        (f">wt\n{WILD_TYPE.replace('K', 'O')}\n", "2 O counted as K"),
        (f"id,sequence\nwt,{WILD_TYPE}\n", ""),
    ],
    ids=["lower case", "stop", "CRLF", "gzip", "gaps", "selenocysteine", "pyrrolysine", "table"],
)
def test_spellings_of_one_protein_are_one_scan(
    cli: Cli, scanned: Callable[..., Outcome], content: str | bytes, note: str
) -> None:
    name = "given.csv" if str(content).startswith("id,") else "given.fasta"
    outcome = scanned(content, name=name)
    assert outcome.code == 0
    assert outcome.out == cli("scan", "wt.fasta").out
    assert note in outcome.err


def test_standard_input_is_read(cli: Cli) -> None:
    assert cli("scan", "-", stdin=f">wt\n{WILD_TYPE}\n".encode()).out == cli("scan", "wt.fasta").out


def test_bad_records_are_rows_that_say_why_between_good_ones(scanned: Callable[..., Outcome]) -> None:
    outcome = scanned(f">a\n{WILD_TYPE}\n>bad\nMK1LAARRWQ\n>one\nM\n>none\n>a\n{OTHER}\n")
    assert outcome.code == 0
    assert "3 not scanned" in outcome.err
    names = [row["id"] for row in outcome.rows]
    assert [*dict.fromkeys(names)] == ["a", "bad", "one", "none"]
    assert names.count("a") == 2 * 19 * len(WILD_TYPE)  # the name twice, two proteins
    status = {row["id"]: row["status"] for row in outcome.rows}
    assert status == {
        "a": "ok",
        "bad": "error: '1' at position 3 is not an amino acid",
        "one": "error: a length of 1 is too short to fold; at least 10 residues are needed",
        "none": "error: the sequence is empty",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "empty"), (bytes(range(256)) * 4, "not text"), (gzip.compress(b">wt\nMK")[:-6], "given.fasta")],
)
def test_a_file_without_proteins_is_refused(scanned: Callable[..., Outcome], content: str | bytes, words: str) -> None:
    assert_refused(scanned(content), "given.fasta", words)


def test_a_large_protein_takes_seconds(scanned: Callable[..., Outcome]) -> None:
    chain = "".join(random.Random(3).choices(AMINO_ACIDS, k=2500))
    started = time.monotonic()
    outcome = scanned(f">large\n{chain}\n", "--threads", "1")
    assert time.monotonic() - started < 60
    assert len(outcome.rows) == 19 * 2500


# Further outputs


def test_pictures_page_and_summary_are_written(cli: Cli) -> None:
    plots = [option for name in ("map.png", "map.svg", "map.html") for option in ("--plot", name)]
    outcome = cli("scan", "wt.fasta", "-o", "scan.csv", *plots, "--summary", "positions.csv")
    assert outcome.code == 0
    assert Path("map.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in Path("map.svg").read_text(encoding="utf-8")
    assert SIGN in Path("map.html").read_text(encoding="utf-8")
    summary, rows = read_table("positions.csv"), read_table("scan.csv")
    assert [int(row["position"]) for row in summary] == [*range(1, 61)]
    for row in summary:
        here = [float(one["delta_tm_celsius"]) for one in rows if one["position"] == row["position"]]
        assert float(row["best_delta_tm_celsius"]) == max(here)
        assert float(row["worst_delta_tm_celsius"]) == min(here)
        assert float(row["mean_delta_tm_celsius"]) == pytest.approx(np.mean(here), abs=0.011)


def test_a_shortlist_keeps_what_is_to_be_kept(cli: Cli) -> None:
    options = ("--keep", "1-15,R20,39", "--exclude", "cpm", "--size", "12", "--per-position", "1")
    assert cli("scan", "wt.fasta", "-o", "scan.csv", "--shortlist", "best.csv", *options).code == 0
    scan = {row["variant"]: row for row in read_table("scan.csv")}
    chosen = read_table("best.csv")
    assert list(chosen[0]) == HEADER
    assert len(chosen) == 12
    assert all(row == scan[row["variant"]] for row in chosen)
    assert not {int(row["position"]) for row in chosen} & {*range(1, 16), 20, 39}
    assert not {row["substitution"] for row in chosen} & set("CPM")
    assert len({row["position"] for row in chosen}) == 12


def test_kept_residues_go_by_the_offset(cli: Cli) -> None:
    options = ("--offset", "100", "--shortlist", "best.csv", "--size", "40", "--keep", "F101,102-150")
    assert cli("scan", "wt.fasta", "-o", "scan.csv", *options).code == 0
    assert {int(row["position"]) for row in read_table("best.csv")} <= {*range(151, 161)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep", "V20"), ("V20", "R at position 20")),
        (("--keep", "61"), ("positions 1 to 60",)),
        (("--keep", "9-3"), ("3-9",)),
        (("--keep", "loop"), ("loop", "no position")),
        (("--keep", "1-60"), ("no substitution is left",)),
        (("--exclude", "12"), ("no amino acid",)),
        (("--rank-by", "beauty"), ("beauty", "delta_tm, probability, lower")),
    ],
)
def test_a_shortlist_that_cannot_be_is_refused(cli: Cli, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    outcome = cli("scan", "wt.fasta", "-o", "scan.csv", "--shortlist", "best.csv", *options)
    assert_refused(outcome, *words)
    assert not Path("best.csv").exists()


def test_settings_of_a_shortlist_without_one_are_pointed_out(cli: Cli) -> None:
    outcome = cli("scan", "wt.fasta", "--keep", "1-3")
    assert outcome.code == 0
    assert "give --shortlist" in outcome.err


def test_a_shortlist_can_go_by_the_lower_end(cli: Cli) -> None:
    options = ("--shortlist", "best.csv", "--rank-by", "lower", "--size", "1")
    rows = read_table("scan.csv") if cli("scan", "wt.fasta", "-o", "scan.csv", *options).code == 0 else []
    highest = max(float(row["delta_tm_lower_celsius"]) for row in rows)
    assert float(read_table("best.csv")[0]["delta_tm_lower_celsius"]) == highest


@pytest.mark.parametrize(
    "outputs",
    [
        ("-o", "one.csv", "--summary", "./one.csv"),
        ("-o", "scan.csv", "--summary", "one.csv", "--shortlist", "one.csv"),
        ("--shortlist", "-"),
        ("-o", "one.html", "-f", "csv", "--plot", "one.html"),
    ],
)
def test_two_outputs_never_share_a_file(cli: Cli, tmp_path: Path, outputs: tuple[str, ...]) -> None:
    assert_refused(cli("scan", "wt.fasta", *outputs), "2 outputs", "name a file for each")
    assert [path.name for path in tmp_path.iterdir()] == ["wt.fasta"]


def test_a_picture_is_of_one_protein(scanned: Callable[..., Outcome]) -> None:
    several = f">a\n{WILD_TYPE}\n>b\n{OTHER}\n>twice\n{OTHER}\n>twice\n{OTHER}\n>bad\nM1\n"
    assert_refused(scanned(several, "--plot", "map.html"), "5 records", "choose with --id among a, b, twice")
    assert_refused(scanned(several, "--id", "c"), "no record c", "it has a, b")
    assert_refused(scanned(several, "--id", "twice"), "2 records twice", "name of its own")
    assert_refused(scanned(several, "--id", "bad"), "bad: '1' at position 2")
    assert not Path("map.html").exists()
    outcome = scanned(several, "--id", "b", "--plot", "map.html")
    assert outcome.code == 0
    assert {row["id"] for row in outcome.rows} == {"b"}
    assert Path("map.html").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "wt.fasta/scan.csv"), "wt.fasta/scan.csv"),
        (("-o", "nowhere/scan.csv"), "the folder does not exist"),
        (("-o", "scan.doc"), "names no format"),
        (("--plot", "map.gif"), ".png, .svg or .html"),
        (("--plot", "nowhere/map.html"), "nowhere/map.html"),
        (("--summary", "nowhere/positions.csv"), "the folder does not exist"),
        (("--model", "nowhere"), "no folder of a delta-Tm model"),
        (("--explore", "greedy", "--shortlist", "best.csv"), "calibrate"),
        (("--language-score", "guess"), "masked-marginals"),
        (("--language-score", "pseudo-likelihood"), "enzyme-stability variants"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(cli: Cli, options: tuple[str, ...], words: str) -> None:
    assert_refused(cli("scan", "wt.fasta", *options), words)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only for this user")
def test_a_read_only_folder_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o555)
    assert_refused(cli("scan", "wt.fasta", "-o", "kept/scan.csv"), "no permission")


def test_a_failure_leaves_the_table_that_was_there(scanned: Callable[..., Outcome]) -> None:
    Path("scan.csv").write_text("mine")
    assert scanned("", "-o", "scan.csv").code == 2
    assert Path("scan.csv").read_text() == "mine"


# Relatives and language models


def test_relatives_add_a_score_and_change_the_answer(cli: Cli, alignment: Path) -> None:
    outcome = cli("scan", "wt.fasta", "--msa", alignment)
    assert "3 relatives" in outcome.err
    assert [*outcome.rows[0]] == [*HEADER, "profile_score"]
    assert values(outcome.rows) != values(cli("scan", "wt.fasta").rows)
    scores = {row["variant"]: float(row["profile_score"]) for row in outcome.rows}
    assert scores["C6A"] == max(score for name, score in scores.items() if name.startswith("C6"))  # seen in a relative
    assert (
        cli("scan", "wt.fasta", "--msa", alignment, "--shortlist", "best.csv", "--rank-by", "profile_score").code == 0
    )
    assert read_table("best.csv")[0]["variant"] == max(scores, key=lambda name: scores[name])


@pytest.mark.usefixtures("mmseqs")
def test_a_database_is_searched_for_relatives(cli: Cli) -> None:
    chains = (chain.replace("-", "").upper() for chain in RELATIVES.values())
    Path("proteins.fasta").write_text("".join(f">p{k}\n{chain}\n" for k, chain in enumerate(chains)))
    outcome = cli("scan", "wt.fasta", "--database", "proteins.fasta", "--threads", "1")
    assert outcome.code == 0
    assert "relatives" in outcome.err
    assert all(row["profile_score"] for row in outcome.rows)


def test_relatives_that_do_not_fit_are_refused(cli: Cli, alignment: Path) -> None:
    assert_refused(cli("scan", "wt.fasta", "--msa", alignment, "--database", "wt.fasta"), "--msa or --database")
    Path("other.a3m").write_text(f">a\n{OTHER}\n>b\n{OTHER}\n")
    assert_refused(cli("scan", "wt.fasta", "--msa", "other.a3m"), "no row is the wild type")
    assert_refused(cli("scan", "wt.fasta", "--msa", "none.a3m"), "none.a3m does not exist")
    assert_refused(cli("scan", "wt.fasta", "--database", "none.fasta"), "none.fasta")


def test_a_language_model_adds_its_score(cli: Cli, tmp_path: Path) -> None:
    save_language_model(tmp_path / "esm")
    scores = []
    for method in ("masked-marginals", "wild-type-marginals"):
        options = ("--language-model", "./esm", "--language-score", method, "--threads", "1")
        rows = cli("scan", "wt.fasta", *options).rows
        assert [*rows[0]] == [*HEADER, "language_model_score"]
        assert values(rows) == values(cli("scan", "wt.fasta").rows)  # the built-in model does not take it
        scores.append([float(row["language_model_score"]) for row in rows])
    assert np.std(scores[0]) > 0
    assert scores[0] != scores[1]
    assert_refused(cli("scan", "wt.fasta", "--language-model", "no_such_model"), "no_such_model")


# A process of its own


def test_a_cold_scan_is_quick_and_imports_nothing_heavy(tmp_path: Path, unmeasured: dict[str, str]) -> None:
    chain = "".join(random.Random(4).choices(AMINO_ACIDS, k=300))
    (tmp_path / "wt.fasta").write_text(f">wt\n{chain}\n")
    heavy = "{'torch', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'pyarrow', 'transformers', 'lightgbm'}"
    code = (
        "import sys\nfrom enzyme_stability.cli import main\ntry:\n    main()\nfinally:\n"
        f"    print('imported:', sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    arguments = ["scan", "wt.fasta", "-o", "scan.csv", "--plot", "map.html", "--summary", "positions.csv"]
    settings: dict[str, Any] = {"cwd": tmp_path, "env": unmeasured, "text": True, "timeout": 60}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True, **settings)
    assert time.monotonic() - started < 10
    assert "imported: []" in done.stderr
    assert SIGN in done.stderr
    assert len((tmp_path / "scan.csv").read_text().splitlines()) == 1 + 19 * 300
