from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enzyme_stability.embeddings.store import EmbeddingSpace, EmbeddingStore, store_folder
from enzyme_stability.errors import ArtifactError, ConfigError

MEAN = EmbeddingSpace("facebook/esm2_t6_8M_UR50D", "0123abcd", -1, "mean", "float32", 1022, 256, "mask")
RESIDUES = replace(MEAN, pooling="residues")
posix = pytest.mark.skipif(os.name != "posix", reason="permissions, limits and signals of POSIX")

# Puts vectors into the store in argv[1]: chain n has n leading M and the vector n, n, n, n. argv[2:] are those n.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from enzyme_stability.embeddings.store import EmbeddingSpace, EmbeddingStore
space = EmbeddingSpace("facebook/esm2_t6_8M_UR50D", "0123abcd", -1, "mean", "float32", 1022, 256, "mask")
with EmbeddingStore(Path(sys.argv[1]), space) as store:
    for n in range(int(sys.argv[2]), int(sys.argv[3])):
        store.put(["M" * n], [np.full(4, n, dtype=np.float32)])
        print(n, flush=True)
"""


def start_writer(
    folder: Path, first: int, end: int, prelude: str = "", env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", prelude + WRITER, str(folder), str(first), str(end)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def chain(n: int) -> str:
    return "M" * n


def vector(n: int, width: int = 4) -> np.ndarray:
    return np.full(width, n, dtype=np.float32)


def fill(store: EmbeddingStore, numbers: range) -> None:
    store.put([chain(n) for n in numbers], [vector(n) for n in numbers])


def numbers_in(store: EmbeddingStore, numbers: range) -> list[int]:
    """Those of the numbers whose vector is there; each is checked against what ``fill`` put."""
    found = store.get([chain(n) for n in numbers])
    for index, array in found.items():
        np.testing.assert_array_equal(array, vector(numbers[index]))
    return [numbers[index] for index in sorted(found)]


def damage(store: EmbeddingStore, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(store.path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of an ordinary user, entered as one: permissions do not bind the administrator."""
    administrator = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        if administrator:
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(folder)
        finally:
            if administrator:
                os.setresuid(0, 0, 0)


def test_vectors_come_back_bit_by_bit(tmp_path):
    random = np.random.default_rng(3)
    bits = random.integers(0, 2**32, (50, 320), dtype=np.uint32)
    vectors = bits.view(np.float32)  # any pattern of bits, not-a-number and subnormal numbers among them
    chains = [chain(n + 1) for n in range(50)]
    with EmbeddingStore(tmp_path, MEAN) as store:
        store.put(chains, vectors)
    with EmbeddingStore(tmp_path, MEAN) as store:
        found = store.get(chains)
    assert sorted(found) == list(range(50))
    for index, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.view(np.uint32), bits[index])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_matrices_of_residues_come_back_as_exactly_as_they_are_kept(tmp_path, dtype):
    random = np.random.default_rng(4)
    matrices = [random.normal(size=(length, 6)).astype(dtype).astype(np.float32) for length in (1, 7, 700)]
    chains = [chain(len(matrix)) for matrix in matrices]
    with EmbeddingStore(tmp_path, RESIDUES, storage_dtype=dtype) as store:
        store.put(chains, matrices)
        found = store.get(chains)
        for index, matrix in enumerate(matrices):
            np.testing.assert_array_equal(found[index], matrix, strict=True)


def test_half_precision_halves_the_numbers_and_keeps_those_beyond_its_range(tmp_path):
    moderate, large = vector(1) / 3, np.array([1, 2, 3, 1e6], dtype=np.float32)
    with EmbeddingStore(tmp_path, MEAN, storage_dtype="float16") as store:
        store.put(["MK", "MV"], [moderate, large])
        found = store.get(["MK", "MV"])
    np.testing.assert_array_equal(found[0], moderate.astype(np.float16))
    np.testing.assert_array_equal(found[1], large)
    with closing(sqlite3.connect(store.path)) as connection:
        assert sorted(connection.execute("SELECT length(data) FROM embedding")) == [(8,), (16,)]


