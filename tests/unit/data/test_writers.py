from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.data.readers import read_records
from enzyme_stability.data.writers import open_writer
from enzyme_stability.errors import DataError, MissingDependencyError

COLUMNS = {"id": str, "tm_celsius": float, "length": int, "in_domain": bool}
ROWS = [
    {"id": "a,\t\"b\"\nc", "tm_celsius": 61.25, "length": 300, "in_domain": True},
    {"id": "d", "tm_celsius": None, "length": None, "in_domain": None},
    {"id": "é", "tm_celsius": float("nan"), "length": 1, "in_domain": False},
]  # fmt: skip
MISSING_AS_NONE = [ROWS[0], ROWS[1], ROWS[2] | {"tm_celsius": None}]


def write(
    target: Path | str, rows: list[Mapping[str, object]], columns: Mapping[str, type] = COLUMNS, **kw: str
) -> None:
    with open_writer(target, columns, **kw) as writer:
        for row in rows:
            writer.write(row)


def fail_after(target: Path, rows: int) -> None:
    with open_writer(target, {"n": int}) as writer:
        for number in range(rows):
            writer.write({"n": number})
        raise RuntimeError("the model failed")


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ","), ("t.tsv", "\t"), ("T.CSV", ",")])
def test_delimited_text_says_what_was_written(tmp_path, name, mark):
    write(tmp_path / name, ROWS)
    text = (tmp_path / name).read_bytes().decode()
    assert list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)) == [
        ["id", "tm_celsius", "length", "in_domain"],
        ["a,\t\"b\"\nc", "61.25", "300", "true"],
        ["d", "", "", ""],
        ["é", "", "1", "false"],
    ]  # fmt: skip
    assert text.endswith("false\n")
    assert "\r" not in text


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson"])
def test_json_lines_are_strict_json(tmp_path, name):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    write(tmp_path / name, ROWS)
    lines = (tmp_path / name).read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == MISSING_AS_NONE


def test_parquet_keeps_types_and_nulls(tmp_path):
    write(tmp_path / "t.parquet", ROWS)
    table = pq.read_table(tmp_path / "t.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "double", "int64", "bool"]
    assert table.to_pylist() == MISSING_AS_NONE


def test_parquet_is_written_in_groups_and_holds_every_row(tmp_path):
    write(tmp_path / "t.parquet", [{"n": number} for number in range(25_000)], {"n": int})
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        assert file.metadata.num_row_groups == 3
        assert file.read().column("n").to_pylist() == list(range(25_000))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv.gz", "t.jsonl.gz"])
def test_a_gz_suffix_compresses_the_same_bytes(tmp_path, name):
    write(tmp_path / name, ROWS)
    write(tmp_path / name.removesuffix(".gz"), ROWS)
    assert gzip.decompress((tmp_path / name).read_bytes()) == (tmp_path / name.removesuffix(".gz")).read_bytes()


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet", "t.jsonl"])
def test_the_same_rows_give_the_same_bytes_on_another_day(tmp_path, monkeypatch, name):
    for day, folder in enumerate(("one", "two")):
        monkeypatch.setattr("time.time", lambda day=day: 1e9 + 86_400 * day)
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, ROWS)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_numbers_of_numpy_are_written_like_plain_ones(tmp_path, name):
    plain = {"id": "a", "tm_celsius": 61.25, "length": 300, "in_domain": True}
    scalars = {"id": "a", "tm_celsius": np.float32(61.25), "length": np.int64(300), "in_domain": np.bool_(True)}
    write(tmp_path / name, [plain])
    write(tmp_path / f"numpy_{name}", [scalars])
    assert (tmp_path / name).read_bytes() == (tmp_path / f"numpy_{name}").read_bytes()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_of_no_rows_is_a_table(tmp_path, name):
    write(tmp_path / name, [])
    expected = {"t.csv": b"id,tm_celsius,length,in_domain\n", "t.jsonl": b""}
    if name == "t.parquet":
        assert pq.read_table(tmp_path / name).column_names == list(COLUMNS)
    else:
        assert (tmp_path / name).read_bytes() == expected[name]


