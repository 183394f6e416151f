"""The prediction log: what is kept of every answer, within which bounds, and by how many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up_answers import CHAIN, DIGEST, PATIENCE_S, Start, add, answers, count, records, rows, wait_until
from sqlalchemy import func, select, text

from enzyme_stability import Predictor, Record
from enzyme_stability.monitoring import prediction_log as module
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.hashing import sequence_hash
from enzyme_stability.monitoring.tables import PredictionRow
from enzyme_stability.prediction import Prediction


def test_a_row_says_what_was_asked_and_what_was_answered(database: Database, builtin: Predictor, start: Start) -> None:
    asked = [Record("a", CHAIN, 70.0), Record("b", "mkv*laagivglllaqwertyhg"), Record("c", f"{CHAIN}XU--")]
    given = builtin.predict(asked, coverage=0.8)
    log = start(database)
    log.add(asked, given, model=builtin.name, model_hash=builtin.digest, coverage=0.8, latency_s=0.25)
    assert log.flush(PATIENCE_S)
    plain, bad, changed = rows(database)
    for row, prediction in ((plain, given[0]), (bad, given[1]), (changed, given[2])):
        for name in ("length", "tm_celsius", "tm_lower_celsius", "tm_upper_celsius", "in_domain", "status"):
            assert getattr(row, name) == getattr(prediction, name)
        assert row.similarity == prediction.similarity
        assert (row.model, row.model_hash) == (builtin.name, builtin.digest)
        assert (row.coverage, row.latency_ms) == (0.8, 250)
        assert row.sequence is None
    assert (plain.status, bad.status, changed.status) == ("ok", "error", "warning")
    assert plain.growth_temperature_celsius == 70
    assert plain.composition == [0.05] * 20
    assert plain.sequence_hash == sequence_hash(CHAIN)
    assert changed.sequence_hash == sequence_hash(f"{CHAIN}C")
    assert changed.composition == [0.0492, 0.0656, *[0.0492] * 18]
    assert (bad.sequence_hash, bad.composition, bad.length) == (None, None, None)


def test_a_protein_has_one_hash_however_it_is_written(sqlite: Database, start: Start) -> None:
    log = start(sqlite)
    asked = [Record("a", CHAIN), Record("b", CHAIN.lower()), Record("c", f" {CHAIN[:9]}\n{CHAIN[9:]}*")]
    log.add(asked, answers(asked), model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert log.flush(PATIENCE_S)
    assert {row.sequence_hash for row in rows(sqlite)} == {sequence_hash(CHAIN)}


@pytest.mark.parametrize("kept", [False, True])
def test_sequences_are_kept_only_where_that_is_asked_for(
    database: Database, builtin: Predictor, start: Start, kept: bool
) -> None:
    log = start(database, sequences=kept)
    asked = [Record("a", f"{CHAIN.lower()}X"), Record("b", "MKV1SECRET")]
    log.add(asked, builtin.predict(asked), model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert log.flush(PATIENCE_S)
    assert [row.sequence for row in rows(database)] == [f"{CHAIN}X" if kept else None, None]


def test_a_sequence_that_is_not_kept_is_nowhere_in_the_file(sqlite: Database, start: Start) -> None:
    log = start(sqlite)
    add(log, 5)
    assert log.flush(PATIENCE_S)
    files = Path(str(sqlite.name).removeprefix("sqlite:///")).parent.glob("service.db*")
    assert not any(CHAIN.encode() in path.read_bytes() for path in files)


def test_predictions_from_embeddings_have_no_hash(sqlite: Database, start: Start) -> None:
    log = start(sqlite)
    given = [Prediction("a", None, 50.0, 40.0, 60.0, True, "ok", "", 0.5)]
    log.add([Record("a", "")], given, model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert log.flush(PATIENCE_S)
    (row,) = rows(sqlite)
    assert (row.tm_celsius, row.sequence_hash, row.composition) == (50.0, None, None)


def test_a_growth_temperature_that_is_not_a_number_is_none(database: Database, start: Start) -> None:
    log = start(database)
    asked = [Record("a", CHAIN, float("nan"))]
    log.add(asked, answers(asked), model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert log.flush(PATIENCE_S)
    assert rows(database)[0].growth_temperature_celsius is None


def test_a_large_request_arrives_whole_and_in_order(database: Database, start: Start) -> None:
    log = start(database)
    asked = records(2_500)
    given = [Prediction(r.id, k, 50.0, 40.0, 60.0, True, "ok", "", 0.5) for k, r in enumerate(asked)]
    log.add(asked, given, model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert log.flush(PATIENCE_S)
    assert [row.length for row in rows(database)] == list(range(2_500))
    assert (log.written, log.waiting, log.dropped, log.failures) == (2_500, 0, 0, 0)


def test_what_finds_no_place_is_dropped_and_counted(sqlite_url: str, start: Start) -> None:
    log = start(Database(sqlite_url), capacity=10)
    add(log, 7)
    add(log, 7)
    assert (log.waiting, log.dropped) == (10, 4)
    add(log)
    assert (log.waiting, log.dropped) == (10, 5)


def test_what_waits_is_bounded_in_residues_too(sqlite_url: str, start: Start) -> None:
    log = start(Database(sqlite_url), capacity=10)
    long = [Record("long", CHAIN * 160)]  # 9,600 residues
    for _ in range(3):
        log.add(long, answers(long), model="plain", model_hash=DIGEST, coverage=0.9, latency_s=0)
    assert (log.waiting, log.dropped) == (1, 2)


def test_places_are_free_again_after_writing(sqlite: Database, start: Start) -> None:
    log = start(sqlite, capacity=10)
    for _ in range(3):
        add(log, 10)
        assert log.flush(PATIENCE_S)
    assert (log.written, log.dropped) == (30, 0)


def test_flushing_says_where_rows_still_wait(sqlite_url: str, start: Start) -> None:
    log = start(Database(sqlite_url))
    assert log.flush(0)
    add(log)
    assert not log.flush(0.1)


def test_closing_writes_what_waits_and_takes_nothing_more(sqlite: Database, start: Start) -> None:
    log = start(sqlite)
    add(log, 3)
    log.close(PATIENCE_S)
    assert (log.written, log.waiting, count(sqlite)) == (3, 0, 3)
    add(log, 2)
    assert (log.waiting, log.dropped) == (0, 2)


def test_closing_drops_what_cannot_be_written_in_time(sqlite_url: str, start: Start) -> None:
    log = start(Database(sqlite_url))
    add(log, 3)
    began = time.monotonic()
    log.close(0.5)
    assert time.monotonic() - began < 5
    wait_until(lambda: log.dropped)
    assert (log.written, log.waiting, log.dropped) == (0, 0, 3)


WRITER = """
import sys
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import Record
url, requests, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
records = [Record(f"r{k}", "ACDEFGHIKLMNPQRSTVWY") for k in range(50)]
predictions = [Prediction(r.id, 20, 50.0, 40.0, 60.0, True, "ok", "", 0.5) for r in records]
database = Database(url)
log = PredictionLog(database, keep_days=90, keep_rows=10**6)
for k in range(requests):
    log.add(records, predictions, model=name, model_hash="d" * 64, coverage=0.9, latency_s=0)
    if k % 20 == 19:
        log.flush(60)
        print(log.written, flush=True)