def test_numbers_kept_in_a_lower_precision_than_asked_count_as_missing(tmp_path):
    with EmbeddingStore(tmp_path, MEAN, storage_dtype="float16") as store:
        fill(store, range(1, 4))
    with EmbeddingStore(tmp_path, MEAN) as store:
        assert not store.contains([chain(1), chain(2)]).any()
        assert store.get([chain(1), chain(2)]) == {}
        fill(store, range(1, 3))
        assert numbers_in(store, range(1, 4)) == [1, 2]
    with EmbeddingStore(tmp_path, MEAN, storage_dtype="float16") as store:
        assert numbers_in(store, range(1, 4)) == [1, 2, 3]  # a higher precision serves everybody


def test_the_same_chain_is_kept_once_and_found_at_each_of_its_places(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        store.put(["MK", "MV", "MK"], [vector(1), vector(2), vector(3)])
        assert len(store) == 2
        found = store.get(["MK", "W", "MK", "MV"])
        assert store.contains(["MK", "W", "MK", "MV"]).tolist() == [True, False, True, True]
    assert {index: array[0] for index, array in found.items()} == {0: 3, 2: 3, 3: 2}  # the last one wins


def test_thousands_of_chains_are_asked_for_at_once(tmp_path):
    chains = [f"{n:b}".translate({48: "A", 49: "C"}) for n in range(5_000)]
    with EmbeddingStore(tmp_path, MEAN) as store:
        store.put(chains[::2], [vector(n) for n in range(0, 5_000, 2)])
        found = store.get(chains)
        assert store.contains(chains).tolist() == [n % 2 == 0 for n in range(5_000)]
    assert {index: array[0] for index, array in found.items()} == {n: n for n in range(0, 5_000, 2)}


def test_nothing_asked_is_nothing_answered(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        store.put([], [])
        assert store.get([]) == {}
        assert store.contains([]).shape == (0,)
        assert len(store) == 0


@pytest.mark.parametrize(
    ("space", "array"), [(MEAN, np.zeros((2, 4))), (RESIDUES, np.zeros(4)), (RESIDUES, np.zeros((3, 4)))]
)
def test_an_array_of_another_shape_than_the_space_has_is_refused(tmp_path, space, array):
    with EmbeddingStore(tmp_path, space) as store:
        with pytest.raises(ValueError, match="embedding of 2 residues"):
            store.put(["MK"], [array])
        assert len(store) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"model": "facebook/esm2_t12_35M_UR50D"},
        {"revision": "ffff"},
        {"layer": 5},
        {"pooling": "residues"},
        {"dtype": "bfloat16"},
        {"window": 1000},
        {"overlap": 0},
        {"policy": "drop"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_field_of_a_space_makes_another_file(tmp_path, other):
    with EmbeddingStore(tmp_path, MEAN) as store:
        store.put(["M"], [vector(1)])
    with EmbeddingStore(tmp_path, replace(MEAN, **other)) as store:
        assert not store.contains(["M"]).any()
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_the_name_and_the_key_of_a_file_stay_the_same_between_versions():
    assert MEAN.file_name == f"facebook-esm2_t6_8M_UR50D-{MEAN.key}.sqlite"
    assert MEAN.key == "e05f929ce63e"
    assert replace(MEAN, model="../../../etc/ü").file_name.startswith("etc-")


def test_a_file_says_what_its_embeddings_are_of(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store, closing(sqlite3.connect(store.path)) as connection:
        ((text,),) = connection.execute("SELECT json FROM space")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert EmbeddingSpace(**json.loads(text)) == MEAN


def test_a_file_of_another_space_is_refused_and_left_alone(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 3))
    other = replace(MEAN, layer=3)
    store.path.rename(tmp_path / other.file_name)
    with pytest.raises(ArtifactError, match=r"holds other embeddings \(layer -1 instead of 3\); move it"):
        EmbeddingStore(tmp_path, other)
    (tmp_path / other.file_name).rename(store.path)
    with EmbeddingStore(tmp_path, MEAN) as store:
        assert numbers_in(store, range(1, 3)) == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE embedding SET data = x'00000000' || substr(data, 5) WHERE length(data) = 16 AND key = ?",
        "UPDATE embedding SET data = substr(data, 1, 12) WHERE key = ?",
        "UPDATE embedding SET shape = '[2, 2]' WHERE key = ?",
        "UPDATE embedding SET shape = CAST(x'ff80' AS TEXT) WHERE key = ?",
        "UPDATE embedding SET dtype = 'float16' WHERE key = ?",
        "UPDATE embedding SET dtype = 'object' WHERE key = ?",
        "UPDATE embedding SET checksum = 7 WHERE key = ?",
        "UPDATE embedding SET data = 'words' WHERE key = ?",
        "UPDATE embedding SET (checksum, data) = (SELECT checksum, data FROM embedding AS e"
        " WHERE e.key <> embedding.key) WHERE key = ?",
    ],
)
def test_a_damaged_row_is_left_out_and_can_be_put_again(tmp_path, change):
    from hashlib import sha256

    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 3))
        damage(store, change, sha256(b"M").digest())
        assert numbers_in(store, range(1, 3)) == [2]
        assert store.contains([chain(1), chain(2)]).tolist() == [False, True]
        fill(store, range(1, 2))
        assert numbers_in(store, range(1, 3)) == [1, 2]


