"""Bodies that are more than they seem: none takes much memory, is run, or leads to another file."""

from __future__ import annotations

import gzip
import io
import pickle
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from raw_http import ONE, message
from running_service import Running

pytestmark = pytest.mark.usefixtures("others_are_answered")


def test_a_million_sequences_are_refused_quickly_and_in_little_memory(besieged: Running) -> None:
    bodies = {
        "/predict/": b'{"data":[' + b",".join([b'"MKV"'] * 1_000_000) + b"]}",
        "/v1/predict": b'{"records":[' + b",".join([b'{"sequence":""}'] * 500_000) + b"]}",
        "/v1/feedback": b'{"records":[' + b",".join([b'{"measured_tm_celsius":1}'] * 300_000) + b"]}",
    }
    with besieged.client as client:
        for route, body in bodies.items():
            began = time.monotonic()
            answer = client.post(route, content=body)
            assert answer.status_code == 413, route
            assert "sequences are more than the 10,000" in message(answer)
            assert time.monotonic() - began < 10
        wrong = b'{"records":[' + b",".join([b"{}"] * 900_000) + b"]}"
        assert client.post("/v1/jobs", content=wrong).status_code == 422
        large = client.post("/v1/jobs", content=b'{"records":[' + b" " * (20 << 20) + b"]}")
        assert large.status_code == 413
        assert "8,388,608" in message(large)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff\xfe{}", b'{"records": [{"sequence": "\xc3\x28"}]}', b"[" * 1_000_000, b'{"a":' * 200_000),
        *(b'{"records": [{"sequence": "\\ud800MK"}]}', b'{"records": ' + b"9" * 100_000 + b"}", b'{"records": [NaN]}'),
        *(b'{"records": [{"sequence": "MKV"}]} trailing', ONE.decode().encode("utf-16"), b'{"coverage": 1e999}'),
    ],
)  # fmt: skip
def test_json_that_is_none_is_refused_in_a_sentence(besieged: Running, body: bytes) -> None:
    with besieged.client as client:
        answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert len(message(answer)) < 500


def test_zeros_that_unpack_to_ten_gigabytes_take_neither_memory_nor_long(besieged: Running) -> None:
    zeros = gzip.compress(bytes(100 << 20)) * 100
    lines = gzip.compress(b">a\nMKVLAAGIVG\n" * (7 << 20)) * 10
    with besieged.client as client, ThreadPoolExecutor(3) as pool:
        for bomb in (zeros, lines):
            began = time.monotonic()
            files = [{"file": ("x.fasta.gz", bomb)}] * 3
            refused = list(pool.map(lambda file: client.post("/v1/predict/file", files=file), files))
            assert {answer.status_code for answer in refused} == {413}
            assert all("bytes" in message(answer) for answer in refused)
            assert time.monotonic() - began < 40


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _objects(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_nothing_in_an_embedding_file_is_run(besieged: Running, tmp_path: Path) -> None:
    made = tmp_path / "made"
    harm = pickle.dumps(Harm(made))
    files = {
        "bare.pt": harm,
        "old.pt": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + harm,
        "zip.pt": _zipped({"archive/data.pkl": harm, "archive/version": b"3\n", "archive/byteorder": b"little"}),
        "upper.pt": _zipped({"archive/DATA.PKL": harm, "archive/data.pkl": pickle.dumps({})}),
        "objects.npy": _objects(Harm(made)),
        "objects.npz": _zipped({"embeddings.npy": _objects(Harm(made))}),
    }
    with besieged.client as client:
        for name, data in files.items():
            answer = client.post("/v1/predict/embeddings", files={"file": (name, data)})
            assert answer.status_code == 422, name
            assert message(answer)
    assert not made.exists()
    pickle.loads(harm)  # noqa: S301 - so the file would have been there
    assert made.exists()


def test_small_archives_that_unpack_to_much_are_refused(besieged: Running) -> None:
    much = bytes(300 << 20)
    header = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }".ljust(117)
        + b"\n"
    )
    files = {
        "bomb.npz": _zipped({"a.npy": much}, zipfile.ZIP_DEFLATED),
        "bomb.pt": _zipped({"archive/data.pkl": much, "archive/version": b"3\n"}, zipfile.ZIP_DEFLATED),
        "claim.npy": header + bytes(100),
        "claim.safetensors": (1 << 60).to_bytes(8, "little") + b'{"a":1}',
    }
    with besieged.client as client:
        for name, data in files.items():
            answer = client.post("/v1/predict/embeddings", files={"file": (name, data)})
            assert answer.status_code in {413, 422}, name
            assert message(answer)


def test_hdf5_does_not_lead_to_other_files(besieged: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["a"] = np.ones(8, np.float32)
    raw = tmp_path / "secret.raw"
    raw.write_bytes(np.ones(8, np.float32).tobytes())

    def linked(file: h5py.File) -> None:
        file["a"] = h5py.ExternalLink(str(secret), "a")

    def soft(file: h5py.File) -> None:
        file["a"] = h5py.SoftLink("/b")

    def stored_elsewhere(file: h5py.File) -> None:
        file.create_dataset("a", (8,), "f4", external=[(str(raw), 0, 32)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((8,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "a", (8,))
        file.create_virtual_dataset("a", layout)

    with besieged.client as client:
        for make in (linked, soft, stored_elsewhere, virtual):
            path = tmp_path / f"{make.__name__}.h5"
            with h5py.File(path, "w") as file:
                make(file)
            answer = client.post("/v1/predict/embeddings", files={"file": ("x.h5", path.read_bytes())})
            assert answer.status_code == 422
            assert "other file" in message(answer) or "link" in message(answer), make.__name__
