"""The command line as people use it: the same answers whatever the way in and out, one sentence where it cannot."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from enzyme_stability import DeltaTmModel, Predictor, Record, __version__
from enzyme_stability.cli import main
from enzyme_stability.prediction import COLUMNS
from enzyme_stability.sequence import AMINO_ACIDS

CHAIN = AMINO_ACIDS * 5
SCRIPT = Path(sys.executable).with_name("enzyme-stability")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs the command line in this process, in an empty folder; nothing may ever end in a traceback."""
    monkeypatch.chdir(tmp_path)

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
def process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the installed command in a process of its own, in an empty folder."""
    if not SCRIPT.is_file():
        pytest.skip(f"the package is not installed: there is no {SCRIPT}")
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        # A background shell has its children ignore the interrupt; a person's terminal does not.
        running = subprocess.Popen(
            [SCRIPT, *map(str, arguments)],
            cwd=tmp_path,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            preexec_fn=_heed_interrupts if os.name == "posix" else None,  # noqa: PLW1509 - no threads here
        )
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()
        running.communicate()


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def as_csv(records: list[Record], predictor: Predictor, **settings: Any) -> list[dict[str, str]]:
    """What Python says, written the way a CSV file says it."""

    def cell(value: object) -> str:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return [{name: cell(getattr(row, name)) for name in COLUMNS} for row in predictor.predict(records, **settings)]


def records_of(fasta: Path) -> list[Record]:
    entries = (part.split("\n", 1) for part in fasta.read_text().split(">")[1:])
    return [Record(header.split("|")[1], body.replace("\n", "")) for header, body in entries]


@pytest.fixture(scope="module")
def mixed() -> list[Record]:
    """Good, changed and bad sequences."""
    return [
        Record("first", CHAIN),
        Record("bad", "MKV1LAARRWQ"),
        Record("rare", f"{CHAIN}U"),
        Record("short", "MKV"),
        Record("first", CHAIN[::-1]),  # the same name again
        Record("é|ü,;\"'", "W" * 40),
    ]


def fasta_of(records: list[Record], newline: str = "\n") -> bytes:
    return "".join(f">{r.id} some protein{newline}{r.sequence}{newline}" for r in records).encode()


# Ways in and out


def test_examples_come_out_as_csv_on_standard_output(cli: Cli, examples: Path, builtin: Predictor) -> None:
    outcome = cli("predict", examples)
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == ",".join(COLUMNS)
    assert csv_rows(outcome.out) == as_csv(records_of(examples), builtin)
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("12 of 12 sequences predicted")
    assert __version__ in outcome.err


def test_every_way_in_gives_the_answers_of_python(
    cli: Cli, tmp_path: Path, mixed: list[Record], builtin: Predictor
) -> None:
    expected = as_csv(mixed, builtin)
    table = pd.DataFrame({"id": [r.id for r in mixed], "sequence": [r.sequence for r in mixed]})
    fasta = fasta_of(mixed)
    (tmp_path / "in.fasta").write_bytes(fasta)
    (tmp_path / "in.fasta.gz").write_bytes(gzip.compress(fasta))
    (tmp_path / "crlf.fasta").write_bytes(fasta_of(mixed, "\r\n"))
    (tmp_path / "no suffix").write_bytes(fasta)
    table.to_csv(tmp_path / "in.csv", index=False)
    table.to_csv(tmp_path / "in.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "in.csv.gz", index=False)
    table.to_csv(tmp_path / "crlf.csv", index=False, lineterminator="\r\n")
    table.to_parquet(tmp_path / "in.parquet")
    for file in sorted(tmp_path.glob("*")):
        assert csv_rows(cli("predict", file).out) == expected, file.name
    for content in (fasta, gzip.compress(fasta), (tmp_path / "in.csv").read_bytes()):
        assert csv_rows(cli("predict", "-", stdin=content).out) == expected


def test_every_way_out_holds_the_same_rows(cli: Cli, tmp_path: Path, mixed: list[Record], builtin: Predictor) -> None:
    (tmp_path / "in.fasta").write_bytes(fasta_of(mixed))
    rows = [{name: getattr(row, name) for name in COLUMNS} for row in builtin.predict(mixed)]
    for name in ("out.csv", "out.tsv", "out.jsonl", "out.parquet", "out.csv.gz", "out.jsonl.gz"):
        outcome = cli("predict", "in.fasta", "-o", name)
        assert (outcome.code, outcome.out) == (0, "")
    assert csv_rows((tmp_path / "out.csv").read_text()) == as_csv(mixed, builtin)
    assert (tmp_path / "out.tsv").read_text().count("\t") == 7 * 7
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == (tmp_path / "out.csv").read_bytes()
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()
    assert cli("predict", "in.fasta").out == (tmp_path / "out.csv").read_text()
    assert cli("predict", "in.fasta", "-f", "jsonl").out == (tmp_path / "out.jsonl").read_text()


def test_installed_command_says_what_this_process_says(
    cli: Cli, process: Callable[..., subprocess.Popen[bytes]], examples: Path
) -> None:
    running = process("predict", "-")
    out, err = running.communicate(examples.read_bytes(), timeout=60)
    assert running.returncode == 0
    assert out.decode() == cli("predict", examples).out
    assert err.decode().count("\n") == 1


def test_columns_are_chosen_by_name(cli: Cli, tmp_path: Path, builtin: Predictor) -> None:
    pd.DataFrame({"tag": ["x"], "wild": [CHAIN], "mutant": [CHAIN[::-1]], "growth": [60.0]}).to_csv(
        tmp_path / "in.csv", index=False
    )
    outcome = cli(
        "predict", "in.csv", "--column", "mutant", "--id-column", "tag", "--growth-temperature-column", "growth"
    )
    assert csv_rows(outcome.out) == as_csv([Record("x", CHAIN[::-1], 60.0)], builtin)


def test_growth_temperature_is_that_of_the_row_else_that_of_the_option(
    cli: Cli, tmp_path: Path, builtin: Predictor
) -> None:
    (tmp_path / "in.csv").write_text(
        f"id,sequence,growth_temperature\na,{CHAIN},80\nb,{CHAIN},\nc,{CHAIN},4000\nd,{CHAIN},warm\n"
    )
    rows = csv_rows(cli("predict", "in.csv", "--growth-temperature", "15").out)
    assert rows[:2] == as_csv([Record("a", CHAIN, 80.0), Record("b", CHAIN, 15.0)], builtin)
    assert rows[0]["tm_celsius"] != rows[1]["tm_celsius"]
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "error"]
    assert "line 4" in rows[2]["note"]
    assert "warm" in rows[3]["note"]


def test_coverage_and_model_are_those_asked_for(cli: Cli, examples: Path) -> None:
    records = records_of(examples)
    narrow = csv_rows(cli("predict", examples, "--coverage", "0.5", "--model", "tm50").out)
    assert narrow == as_csv(records, Predictor.builtin("tm50"), coverage=0.5)


def test_an_output_that_is_there_is_replaced(cli: Cli, tmp_path: Path, examples: Path) -> None:
    (tmp_path / "out.csv").write_text("old\n" * 10_000)
    cli("predict", examples, "-o", "out.csv")
    assert len(csv_rows((tmp_path / "out.csv").read_text())) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


# What cannot be done


def test_bad_records_are_rows_and_are_counted(cli: Cli, tmp_path: Path, mixed: list[Record]) -> None:
    (tmp_path / "in.fasta").write_bytes(fasta_of(mixed))
    outcome = cli("predict", "in.fasta")
    assert outcome.code == 0
    rows = csv_rows(outcome.out)
    assert [row["id"] for row in rows] == [r.id for r in mixed]
    assert [row["status"] for row in rows] == ["ok", "error", "warning", "error", "ok", "ok"]
    assert "4 of 6 sequences predicted" in outcome.err
    assert "2 with errors" in outcome.err


def test_strict_stops_at_the_first_bad_record(cli: Cli, tmp_path: Path, mixed: list[Record]) -> None:
    (tmp_path / "in.fasta").write_bytes(fasta_of(mixed))
    assert_refused(cli("predict", "in.fasta", "--strict", "-o", "out.csv"), "record bad", "position 4")
    assert not (tmp_path / "out.csv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]


@pytest.mark.parametrize("coverage", ["0", "1", "1.5", "-0.1", "nan", "0.99999"])
def test_a_coverage_that_cannot_be_promised_is_refused(cli: Cli, examples: Path, coverage: str) -> None:
    assert_refused(cli("predict", examples, "--coverage", coverage), "coverage")


@pytest.mark.parametrize("celsius", ["310", "-30", "nan", "inf"])
def test_a_growth_temperature_out_of_range_is_refused(cli: Cli, examples: Path, celsius: str) -> None:
    assert_refused(cli("predict", examples, "--growth-temperature", celsius), "-20 and 150")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b"\n \n", "empty"),
        (random.Random(0).randbytes(2000), "not text"),
        (gzip.compress(fasta_of([Record("a", CHAIN)]))[:-12], "gzip"),
        (b"PAR1 and nothing else", "Parquet"),
        (b"a,b\n1,2\n", "--column"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    cli: Cli, tmp_path: Path, content: bytes | None, word: str
) -> None:
    if content is not None:
        (tmp_path / "input").write_bytes(content)
    assert_refused(cli("predict", "input", "-o", "out.csv"), "input", word)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_in_place_of_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("predict", tmp_path), "is a folder")


@pytest.mark.parametrize("stdin", [b"", b"\0\1\2" * 100])
def test_useless_standard_input_is_refused(cli: Cli, stdin: bytes) -> None:
    assert_refused(cli("predict", "-", stdin=stdin), "standard input")


@pytest.mark.parametrize(
    "arguments",
    [("nowhere.fasta",), ("-m", "nowhere"), ("--coverage", "2"), ("--growth-temperature", "999"), ("--column", "x")],
)
def test_a_run_that_is_refused_writes_nothing_to_standard_output(
    cli: Cli, examples: Path, arguments: tuple[str, ...]
) -> None:
    outcome = cli("predict", *([] if arguments[0] == "nowhere.fasta" else [examples]), *arguments)
    assert outcome.code == 2
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("a file/out.csv", "a file"),
        ("no/such/folder/out.csv", "folder does not exist"),
        ("out.xlsx", ".parquet"),
        ("out", ".parquet"),
        ("folder.csv", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    cli: Cli, tmp_path: Path, examples: Path, output: str, word: str
) -> None:
    (tmp_path / "a file").write_text("kept")
    (tmp_path / "folder.csv").mkdir()
    assert_refused(cli("predict", examples, "-o", output), word)
    assert (tmp_path / "a file").read_text() == "kept"


def test_a_full_disk_is_refused_in_one_sentence(cli: Cli, examples: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    assert_refused(cli("predict", examples, "-o", "/dev/full", "-f", "csv"), "disk is full")


@pytest.mark.parametrize(
    "arguments",
    [("predict",), ("nonsense",), ("predict", "x", "--coverage", "much"), ("predict", "x", "--nonsense")],
)
def test_a_misspelt_command_line_is_explained(cli: Cli, arguments: tuple[str, ...]) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("model", ["nowhere", "a file", "folder"])
def test_a_model_that_is_none_is_refused(cli: Cli, tmp_path: Path, examples: Path, model: str) -> None:
    (tmp_path / "a file").write_text("text")
    (tmp_path / "folder").mkdir()
    assert_refused(cli("predict", examples, "-m", model), model)


def test_a_folder_called_builtin_does_not_take_the_place_of_the_default_model(
    cli: Cli, tmp_path: Path, examples: Path
) -> None:
    expected = cli("predict", examples).out
    (tmp_path / "builtin").mkdir()
    assert cli("predict", examples).out == expected


def test_what_was_read_before_a_file_broke_off_is_kept_and_the_break_is_reported(cli: Cli, tmp_path: Path) -> None:
    choose = random.Random(1)
    records = [Record(f"r{k}", "".join(choose.choices(AMINO_ACIDS, k=60))) for k in range(3000)]
    (tmp_path / "cut.fasta.gz").write_bytes(gzip.compress(fasta_of(records))[:-40_000])
    outcome = cli("predict", "cut.fasta.gz", "-o", "out.csv")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: cut.fasta.gz: the gzip data is truncated")
    kept = csv_rows((tmp_path / "out.csv").read_text())
    assert 0 < len(kept) < 3000
    assert [row["id"] for row in kept] == [f"r{k}" for k in range(len(kept))]


# Stopped half-way


def test_a_reader_that_has_seen_enough_closes_the_pipe_quietly(
    process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "in.fasta").write_bytes(fasta_of([Record(f"r{k}", CHAIN[:20]) for k in range(4000)]))
    running = process("predict", "in.fasta")
    assert running.stdout is not None
    assert running.stdout.readline().decode().rstrip("\n") == ",".join(COLUMNS)
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == b""
    assert running.wait(timeout=60) == 0


def half_way(running: subprocess.Popen[bytes], folder: Path) -> None:
    """Give more than a chunk, keep the input open, and wait until the run is in the middle of writing."""
    assert running.stdin is not None
    running.stdin.write(fasta_of([Record(f"r{k}", CHAIN[:20]) for k in range(3000)]))
    running.stdin.flush()
    patience = time.monotonic() + 60
    while not any(path.suffix == ".tmp" for path in folder.iterdir()):
        assert time.monotonic() < patience
        assert running.poll() is None
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_control_c_leaves_the_old_output_and_no_half_file(
    process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("old")
    running = process("predict", "-", "-o", "out.csv")
    half_way(running, tmp_path)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"Traceback" not in err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "old"}


def test_a_killed_run_leaves_the_old_output(process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    running = process("predict", "-", "-o", "out.csv")
    half_way(running, tmp_path)
    running.kill()
    running.communicate(timeout=60)
    assert (tmp_path / "out.csv").read_text() == "old"


# Other commands


def test_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version") == (0, f"enzyme-stability {__version__}\n", "")


def test_info_lists_the_built_in_predictors(cli: Cli) -> None:
    outcome = cli("info")
    assert outcome.code == 0
    lines = [line.split("\t") for line in outcome.out.splitlines()]
    shipped = [*(Predictor.builtin(name) for name in Predictor.builtin_names()), DeltaTmModel.builtin()]
    assert [line[:2] for line in lines] == [[one.name, one.digest[:12]] for one in shipped]
    assert all(len(line[2]) > 20 for line in lines)


def test_info_shows_one_predictor(cli: Cli) -> None:
    outcome = cli("info", "tm50")
    assert outcome.code == 0
    assert "tm50" in outcome.out
    assert_refused(cli("info", "nowhere"), "nowhere")


def test_a_predictor_trained_here_predicts_here(
    cli: Cli, tmp_path: Path, made_up_proteins: pd.DataFrame, quick_settings: dict[str, Any]
) -> None:
    made_up_proteins.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(quick_settings))
    trained = cli("train", "mine.yaml", "output=models/mine", "head.trees.trees=10", "head.ridges.1.landmarks=30")
    assert trained.code == 0
    assert trained.err.splitlines()[-1].startswith("wrote models/mine")
    folder = tmp_path / "models" / "mine"
    settings = json.loads((folder / "predictor.json").read_text())["training"]["config"]
    assert settings["head"]["trees"]["trees"] == 10
    assert [ridge["landmarks"] for ridge in settings["head"]["ridges"]] == [60, 30]
    outcome = cli("predict", "table.csv", "-m", "models/mine")
    assert outcome.code == 0
    assert "(quick " in outcome.err
    records = [Record(f"protein_{k}", s) for k, s in enumerate(made_up_proteins["sequence"])]
    growth = made_up_proteins["growth_temperature_celsius"]
    records = [Record(r.id, r.sequence, None if pd.isna(g) else g) for r, g in zip(records, growth, strict=True)]
    assert csv_rows(outcome.out) == as_csv(records, Predictor(folder))
    assert "quick" in cli("info", "models/mine").out


def test_settings_are_shown_without_training(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("train", "tm50", "seed=5", "--show")
    assert outcome.code == 0
    assert json.loads(outcome.out)["seed"] == 5
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_setting_is_refused_by_name(cli: Cli) -> None:
    outcome = cli("train", "tm50", "+sed=5")
    assert outcome.code == 2
    assert outcome.err.startswith("error: train.yaml")
    assert "sed: " in outcome.err
    assert_refused(cli("train", "tm50", "sed=5"), "'sed'", "did you mean seed?")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("train", "nothing"), "tm50"),
        (("data", "prepare"), "--recipe"),
        (("data", "prepare", "--recipe", "nothing"), "nothing"),
        (("data", "prepare", "nowhere.csv"), "nowhere.csv"),
        (("data", "split", "nowhere.csv"), "nowhere.csv"),
        (("data", "leakage", "nowhere.csv", "nowhere.csv"), "nowhere.csv"),
        (("data", "download", "nothing"), "nothing"),
        (("evaluate", "nowhere.csv"), "nowhere.csv"),
        (("card", "nowhere", "nowhere"), "nowhere"),
    ],
)
def test_what_is_not_there_is_refused_by_name(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    assert_refused(cli(*arguments), word)


def test_downloadable_tables_are_listed(cli: Cli) -> None:
    outcome = cli("data", "download")
    assert outcome.code == 0
    tables = dict(line.split("\t") for line in outcome.out.splitlines())
    assert tables["tm50_test"].startswith("https://")
    assert all(tables.values())


@pytest.fixture
def own_table(tmp_path: Path) -> Path:
    """A user's table: 40 proteins, one measured twice, one too hot to be true."""
    choose = random.Random(9)
    chains = ["".join(choose.choices(AMINO_ACIDS, k=120)) for _ in range(40)]
    lines = [f"p{k},{chain},{40 + k}" for k, chain in enumerate(chains)]
    lines += [f"again,{chains[0]},44", f"oven,{chains[1][::-1]},400"]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["id,sequence,tm_celsius", *lines]) + "\n")
    return path


