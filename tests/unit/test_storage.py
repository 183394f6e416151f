"""Files and folders at URLs, with the real Google client before a storage emulator, and a file system in memory."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gcsfs")

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from gcp_storage_emulator.server import Server, create_server

from enzyme_stability import remote
from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError
from enzyme_stability.storage import Mirror, fetch, is_url, mirror, put_file, put_folder


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def emulator() -> Iterator[Server]:
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    port = unused_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.address = f"http://127.0.0.1:{port}"
    with server:
        yield server


@pytest.fixture
def bucket(emulator: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.address)
    yield "gs://bucket"
    emulator.wipe(keep_buckets=True)


@pytest.fixture
def memory() -> Iterator[str]:
    MemoryFileSystem.store.clear()
    yield "memory://shelf"
    MemoryFileSystem.store.clear()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))


class Unreliable(MemoryFileSystem):
    """Fails the first writes it is asked for, or cuts them short."""

    protocol = "unreliable"
    store: dict[str, object] = {}  # noqa: RUF012 - as in the class above
    failures = 0
    cut_short = 0
    written: list[str] = []  # noqa: RUF012

    def put_file(self, lpath: str, rpath: str, **_: object) -> None:
        path = self._strip_protocol(rpath)
        if Unreliable.failures:
            Unreliable.failures -= 1
            raise ConnectionResetError("connection reset by peer")
        self.pipe_file(path, Path(lpath).read_bytes()[: -1 if Unreliable.cut_short else None])
        Unreliable.cut_short -= bool(Unreliable.cut_short)
        Unreliable.written.append(path)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("unreliable://").strip("/")


@pytest.fixture
def unreliable() -> str:
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    Unreliable.failures = Unreliable.cut_short = 0
    Unreliable.store.clear()
    Unreliable.written.clear()
    return "unreliable://shelf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "part").mkdir(parents=True)
    (made / "a.bin").write_bytes(bytes(range(256)) * 40)
    (made / "part" / "b.txt").write_text("beta")
    (made / "predictor.json").write_text("{}")
    return made


def contents(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def in_memory() -> set[str]:
    return set(MemoryFileSystem.store)


@pytest.mark.parametrize(
    "address", ["gs://b/x", "s3://b", "memory://x", "file:///data/x", "hf://owner/name", "HTTPS://host/x"]
)
def test_addresses_are_urls(address):
    assert is_url(address)


@pytest.mark.parametrize("path", ["x", "/data/x", r"C:\x", "C:/x", "C://x", "a:b", "", "./gs:/b", Path("gs://b")])
def test_paths_and_drives_are_not_urls(path):
    assert not is_url(path)


@pytest.mark.parametrize("shelf", ["bucket", "memory"])
def test_a_folder_and_a_file_come_back_as_they_went(shelf, folder, tmp_path, request):
    url = request.getfixturevalue(shelf)
    put_folder(folder, f"{url}/model v1/")
    put_file(folder / "a.bin", f"{url}/alone.bin")
    back = fetch(f"{url}/model v1", tmp_path / "kept")
    assert contents(back) == contents(folder)
    assert back.name == "model_v1"
    alone = fetch(f"{url}/alone.bin", tmp_path / "kept")
    assert (alone.name, alone.read_bytes()) == ("alone.bin", (folder / "a.bin").read_bytes())


def test_a_neighbour_with_a_longer_name_is_not_fetched(bucket, folder, tmp_path):
    put_folder(folder, f"{bucket}/run1")
    put_file(folder / "a.bin", f"{bucket}/run10/c.bin")
    assert contents(fetch(f"{bucket}/run1", tmp_path)) == contents(folder)


def test_a_local_path_is_its_own_copy(folder, tmp_path):
    assert fetch(folder) == fetch(str(folder)) == fetch(f"file://{folder}") == folder
    assert fetch(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


def test_an_unchanged_object_is_transferred_once_and_a_changed_one_again(
    bucket, emulator, folder, tmp_path, monkeypatch
):
    transfers = []
    read = emulator._storage.get_file
    monkeypatch.setattr(emulator._storage, "get_file", lambda *a, **k: transfers.append(a) or read(*a, **k))
    put_folder(folder, f"{bucket}/model")
    first = fetch(f"{bucket}/model", tmp_path / "kept")
    assert len(transfers) == 3
    assert fetch(f"{bucket}/model", tmp_path / "kept") == first
    assert len(transfers) == 3
    (folder / "part" / "b.txt").write_text("BETA")  # of the same size
    put_file(folder / "part" / "b.txt", f"{bucket}/model/part/b.txt")
    second = fetch(f"{bucket}/model", tmp_path / "kept")
    assert (second / "part" / "b.txt").read_text() == "BETA"
    assert (first / "part" / "b.txt").read_text() == "beta"  # whoever reads the old copy goes on reading it


def test_copies_are_kept_where_the_environment_says(memory, folder, tmp_path, monkeypatch):
    put_folder(folder, f"{memory}/model")
    monkeypatch.setenv("ENZYME_STABILITY_DOWNLOADS", str(tmp_path / "here"))
    assert fetch(f"{memory}/model").is_relative_to(tmp_path / "here")
    monkeypatch.delenv("ENZYME_STABILITY_DOWNLOADS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(f"{memory}/model").is_relative_to(tmp_path / ".cache" / "enzyme-stability" / "downloads")


def test_a_fetch_that_breaks_off_leaves_nothing_that_a_later_one_takes_for_whole(memory, folder, tmp_path, monkeypatch):
    put_folder(folder, f"{memory}/model")
    whole = MemoryFileSystem.get_file

    def breaks_at_the_second(self, rpath, lpath, *args, **options):
        if rpath.endswith("b.txt"):
            raise ConnectionResetError("connection reset by peer")
        return whole(self, rpath, lpath, *args, **options)

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "get_file", breaks_at_the_second)
        with pytest.raises(ArtifactError, match="memory://shelf/model: connection reset by peer; try again later"):
            fetch(f"{memory}/model", tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    assert contents(fetch(f"{memory}/model", tmp_path / "kept")) == contents(folder)


def test_a_folder_that_changes_while_it_is_read_is_refused(memory, folder, tmp_path, monkeypatch):
    put_folder(folder, f"{memory}/model")
    whole = MemoryFileSystem.get_file

    def meanwhile_rewritten(self, rpath, lpath, *args, **options):
        whole(self, rpath, lpath, *args, **options)
        self.pipe_file("/shelf/model/a.bin", bytes(10240))

    monkeypatch.setattr(MemoryFileSystem, "get_file", meanwhile_rewritten)
    with pytest.raises(ArtifactError, match="was changed while it was read; try again"):
        fetch(f"{memory}/model", tmp_path / "kept")


@pytest.mark.parametrize("name", ["/shelf/model/../../evil.txt", "/shelf/model/..\\evil.txt", "/shelf/model/C:/evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(memory, folder, tmp_path, name):
    put_folder(folder, f"{memory}/model")
    MemoryFileSystem.store[name] = MemoryFileSystem.store["/shelf/model/a.bin"]
    with pytest.raises(ArtifactError, match="leads out of the folder; nothing was written"):
        fetch(f"{memory}/model", tmp_path / "kept" / "deep")
    with pytest.raises(ArtifactError, match="leads out of the folder; nothing was written"):
        Mirror.restore(f"{memory}/model", tmp_path / "kept" / "deep")
    assert contents(tmp_path / "kept") == {}


@pytest.mark.parametrize("address", ["gs://nowhere/model", "gs://bucket/nothing", "memory://nothing/here"])
@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_is_one_sentence_at_once(tmp_path, address):
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=f"^{address}: there is nothing at this address; check its spelling"):
        fetch(address, tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("bucket")
def test_a_missing_bucket_takes_no_files(folder):
    with pytest.raises(ArtifactError, match=r"^gs://nowhere/model: there is nothing at this address.*bucket exists$"):
        put_folder(folder, "gs://nowhere/model")


@pytest.mark.parametrize("action", ["fetch", "put_file", "put_folder"])
def test_a_host_that_does_not_answer_is_one_sentence_within_seconds(folder, tmp_path, monkeypatch, capfd, action):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setattr(remote, "_FIRST_ANSWER_S", 0.5)
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=r"^gs://bucket/m: there is no answer; check the address and the network$"):
        {
            "fetch": lambda: fetch("gs://bucket/m", tmp_path / "kept"),
            "put_file": lambda: put_file(folder / "a.bin", "gs://bucket/m"),
            "put_folder": lambda: put_folder(folder, "gs://bucket/m"),
        }[action]()
    assert time.monotonic() - start < 5
    assert "Traceback" not in capfd.readouterr().err


def test_the_manifest_of_a_predictor_goes_last(unreliable, folder):
    put_folder(folder, f"{unreliable}/model")
    assert Unreliable.written == [f"/shelf/model/{name}" for name in ("a.bin", "part/b.txt", "predictor.json")]


def test_an_upload_that_breaks_off_leaves_no_manifest_not_even_the_old_one(unreliable, folder):
    put_folder(folder, f"{unreliable}/model")
    Unreliable.failures = 4
    with pytest.raises(ArtifactError, match="connection reset by peer; try again later"):
        put_folder(folder, f"{unreliable}/model")
    assert set(Unreliable.store) == {"/shelf/model/a.bin", "/shelf/model/part/b.txt"}


def test_a_write_that_fails_twice_is_tried_a_third_time(unreliable, folder, tmp_path):
    Unreliable.failures = 2
    put_folder(folder, f"{unreliable}/model")
    assert contents(fetch(f"{unreliable}/model", tmp_path / "kept")) == contents(folder)


def test_a_write_that_is_refused_is_not_tried_again(unreliable, folder, monkeypatch):
    asked = []

    def refuse(*paths, **_):
        asked.append(paths)
        raise PermissionError("no")

    monkeypatch.setattr(Unreliable, "put_file", refuse)
    with pytest.raises(ArtifactError, match="access is refused; sign in"):
        put_file(folder / "a.bin", f"{unreliable}/a.bin")
    assert len(asked) == 1


def test_a_file_that_was_cut_short_is_sent_again(unreliable, folder):
    Unreliable.cut_short = 1
    put_file(folder / "a.bin", f"{unreliable}/a.bin")
    assert Unreliable.store["/shelf/a.bin"].getvalue() == (folder / "a.bin").read_bytes()


def test_a_file_that_is_always_cut_short_is_an_error(unreliable, folder):
    Unreliable.cut_short = 99
    with pytest.raises(ArtifactError, match="not transferred completely: 10239 bytes there, 10240 here; try again"):
        put_file(folder / "a.bin", f"{unreliable}/a.bin")


def test_a_file_that_the_bucket_holds_with_another_checksum_is_an_error(bucket, emulator, folder, monkeypatch):
    create = emulator._storage.create_file

    def damaged(bucket_name, name, content, facts, *args):
        create(bucket_name, name, content, facts | {"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}, *args)

    monkeypatch.setattr(emulator._storage, "create_file", damaged)
    with pytest.raises(ArtifactError, match="damaged on the way: the MD5 checksums differ; try again"):
        put_file(folder / "a.bin", f"{bucket}/a.bin")


def test_a_local_folder_is_replaced_when_the_new_one_is_complete(folder, tmp_path, monkeypatch):
    target = tmp_path / "there" / "model"
    put_folder(folder, target)
    assert contents(target) == contents(folder)
    before = contents(folder)
    (folder / "a.bin").rename(folder / "c.bin")
    (folder / "c.bin").write_bytes(b"new")
    with monkeypatch.context() as full:
        full.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", "x")))
        with pytest.raises(ArtifactError, match="No space left on device"):
            put_folder(folder, target)
    assert contents(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    put_folder(folder, f"file://{target}")
    assert contents(target) == contents(folder)
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_local_folder_with_something_else_in_it_is_not_replaced(folder, tmp_path):
    for name in ("home/thesis.tex", "run/predictor.json", "run/checkpoints/epoch_9.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("precious")
    (tmp_path / "file").write_text("precious")
    for target in ("home", "run", "file"):
        with pytest.raises(ArtifactError, match=r"holds other files, such as|is a file; give the name of a folder"):
            put_folder(folder, tmp_path / target)
    with pytest.raises(ArtifactError, match=r"lies in .* itself"):
        put_folder(folder, folder / "copy")
    assert (tmp_path / "run/checkpoints/epoch_9.ckpt").read_text() == (tmp_path / "file").read_text() == "precious"


def test_a_folder_without_files_is_refused(tmp_path):
    for nothing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtifactError, match="is not a folder with files in it"):
            put_folder(nothing, "memory://x")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="changes its user, to whom permissions apply")
def test_a_read_only_place_is_one_sentence(memory, folder):
    put_folder(folder, f"{memory}/model")
    with tempfile.TemporaryDirectory() as closed:
        Path(closed).chmod(0o555)
        source = Path(closed, "source.txt")
        source.write_text("x")
        os.setresuid(65534, 65534, 0)
        try:
            for action in (
                lambda: fetch(f"{memory}/model", Path(closed)),
                lambda: put_file(source, Path(closed) / "copy.txt"),
                lambda: Mirror.restore(f"{memory}/model", Path(closed) / "run"),
            ):
                with pytest.raises(ArtifactError, match=r": Permission denied$"):
                    action()
        finally:
            os.setresuid(0, 0, 0)


def test_an_unknown_kind_of_address_is_refused():
    with pytest.raises(ConfigError, match="addresses that begin with quark:// are not known here"):
        fetch("quark://x/y")


def test_a_missing_client_names_the_package_to_install():
    hidden = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in sys.argv[1].split(",")
        return None if absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.storage import fetch
for url in sys.argv[2:]:
    try:
        fetch(url)
    except MissingDependencyError as error:
        print(error)
"""

    def said(absent: str, *urls: str) -> list[str]:
        arguments = [sys.executable, "-c", hidden, absent, *urls]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()

    install = "pip install 'enzyme-stability[gcp]'"
    assert said("fsspec", "gs://b/x") == [f"Reading from and writing to URLs needs the 'gcp' extra: {install}"]
    google, amazon = said("gcsfs,s3fs", "gs://b/x", "s3://b/x")
    assert google == f"Reading from and writing to Google Cloud Storage needs the 'gcp' extra: {install}"
    assert amazon == "s3:// addresses need another package: pip install s3fs"
    assert issubclass(remote.MissingFileSystemError, MissingDependencyError)


