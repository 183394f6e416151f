"""The service's database: SQLite or PostgreSQL, opened, brought up to date, and spoken of without its password."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parent / "migrations"
"""Folder of the Alembic revisions."""

_FORMS = "write sqlite:////folder/service.db or postgresql://user:password@host/name"
_SQLITE = {"sqlite", "sqlite+pysqlite"}
_POSTGRESQL = {"postgres", "postgresql", "postgresql+psycopg"}
_MIGRATING = threading.Lock()  # Alembic keeps what it works on in a global
_MIGRATION_LOCK = int.from_bytes(b"enzyme")  # any number that others are unlikely to lock
_READS = "enzyme_stability_reads"
_ADVICE = {
    "unable to open": "is it there, and may it be opened? Starting the service makes it",
    "is locked": "another process has been writing to it for too long; try again",
    "readonly": "it is write-protected",
    "is full": "free some space, or keep fewer predictions",
    "malformed": "the file is damaged; restore a copy or move it away",
    "not a database": "move the file away or name another one",
    "no such table": "it is not set up yet; starting the service does that",
    'relation "': "it is not set up yet; starting the service does that",
}


def default_database_url() -> str:
    """URL of the database where nobody names one.

    That is ``ENZYME_STABILITY_DATABASE``, or else the SQLite file ``enzyme-stability/service.db`` in the folder where
    programs of the user keep their state.

    Raises:
        ConfigError: There is no home folder to put it in.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    if chosen := os.environ.get("ENZYME_STABILITY_DATABASE"):
        return chosen
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError:
        raise ConfigError(
            "there is no home folder to keep a database in; set ENZYME_STABILITY_DATABASE to its URL"
        ) from None
    try:
        from sqlalchemy import URL
    except ImportError:
        raise _no_sqlalchemy() from None
    return URL.create("sqlite", database=str(state / "enzyme-stability" / "service.db")).render_as_string()


