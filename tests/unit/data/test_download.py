"""Downloads against a local server that breaks off, ignores ranges, refuses or sends something else."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from enzyme_stability.data.download import download, download_dataset, downloadable
from enzyme_stability.data.tables import known_tables
from enzyme_stability.errors import DataError

CONTENT = bytes(range(256)) * 2000
SHA256 = [hashlib.sha256(CONTENT).hexdigest()]


@dataclass
class Server:
    """What the server does next, and what it was asked."""

    url: str = ""
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes to send before hanging up, one entry a request
    status: list[int] = field(default_factory=list)  # answers to give before serving
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers.get("Range"))
            if state.status:
                self.send_error(state.status.pop(0))
                return
            start = 0
            if state.ranges and (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                start = int(wanted[1])
                if start >= len(CONTENT):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            end = start + state.break_after.pop(0) if state.break_after else len(CONTENT)
            self.wfile.write(CONTENT[start:end])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}/table.csv"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


def test_a_download_arrives_whole_and_reports_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = download(server.url, tmp_path / "new" / "t.csv", sha256=SHA256, progress=lambda *at: seen.append(at))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["t.csv"]


def test_a_broken_connection_is_resumed_within_one_call(server: Server, tmp_path: Path) -> None:
    server.break_after = [100_000, 50_000]
    target = download(server.url, tmp_path / "t.csv", sha256=SHA256, first_pause_s=0)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.break_after = [100_000]
    with pytest.raises(DataError, match=r"gave up after 1 tries.*100000 of 512000 bytes.*t\.csv\.part"):
        download(server.url, tmp_path / "t.csv", sha256=SHA256, attempts=1)
    assert not (tmp_path / "t.csv").exists()
    assert download(server.url, tmp_path / "t.csv", sha256=SHA256).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [100_000]
    target = download(server.url, tmp_path / "t.csv", sha256=SHA256, first_pause_s=0)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_complete_part_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "t.csv.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "t.csv", sha256=SHA256).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "t.csv.part").write_bytes(CONTENT + b"from another file")
    assert download(server.url, tmp_path / "t.csv", sha256=SHA256, first_pause_s=0).read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_the_part_and_says_so(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"SHA-256 {SHA256[0]}, expected {'0' * 64}; it was deleted"):
        download(server.url, tmp_path / "t.csv", sha256=["0" * 64])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_already_right_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(CONTENT)
    download(server.url, tmp_path / "t.csv", sha256=SHA256)
    assert server.asked == []


def test_a_missing_page_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.status = [404]
    with pytest.raises(DataError, match="the server answers 404"):
        download(server.url, tmp_path / "t.csv")
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429]
    assert download(server.url, tmp_path / "t.csv", first_pause_s=0).read_bytes() == CONTENT


def test_nobody_there_is_an_error_of_the_family(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gave up after 2 tries"):
        download("http://127.0.0.1:9/t.csv", tmp_path / "t.csv", attempts=2, first_pause_s=0)


def test_only_web_addresses_are_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only http and https"):
        download("file:///etc/passwd", tmp_path / "t.csv")


def test_a_mirror_must_serve_the_declared_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected f4097989"):
        download_dataset("meltome_13_species", tmp_path, url=server.url)


def test_a_dataset_lands_where_preparation_looks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = known_tables()["tm50_test"].model_copy(update={"url": server.url, "sha256": ("0" * 64, *SHA256)})
    monkeypatch.setattr("enzyme_stability.data.download.find_table", lambda _: declared)
    target = download_dataset("tm50_test", tmp_path)
    assert target == tmp_path / "tm" / "tm50" / "Tm50Test.csv"
    assert target.read_bytes() == CONTENT


def test_a_dataset_without_an_address_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"by hand from .*J-SNACKKB/FLIP.* put it at .*flip_human_full\.csv"):
        download_dataset("flip_human_full", tmp_path)


def test_every_dataset_has_an_address_or_directions() -> None:
    assert set(downloadable()) == set(known_tables())
    assert all(where.startswith(("https://", "by hand: github.com", "by hand: ")) for where in downloadable().values())


def test_every_address_is_pinned_to_a_commit_and_has_a_checksum() -> None:
    for name, table in known_tables().items():
        if table.url:
            assert re.search(r"raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", table.url), name
            assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for checksum in table.sha256), name
            assert table.sha256, name