def test_a_column_left_out_is_missing_and_an_unknown_one_is_refused(tmp_path):
    write(tmp_path / "t.csv", [{"length": 3}])
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == ",,3,"
    with pytest.raises(ValueError, match="'tm'"):
        write(tmp_path / "t.csv", [{"tm": 3.0}])


def test_a_whole_number_column_does_not_cut_a_fraction(tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "t.csv", [{"length": 3.7}])


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(str.strip).filter(bool)


@given(
    st.lists(st.tuples(cells, st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1), st.none() | st.floats(-20, 150))),
    st.sampled_from(["t.csv", "t.tsv", "t.csv.gz", "t.parquet"]),
)
def test_what_is_written_can_be_read_back(rows, name):
    columns = {"id": str, "sequence": str, "growth_temperature": float}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name, [dict(zip(columns, row, strict=True)) for row in rows], columns)
        records = list(read_records(Path(folder) / name))
    assert [(record.id, record.sequence, record.growth_temperature) for record in records] == rows
    assert not any(record.problem for record in records)


# Choosing the format


@pytest.mark.parametrize("name", ["table", "table.xlsx", "table.gz", "table.txt.gz"])
def test_a_suffix_that_names_no_format_is_refused_unless_the_format_is_given(tmp_path, name):
    with pytest.raises(DataError, match=r"names no format; .*--format csv\|tsv\|jsonl\|parquet"):
        write(tmp_path / name, ROWS)
    assert not list(tmp_path.iterdir())
    write(tmp_path / name, ROWS, format="jsonl")
    assert len(list((gzip.open if name.endswith(".gz") else open)(tmp_path / name))) == 3


def test_the_format_given_goes_before_the_suffix(tmp_path):
    write(tmp_path / "t.csv", ROWS, format="jsonl")
    assert json.loads((tmp_path / "t.csv").read_text().splitlines()[1])["id"] == "d"


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(DataError, match="'excel' is unknown"):
        write(tmp_path / "t.csv", ROWS, format="excel")


def test_parquet_with_gz_is_refused(tmp_path):
    with pytest.raises(DataError, match="compressed already"):
        write(tmp_path / "t.parquet.gz", ROWS)


def test_parquet_without_pyarrow_names_the_extra_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[parquet\]"):
        write(tmp_path / "t.parquet", ROWS)
    assert not list(tmp_path.iterdir())


# Standard output


@pytest.mark.parametrize(("kw", "line"), [({}, b"d,,,\n"), ({"format": "tsv"}, b"d\t\t\t\n")])
def test_standard_output_takes_csv_or_the_format_given(capsysbinary, kw, line):
    write("-", [ROWS[1]], **kw)
    assert capsysbinary.readouterr().out.splitlines(keepends=True)[1] == line


def test_standard_output_stays_open_and_in_order():
    script = (
        "from enzyme_stability.data.writers import open_writer\n"
        "print('before')\n"
        "with open_writer('-', {'n': int}) as writer: writer.write({'n': 1})\n"
        "print('after')\n"
    )
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    printed = subprocess.run([sys.executable, "-c", script], env=buffered, check=True, capture_output=True, text=True)
    assert printed.stdout == "before\nn\n1\nafter\n"


def test_rows_on_standard_output_survive_a_failure(capsysbinary):
    with pytest.raises(RuntimeError, match="the model failed"):
        fail_after("-", rows=2)
    assert capsysbinary.readouterr().out == b"n\n0\n1\n"


def test_parquet_on_standard_output_is_refused(capsysbinary):
    with pytest.raises(DataError, match="standard output"):
        write("-", ROWS, format="parquet")
    assert capsysbinary.readouterr().out == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("rows", [1, 100_000])
def test_a_full_disk_is_reported(monkeypatch, rows):
    with Path("/dev/full").open("w") as full, Path(os.devnull).open("w") as null:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(DataError, match="standard output: the disk is full"):
            write("-", [{"n": 1}] * rows, {"n": int})
        os.dup2(null.fileno(), full.fileno())  # closing has to flush what the full disk did not take


