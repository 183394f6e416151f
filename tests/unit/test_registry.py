"""Versions and aliases of predictors in a folder, in memory and in a bucket."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("gcsfs")

from fsspec.implementations.memory import MemoryFileSystem
from gcp_storage_emulator.server import create_server

from enzyme_stability import Predictor, remote
from enzyme_stability.errors import ArtifactError, ConfigError
from enzyme_stability.promotion import add
from enzyme_stability.registry import Address, Registry


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    with create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
        yield "gs://bucket/registry"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))
    MemoryFileSystem.store.clear()
    yield "memory://shelf"
    MemoryFileSystem.store.clear()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


@pytest.mark.parametrize("place", ["folder", "memory", "bucket"])
def test_an_alias_leads_to_the_version_that_was_promoted_last_and_back(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_DOWNLOADS", str(tmp_path / "downloads"))
    registry = Registry(request.getfixturevalue(place))
    name, first = add(registry, "tm50", "mine", note="the first")
    _, second = add(registry, "builtin", "mine")
    assert [version.number for version in registry.versions("mine")] == [1, 2]
    assert registry.names() == [name] == ["mine"]
    assert registry.version("mine", 1).note == "the first"
    registry.point("mine", "production", 1)
    registry.point("mine", "production", 2)
    assert Predictor.load(f"{registry.url}/mine@production").digest == second.sha256
    assert registry.roll_back("mine", "production").version == 1
    assert Predictor.load(f"{registry.url}/mine@production").digest == first.sha256
    assert Predictor.load(f"{registry.url}/mine@2").digest == second.sha256
    assert Address.parse(f"{registry.url}/mine@production").digest() == first.sha256  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="no other version before"):
        registry.roll_back("mine", "production")


@pytest.mark.parametrize("place", ["folder", "memory", "bucket"])
def test_versions_added_at_the_same_time_get_numbers_of_their_own(place: str, request: pytest.FixtureRequest) -> None:
    registry = Registry(request.getfixturevalue(place))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda k: registry.add("mine", f"{k:064d}").number, range(8)))
    # the emulator answers one at a time and knows no condition, so that a bucket is only as good as the look before
    if place != "bucket":
        assert sorted(made) == list(range(1, 9))
    assert len(registry.versions("mine")) == len(set(made))


def test_the_same_predictor_keeps_its_number(folder: str) -> None:
    registry = Registry(folder)
    assert add(registry, "tm50", "mine")[1] == add(registry, "tm50", "mine")[1]
    assert len(registry.versions("mine")) == 1


def test_an_addition_that_was_cut_short_is_made_good(folder: str) -> None:
    registry = Registry(folder)
    registry.add("mine", Predictor.builtin("tm50").digest)  # the number was taken, and then the power failed
    with pytest.raises(ArtifactError):
        Predictor.load(f"{folder}/mine@1")
    _, version = add(registry, "tm50", "mine")
    assert version.number == 1
    assert Predictor.load(f"{folder}/mine@1").digest == version.sha256


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("gs://bucket/registry/mine@production", True),
        ("shelf/mine@3", True),
        ("C:\\shelf\\mine@3", True),
        ("hf://owner/mine@main", False),
        ("gs://bucket/mine", False),
        ("s3://user@host/mine", False),
        ("builtin", False),
    ],
)
def test_an_address_in_a_registry_is_told_from_others(text: str, is_one: bool) -> None:
    assert (Address.parse(text) is not None) is is_one


def test_a_folder_with_an_at_sign_in_its_name_stays_a_folder(tmp_path: Path) -> None:
    Predictor.builtin("tm50").save(tmp_path / "mine@home")
    assert Predictor.load(tmp_path / "mine@home").name == "tm50"


@pytest.mark.parametrize("alias", ["", "3", "../production", "Production", "a b"])
def test_what_cannot_be_an_alias_is_refused(folder: str, alias: str) -> None:
    registry = Registry(folder)
    add(registry, "tm50", "mine")
    with pytest.raises(ConfigError, match="cannot be an alias"):
        registry.point("mine", alias, 1)


@pytest.mark.parametrize("name", ["", "..", "../mine", "a/b", "mine@1"])
def test_a_name_does_not_lead_out_of_the_registry(folder: str, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        Registry(folder).add(name, "0" * 64)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"version": 1}', b'{"number": 1}'])
def test_a_damaged_record_is_told(folder: str, content: bytes) -> None:
    registry = Registry(folder)
    add(registry, "tm50", "mine")
    registry.point("mine", "production", 1)
    (Path(folder) / "mine" / "aliases" / "production.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"production\.json is damaged"):
        Predictor.load(f"{folder}/mine@production")


def test_what_is_not_there_is_told(folder: str) -> None:
    registry = Registry(folder)
    add(registry, "tm50", "mine")
    with pytest.raises(ArtifactError, match="no version 7 of mine"):
        registry.point("mine", "production", 7)
    with pytest.raises(ArtifactError, match="has no mine@production"):
        Predictor.load(f"{folder}/mine@production")
    assert registry.versions("other") == []
