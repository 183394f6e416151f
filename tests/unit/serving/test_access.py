from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.errors import ConfigError, OverloadedError
from enzyme_stability.serving.access import Access, UnauthorisedError, create_key, presented_key, read_keys, revoke_key


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def scope(*headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http", "headers": list(headers)}


def test_a_key_lets_in_by_its_name(path: Path) -> None:
    key, other = create_key(path, "lab"), create_key(path, "line-2")

    access = Access(path)

    assert (access.check(key), access.check(other)) == ("lab", "line-2")


def test_the_file_holds_the_hash_alone_and_is_for_its_owner_only(path: Path) -> None:
    key = create_key(path, "lab")

    assert key.startswith("es_")
    assert len(key) >= 46  # 256 bits, six in a letter
    assert key not in path.read_text()
    assert json.loads(path.read_text())["keys"][0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("presented", [None, "", "es_", "lab", "é" * 20, "\ud800", "es_" + "A" * 100_000])
def test_what_is_no_key_is_refused(path: Path, presented: str | None) -> None:
    create_key(path, "lab")

    with pytest.raises(UnauthorisedError):
        Access(path).check(presented)


def test_neither_the_hash_nor_a_part_of_a_key_is_a_key(path: Path) -> None:
    key = create_key(path, "lab")
    access = Access(path)

    for wrong in (key[:-1], key + "A", key.upper(), hashlib.sha256(key.encode()).hexdigest()):
        with pytest.raises(UnauthorisedError, match="unknown"):
            access.check(wrong)


def test_every_stored_hash_is_compared_wherever_the_key_stands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [create_key(path, f"lab-{n}") for n in range(5)]
    access = Access(path)
    compared = []

    def compare(a: str, b: str) -> bool:
        compared.append(a)
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    for key in keys:
        access.check(key)

    assert len(compared) == 25


def test_a_revoked_key_is_refused_from_the_next_request_on(path: Path) -> None:
    key, other = create_key(path, "lab"), create_key(path, "line-2")
    access = Access(path)
    assert access.check(key) == "lab"

    revoke_key(path, "lab")

    with pytest.raises(UnauthorisedError, match="revoked"):
        access.check(key)
    assert access.check(other) == "line-2"


def test_a_new_key_counts_without_a_restart_and_may_replace_a_revoked_one(path: Path) -> None:
    create_key(path, "lab")
    access = Access(path)

    with pytest.raises(ConfigError, match="a key of lab already"):
        create_key(path, "lab")
    revoke_key(path, "lab")
    key = create_key(path, "lab")

    assert access.check(key) == "lab"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys": [{"name": "x"}]}', b"\xff", b'{"kees": []}', None])
def test_a_broken_file_keeps_the_last_good_keys_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    key = create_key(path, "lab")
    access = Access(path)

    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    with caplog.at_level(logging.ERROR):
        assert [access.check(key), access.check(key)] == ["lab", "lab"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(ConfigError, match=r"keys\.json"):
        Access(path)


def test_the_limit_of_a_key_is_a_bucket_that_fills_evenly(path: Path) -> None:
    clock = Clock()
    key, other = create_key(path, "lab", requests_per_minute=6), create_key(path, "line-2")
    access = Access(path, now=clock)

    for _ in range(6):
        access.check(key)
    with pytest.raises(OverloadedError, match="6 requests per minute") as refused:
        access.check(key)
    assert refused.value.retry_after_s == pytest.approx(10)

    clock.seconds += 9.9
    with pytest.raises(OverloadedError):
        access.check(key)
    clock.seconds += 0.2
    access.check(key)
    with pytest.raises(OverloadedError):
        access.check(key)
    for _ in range(1000):
        assert access.check(other) == "line-2"


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 30))
def test_no_more_are_let_in_than_the_limit_and_what_came_back(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[float], limit: int
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    clock = Clock()
    key = create_key(path, "lab", requests_per_minute=limit)
    access = Access(path, now=clock)
    let_in = 0

    for pause in pauses:
        clock.seconds += pause
        try:
            access.check(key)
        except OverloadedError as error:
            clock.seconds += error.retry_after_s + 1e-6
            access.check(key)
        let_in += 1

    assert let_in <= limit + (clock.seconds - 1000) * limit / 60 + 1e-6


def test_a_changed_file_does_not_fill_the_bucket_again(path: Path) -> None:
    key = create_key(path, "lab", requests_per_minute=1)
    access = Access(path, now=Clock())
    access.check(key)

    create_key(path, "line-2")

    with pytest.raises(OverloadedError):
        access.check(key)


def test_many_threads_get_no_more_than_the_limit(path: Path) -> None:
    key = create_key(path, "lab", requests_per_minute=50)
    access = Access(path, now=Clock())
    let_in = []

    def ask() -> None:
        for _ in range(20):
            with suppress(OverloadedError):
                let_in.append(access.check(key))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(let_in) == 50


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer es_1")], "es_1"),
        ([(b"authorization", b"bearer  es_1 ")], "es_1"),
        ([(b"x-api-key", b" es_2 ")], "es_2"),
        ([(b"x-api-key", b"es_2"), (b"authorization", b"Bearer es_1")], "es_1"),
        ([(b"authorization", b"Basic dXNlcjo="), (b"x-api-key", b"es_2")], "es_2"),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", b"es_1")], None),
        ([(b"x-api-key", b"")], None),
        ([(b"x-api-key", b"\xff\x00")], "ÿ\x00"),
        ([], None),
    ],
)
def test_a_key_is_found_in_either_header(headers: list[tuple[bytes, bytes]], key: str | None) -> None:
    assert presented_key(scope(*headers)) == key


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\nb", "a" * 101, "ä", "a\n"])
def test_a_name_that_would_confuse_a_log_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        create_key(path, name)
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_a_key_of_somebody_unknown_cannot_be_revoked(path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        revoke_key(path, "lab")
    create_key(path, "lab")
    with pytest.raises(ConfigError, match="valid keys: lab"):
        revoke_key(path, "line-2")


def test_keys_made_at_once_all_stay(path: Path) -> None:
    """Whoever is told that somebody else writes just now tries again, as a person would."""
    create_key(path, "first")
    script = (
        "import sys, pathlib\n"
        "from enzyme_stability.errors import ConfigError\n"
        "from enzyme_stability.serving.access import create_key\n"
        "for n in range(10):\n"
        "    while True:\n"
        "        try:\n"
        "            create_key(pathlib.Path(sys.argv[1]), f'{sys.argv[2]}-{n}')\n"
        "            break\n"
        "        except ConfigError as error:\n"
        "            assert 'just being changed' in str(error), error\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, path, name]) for name in ("a", "b", "c")]

    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(read_keys(path)) == 31
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    create_key(real, "lab")
    link = tmp_path / "keys.json"
    link.symlink_to(real)

    create_key(link, "line-2")

    assert link.is_symlink()
    assert [key.name for key in read_keys(real)] == ["lab", "line-2"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such folders here")
@pytest.mark.parametrize("name", ["missing/keys.json", "a\0b", "."])
def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_key(tmp_path / name, "lab")
    assert "\n" not in str(refused.value)
