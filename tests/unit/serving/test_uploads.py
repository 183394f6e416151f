"""Files that strangers send: the same records as from a path, and one sentence without a path where there are none."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from starlette.datastructures import UploadFile

from enzyme_stability.data.readers import read_records
from enzyme_stability.embeddings.files import read_embeddings
from enzyme_stability.errors import DataError, EnzymeStabilityError, OverloadedError, TooLargeError
from enzyme_stability.sequence import AMINO_ACIDS, Record
from enzyme_stability.serving.uploads import embeddings_of, records_of, stream_records

CHAIN = AMINO_ACIDS * 5
LIMITS: dict[str, Any] = {"largest_unpacked": 1 << 20, "most_records": 100}
FASTA = f">a first\n{CHAIN}\n>b\nMKV1\n{CHAIN}\n".encode()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files; whatever happens, nothing is left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_left(scratch: Path) -> Any:
    yield
    assert list(scratch.iterdir()) == []


def uploaded(content: bytes, name: str = "../../etc/passwd") -> UploadFile:
    """A file as Starlette hands it over, with a name that would do harm."""
    file = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115 - closed with its upload
    file.write(content)
    return UploadFile(file, filename=name)  # type: ignore[arg-type]


def refusal(read: Callable[[], object], kind: type[EnzymeStabilityError] = DataError) -> str:
    """The sentence with which a file is refused: never a path or a command-line option."""
    with pytest.raises(kind) as caught:
        read()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "scratch" not in message
    assert "/" not in message
    assert "--" not in message
    assert "\n" not in message
    assert "file" in message
    return message


# Sequences


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        FASTA,
        FASTA.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + FASTA,
        f"id,sequence,ogt\nx,{CHAIN},37\ny,MK1,\n".encode(),
        f"id\tsequence\n\xe9t\xe9\t{CHAIN}\n".encode(),
    ],
)
def test_an_upload_has_the_records_of_the_file(tmp_path: Path, content: bytes, packed: bool) -> None:
    content = gzip.compress(content) if packed else content
    (tmp_path / "file").write_bytes(content)
    expected = list(read_records(tmp_path / "file"))
    assert len(expected) > 0
    assert records_of(uploaded(content), **LIMITS) == expected
    assert records_of(io.BytesIO(content), **LIMITS) == expected
    assert records_of(tmp_path / "file", **LIMITS) == expected


def test_an_upload_is_read_from_its_start_whatever_was_read_before() -> None:
    upload = uploaded(FASTA)
    upload.file.read()
    assert [record.id for record in records_of(upload, **LIMITS)] == ["a", "b"]


def test_columns_are_those_asked_for() -> None:
    table = f"tag,wild,mutant,growth\nx,{CHAIN},{CHAIN[::-1]},60\n".encode()
    asked = {"column": "mutant", "id_column": "tag", "growth_temperature_column": "growth"}
    assert records_of(uploaded(table), **LIMITS, **asked) == [Record("x", CHAIN[::-1], 60.0)]


@pytest.mark.parametrize(
    ("table", "asked", "word"),
    [
        (f"name,what\nx,{CHAIN}\n", {}, "with column"),
        (f"seq,sequence\n{CHAIN},{CHAIN}\n", {}, "choose one with column"),
        (f"sequence,ogt,growth_temperature\n{CHAIN},1,2\n", {}, "with growth_temperature_column"),
        (f"sequence\n{CHAIN}\n", {"column": "chain"}, "'chain'"),
    ],
)
def test_unclear_columns_are_explained_in_the_words_of_the_request(
    table: str, asked: dict[str, str], word: str
) -> None:
    assert word in refusal(lambda: records_of(uploaded(table.encode()), **LIMITS, **asked))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b">a\nMK\xe9VLAARRWQ\n", "UTF-8: line 2 has the byte 0xe9"),
        ("sequence\nMKV\n".encode("utf-16"), "UTF-8: line 1 has the byte 0xff"),
        (b">a\nMKVLAARRWQ\n>\xc3", "UTF-8: line 3 has the byte 0xc3"),
        (b">a\nMK\0V\n", "not text in UTF-8"),
        (b"PK\x03\x04 a spreadsheet", "zip archive or a spreadsheet"),
        (b"PAR1 columns PAR1", "Parquet, which is not taken here"),
        (gzip.compress(b"PAR1 columns PAR1"), "Parquet, which is not taken here"),
        (b"\x89HDF\r\n\x1a\n", "HDF5, which holds no sequences"),
        (gzip.compress(gzip.compress(FASTA)), "compressed twice"),
        (gzip.compress(FASTA)[:-9], "truncated"),
        (gzip.compress(FASTA)[:10] + b"\xff" * 40, "damaged"),
        (gzip.compress(FASTA) + b"more", "damaged"),
    ],
)
def test_what_is_no_sequences_is_explained(content: bytes, words: str) -> None:
    assert words in refusal(lambda: records_of(uploaded(content), **LIMITS))


def test_a_byte_that_is_no_text_is_found_beyond_the_first_part() -> None:
    lines = f">a\n{CHAIN}\n".encode() * 30_000
    message = refusal(lambda: records_of(uploaded(lines + b"\xff"), largest_unpacked=1 << 30, most_records=100_000))
    assert "line 60001 has the byte 0xff" in message


def test_records_over_the_limit_are_refused() -> None:
    three = FASTA + f">c\n{CHAIN}\n".encode()
    assert len(records_of(uploaded(three), largest_unpacked=1 << 20, most_records=3)) == 3
    message = refusal(lambda: records_of(uploaded(three), largest_unpacked=1 << 20, most_records=2), TooLargeError)
    assert "more than the 2 records" in message


def test_bytes_over_the_limit_are_refused_packed_or_not() -> None:
    assert len(records_of(uploaded(FASTA), largest_unpacked=len(FASTA), most_records=9)) == 2
    for content in (FASTA, gzip.compress(FASTA)):
        message = refusal(
            lambda content=content: records_of(uploaded(content), largest_unpacked=len(FASTA) - 1, most_records=9),
            TooLargeError,
        )
        assert f"{len(FASTA) - 1} bytes" in message


def test_a_sequence_over_the_limit_costs_itself_only() -> None:
    content = f">a\n{CHAIN}\n>b\n{CHAIN}A\n>c\n{CHAIN}\n".encode()
    a, b, c = records_of(uploaded(content), **LIMITS, longest_sequence=len(CHAIN))
    assert (a.problem, c.problem) == ("", "")
    assert (b.id, b.sequence) == ("b", "")
    assert "101 residues are more than the 100" in b.problem


@pytest.mark.parametrize(
    "start",
    [b">a\n", b"\n\n>a\n", b";\n>a\n", b"text\n>a\n", b"\n" * (1 << 20) + b">a\n"],
    ids=len,
)
def test_a_record_that_fills_the_file_is_refused_before_it_is_in_memory(start: bytes) -> None:
    wrapped = start + (b"M" * 79 + b"\n") * 150_000
    message = refusal(
        lambda: records_of(uploaded(gzip.compress(wrapped, 1)), largest_unpacked=1 << 30, most_records=9), TooLargeError
    )
    assert "no protein is so long" in message


def test_a_line_that_fills_the_file_is_refused_before_it_is_in_memory() -> None:
    for start in (b"sequence\n", b">a\n"):
        packed = gzip.compress(start + b"M" * 12_000_000, 1)
        refusal(
            lambda packed=packed: records_of(uploaded(packed), largest_unpacked=1 << 30, most_records=9), TooLargeError
        )


def test_many_records_in_many_parts_are_all_there() -> None:
    content = "".join(f">protein_{k}\n{CHAIN}\n{CHAIN}\n" for k in range(60_000)).encode()
    assert len(content) > 10_000_000
    count = 0
    for record in stream_records(uploaded(content), largest_unpacked=1 << 30, most_records=60_000):
        assert record == Record(f"protein_{count}", CHAIN * 2)
        count += 1
    assert count == 60_000


def test_quotes_that_are_never_closed_do_not_have_a_table_read_over_and_over() -> None:
    table = "id,sequence\n" + 'x","\n' * 2000
    message = refusal(lambda: records_of(uploaded(table.encode()), largest_unpacked=1 << 20, most_records=10_000))
    assert "quote that is not closed" in message


BOMB = """
import gzip, resource, sys, tempfile, shutil
from pathlib import Path
from enzyme_stability.errors import TooLargeError
from enzyme_stability.serving.uploads import records_of
tempfile.tempdir = sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (70 << 20, 70 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    records_of(Path(sys.argv[1]), largest_unpacked=64 << 20, most_records=10)
except TooLargeError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_costs_little_memory_and_disk(tmp_path: Path, scratch: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    part = gzip.compress((b">a\n" + b"M" * 1020 + b"\n") * (10 << 10), 9)
    bomb.write_bytes(part * 1000)  # 10 GB, unpacked
    assert bomb.stat().st_size < 32 << 20
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(bomb), str(scratch)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    message, kilobytes = done.stdout.splitlines()
    assert "67,108,864 bytes" in message
    assert int(kilobytes) < 60_000


def test_a_full_disk_is_a_reason_to_come_back(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch / "gone"))
    assert "no room" in refusal(lambda: records_of(io.BytesIO(FASTA), **LIMITS), OverloadedError)


# Embeddings

VECTORS = np.random.default_rng(5).normal(size=(3, 8)).astype(np.float32)
NAMES = ["p|1", "two", "drei"]


def in_hdf5(path: Path, datasets: dict[str, np.ndarray], **settings: Any) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model"] = "esm2"
        for number, (name, values) in enumerate(datasets.items()):
            key = name if "/" in name else str(number)
            file.create_dataset(key, data=values, **settings).attrs["original_id"] = name


def in_safetensors(path: Path, tensors: dict[str, torch.Tensor], ids: list[str] | None = None) -> None:
    save_file(tensors, path, None if ids is None else {"ids": json.dumps(ids)})


TENSOR = torch.from_numpy(VECTORS)
BY_NAME = {name: vector.clone() for name, vector in zip(NAMES, TENSOR, strict=True)}
GOOD: dict[str, Callable[[Path], None]] = {
    "matrix.pt": lambda path: torch.save(TENSOR, path),
    "named.pt": lambda path: torch.save(BY_NAME, path),
    "views.pt": lambda path: torch.save(list(TENSOR), path),
    "half.pt": lambda path: torch.save(torch.nn.Parameter(TENSOR.bfloat16()), path),
    "matrix.npy": lambda path: np.save(path, VECTORS),
    "half.npy": lambda path: np.save(path, VECTORS.astype(np.float16)),
    "matrix.safetensors": lambda path: in_safetensors(path, {"embeddings": TENSOR}, NAMES),
    "named.safetensors": lambda path: in_safetensors(path, BY_NAME),
    "named.h5": lambda path: in_hdf5(path, dict(zip(NAMES, VECTORS, strict=True))),
    "residues.h5": lambda path: in_hdf5(path, dict.fromkeys(NAMES, VECTORS), compression="gzip"),
    "grouped.h5": lambda path: in_hdf5(path, {"run/a": VECTORS[0]}),
}


def written(folder: Path, name: str) -> bytes:
    GOOD[name](folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize("name", GOOD)
def test_an_upload_has_the_embeddings_of_the_file(tmp_path: Path, name: str) -> None:
    content = written(tmp_path, name)
    expected = read_embeddings(tmp_path / name)
    table = embeddings_of(uploaded(content), largest_unpacked=1 << 20)
    assert table.ids == expected.ids
    assert table.metadata == expected.metadata
    np.testing.assert_array_equal(table.vectors, expected.vectors)


def test_embeddings_over_the_limits_are_refused(tmp_path: Path) -> None:
    content = written(tmp_path, "matrix.npy")
    assert len(embeddings_of(uploaded(content), largest_unpacked=len(content), most_records=3).ids) == 3
    refusal(lambda: embeddings_of(uploaded(content), largest_unpacked=1 << 20, most_records=2), TooLargeError)
    refusal(lambda: embeddings_of(uploaded(content), largest_unpacked=len(content) - 1), TooLargeError)
    refusal(lambda: embeddings_of(uploaded(written(tmp_path, "residues.h5")), largest_unpacked=8192), TooLargeError)


def npy(header: str) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(*entries: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def indexed(index: bytes) -> bytes:
    """A file of PyTorch with these instructions in it."""
    return zipped(("a/data.pkl", index), ("a/version", b"3\n"), ("a/data/0", b"\0" * 64))


_TUPLES = b"".join(b"h" + bytes([k, 104, k]) + b"\x86q" + bytes([k + 1]) for k in range(1, 60))
REFUSED = {
    "empty": b"",
    "text": FASTA,
    "gzip": gzip.compress(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 8), }") + b"\0" * 32),
    "parquet": b"PAR1 columns PAR1",
    "npy claims a terabyte": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (250000000, 1024), }") + b"\0" * 64,
    "npy of nothing": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000, 1), }") + b"\0" * 64,
    "npy of objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\0" * 64,
    "npy of integers": npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 8), }") + b"\0" * 64,
    "npy that runs": npy("__import__('os').system('touch ran')") + b"\0" * 64,
    "npy cut off": npy("{'descr': '<f4'")[:40],
    "pt as before 1.6": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    "pt that makes bytes": indexed(b"\x80\x02c__builtin__\nbytearray\n(J\x00\x00\x00\x7ftR."),
    "pt that runs": indexed(b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R."),
    "pt that runs by name": indexed(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch ran\x85R."),
    "pt of tuples in tuples": indexed(b"\x80\x02}q\x00)" + b"\x85" * 200_000 + b"K\x01s."),
    "pt of tuples that repeat": indexed(b"\x80\x02)q\x01" + _TUPLES + b"}h\x3cK\x01s."),
    "pt cut off": indexed(b"\x80\x02}q\x00X\xff\xff"),
    "pt with a marker too many": indexed(b"\x80\x02tttt."),
    "pt without an index": zipped(("a/other", b"\x80\x02}.")),
    "zip cut off": zipped(("a/data.pkl", b"\x80\x02}."))[:50],
    "safetensors with a long header": struct.pack("<Q", 5 << 20) + b"{" + b" " * (5 << 20),
    "safetensors that claims more": struct.pack("<Q", 70)
    + b'{"a":{"dtype":"F32","shape":[1,1000000000],"data_offsets":[0,400000]}}'.ljust(70)
    + b"\0" * 64,
    "hdf5 cut off": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_honest_file_of_embeddings_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, TooLargeError)) as caught:
        embeddings_of(uploaded(content), largest_unpacked=64 << 20)
    assert "scratch" not in str(caught.value)
    assert "/" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        zipped(("a/data.pkl", b"\x80\x02}." + b"\0" * 9000), kind=zipfile.ZIP_DEFLATED),
        zipped(("a/data.pkl", b"\x80\x02}."), ("A/data.PKL", b"\x80\x02}.")),
    ],
    ids=["packed", "two indices"],
)
def test_an_archive_that_two_readers_may_understand_differently_is_refused(content: bytes) -> None:
    assert "PyTorch did not write" in refusal(lambda: embeddings_of(uploaded(content), largest_unpacked=1 << 20))


