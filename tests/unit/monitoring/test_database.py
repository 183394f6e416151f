"""The database of the service, on SQLite and PostgreSQL: set up once, shared by many, honest about what is wrong."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import delete, select, text

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError
from enzyme_stability.monitoring import database as module
from enzyme_stability.monitoring.database import Database, default_database_url, explained, migration_config
from enzyme_stability.monitoring.tables import Base, JobPart, JobRow
from postgresql import on_server

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def job(name: str, **columns: object) -> JobRow:
    return JobRow(**{"id": name, "created_at": NOON, "state": "queued", "options": {}, "records": 1} | columns)


def add(database: Database, name: str) -> None:
    with database.session() as session:
        session.add(job(name))


def names_of_jobs(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(JobRow.id).order_by(JobRow.id)))


def test_the_migrations_make_the_very_tables_that_the_code_knows(database: Database) -> None:
    with database.session() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_difference_between_migrations_and_tables_would_be_seen(database: Database) -> None:
    with database.session() as session:
        session.execute(text("ALTER TABLE feedback DROP COLUMN organism"))
        (difference,) = compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)
    assert difference[0] == "add_column"


def test_migrating_again_keeps_what_is_there(database: Database) -> None:
    add(database, "a")
    database.migrate()
    assert names_of_jobs(database) == ["a"]


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    code = f"""
from enzyme_stability.monitoring.database import Database
import alembic.command, sqlalchemy.orm
database = Database({database_url!r})
print("ready", flush=True)
input()
database.migrate()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 3
    database = Database(database_url)
    database.migrate()
    assert names_of_jobs(database) == []
    database.close()


def test_several_threads_may_migrate_at_once(sqlite_url: str) -> None:
    databases = [Database(f"{sqlite_url}.{k}") for k in range(8)]
    together = threading.Barrier(len(databases))
    failed: list[BaseException] = []

    def migrate(database: Database) -> None:
        together.wait()
        try:
            database.migrate()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [names_of_jobs(database) for database in databases] == [[]] * len(databases)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database) -> None:
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ArtifactError, match=r"newer version of enzyme-stability \(revision 9999\); update the package"):
        database.migrate()
    with database.session() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str) -> None:
    database = Database(database_url)
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    with database.session() as session:
        session.execute(text("CREATE TABLE job_parts (somebody VARCHAR(9))"))
    with pytest.raises(ArtifactError, match="already exists"):
        database.migrate()
    with pytest.raises(ArtifactError, match="not set up yet"):
        names_of_jobs(database)
    database.close()