log.close(60)
print(log.written, log.dropped, log.failures, flush=True)
"""


def writer(url: str, requests: int, name: str = "a") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, str(requests), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_process_leaves_all_that_it_had_written(database: Database, database_url: str) -> None:
    process = writer(database_url, 10**6)
    assert process.stdout is not None
    for _ in range(2):
        said = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = count(database)
    assert found >= said
    assert found % 50 == 0  # requests are there whole
    database.migrate()
    with database.session() as session:
        if database_url.startswith("sqlite"):
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        session.add(
            PredictionRow(**{column: getattr(row, column) for row in rows(database)[:1] for column in REQUIRED})
        )
    assert count(database) == found + 1


REQUIRED = ("made_at", "coverage", "status", "model", "model_hash", "latency_ms")


def test_two_processes_may_write_at_once(database: Database, database_url: str) -> None:
    processes = [writer(database_url, 40, name) for name in "ab"]
    for process in processes:
        assert process.communicate(timeout=60)[0].splitlines()[-1] == "2000 0 0"
    with database.session(read_only=True) as session:
        found = session.execute(select(PredictionRow.model, func.count()).group_by(PredictionRow.model)).all()
    assert sorted(map(tuple, found)) == [("a", 2000), ("b", 2000)]


def test_old_rows_are_deleted_while_new_ones_come_in(
    database: Database, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(database)
    add(first, 300)
    assert first.flush(PATIENCE_S)
    monkeypatch.setattr(module, "_FIRST_PRUNING_S", 0.0)
    monkeypatch.setattr(module, "_PRUNING_S", 0.05)
    log = start(database, keep_rows=40)
    wait_until(lambda: count(database) == 40)
    add(log, 60)
    assert log.flush(PATIENCE_S)
    wait_until(lambda: count(database) == 40)
    assert log.failures == 0