def test_a_reader_leaves_a_damaged_row_out_and_leaves_the_file_alone(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 2))
        damage(store, "UPDATE embedding SET data = zeroblob(16)")
    before = store.path.read_bytes()
    with EmbeddingStore(tmp_path, MEAN, read_only=True) as store:
        assert numbers_in(store, range(1, 2)) == []
        fill(store, range(1, 2))
        assert len(store) == 1
    assert store.path.read_bytes() == before


def test_a_reader_makes_nothing_and_sees_what_others_add(tmp_path):
    folder = tmp_path / "none"
    with EmbeddingStore(folder, MEAN, read_only=True) as reader:
        assert (reader.writable, len(reader), numbers_in(reader, range(1, 3))) == (False, 0, [])
        fill(reader, range(1, 3))
        assert not folder.exists()
        with EmbeddingStore(folder, MEAN) as store:
            fill(store, range(1, 3))
            assert numbers_in(reader, range(1, 4)) == [1, 2]


@pytest.mark.parametrize("content", [b"not a database " * 999, b"SQLite format 3\0" + b"\xff" * 9_000, b"x" * 600])
def test_a_file_that_is_no_database_is_moved_aside(tmp_path, content):
    told: list[str] = []
    path = tmp_path / MEAN.file_name
    path.write_bytes(content)
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        fill(store, range(1, 3))
        assert numbers_in(store, range(1, 3)) == [1, 2]
    assert (tmp_path / f"{path.name}.damaged-1").read_bytes() == content
    assert len(told) == 1
    assert f"{path.name} was damaged" in told[0]


def test_a_second_damaged_file_does_not_replace_the_first(tmp_path):
    for content in (b"one" * 999, b"two" * 999):
        (tmp_path / MEAN.file_name).write_bytes(content)
        with pytest.warns(UserWarning, match=f"it is now called {MEAN.file_name}.damaged-"):
            EmbeddingStore(tmp_path, MEAN).close()
    assert [(tmp_path / f"{MEAN.file_name}.damaged-{n}").read_bytes()[:3] for n in (1, 2)] == [b"one", b"two"]


