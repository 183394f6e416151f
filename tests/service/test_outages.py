"""The database is busy, broken, full or gone: predictions go on, and what can be written later is."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from running_service import LYSOZYME, figure, finished, served, served_here, until
from sqlalchemy import create_engine, make_url, text

from enzyme_stability.monitoring.database import Database
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.serving import service
from postgresql import on_server

ONE = {"records": [{"id": "a", "sequence": LYSOZYME}]}
MANY = {"records": [{"sequence": LYSOZYME}] * 800}
MEASURED = {"records": [{"sequence": LYSOZYME, "measured_tm_celsius": 75.5}]}
QUICK_S = 3.0
"""As long as a busy machine may take for a prediction; what waits for a database takes five times as long."""


def predict(client: httpx.Client, body: dict[str, Any] = ONE) -> None:
    """Ask, and be answered as if nothing were wrong."""
    began = time.monotonic()
    rows = client.post("/v1/predict", json=body).raise_for_status().json()["predictions"]
    assert {row["tm_celsius"] for row in rows} == {55.91}
    assert time.monotonic() - began < QUICK_S


def is_refused_politely(answer: httpx.Response) -> None:
    """The database is to blame, and the answer says so without saying where it is."""
    assert answer.status_code in {429, 503}
    said = answer.json()["error"]["message"]
    assert "/" not in said
    assert "sqlite" not in said.lower()
    assert (answer.status_code == 429) is ("retry-after" in answer.headers)


def logged(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM predictions").fetchone()[0])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else writes to the file, and takes their time."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


# SQLite


def test_predictions_do_not_wait_for_a_locked_database_and_are_logged_later(tmp_path: Path) -> None:
    file = tmp_path / "service.db"
    with served_here(database=f"sqlite:///{file}") as client, ThreadPoolExecutor(20) as pool:
        predict(client)
        until(lambda: logged(file) == 1)
        with locked(file):
            waiting = [pool.submit(client.post, "/v1/feedback", json=MEASURED) for _ in range(10)]
            waiting += [pool.submit(client.post, "/v1/jobs", json=ONE) for _ in range(10)]
            for _ in range(10):
                predict(client)
                predict(client, MANY)
            assert figure(client, "prediction_log_waiting") > 0
            assert not any(answer.done() for answer in waiting)
            assert logged(file) == 1
        assert {answer.result().status_code for answer in waiting} == {200, 202}
        until(lambda: logged(file) == 1 + 10 * 801 + 10)
        assert figure(client, "prediction_log_dropped_total") == 0


def _garbage(file: Path) -> None:
    file.write_bytes(b"no database at all\n" * 1000)


def _folder_is_a_file(file: Path) -> None:
    file.parent.rmdir()
    file.parent.write_bytes(b"")


def _write_protected(file: Path) -> None:
    _made(file)
    content = bytearray(file.read_bytes())
    content[18] = 3  # a version of the format that may be read only, whoever asks
    file.write_bytes(content)


def _made(file: Path) -> None:
    database = Database(f"sqlite:///{file}")
    database.migrate()
    database.close()


@pytest.mark.parametrize("spoil", [_garbage, _folder_is_a_file, _write_protected])
def test_predictions_go_on_without_a_usable_database(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    file = tmp_path / "state" / "service.db"
    file.parent.mkdir()
    spoil(file)
    with served_here(database=f"sqlite:///{file}") as client:
        assert client.get("/readyz").status_code == 200
        predict(client)
        predict(client, MANY)
        is_refused_politely(client.post("/v1/jobs", json=ONE))
        is_refused_politely(client.post("/v1/feedback", json=MEASURED))
        until(lambda: figure(client, "prediction_log_failures_total") > 0)
        predict(client)


def test_a_database_that_goes_away_takes_nothing_else_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with served_here(database=f"sqlite:///{folder / 'service.db'}") as client:
        job = client.post("/v1/jobs", json=ONE).raise_for_status().json()["id"]
        assert finished(client, job)["state"] == "done"
        folder.rename(tmp_path / "elsewhere")
        predict(client)
        for answer in (
            client.get(f"/v1/jobs/{job}"),
            client.delete(f"/v1/jobs/{job}"),
            client.post("/v1/jobs", json=ONE),
        ):
            is_refused_politely(answer)
        is_refused_politely(client.get(f"/v1/jobs/{job}/result"))
        (tmp_path / "elsewhere").rename(folder)
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "done"
        until(lambda: logged(folder / "service.db") == 2)


def test_a_database_that_comes_later_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_DATABASE_PAUSE_S", 0.2)
    file = tmp_path / "state" / "service.db"
    file.parent.write_bytes(b"")
    with served_here(database=f"sqlite:///{file}") as client:
        predict(client)
        is_refused_politely(client.post("/v1/jobs", json=ONE))
        file.parent.unlink()
        job = until(lambda: answer.json() if (answer := client.post("/v1/jobs", json=ONE)).is_success else None)
        assert finished(client, job["id"])["state"] == "done"
        until(lambda: logged(file) == 2)


def test_a_full_disk_keeps_nobody_from_an_answer(tmp_path: Path) -> None:
    file = tmp_path / "service.db"
    with served("--database", f"sqlite:///{file}", "--set", "watch_minutes=0") as running, running.client as client:
        predict(client)
        until(lambda: logged(file) == 1)
        full = max(path.stat().st_size for path in tmp_path.iterdir()) + 50_000
        running.process.rlimit(psutil.RLIMIT_FSIZE, (full, psutil.RLIM_INFINITY))
        for _ in range(4):
            predict(client, MANY)
        until(lambda: figure(client, "prediction_log_failures_total") > 0)
        large = ["".join(random.Random(k).choices(AMINO_ACIDS, k=400)) for k in range(3000)]
        is_refused_politely(client.post("/v1/jobs", json={"records": [{"sequence": one} for one in large]}))
        predict(client)
        running.process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert client.post("/v1/jobs", json=ONE).status_code == 202
        until(lambda: logged(file) == 1 + 4 * 800 + 1 + 1)
        assert figure(client, "prediction_log_dropped_total") == 0


# PostgreSQL


def test_a_server_that_goes_and_comes_back_finds_the_log_waiting(
    postgresql_url: str, empty_postgresql_url: str
) -> None:
    name = make_url(empty_postgresql_url).database

    def rows() -> int:
        engine = create_engine(make_url(empty_postgresql_url).set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            count = connection.execute(text("SELECT count(*) FROM predictions")).scalar_one()
        engine.dispose()
        return int(count)

    with served_here(database=empty_postgresql_url) as client:
        predict(client)
        until(lambda: rows() == 1)
        large = {"records": [{"sequence": LYSOZYME * 4}] * 4000}
        job = client.post("/v1/jobs", json=large).raise_for_status().json()["id"]
        on_server(
            postgresql_url,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608
        )
        for _ in range(5):
            predict(client, MANY)
        for answer in (client.post("/v1/jobs", json=ONE), client.post("/v1/feedback", json=MEASURED)):
            is_refused_politely(answer)
        on_server(postgresql_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert client.post("/v1/feedback", json=MEASURED).json()["accepted"] == 1
        ended = finished(client, job)
        assert (ended["state"], ended["finished"]) == ("done", 4000)
        until(lambda: rows() == 1 + 5 * 800 + 4000)
        assert figure(client, "prediction_log_dropped_total") == 0


def test_characters_that_the_server_does_not_take_cost_one_record(empty_postgresql_url: str) -> None:
    odd = "a\x00b"
    with served_here(database=empty_postgresql_url) as client:
        record = {"id": odd, "sequence": LYSOZYME, "measured_tm_celsius": 75.5, "source": odd, "organism": odd}
        answer = client.post("/v1/feedback", json={"records": [record, *MEASURED["records"]]})
        assert answer.status_code == 200
        assert answer.json()["rows"][1]["status"] in {"ok", "warning"}
        body = {"records": [{"id": odd, "sequence": LYSOZYME}, {"id": "b", "sequence": f"MK{odd}"}]}
        job = finished(client, client.post("/v1/jobs", json=body).raise_for_status().json()["id"])
        assert (job["state"], job["finished"]) == ("done", 2)