def test_google_is_asked_with_the_default_credentials_and_an_emulator_or_without_any_anonymously(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    person = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    (tmp_path / "key.json").write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert remote._google("", -1).credentials.credentials.client_id == "i"
    assert remote._google("http://127.0.0.1:1", -1).credentials.credentials is None
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert remote._google("", -2).credentials.credentials is None
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "lost.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    remote._google.cache_clear()
    with pytest.raises(ArtifactError, match=r"gs://b/x: File .*lost\.json was not found"):
        fetch("gs://b/x")
    remote._google.cache_clear()


@pytest.mark.parametrize("shelf", ["bucket", "memory", "tmp_path"])
def test_a_run_is_continued_elsewhere_from_its_mirror(shelf, tmp_path, request):
    url = f"{request.getfixturevalue(shelf)}/copies/run"
    run = tmp_path / "run"
    run.mkdir()
    copy = mirror(run, url)
    assert Mirror.restore(url, tmp_path / "nothing yet") == 0
    (run / "epoch_1.ckpt").write_bytes(b"one")
    (run / "log").mkdir()
    (run / "log" / "loss.csv").write_text("3.2\n")
    (run / "epoch_2.ckpt.tmp").write_bytes(b"tw")
    assert copy.sync()
    (run / "epoch_1.ckpt").unlink()
    (run / "epoch_2.ckpt.tmp").unlink()
    (run / "epoch_2.ckpt").write_bytes(b"two")
    (run / "log" / "loss.csv").write_text("3.2\n2.8\n")
    assert copy.sync()
    assert Mirror.restore(url, tmp_path / "elsewhere") == 2
    assert contents(tmp_path / "elsewhere") == contents(run)


def test_only_what_changed_is_sent_in_the_order_it_was_written(unreliable, tmp_path):
    copy = mirror(tmp_path, f"{unreliable}/run")
    for age, name in enumerate(["state.json", "weights.bin", "config.yaml"]):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    copy.sync()
    assert Unreliable.written == ["/shelf/run/config.yaml", "/shelf/run/weights.bin", "/shelf/run/state.json"]
    (tmp_path / "state.json").write_text("STATE.JSON")
    copy.sync()
    copy.sync()
    assert Unreliable.written[3:] == ["/shelf/run/state.json"]


def test_a_failed_copy_is_reported_and_made_good_at_the_next_one(unreliable, tmp_path):
    reports: list[str] = []
    copy = mirror(tmp_path, f"{unreliable}/run", reports.append)
    (tmp_path / "a").write_text("a")
    Unreliable.failures = 4
    assert not copy.sync()
    (report,) = reports
    assert "will be made good at the next try: unreliable://shelf/run: connection reset by peer" in report
    assert copy.sync()
    assert set(Unreliable.store) == {"/shelf/run/a"}
    copy.close()


def test_the_end_of_a_run_whose_copy_is_behind_is_an_error(unreliable, tmp_path):
    copy = mirror(tmp_path, f"{unreliable}/run", print)
    (tmp_path / "a").write_text("a")
    Unreliable.failures = 99
    assert not copy.sync()
    with pytest.raises(ArtifactError, match="connection reset by peer"):
        copy.close()


def test_a_run_folder_that_vanished_does_not_empty_its_copy(memory, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "a").write_text("a")
    reports: list[str] = []
    copy = mirror(run, f"{memory}/run", reports.append)
    copy.sync()
    run.rename(tmp_path / "unmounted")
    assert not copy.sync()
    assert "is not there" in reports[0]
    assert in_memory() == {"/shelf/run/a"}


def test_restoring_keeps_a_file_that_is_newer_than_its_copy_and_replaces_an_older_one(memory, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("older", "newer"):
        (run / name).write_text("copied")
    mirror(run, f"{memory}/run").sync()
    for name, seconds in {"older": -60, "newer": 60}.items():
        (run / name).write_text("local")
        os.utime(run / name, (time.time() + seconds,) * 2)
    assert Mirror.restore(f"{memory}/run", run) == 1
    assert contents(run) == {"older": b"copied", "newer": b"local"}


def test_a_mirror_within_the_folder_itself_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose another address for the copy"):
        mirror(tmp_path, tmp_path / "copy")