def test_a_truncated_file_is_moved_aside(tmp_path):
    told: list[str] = []
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 400))
    os.truncate(store.path, store.path.stat().st_size // 2)
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        assert numbers_in(store, range(1, 400)) == []
        fill(store, range(1, 3))
        assert numbers_in(store, range(1, 400)) == [1, 2]
    assert [message for message in told if "was damaged" not in message] == []
    assert len(told) == 1


def test_damage_that_shows_in_the_middle_of_a_run_costs_what_is_behind_it(tmp_path):
    told: list[str] = []
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 2_000))
    with store.path.open("r+b") as file:
        for page in range(4, store.path.stat().st_size // 4096):  # the header and the roots stay whole
            file.seek(4096 * page)
            file.write(b"\xff" * 4096)
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        assert len(numbers_in(store, range(1, 2_000))) < 1_000
        fill(store, range(1, 2_000))
        assert numbers_in(store, range(1, 2_000)) == list(range(1, 2_000))
        assert store.writable
    assert ["was damaged" in message for message in told] == [True]


@pytest.mark.parametrize(
    "change", ["DELETE FROM space", "UPDATE space SET json = '{'", "UPDATE space SET json = '[1]'", "DROP TABLE space"]
)
def test_a_file_that_does_not_say_what_it_holds_is_moved_aside(tmp_path, change):
    told: list[str] = []
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 3))
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(change)
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        assert len(store) == 0
        fill(store, range(1, 3))
        assert numbers_in(store, range(1, 3)) == [1, 2]
    assert ["was damaged" in message for message in told] == [True]


def test_a_reader_of_a_damaged_file_goes_without_and_moves_nothing(tmp_path):
    told: list[str] = []
    (tmp_path / MEAN.file_name).write_bytes(b"not a database " * 999)
    with EmbeddingStore(tmp_path, MEAN, read_only=True, report=told.append) as store:
        assert numbers_in(store, range(1, 3)) == []
        assert not store.contains([chain(1)]).any()
    assert [path.name for path in tmp_path.iterdir()] == [MEAN.file_name]
    assert len(told) == 1
    assert "cannot be read" in told[0]


def test_processes_may_write_the_same_chains_at_the_same_time(tmp_path):
    writers = [start_writer(tmp_path, first, first + 200) for first in (1, 101, 201)]
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert (writer.returncode, err) == (0, "")
    with EmbeddingStore(tmp_path, MEAN) as store:
        assert numbers_in(store, range(1, 500)) == list(range(1, 401))