def test_a_further_revision_can_be_written_from_the_template(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(module.MIGRATIONS, copy := tmp_path / "100 % migrations")
    monkeypatch.setattr(module, "MIGRATIONS", copy)
    with database.session() as session:
        session.execute(text("ALTER TABLE feedback DROP COLUMN organism"))
        config = migration_config(session.connection())
        made = command.revision(config, "say where it lives", autogenerate=True, rev_id="0002")
    assert made is not None
    database.migrate()
    with database.session() as session:
        session.execute(text("SELECT organism FROM feedback"))
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0002"


def test_a_session_commits_at_its_end_and_rolls_back_where_it_raises(database: Database) -> None:
    add(database, "kept")
    with suppress(RuntimeError), database.session() as session:
        session.add(job("lost"))
        session.flush()
        raise RuntimeError
    assert names_of_jobs(database) == ["kept"]


def test_rows_can_be_read_after_their_session(database: Database) -> None:
    with database.session() as session:
        session.add(row := job("a", records=7))
    assert (row.id, row.records, row.finished) == ("a", 7, 0)


def test_times_are_utc_wherever_they_come_from(database: Database) -> None:
    with database.session() as session:
        session.add(job("a", created_at=NOON.astimezone(dt.timezone(dt.timedelta(hours=9)))))
    with database.session(read_only=True) as session:
        back = session.scalars(select(JobRow)).one().created_at
    assert back == NOON
    assert back.utcoffset() == dt.timedelta(0)


def test_the_parts_of_a_job_are_deleted_with_it(database: Database) -> None:
    with database.session() as session:
        session.add_all([job("a"), job("b")])
        session.flush()
        session.add_all([JobPart(job_id=name, number=0, records=1, given=b"") for name in "ab"])
    with database.session() as session:
        session.execute(delete(JobRow).where(JobRow.id == "a"))
    with database.session(read_only=True) as session:
        assert session.scalars(select(JobPart.job_id)).all() == ["b"]


def test_what_is_read_before_writing_still_holds_on_sqlite(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.migrate()
    add(database, "a")

    def count() -> None:
        for _ in range(20):
            with database.session() as session:
                session.scalars(select(JobRow)).one().finished += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.session(read_only=True) as session:
        assert session.scalars(select(JobRow)).one().finished == 80


def test_reading_waits_for_no_writer(database: Database) -> None:
    with database.session() as writing:
        writing.add(job("a"))
        writing.flush()
        assert names_of_jobs(database) == []
    assert names_of_jobs(database) == ["a"]


def test_a_database_in_memory_is_one_for_all_threads() -> None:
    database = Database("sqlite:///:memory:")
    database.migrate()
    threads = [threading.Thread(target=add, args=(database, name)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names_of_jobs(database) == ["a", "b", "c", "d"]


def test_an_sqlite_file_is_made_with_its_folder_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "100 %25 ü.db"
    database = Database(f"sqlite:///{str(path).replace('%', '%25')}")
    database.migrate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_nothing_is_made_before_the_database_is_brought_up_to_date(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'folder' / 'service.db'}")
    with pytest.raises(ArtifactError, match="Starting the service makes it"):
        names_of_jobs(database)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to be read as one\n" * 20)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"notes\.txt: file is not a database; move the file away"):
        Database(f"sqlite:///{path}").migrate()
    assert path.read_bytes() == before


def test_a_damaged_file_is_named(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.migrate()
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"service\.db: .*malformed.*restore a copy"):
        names_of_jobs(database)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be made: File exists"):
        Database(f"sqlite:///{tmp_path / 'file' / 'service.db'}").migrate()


def test_a_file_that_is_locked_for_too_long_is_explained(sqlite_url: str) -> None:
    Database(sqlite_url).migrate()
    impatient = Database(sqlite_url, busy_timeout_s=0.05)
    with Database(sqlite_url).session() as writing:
        writing.add(job("a"))
        writing.flush()
        with pytest.raises(ArtifactError, match="another process has been writing to it for too long"):
            add(impatient, "b")


@pytest.mark.parametrize(
    "url",
    [
        "me:secret@host",
        "postgresql://me:secret@host:port/base",
        "mysql://me:secret@host/base",
        "postgresql+asyncpg://me:secret@host/base",
        "sqlite://me:secret@host/base.db",
        "sqlite:///base.db?password=secret",
        "",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://user:password@host/name") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:1/base",
        "postgres://me:secret@127.0.0.1:1/base",
        "postgresql+psycopg://me@127.0.0.1:1/base?password=secret&connect_timeout=5",
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(url: str) -> None:
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1.*refused") as caught:
        Database(url).migrate()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_does_not_repeat_the_values_of_a_statement(database: Database) -> None:
    with pytest.raises(ArtifactError) as caught, database.session() as session:
        session.add_all([job("a", message="MKVSECRET"), job("a", message="MKVSECRET")])
    assert "MKVSECRET" not in f"{caught.value} {caught.value.__cause__}"


def test_others_can_explain_what_they_do_with_the_engine(database: Database) -> None:
    with (
        pytest.raises(ArtifactError, match="no_such_table"),
        explained(database),
        database.engine.connect() as connection,
    ):
        connection.execute(text("SELECT * FROM no_such_table"))


def test_a_connection_that_the_server_closed_is_opened_again(empty_postgresql_url: str) -> None:
    database = Database(empty_postgresql_url)
    database.migrate()
    on_server(
        empty_postgresql_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert names_of_jobs(database) == []
    database.close()


@pytest.mark.parametrize(
    ("absent", "url", "extra"),
    [("sqlalchemy", "sqlite://", "serve"), ("psycopg", "postgresql://host/base", "postgres")],
)
def test_a_missing_package_is_named(absent: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingDependencyError, match=rf"enzyme-stability\[{extra}\]"):
        Database(url)


def test_the_usual_database_is_where_programs_keep_their_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENZYME_STABILITY_DATABASE", raising=False)
    state = tmp_path / "state of 100 % ?"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    Database(default_database_url()).migrate()
    assert (state / "enzyme-stability" / "service.db").is_file()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_database_url() == f"sqlite:///{tmp_path}/.local/state/enzyme-stability/service.db"
    monkeypatch.setenv("ENZYME_STABILITY_DATABASE", "postgresql://host/base")
    assert default_database_url() == "postgresql://host/base"
