from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text

from enzyme_stability.data.writers import open_writer
from enzyme_stability.errors import ArtifactError, ConfigError, DataError, OverloadedError, TooLargeError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.tables import JobPart, JobRow
from enzyme_stability.prediction import COLUMNS, Prediction
from enzyme_stability.sequence import Record
from enzyme_stability.serving.job_runner import INTERNAL, JobRunner
from enzyme_stability.serving.job_store import JobStore
from enzyme_stability.serving.jobs import ClaimLostError, JobStateError, NoSuchJobError, in_parts
from postgresql import postgresql_url  # noqa: F401 - a fixture

OPTIONS = {"coverage": 0.9, "growth_temperature_celsius": None}


def answer(record: Record) -> Prediction:
    """A row that says which record it is of, in its note too."""
    tm = round(40 + len(record.sequence) / 7, 2)
    note = f"of {record.id!r}; {record.growth_temperature}"
    return Prediction(record.id, len(record.sequence), tm, tm - 5, tm + 5, tm < 50, "ok", note, 0.5)


def answers(records: Sequence[Record], options: dict[str, Any] | None = None) -> list[Prediction]:
    assert options in (None, OPTIONS)
    return [answer(record) for record in records]


def proteins(count: int) -> list[Record]:
    return [Record(f"protein_{n}", "MK" * (10 + n % 50), None if n % 3 else 37.5) for n in range(count)]


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def ids(csv: bytes) -> list[str]:
    return [line.partition(",")[0] for line in csv.decode().splitlines()[1:]]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    with database.session() as session:  # the server is shared by all tests
        session.execute(delete(JobPart))
        session.execute(delete(JobRow))
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def run(store: JobStore) -> Iterator[Callable[..., JobRunner]]:
    """Starts runners, and ends them after the test."""
    started: list[JobRunner] = []

    def start(predict: Callable[..., list[Prediction]] = answers, **settings: Any) -> JobRunner:
        runner = JobRunner(store, predict, **{"poll_s": 0.02, **settings})
        started.append(runner)
        runner.start()
        return runner

    yield start
    for runner in started:
        runner.close(5)


def kept(database: Database) -> tuple[int, int]:
    """How many jobs and parts there are."""
    with database.session(read_only=True) as session:
        jobs = session.scalar(select(func.count()).select_from(JobRow))
        parts = session.scalar(select(func.count()).select_from(JobPart))
    return jobs or 0, parts or 0