def test_threads_may_share_a_store(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        missing: list[int] = []

        def work(first: int) -> None:
            for n in range(first, first + 40):
                fill(store, range(n, n + 2))
                missing.extend({n, n + 1} - set(numbers_in(store, range(1, 200))))

        threads = [threading.Thread(target=work, args=(first,)) for first in (1, 21, 101)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert missing == []
        assert len(store) == len({*range(1, 62), *range(101, 142)})


def open_files() -> list[str]:
    return [str(link.readlink()) for link in Path("/proc/self/fd").glob("*") if link.is_symlink()]


def put_and_read(store: EmbeddingStore, first: int) -> None:
    if any(name.startswith(str(store.path)) for name in open_files()):
        os._exit(2)  # SQLite would take the locks of the parent for its own
    fill(store, range(first, first + 50))
    os._exit(0 if numbers_in(store, range(1, 51)) == list(range(1, 51)) else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_may_use_the_store_of_their_parent(tmp_path):
    fork = multiprocessing.get_context("fork")
    with EmbeddingStore(tmp_path, MEAN) as store:
        fill(store, range(1, 51))
        children = [fork.Process(target=put_and_read, args=(store, first)) for first in (101, 151)]
        for child in children:
            child.start()
        fill(store, range(51, 101))
        for child in children:
            child.join(timeout=60)
            assert child.exitcode == 0
        assert numbers_in(store, range(1, 300)) == list(range(1, 201))


@posix
def test_a_killed_writer_leaves_what_it_had_put(tmp_path):
    writer = start_writer(tmp_path, 1, 1_000_000)
    done = 0
    assert writer.stdout is not None
    while done < 40:
        done = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    told: list[str] = []
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        assert numbers_in(store, range(1, 41)) == list(range(1, 41))
        fill(store, range(41, 45))
        assert numbers_in(store, range(1, 45)) == list(range(1, 45))
    assert told == []


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path):
    with EmbeddingStore(tmp_path, MEAN) as store:
        with pytest.raises(ValueError, match="argument 2"):
            store.put([chain(1), chain(2)], [vector(1)])
        assert len(store) == 0


def test_a_full_database_ends_saving_with_one_sentence_and_no_reading(tmp_path):
    told: list[str] = []
    with EmbeddingStore(tmp_path, MEAN, report=told.append) as store:
        fill(store, range(1, 50))
        assert store._connection is not None  # the limit below holds for one connection only
        store._connection.execute("PRAGMA max_page_count=8")
        for first in range(100, 1_000, 100):
            fill(store, range(first, first + 100))
        assert not store.writable
        assert numbers_in(store, range(1, 50)) == list(range(1, 50))
    assert len(told) == 1
    assert "embeddings are not kept for a later run" in told[0]
    assert "full" in told[0]


@posix
@pytest.mark.parametrize("limit", [0, 5_000, 60_000])
def test_a_full_disk_ends_saving_and_not_the_run(tmp_path, limit, unmeasured):
    prelude = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    writer = start_writer(tmp_path, 1, 200, prelude, unmeasured)
    out, err = writer.communicate(timeout=60)
    assert out.splitlines()[-1:] == ["199"], err
    assert writer.returncode == 0
    assert err.count("UserWarning") == 1
    assert "Traceback" not in err
    with EmbeddingStore(tmp_path, MEAN, report=pytest.fail) as store:  # once there is room again
        there = numbers_in(store, range(1, 200))
        assert there == list(range(1, len(there) + 1))
        assert (len(there) > 0) == (limit == 60_000)
        fill(store, range(1, 200))
        assert len(store) == 199


@posix
def test_a_folder_that_cannot_be_written_is_read_and_reported_once():
    with ordinary_user() as folder:
        with EmbeddingStore(folder / "s", MEAN) as store:
            fill(store, range(1, 3))
        (folder / "s").chmod(0o555)
        store.path.chmod(0o444)
        told: list[str] = []
        with EmbeddingStore(folder / "s", MEAN, report=told.append) as store:
            assert not store.writable
            fill(store, range(3, 9))
            fill(store, range(3, 9))
            assert numbers_in(store, range(1, 9)) == [1, 2]
        assert len(told) == 1
        assert "embeddings are not kept for a later run" in told[0]
        with EmbeddingStore(folder / "s", MEAN, read_only=True, report=told.append) as store:
            assert numbers_in(store, range(1, 9)) == [1, 2]
        assert len(told) == 1
        (folder / "s").chmod(0o755)


@posix
def test_a_folder_that_cannot_be_made_is_reported_once():
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0o555)
        for place in (folder / "closed" / "store", folder / "file"):
            (folder / "file").touch()
            told: list[str] = []
            with EmbeddingStore(place, MEAN, report=told.append) as store:
                fill(store, range(1, 3))
                assert (store.writable, len(store), numbers_in(store, range(1, 3))) == (False, 0, [])
            assert len(told) == 1
            assert str(place) in told[0]


def test_waiting_for_another_writer_is_no_error(tmp_path):
    with EmbeddingStore(tmp_path, MEAN, report=pytest.fail) as store:
        with closing(sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.3, other.execute, ["COMMIT"])
            timer.start()
            started = time.monotonic()
            fill(store, range(1, 3))
            assert time.monotonic() - started > 0.1
            timer.join()
        assert numbers_in(store, range(1, 3)) == [1, 2]


def test_a_closed_store_opens_again(tmp_path):
    store = EmbeddingStore(tmp_path, MEAN)
    fill(store, range(1, 3))
    store.close()
    store.close()
    assert numbers_in(store, range(1, 3)) == [1, 2]
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == [MEAN.file_name]  # the log is part of the file again


def test_the_folder_is_that_of_the_environment_or_the_cache_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("ENZYME_STABILITY_STORE", raising=False)
    assert store_folder() == Path("/home/ada/.cache/enzyme-stability/embeddings")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert store_folder() == Path("/scratch/enzyme-stability/embeddings")
    monkeypatch.setenv("ENZYME_STABILITY_STORE", "~/vectors")
    assert store_folder() == Path("/home/ada/vectors")


@posix
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    for name in ("ENZYME_STABILITY_STORE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123_456_789)
    with pytest.raises(ConfigError, match="set ENZYME_STABILITY_STORE"):
        store_folder()