@pytest.mark.usefixtures("mmseqs")
def test_a_table_is_prepared_split_and_checked_for_leakage(cli: Cli, tmp_path: Path, own_table: Path) -> None:
    prepared = cli("data", "prepare", own_table, "-o", "clean.csv", "--unit", "celsius", "--threads", "1")
    assert prepared.code == 0, prepared.err
    clean = pd.read_csv(tmp_path / "clean.csv")
    removed = pd.read_csv(tmp_path / "clean.removed.csv")
    assert len(clean) == 40
    assert len(clean) + len(removed) == 42
    assert clean["tm_celsius"][0] == 42  # the median of 40 and 44
    assert "42 raw rows gave 40 proteins" in prepared.err

    split = cli("data", "split", "clean.csv", "-o", "split.csv", "--threads", "1")
    assert split.code == 0, split.err
    table = pd.read_csv(tmp_path / "split.csv")
    assert set(table["split"]) == {"train", "calibration", "test"}
    assert sorted(table["fold"].unique()) == [0, 1, 2, 3, 4]
    assert table["sequence"].tolist() == clean["sequence"].tolist()

    report = cli("data", "leakage", "clean.csv", own_table, "-o", "nearest.csv", "--threads", "1")
    assert report.code == 0, report.err
    assert "42 test proteins with a relative among 40 training proteins" in report.out
    assert len(pd.read_csv(tmp_path / "nearest.csv")) == 42


def test_the_input_is_never_overwritten_by_the_output(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "enzymes.csv"
    table.write_text(f"id,sequence\na,{CHAIN}\n")
    before = table.read_text()
    outcome = cli("predict", table, "-o", table)
    assert outcome.code == 2
    assert "is the input itself" in outcome.err
    assert table.read_text() == before


def test_what_was_read_before_a_file_breaks_off_keeps_its_answer(cli: Cli, tmp_path: Path) -> None:
    random.seed(1)
    whole = "".join(f">p{k}\n{''.join(random.choices(AMINO_ACIDS, k=200))}\n" for k in range(300))
    (tmp_path / "cut.fasta.gz").write_bytes(gzip.compress(whole.encode())[:20_000])
    outcome = cli("predict", "cut.fasta.gz", "-o", "out.csv")
    assert outcome.code == 2
    assert "truncated" in outcome.err
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert 100 < len(rows) < 300
    assert all(row["tm_celsius"] for row in rows)