class TestWhatIsGiven:
    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_the_result_is_the_text_that_the_command_writes(
        self, store: JobStore, run: Callable[..., JobRunner], tmp_path: Path, kind: Any
    ) -> None:
        odd = ["a,b", 'say "x"', "two\nlines", "a\rb", "naïve", " ", "", "=1+1", "\u2028", "a\x1cb", "\0"]
        records = [Record(name, "MKV" * n, problem="none") for n, name in enumerate(odd)] * 3
        with open_writer(tmp_path / f"command.{kind}", COLUMNS) as writer:
            for row in answers(records):
                writer.write({name: getattr(row, name) for name in COLUMNS})

        job = store.submit(records, OPTIONS, part_records=4)
        run()
        wait_for(lambda: store.status(job).state == "done")

        assert b"".join(store.result(job, format=kind)) == (tmp_path / f"command.{kind}").read_bytes()

    def test_the_records_arrive_as_they_were_sent(self, store: JobStore, run: Callable[..., JobRunner]) -> None:
        records = [Record("a", "mk-V*", 37.25), Record("b\n", "", None, "the sequence is missing"), Record("a", "X")]
        seen: list[Record] = []

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            seen.extend(part)
            return answers(part, options)

        job = store.submit(records, OPTIONS, part_records=2)
        run(predict)
        wait_for(lambda: store.status(job).state == "done")

        assert seen == records

    def test_a_file_that_breaks_off_leaves_no_job(self, store: JobStore, database: Database) -> None:
        def broken() -> Iterator[Record]:
            yield from proteins(100)
            raise DataError("input.fasta: the gzip data is truncated")

        with pytest.raises(DataError, match="truncated"):
            store.submit(broken(), OPTIONS, part_records=10)
        assert kept(database) == (0, 0)

    def test_an_empty_and_a_too_large_job_are_refused(self, database: Database) -> None:
        store = JobStore(database, most_records=30)
        with pytest.raises(DataError, match="no sequences"):
            store.submit([], OPTIONS)
        with pytest.raises(TooLargeError, match="30 sequences"):
            store.submit(iter(proteins(31)), OPTIONS, part_records=10)
        assert kept(database) == (0, 0)
        assert store.submit(proteins(30), OPTIONS)

    def test_a_large_input_is_not_kept_in_memory(self, store: JobStore) -> None:
        records = (Record(f"protein_{n}", f"{'MK' * 500}{n}") for n in range(10_000))  # 10 MB

        tracemalloc.start()
        job = store.submit(records, OPTIONS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert store.status(job).records == 10_000
        assert peak < 5e6

    def test_parts_of_long_chains_are_small(self) -> None:
        records = [Record(str(n), "M" * 200_000) for n in range(5)] + [Record("titin", "M" * 900_000)] + proteins(3)

        parts = list(in_parts(records, 512))

        assert [len(part) for part in parts] == [2, 2, 1, 1, 3]
        assert [record for part in parts for record in part] == records


class TestWhoMaySee:
    def test_a_job_is_seen_with_its_key_only(self, store: JobStore) -> None:
        job = store.submit(proteins(1), OPTIONS, owner="lab")

        assert store.status(job, "lab").records == 1
        for other in (None, "line-2", ""):
            for ask in (store.status, store.result, store.cancel):
                with pytest.raises(NoSuchJobError):
                    ask(job, other)
        assert store.status(job, "lab").state == "queued"

    def test_a_job_without_a_key_is_seen_by_everybody_with_its_id(self, store: JobStore) -> None:
        job = store.submit(proteins(1), OPTIONS)

        assert store.status(job, "lab") == store.status(job)

    @pytest.mark.parametrize("job", ["", "0" * 32, "0" * 31 + "\0", "%", "' OR 1=1 --", "A" * 32, "é" * 32])
    def test_what_is_no_id_is_no_job(self, store: JobStore, job: str) -> None:
        store.submit(proteins(1), OPTIONS)

        with pytest.raises(NoSuchJobError):
            store.status(job)

    def test_only_a_job_that_is_done_has_a_result(self, store: JobStore) -> None:
        job = store.submit(proteins(6), OPTIONS, part_records=3)
        with pytest.raises(JobStateError, match="queued: 0 of 6"):
            store.result(job)
        claim = store.claim("a")
        assert claim is not None
        store.finish_part(claim, 0, answers(proteins(3)))
        with pytest.raises(JobStateError, match="running: 3 of 6"):
            store.result(job)
        store.fail(claim, "no such\0 model")
        with pytest.raises(JobStateError, match="failed: no such model"):
            store.result(job)


class TestClaims:
    def test_the_oldest_job_is_taken_first(self, store: JobStore) -> None:
        jobs = [store.submit(proteins(1), OPTIONS) for _ in range(4)]

        taken = [store.claim(f"worker-{n}") for n in range(5)]

        assert [claim and claim.job for claim in taken] == [*jobs, None]
        assert taken[0] is not None
        assert taken[0].options == OPTIONS

    def test_no_two_workers_get_the_same_job(self, store: JobStore) -> None:
        jobs = {store.submit(proteins(1), OPTIONS) for _ in range(30)}
        taken: list[str] = []

        def work(worker: str) -> None:
            while store.counts()["queued"]:
                if claim := store.claim(worker):
                    taken.append(claim.job)

        threads = [threading.Thread(target=work, args=(f"worker-{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(taken) == 30
        assert set(taken) == jobs

    def test_a_worker_whose_lease_ran_out_can_no_longer_write(self, store: JobStore) -> None:
        job = store.submit(proteins(4), OPTIONS, part_records=2)
        slow = store.claim("slow")
        assert slow is not None
        assert store.claim("quick") is None
        store.renew(slow, lease_s=0)
        quick = store.claim("quick")
        assert quick is not None
        assert quick.job == job

        for attempt in (
            lambda: store.finish_part(slow, 0, answers(proteins(2))),
            lambda: store.given(slow, 0),
            lambda: store.renew(slow),
            lambda: store.release(slow),
            lambda: store.fail(slow, "no"),
        ):
            with pytest.raises(ClaimLostError):
                attempt()
        assert store.status(job).finished == 0
        assert store.open_parts(quick) == [0, 1]

    def test_a_renewed_lease_holds(self, store: JobStore) -> None:
        store.submit(proteins(1), OPTIONS)
        claim = store.claim("a", lease_s=0)
        assert claim is not None

        store.renew(claim)

        assert store.claim("b") is None

    def test_a_part_counts_once_however_often_it_is_reported(self, store: JobStore) -> None:
        job = store.submit(proteins(5), OPTIONS, part_records=2)
        claim = store.claim("a")
        assert claim is not None

        for _ in range(3):
            store.finish_part(claim, 0, answers(proteins(2)))

        assert store.status(job).finished == 2
        assert store.open_parts(claim) == [1, 2]

    def test_sequences_are_forgotten_with_their_part(self, store: JobStore, database: Database) -> None:
        store.submit(proteins(4), OPTIONS, part_records=2)
        claim = store.claim("a")
        assert claim is not None

        store.finish_part(claim, 0, answers(proteins(2)))

        with database.session(read_only=True) as session:
            given = session.scalars(select(JobPart.given).order_by(JobPart.number)).all()
        assert [bool(part) for part in given] == [False, True]
        assert b"MKMK" in gzip.decompress(given[1])


class TestWork:
    def test_many_jobs_and_runners_answer_every_record_once_and_in_order(
        self, store: JobStore, run: Callable[..., JobRunner]
    ) -> None:
        seen: Counter[str] = Counter()

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            seen.update(record.sequence for record in part)
            return answers(part, options)

        inputs = [[Record(f"{k}_{n}", f"MK{k}_{n}") for n in range(23)] for k in range(6)]
        jobs = [store.submit(records, OPTIONS, part_records=5) for records in inputs]
        for _ in range(3):
            run(predict)
        wait_for(lambda: store.counts()["done"] == 6)

        assert set(seen.values()) == {1}
        for job, records in zip(jobs, inputs, strict=True):
            assert ids(b"".join(store.result(job))) == [record.id for record in records]
            status = store.status(job)
            assert (status.records, status.finished, status.message) == (23, 23, "")
            assert status.ended_at is not None
            assert status.ended_at >= status.created_at

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ConfigError("the coverage 2 is not below 1"), "the coverage 2 is not below 1"),
            (ArtifactError("/models/x/predictor.json is damaged"), INTERNAL),
            (RuntimeError("/models/x"), INTERNAL),
            (MemoryError(), INTERNAL),
        ],
    )
    def test_an_error_fails_its_job_alone_and_tells_no_path(
        self,
        store: JobStore,
        database: Database,
        run: Callable[..., JobRunner],
        caplog: pytest.LogCaptureFixture,
        error: Exception,
        message: str,
    ) -> None:
        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            if part[0].id == "bad":
                raise error
            return answers(part, options)

        bad = store.submit([*proteins(4), Record("bad", "MK"), *proteins(4)], OPTIONS, part_records=4)
        good = store.submit(proteins(3), OPTIONS)
        with caplog.at_level(logging.ERROR):
            run(predict)
            wait_for(lambda: store.status(good).state == "done")

        status = store.status(bad)
        assert (status.state, status.message, status.finished) == ("failed", message, 4)
        assert status.ended_at is not None
        assert bool(caplog.records) == (message == INTERNAL)
        assert kept(database)[1] == 1  # nothing of the one that failed

    def test_too_few_answers_fail_the_job(self, store: JobStore, run: Callable[..., JobRunner]) -> None:
        job = store.submit(proteins(3), OPTIONS)
        run(lambda part, options: answers(part[1:], options))

        wait_for(lambda: store.status(job).state == "failed")

        assert store.status(job).message == INTERNAL

    def test_damaged_records_fail_the_job(
        self, store: JobStore, database: Database, run: Callable[..., JobRunner]
    ) -> None:
        job = store.submit(proteins(3), OPTIONS)
        with database.session() as session:
            session.execute(JobPart.__table__.update().values(given=b"\x1f\x8b damaged"))

        run()
        wait_for(lambda: store.status(job).state == "failed")

        assert "damaged" in store.status(job).message

    def test_where_too_much_is_asked_for_the_work_waits(self, store: JobStore, run: Callable[..., JobRunner]) -> None:
        tries: list[int] = []

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            tries.append(len(part))
            if len(tries) in {1, 2, 4}:
                raise OverloadedError("come back later", 0.02)
            return answers(part, options)

        job = store.submit(proteins(4), OPTIONS, part_records=2)
        run(predict)
        wait_for(lambda: store.status(job).state == "done")

        assert len(tries) == 5
        assert ids(b"".join(store.result(job))) == [record.id for record in proteins(4)]

    def test_a_cancelled_job_stops_before_its_next_part(
        self, store: JobStore, database: Database, run: Callable[..., JobRunner]
    ) -> None:
        began, go_on, parts = threading.Event(), threading.Event(), []

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            parts.append(part[0].id)
            began.set()
            go_on.wait(60)
            return answers(part, options)

        job = store.submit(proteins(10), OPTIONS, part_records=2)
        run(predict)
        began.wait(60)

        status = store.cancel(job)
        other = store.submit(proteins(1), OPTIONS)
        go_on.set()
        wait_for(lambda: store.status(other).state == "done")

        assert status.state == "cancelled"
        assert len(parts) == 2
        assert store.cancel(job) == status
        assert kept(database) == (2, 1)
        with pytest.raises(JobStateError, match="cancelled"):
            store.result(job)

    def test_a_job_that_is_done_cannot_be_cancelled(self, store: JobStore, run: Callable[..., JobRunner]) -> None:
        job = store.submit(proteins(1), OPTIONS)
        run()
        wait_for(lambda: store.status(job).state == "done")

        assert store.cancel(job).state == "done"
        assert ids(b"".join(store.result(job))) == ["protein_0"]

    def test_old_jobs_are_deleted_and_running_ones_are_not(
        self, store: JobStore, database: Database, run: Callable[..., JobRunner]
    ) -> None:
        done = store.submit(proteins(3), OPTIONS)
        first = run()
        wait_for(lambda: store.status(done).state == "done")
        first.close()
        running = store.submit(proteins(3), OPTIONS)
        assert store.claim("somebody")
        assert store.delete_old(1) == 0
        time.sleep(0.05)

        run(keep_days=0.02 / 86400)
        wait_for(lambda: store.counts()["done"] == 0)

        with pytest.raises(NoSuchJobError):
            store.status(done)
        assert store.status(running).state == "running"
        assert kept(database) == (1, 1)

    def test_a_part_that_takes_longer_than_the_lease_keeps_its_claim(
        self, store: JobStore, run: Callable[..., JobRunner]
    ) -> None:
        seen = []

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            seen.append(part[0].id)
            time.sleep(2.5)
            return answers(part, options)

        job = store.submit(proteins(1), OPTIONS)
        for _ in range(2):
            run(predict, lease_s=1.2)
        wait_for(lambda: store.status(job).state == "done")

        assert seen == ["protein_0"]


class TestTrouble:
    def test_work_goes_on_where_it_was_once_the_database_is_back(
        self, store: JobStore, database: Database, run: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: Counter[str] = Counter()
        went = threading.Event()

        def rename(old: str, new: str) -> None:
            with database.session() as session:
                session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            seen.update(record.id for record in part)
            if part[0].id == "protein_4":  # before the rows of this part are kept
                rename("jobs", "elsewhere")
                went.set()
            return answers(part, options)

        job = store.submit(proteins(8), OPTIONS, part_records=2)
        run(predict)
        assert went.wait(60)
        wait_for(lambda: "jobs wait" in caplog.text)
        rename("elsewhere", "jobs")
        wait_for(lambda: store.status(job).state == "done")

        assert ids(b"".join(store.result(job))) == [record.id for record in proteins(8)]
        assert set(seen.values()) == {1}

    def test_a_closed_runner_leaves_its_job_to_another_at_once(
        self, store: JobStore, run: Callable[..., JobRunner]
    ) -> None:
        began, go_on = threading.Event(), threading.Event()
        seen: list[str] = []

        def stuck(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            if part[0].id == "protein_2":
                began.set()
                go_on.wait(60)
            return answers(part, options)

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            seen.extend(record.id for record in part)
            return answers(part, options)

        job = store.submit(proteins(6), OPTIONS, part_records=2)
        first = run(stuck, lease_s=3600)
        assert began.wait(60)

        first.close(0.05)
        assert store.status(job).state == "queued"
        run(predict)
        wait_for(lambda: store.status(job).state == "done")
        go_on.set()

        assert seen == ["protein_2", "protein_3", "protein_4", "protein_5"]
        assert ids(b"".join(store.result(job))) == [record.id for record in proteins(6)]

    def test_a_part_that_is_done_while_closing_is_kept(self, store: JobStore, run: Callable[..., JobRunner]) -> None:
        began = threading.Event()

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            began.set()
            time.sleep(0.2)
            return answers(part, options)

        job = store.submit(proteins(6), OPTIONS, part_records=2)
        runner = run(predict)
        assert began.wait(60)
        runner.close(10)

        status = store.status(job)
        assert (status.state, status.finished) == ("queued", 2)

    def test_what_breaks_while_closing_does_not_fail_the_job(
        self, store: JobStore, run: Callable[..., JobRunner]
    ) -> None:
        began, closing = threading.Event(), threading.Event()

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            del part, options
            began.set()
            closing.wait(60)
            time.sleep(0.1)
            raise RuntimeError("the event loop is closed")

        job = store.submit(proteins(1), OPTIONS)
        runner = run(predict)
        assert began.wait(60)
        closing.set()
        runner.close(10)

        assert store.status(job).state == "queued"

    @pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
    def test_a_killed_process_loses_and_doubles_nothing(
        self, store: JobStore, url: str, run: Callable[..., JobRunner], tmp_path: Path
    ) -> None:
        """Three times at points that nobody chose; what was finished before is not done again."""
        script = (
            "import sys, threading, time\n"
            "from test_jobs import *\n"
            "def predict(part, options):\n"
            "    time.sleep(0.05)\n"
            "    with open(sys.argv[2], 'a') as seen:\n"
            "        seen.write(part[0].id + '\\n')\n"
            "    return answers(part, options)\n"
            "JobRunner(JobStore(Database(sys.argv[1])), predict, poll_s=0.02, lease_s=0.5).start()\n"
            "threading.Event().wait()\n"
        )
        records = proteins(300)
        job = store.submit(records, OPTIONS, part_records=4)
        log = tmp_path / "seen"
        again = 0
        here = Path(__file__)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here.parent, here.parents[2])))}

        for killed_after in (12, 40, 80):
            running = subprocess.Popen([sys.executable, "-c", script, url, log], env=environment)
            try:
                wait_for(lambda least=killed_after: store.status(job).finished >= least)
            finally:
                running.send_signal(signal.SIGKILL)
                running.wait()
            again += 1
        assert store.status(job).state == "running"

        def predict(part: list[Record], options: dict[str, Any]) -> list[Prediction]:
            with log.open("a") as seen:
                seen.write(part[0].id + "\n")
            return answers(part, options)

        run(predict, lease_s=0.5)
        wait_for(lambda: store.status(job).state == "done")

        lines = b"".join(store.result(job, format="jsonl")).splitlines()
        assert [json.loads(line)["id"] for line in lines] == [record.id for record in records]
        times = Counter(log.read_text().splitlines())
        assert set(times) == {record.id for record in records[::4]}
        assert sum(times.values()) - len(times) <= again  # but for the one part that each had begun