def test_several_tensors_of_bfloat16_are_refused_as_each_would_be_unpacked_with_all_others(tmp_path: Path) -> None:
    tensors = {name: torch.ones(8, dtype=torch.bfloat16) for name in NAMES}
    save_file(tensors, tmp_path / "half.safetensors")
    assert "bfloat16" in refusal(lambda: embeddings_of(tmp_path / "half.safetensors", largest_unpacked=1 << 20))
    save_file({"embeddings": torch.ones(2, 8, dtype=torch.bfloat16)}, tmp_path / "one.safetensors")
    assert len(embeddings_of(tmp_path / "one.safetensors", largest_unpacked=1 << 20).ids) == 2


def external(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("secret.h5", "/a")


def external_in_a_group(file: h5py.File) -> None:
    file.create_group("g")["e"] = h5py.ExternalLink("secret.h5", "/")
    file["a"] = h5py.SoftLink("/g/e/a")


def soft(file: h5py.File) -> None:
    file["a"] = VECTORS[0]
    file["b"] = h5py.SoftLink("/a")


def twice(file: h5py.File) -> None:
    file["a"] = VECTORS[0]
    file["b"] = file["a"]


def group_twice(file: h5py.File) -> None:
    file.create_group("g")["a"] = VECTORS[0]
    file["h"] = file["g"]


def circle(file: h5py.File) -> None:
    group = file.create_group("g")
    group["a"] = VECTORS[0]
    group["up"] = group


def texts(file: h5py.File) -> None:
    file["a"] = VECTORS[0]
    file.attrs["model"] = ["x", "y"]


def kept_elsewhere(file: h5py.File) -> None:
    file.create_dataset("a", (8,), "f4", external=[("/etc/hostname", 0, 32)])


@pytest.mark.parametrize(
    ("write", "word"),
    [
        (external, "another file"),
        (external_in_a_group, "another file"),
        (soft, "another file"),
        (kept_elsewhere, "another file"),
        (twice, "several names"),
        (group_twice, "several names"),
        (circle, "several names"),
        (texts, "list of texts"),
    ],
)
def test_hdf5_that_leads_elsewhere_or_repeats_itself_is_refused(
    tmp_path: Path, scratch: Path, write: Callable[[h5py.File], None], word: str
) -> None:
    with h5py.File(scratch.parent / "secret.h5", "w") as secret:
        secret["a"] = VECTORS[1]
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        write(file)
    assert word in refusal(lambda: embeddings_of(tmp_path / "sent.h5", largest_unpacked=64 << 20))


@pytest.mark.parametrize("settings", [{"chunks": (1, 1024), "compression": "gzip"}, {}])
def test_hdf5_that_claims_more_than_it_holds_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        dataset = file.create_dataset("a", (50_000_000, 1024), "f4", **settings)
        if settings:
            dataset[0, :] = 1
    refusal(lambda: embeddings_of(tmp_path / "sent.h5", largest_unpacked=64 << 20), TooLargeError)


def test_hdf5_with_endless_names_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        for name in "abcde":
            file.create_dataset(name, data=VECTORS[0]).attrs["original_id"] = "x" * (4 << 20)
    refusal(lambda: embeddings_of(tmp_path / "sent.h5", largest_unpacked=64 << 20), TooLargeError)


def test_parquet_of_sequences_or_embeddings_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a"], "sequence": [CHAIN], "embedding": [[0.5, 1.0]]}).to_parquet(tmp_path / "sent.parquet")
    assert "Parquet" in refusal(lambda: records_of(tmp_path / "sent.parquet", **LIMITS))
    assert "Parquet" in refusal(lambda: embeddings_of(tmp_path / "sent.parquet", largest_unpacked=1 << 20))