class Database:
    """One database; may be used by several threads, and the same file or server by several processes.

    Nothing is opened or made before it is needed. A process that forks makes its own afterwards: connections cannot
    be shared.

    Args:
        url: ``sqlite:////folder/file.db``, ``sqlite:///:memory:`` (one session at a time) or
            ``postgresql://user:password@host/name``.
        busy_timeout_s: Seconds to wait for another process that writes to an SQLite file, or for a PostgreSQL server
            to answer a connection.

    Attributes:
        name: The URL without the password, for messages.
        engine: SQLAlchemy's.

    Raises:
        ConfigError: The URL is not one of these.
        MissingDependencyError: SQLAlchemy or the driver of PostgreSQL is not installed.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 15.0) -> None:
        try:
            from sqlalchemy import make_url
            from sqlalchemy.exc import ArgumentError
        except ImportError:
            raise _no_sqlalchemy() from None
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # without the URL in it: who cannot read it cannot hide its password
            raise ConfigError(f"the address of the database is no URL; {_FORMS}") from None
        self.name = parsed.set(query={}).render_as_string(hide_password=True)
        self._busy_timeout_s = busy_timeout_s
        self._file: Path | None = None
        if parsed.drivername in _POSTGRESQL:
            self.engine = _postgresql(parsed, busy_timeout_s)
        elif parsed.drivername not in _SQLITE:
            raise ConfigError(f"{self.name}: databases of the kind {parsed.drivername} are not supported; {_FORMS}")
        elif parsed.host or parsed.query:
            raise ConfigError(f"{self.name}: an SQLite URL has three slashes before its path, and no options; {_FORMS}")
        else:
            if parsed.database not in {None, "", ":memory:"}:
                self._file = Path(str(parsed.database)).absolute()
            self.engine = _sqlite(self._file, busy_timeout_s)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back where the block raises.

        Args:
            read_only: Only read. Without it an SQLite file is kept from other writers from the first statement on, so
                that what is read in the block still holds when it writes.

        Raises:
            ArtifactError: The database cannot be reached, read or written.
        """
        from sqlalchemy.orm import Session

        options = {_READS: True, "postgresql_readonly": True} if read_only else {}
        with explained(self), Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
            yield session
            session.commit()

    def migrate(self) -> None:
        """Make the tables, or bring those of an older version of the package up to date.

        Several processes may do so at once. An SQLite file and its folder are made where they are missing; only its
        owner may read a new file.

        Raises:
            ArtifactError: The database was made by a newer version of the package, or cannot be reached or written.
            MissingDependencyError: Alembic is not installed.
        """
        try:
            from alembic import command
        except ImportError:
            raise _no_sqlalchemy() from None
        from sqlalchemy import func, select

        with _MIGRATING, explained(self):
            if self._file is not None:
                self._make_file(self._file)
            with self.session(read_only=True) as session:
                if self._is_up_to_date(session.connection()):
                    return
            with self.session() as session:
                connection = session.connection()
                if connection.dialect.name == "postgresql":
                    session.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                if not self._is_up_to_date(connection):
                    command.upgrade(migration_config(connection), "head")

    def close(self) -> None:
        """Close all connections that no session uses."""
        self.engine.dispose()

    def _is_up_to_date(self, connection: Connection) -> bool:
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        there = set(MigrationContext.configure(connection).get_current_heads())
        scripts = ScriptDirectory.from_config(migration_config(connection))
        if newer := there - {script.revision for script in scripts.walk_revisions()}:
            raise ArtifactError(
                f"the database {self.name} was made by a newer version of enzyme-stability "
                f"(revision {', '.join(sorted(newer))}); update the package or name another database"
            )
        return there == set(scripts.get_heads())

    def _make_file(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.touch(mode=0o600)
        except OSError as error:
            raise ArtifactError(f"the database {self.name} cannot be made: {error.strerror or error}") from error
        connection = _connect(file, self._busy_timeout_s)
        patience = time.monotonic() + self._busy_timeout_s
        try:
            while True:
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError as error:
                    # While another process does the same, SQLite refuses at once instead of waiting.
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                        raise
                    time.sleep(0.02)
        finally:
            connection.close()


def migration_config(connection: Connection) -> Config:
    """What Alembic's commands take, ``alembic.command.revision`` among them, instead of an ``alembic.ini``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn what drivers say of a database into one sentence.

    Raises:
        ArtifactError: The block failed in the database; the cause is the error of SQLAlchemy or SQLite. Neither
            has the password or the values of a statement in it.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        advice = next((f"; {advice}" for words, advice in _ADVICE.items() if words in said), "")
        raise ArtifactError(f"the database {database.name}: {said}{advice}") from error


def _no_sqlalchemy() -> MissingDependencyError:
    return MissingDependencyError("Keeping predictions in a database", "serve")


def _postgresql(url: URL, timeout_s: float) -> Engine:
    from sqlalchemy import create_engine

    # A server that has gone without a word is noticed within a minute and not after hours.
    options = {"connect_timeout": max(2, round(timeout_s)), "keepalives_idle": 30, "tcp_user_timeout": 30_000}
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={name: value for name, value in options.items() if name not in url.query},
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ImportError:
        raise MissingDependencyError("PostgreSQL as the database", "postgres") from None


def _sqlite(file: Path | None, busy_timeout_s: float) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool, QueuePool

    def connect() -> sqlite3.Connection:
        return _connect(file, busy_timeout_s)

    if file is None:  # it is gone with its only connection
        engine = create_engine(
            "sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0, hide_parameters=True
        )
    else:  # a connection that is kept would go on writing to a file that was deleted or replaced
        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _connect(file: Path | None, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection on which transactions begin where the code says so; it makes no file."""
    connection = sqlite3.connect(
        ":memory:" if file is None else file.as_uri() + "?mode=rw",
        uri=file is not None,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,  # the pool lends it to one thread at a time
    )
    connection.execute("PRAGMA foreign_keys=ON")
    return connection
