"""Services that several modules ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from raw_http import ONE, PATIENCE_S
from running_service import Running, served, served_here

from enzyme_stability.data.readers import read_records
from postgresql import empty_postgresql_url, postgresql_url

__all__ = ["empty_postgresql_url", "postgresql_url"]

MOST_MIB = 700
"""Memory of the service at any time; it begins with about 250."""


@pytest.fixture(scope="package")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Client of a service that is open to everybody and has a database."""
    database = tmp_path_factory.mktemp("service") / "service.db"
    with served_here(database=f"sqlite:///{database}") as client:
        yield client


@pytest.fixture
def sequences(examples: Path) -> dict[str, str]:
    """A dozen real enzymes by name."""
    return {record.id: record.sequence for record in read_records(examples)}


@pytest.fixture(scope="package")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The command ``serve``, with little patience; whatever was done to it, in the end it has kept its countenance."""
    folder = tmp_path_factory.mktemp("besieged")
    temporary = folder / "temporary"
    temporary.mkdir()
    database = f"sqlite:///{folder / 'service.db'}"
    with served("--database", database, "--set", f"body_timeout_s={PATIENCE_S}", TMPDIR=str(temporary)) as running:
        yield running
        assert running.peak_mib() < MOST_MIB
        lines = [json.loads(line) for line in running.said.read_text().splitlines()[1:]]
        assert not [line for line in lines if line["level"] == "error" or "traceback" in line]
        assert not list(temporary.glob("enzyme-stability-*"))


@pytest.fixture
def others_are_answered(besieged: Running) -> Iterator[None]:
    """Whatever a client does in the test, the next one gets its answer."""
    yield
    with besieged.client as client:
        answer = client.post("/v1/predict", content=ONE).raise_for_status().json()
    assert answer["predictions"][0]["tm_celsius"] == pytest.approx(55.91)