def test_a_reader_that_has_gone_is_told_apart_from_a_failure():
    script = (
        "import sys; from enzyme_stability.data.writers import open_writer\n"
        "try:\n"
        "    with open_writer('-', {'n': int}) as writer:\n"
        "        for n in range(100_000): writer.write({'n': n})\n"
        "except BrokenPipeError: sys.exit(7)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdout.close()
    assert child.wait(timeout=60) in {7, 120}  # 120: Python itself could not flush what was left


# Replacing files


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("rows", [0, 30_000])
def test_after_an_exception_the_file_is_as_it_was_and_nothing_lies_about(tmp_path, name, rows):
    (tmp_path / name).write_bytes(b"of yesterday")
    with pytest.raises(RuntimeError, match="the model failed"):
        fail_after(tmp_path / name, rows)
    assert (tmp_path / name).read_bytes() == b"of yesterday"
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_the_name_appears_only_when_the_table_is_complete(tmp_path):
    target = tmp_path / "t.csv"
    with open_writer(target, {"n": int}) as writer:
        for number in range(30_000):
            writer.write({"n": number})
        assert not target.exists()
        assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_process_leaves_the_file_as_it_was(tmp_path):
    target = tmp_path / "t.csv"
    target.write_text("of yesterday")
    script = (
        "import os, signal, sys; from enzyme_stability.data.writers import open_writer\n"
        "with open_writer(sys.argv[1], {'n': int}) as writer:\n"
        "    for n in range(30_000): writer.write({'n': n})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_text() == "of yesterday"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_the_file_replaced_or_of_any_new_file(tmp_path):
    new, private = tmp_path / "new.csv", tmp_path / "private.csv"
    private.touch(mode=0o600)
    (tmp_path / "any").touch()
    for target in (new, private):
        write(target, ROWS)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert new.stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "t.csv"
    link.symlink_to(tmp_path / "real" / "t.csv")
    write(link, [ROWS[1]])
    assert link.is_symlink()
    assert (tmp_path / "real" / "t.csv").read_text().endswith("d,,,\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_named_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, received = tmp_path / "pipe.csv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe, [{"n": 1}], {"n": int})
    reader.join(timeout=10)
    assert received == [b"n\n1\n"]
    assert list(tmp_path.iterdir()) == [pipe]
    assert pipe.is_fifo()


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that other users may look into, used as one: permissions do not bind the administrator."""
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


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_read_only_folder_and_a_write_protected_file_are_refused():
    with shared_folder() as folder:
        (folder / "closed").mkdir(mode=0o555)
        with pytest.raises(DataError, match=r"closed/t\.csv: no permission to write there; choose another folder"):
            write(folder / "closed" / "t.csv", ROWS)
        (folder / "t.csv").touch(mode=0o444)
        with pytest.raises(DataError, match=r"t\.csv is write-protected"):
            write(folder / "t.csv", ROWS)


def test_a_target_that_cannot_be_a_file_is_refused_before_the_first_row(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    refused = {
        "folder.csv": "is a folder",
        "missing/t.csv": "the folder does not exist; create it first",
        "file/t.csv": "Not a directory",
        f"{'x' * 300}.csv": "File name too long",
    }
    for name, reason in refused.items():
        with pytest.raises(DataError, match=reason), open_writer(tmp_path / name, COLUMNS):
            pytest.fail("the writer was opened")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


# Resources


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, name):
    def peak(rows: int) -> int:
        tracemalloc.start()
        with open_writer(tmp_path / name, {"id": str}) as writer:
            for number in range(rows):
                writer.write({"id": f"protein {number}"})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(60_000) < peak(20_000) + 100_000


def test_writing_text_imports_nothing_heavy(tmp_path):
    script = (
        "import sys; from enzyme_stability.data.writers import open_writer\n"
        "for name in ('t.csv', 't.jsonl'):\n"
        "    with open_writer(name, {'n': int}) as writer: writer.write({'n': 1})\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'torch', 'pydantic'} & set(sys.modules); assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
