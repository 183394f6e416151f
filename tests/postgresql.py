"""A PostgreSQL server for the tests, thrown away at their end; its programs must be installed, nothing need run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

_PATIENCE_S = 60


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of a database on a server of its own, of which the user is a superuser."""
    programs = _programs()
    if programs is None:
        if os.environ.get("ENZYME_STABILITY_NEEDS_POSTGRESQL") == "1":
            pytest.fail("PostgreSQL is not installed, and ENZYME_STABILITY_NEEDS_POSTGRESQL=1 asks for its tests")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # short: the path of a socket has about a hundred letters
    try:
        yield from _serve(programs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_postgresql_url(postgresql_url: str) -> Iterator[str]:
    """URL of a new database on that server, for one test."""
    name = f"test_{secrets.token_hex(6)}"
    on_server(postgresql_url, f"CREATE DATABASE {name}")
    yield make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
    on_server(postgresql_url, f"DROP DATABASE {name} WITH (FORCE)")


def on_server(url: str, *statements: str) -> None:
    """Run statements outside of any transaction."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def _programs() -> Path | None:
    """Folder of initdb and postgres."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in installed), key=lambda path: int(path.parent.name), default=None)


def _serve(programs: Path, folder: Path) -> Iterator[str]:
    account = _account(folder)
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, check=False, **account)
    assert made.returncode == 0, made.stderr
    settings = ["listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "shared_buffers=16MB"]
    command = [programs / "postgres", "-D", data, *(word for setting in settings for word in ("-c", setting))]
    url = URL.create("postgresql", "tester", database="postgres", query={"host": str(folder)}).render_as_string()
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **account)
    try:
        patience = time.monotonic() + _PATIENCE_S
        while True:
            try:
                on_server(url, "SELECT 1")
                break
            except OperationalError:
                said = (folder / "log").read_text()
                assert server.poll() is None, said
                assert time.monotonic() < patience, said
                time.sleep(0.05)
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        try:
            server.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()


def _account(folder: Path) -> dict[str, Any]:
    """Who runs the server: PostgreSQL refuses to be run by root."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
