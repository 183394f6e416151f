"""The commands 'monitor ...' as an operator or a timer runs them: exit codes, sentences, files."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from enzyme_stability import Predictor, Record
from enzyme_stability.cli.monitor import monitor
from enzyme_stability.errors import EnzymeStabilityError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.feedback import Measured, record_feedback
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.monitoring.tables import FeedbackRow, PredictionRow
from enzyme_stability.sequence import AMINO_ACIDS

CHAIN = AMINO_ACIDS * 5
NOW = dt.datetime.now(dt.UTC)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'service.db'}"


@pytest.fixture
def cli(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command on the database of this test, in an empty folder, as the program does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENZYME_STABILITY_DATABASE", url)

    def run(*arguments: str | Path) -> Outcome:
        done = CliRunner().invoke(monitor, list(map(str, arguments)))
        if isinstance(done.exception, EnzymeStabilityError):
            return Outcome(2, done.stdout, f"error: {done.exception}\n")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def database(url: str) -> Database:
    opened = Database(url)
    opened.migrate()
    return opened


def proteins(count: int, *, seed: int, favoured: str = "") -> list[str]:
    choose = random.Random(seed)
    weights = [4 if letter in favoured else 1 for letter in AMINO_ACIDS]
    return ["".join(choose.choices(AMINO_ACIDS, weights, k=choose.randint(90, 300))) for _ in range(count)]


def log(database: Database, predictor: Predictor, sequences: list[str], *, days_ago: float) -> None:
    """Log predictions as a service does, some days ago."""
    with database.session() as session:
        last = session.scalar(select(PredictionRow.id).order_by(PredictionRow.id.desc()).limit(1)) or 0
    records = [Record(f"p{k}", sequence) for k, sequence in enumerate(sequences)]
    written = PredictionLog(database, keep_days=9999, keep_rows=10**6)
    made = predictor.predict(records)
    written.add(records, made, model=predictor.name, model_hash=predictor.digest, coverage=0.9, latency_s=0.1)
    written.close(30)
    with database.session() as session:
        for row in session.scalars(select(PredictionRow).where(PredictionRow.id > last)):
            row.made_at = NOW - dt.timedelta(days=days_ago)


def measured(database: Database, predictor: Predictor, errors: list[float], **columns: Any) -> None:
    """Measurements that lie so far below what is predicted."""
    sequences = proteins(len(errors), seed=11)
    rows = predictor.predict(sequences)
    sent = [
        Measured(f"m{k}", float(row.tm_celsius or 0) - error, sequence, **columns)
        for k, (row, sequence, error) in enumerate(zip(rows, sequences, errors, strict=True))
    ]
    assert {o.status for o in record_feedback(database, predictor, sent)} == {"ok"}


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


# drift


def test_no_drift_drift_and_too_few_have_exit_codes_of_their_own(
    cli: Cli, database: Database, builtin: Predictor, tmp_path: Path
) -> None:
    log(database, builtin, proteins(300, seed=1), days_ago=20)
    log(database, builtin, proteins(300, seed=2), days_ago=10)
    log(database, builtin, proteins(300, seed=3, favoured="EKIV"), days_ago=2)
    log(database, builtin, proteins(20, seed=4), days_ago=0.1)

    quiet = cli("drift", "--since", "12d", "--until", "9d", "--baseline", "30d..12d", "-o", "report.json")
    assert (quiet.code, quiet.err) == (0, "no drift\n")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "no drift"

    moved = cli("drift", "--since", "5d", "--until", "1d", "--baseline", "30d..5d", "-o", "report.json")
    assert moved.code == 1
    assert moved.err.startswith("drift: ")
    assert "share_of_K" in moved.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["proteins"], report["reference_proteins"]) == ("drift", 300, 600)
    assert "share_of_K" in moved.out

    few = cli("drift", "--since", "12h", "-o", "report.json")
    assert few.code == 3
    assert "20 distinct proteins of builtin" in few.err
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "too few"


def test_without_a_baseline_the_reference_is_the_one_of_training(
    cli: Cli, database: Database, builtin: Predictor, tmp_path: Path
) -> None:
    log(database, builtin, proteins(150, seed=3, favoured="W"), days_ago=2)
    done = cli("drift", "--output", "report.json")
    assert done.code == 1
    assert "share_of_W" in done.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["reference_proteins"] == builtin.reference.proteins


def test_predictions_of_another_model_are_not_compared(cli: Cli, database: Database, builtin: Predictor) -> None:
    log(database, builtin, proteins(150, seed=3), days_ago=2)
    done = cli("drift", "--model", "tm50")
    assert done.code == 3
    assert "0 distinct proteins of tm50" in done.err


def test_without_evidently_its_page_is_refused_with_the_install_command(
    cli: Cli, database: Database, builtin: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(database, builtin, proteins(150, seed=3), days_ago=2)
    monkeypatch.setitem(sys.modules, "evidently", None)
    assert_refused(cli("drift", "--html", "drift.html"), "pip install 'enzyme-stability[evidently]'")
    assert not (tmp_path / "drift.html").exists()


@pytest.mark.slow
def test_the_page_of_evidently_is_written(cli: Cli, database: Database, builtin: Predictor, tmp_path: Path) -> None:
    pytest.importorskip("evidently")
    log(database, builtin, proteins(150, seed=3), days_ago=2)
    assert cli("drift", "--html", "drift.html").code == 1
    assert "<html" in (tmp_path / "drift.html").read_text(encoding="utf-8")[:500]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", "soon"), ("--since is 'soon'", "7d")),
        (("--since", "2999-01-01"), ("does not lie before now",)),
        (("--since", "2d", "--until", "3d"), ("does not lie before --until 3d",)),
        (("--since", "99999999999d"), ("before all time",)),
        (("--baseline", "30d"), ("start and end",)),
        (("--since", "7d", "--baseline", "30d..6d"), ("not after --since",)),
        (("--since", "7d", "--baseline", "8d..9d"), ("start must lie before its end",)),
        (("--model", "absent"), ("absent",)),
        (("--output", "absent/report.json"), ("cannot write the drift report",)),
        (("--database", "not a url"), ("no URL",)),
        (("--database", "mysql://u:secret@host/d"), ("not supported",)),
    ],
)
@pytest.mark.usefixtures("database")
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    cli: Cli, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = cli("drift", *options)
    assert_refused(done, *words)
    assert "secret" not in done.err


@pytest.mark.parametrize(
    "command",
    [("drift",), ("performance",), ("log", "out.csv"), ("retrain-set", "out.csv"), ("prune", "--keep-days", "1")],
    ids=" ".join,
)
def test_a_database_that_is_not_there_is_said_and_not_made(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert_refused(cli(*command), "service.db", "unable to open")
    assert list(tmp_path.iterdir()) == []


# feedback


def test_measurements_of_a_file_are_stored_and_bad_rows_named_by_line(
    cli: Cli, url: str, builtin: Predictor, tmp_path: Path
) -> None:
    header = "id,sequence,measured_tm_celsius,organism"
    rows = [f"a,{CHAIN},55.1,E. coli", "b,MKV1,50,", "", f"c,{CHAIN},hot,", f"d,{CHAIN},55.1,"]
    (tmp_path / "own.csv").write_text("\n".join([header, *rows]))
    done = cli("feedback", "own.csv")
    assert done.code == 0
    assert done.out == "4 measurements: 1 stored beside a prediction, 1 with a warning, 2 not usable\n"
    lines = done.err.splitlines()
    assert lines[0].startswith("error: line 3 (b): '1' at position 4")
    assert lines[1] == "error: line 5 (c): the tm 'hot' is no number"
    assert lines[2] == "warning: line 6 (d): this measurement is stored already"
    with Database(url).session(read_only=True) as session:
        (row,) = session.scalars(select(FeedbackRow))
        assert (row.name, row.organism, row.model_hash) == ("a", "E. coli", builtin.digest)
        assert row.tm_celsius == builtin.predict([CHAIN])[0].tm_celsius


def test_of_many_bad_rows_the_first_are_named_and_the_rest_counted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("sequence,tm\n" + f"{CHAIN},hot\n" * 50)
    done = cli("feedback", "own.csv")
    assert len(done.err.splitlines()) == 21
    assert done.err.splitlines()[-1] == "and 30 further rows"


def test_a_file_that_cannot_be_read_leaves_no_database_behind(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("feedback", "absent.csv"), "absent.csv")
    (tmp_path / "predicted.csv").write_text("id,sequence,tm_celsius,tm_lower_celsius\n")
    assert_refused(cli("feedback", "predicted.csv"), "holds predictions")
    assert not (tmp_path / "service.db").exists()


# performance


def test_performance_alerts_by_its_exit_code(cli: Cli, database: Database, builtin: Predictor, tmp_path: Path) -> None:
    measured(database, builtin, [4.0, 6.0] * 10, organism="E. coli [red]", source="DSC")
    done = cli("performance", "--output", "figures.json")
    assert done.code == 1
    assert "alert: predictions are 5.0 +- 0.5 degC too high" in done.err
    assert "E. coli [red]" in done.out
    assert "+5.0 ± 0.5" in done.out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["overall"]["bias"] == pytest.approx(5.0)
    assert figures["alerts"][0] in done.err


def test_performance_is_quiet_where_all_is_well(cli: Cli, database: Database, builtin: Predictor) -> None:
    measured(database, builtin, [1.0, -1.0] * 5)
    assert cli("performance", "--window", "5").code == 0
    assert cli("performance", "--model", "builtin").code == 0
    assert cli("performance", "--model", "tm50").code == 3
    assert_refused(cli("performance", "--window", "month"), "--window is 'month'")
    assert_refused(cli("performance", "--window", "0"), "--window is '0'")


@pytest.mark.usefixtures("database")
def test_nothing_that_came_back_is_no_alert_but_has_its_own_exit_code(cli: Cli) -> None:
    done = cli("performance")
    assert (done.code, done.out) == (3, "")
    assert "nothing measured since" in done.err


# log, retrain-set, prune


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_the_log_is_written_as_a_table(
    cli: Cli, database: Database, builtin: Predictor, tmp_path: Path, name: str
) -> None:
    log(database, builtin, proteins(30, seed=1), days_ago=3)
    log(database, builtin, [CHAIN, "MKV1"], days_ago=1)
    assert "32 predictions" in cli("log", name).err
    table = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
    assert len(table) == 32
    assert list(table.columns[-20:]) == list(AMINO_ACIDS)
    assert "composition" not in table
    good, bad = table.iloc[-2], table.iloc[-1]
    assert [good[letter] for letter in AMINO_ACIDS] == [0.05] * 20
    assert good["tm_celsius"] == builtin.predict([CHAIN])[0].tm_celsius
    assert (bad["status"], math.isnan(bad["A"]), math.isnan(bad["tm_celsius"])) == ("error", True, True)
    assert pd.to_datetime(good["made_at"]) == pd.Timestamp(NOW - dt.timedelta(days=1))
    cli("log", "some.csv", "--since", "2d", "--until", "1h")
    assert len(pd.read_csv(tmp_path / "some.csv")) == 2
    assert_refused(cli("log", "log.xlsx"), "names no format")


def test_what_came_back_is_written_as_a_table_to_learn_from(
    cli: Cli, database: Database, builtin: Predictor, tmp_path: Path
) -> None:
    measured(database, builtin, [1.0] * 6)
    record_feedback(database, None, [Measured("x", 50.0, sequence_sha256="b" * 64)])
    done = cli("retrain-set", "own.csv")
    assert done.code == 0
    assert done.err.splitlines() == [
        "6 measurements gave 6 rows in own.csv",
        "1 measurements came without a sequence and were left out",
    ]
    assert len(pd.read_csv(tmp_path / "own.csv")) == 6
    assert_refused(cli("retrain-set", "none.csv", "--until", "1d"), "nothing to learn from")


def test_pruning_deletes_predictions_and_keeps_measurements(cli: Cli, database: Database, builtin: Predictor) -> None:
    log(database, builtin, proteins(30, seed=1), days_ago=3)
    log(database, builtin, proteins(20, seed=2), days_ago=1)
    measured(database, builtin, [1.0] * 6)
    assert_refused(cli("prune"), "--keep-days")
    assert cli("prune", "--keep-days", "2").err == "30 predictions deleted\n"
    assert cli("prune", "--keep-rows", "15").err == "5 predictions deleted\n"
    with database.session(read_only=True) as session:
        assert len(session.scalars(select(PredictionRow.id)).all()) == 15
        assert len(session.scalars(select(FeedbackRow.id)).all()) == 6
