from __future__ import annotations

import gzip
import io
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from enzyme_stability.embeddings.files import looks_like_embeddings, open_embedding_writer, read_embeddings
from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError

NAMES = ["t.h5", "t.hdf5", "t.parquet", "t.safetensors", "t.pt", "t.npy"]
WITH_IDS = NAMES[:4]
ODD_IDS = [
    "z",
    "sp|P1|X",
    "a/b",
    "a_b",
    "é 蛋白",
    "",
    ".",
    "..",
    "/",
    "z",
    "a/b",
    "z__2",
    "embeddings",
    "tab\tid",
    "x" * 300,
]
METADATA = {"model": "esm2", "layer": -1, "window": 1022, "pooling": "mean", "half": False}
posix = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")


def vectors(count: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def write(path: Path, ids: list[str], arrays: Any, batch: int = 4, **settings: Any) -> None:
    with open_embedding_writer(path, arrays[0].shape[-1], METADATA, **settings) as writer:
        for start in range(0, len(ids), batch):
            writer.write(ids[start : start + batch], arrays[start : start + batch])


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_embeddings(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def fail_with(error: BaseException, path: Path) -> None:
    with open_embedding_writer(path, 5, METADATA) as writer:
        writer.write(["c"], vectors(1))
        raise error


def hdf5(path: Path, datasets: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in datasets.items():
            file.create_dataset(key, data=values)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", WITH_IDS)
def test_order_odd_ids_numbers_and_metadata_come_back(tmp_path, name):
    numbers = vectors(len(ODD_IDS))
    write(tmp_path / name, ODD_IDS, numbers)
    table = read_embeddings(tmp_path / name)
    assert table.ids == ODD_IDS
    np.testing.assert_array_equal(table.vectors, numbers, strict=True)
    assert table.metadata == METADATA
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["t.pt", "t.npy"])
def test_formats_without_ids_number_the_rows(tmp_path, name):
    write(tmp_path / name, ["a", "b", "c"], vectors(3))
    table = read_embeddings(tmp_path / name)
    assert (table.ids, table.metadata) == (["embedding_1", "embedding_2", "embedding_3"], {})
    np.testing.assert_array_equal(table.vectors, vectors(3), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_known_by_its_content(tmp_path, name):
    write(tmp_path / name, ["a", "b"], vectors(2))
    (tmp_path / name).rename(tmp_path / "renamed.fasta")
    assert looks_like_embeddings(tmp_path / "renamed.fasta")
    np.testing.assert_array_equal(read_embeddings(tmp_path / "renamed.fasta").vectors, vectors(2))


@pytest.mark.parametrize("name", NAMES)
def test_many_batches_give_one_table(tmp_path, name):
    numbers = vectors(2_500)
    write(tmp_path / name, [f"p{n}" for n in range(2_500)], numbers, batch=7)
    np.testing.assert_array_equal(read_embeddings(tmp_path / name).vectors, numbers)


def test_parquet_is_written_in_groups_and_read_by_others(tmp_path):
    write(tmp_path / "t.parquet", [f"p{n}" for n in range(2_500)], vectors(2_500), batch=10)
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        assert file.metadata.num_row_groups == 3
        assert str(file.schema_arrow.field("embedding").type) == "list<element: float>"
        assert file.read().column("id").to_pylist()[::2_499] == ["p0", "p2499"]


def test_hdf5_follows_the_convention_of_biotrainer(tmp_path):
    write(tmp_path / "t.h5", ["a/b", "a_b", "z", "z"], vectors(4))
    with h5py.File(tmp_path / "t.h5") as file:
        assert {key: dataset.attrs["original_id"] for key, dataset in file.items()} == {
            "a_b": "a/b",
            "a_b__2": "a_b",
            "z": "z",
            "z__2": "z",
        }
        np.testing.assert_array_equal(file["z"][:], vectors(4)[2])
        assert dict(file.attrs) == METADATA


def test_a_pt_file_is_a_plain_tensor_for_others(tmp_path):
    write(tmp_path / "t.pt", ["a", "b"], vectors(2))
    tensor = torch.load(tmp_path / "t.pt", weights_only=True)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (2, 5))


# Not safetensors, which shuffles the entries of its header.
@pytest.mark.parametrize("name", ["t.h5", "t.parquet", "t.pt", "t.npy"])
def test_the_same_embeddings_give_the_same_bytes(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, ["a", "b"], vectors(2))
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["t.h5", "t.parquet", "t.safetensors", "t.pt", "t.npy"])
def test_writing_holds_a_part_of_the_file_in_memory(tmp_path, name):
    batch = vectors(100, 500)
    write(tmp_path / f"warm-{name}", ["a"] * 100, batch)  # so that imports are not counted
    tracemalloc.start()
    with open_embedding_writer(tmp_path / name, 500, {}) as writer:
        for start in range(0, 1_500, 100):
            writer.write([str(n) for n in range(start, start + 100)], batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / name).stat().st_size > (300_000 if name == "t.parquet" else 2_900_000)
    assert peak < 2_500_000


def test_matrices_of_residues_are_written_to_hdf5_and_averaged_when_read(tmp_path):
    matrices = [np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32) for n in (1, 4, 300)]
    write(tmp_path / "t.h5", ["a", "b", "c"], matrices, pooling="residues")
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_array_equal(file["c"][:], matrices[2], strict=True)
    table = read_embeddings(tmp_path / "t.h5")
    assert table.metadata["pooling"] == "mean of residues"
    expected = [matrix.astype(np.float64).mean(axis=0) for matrix in matrices]
    np.testing.assert_allclose(table.vectors, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if "h" not in name.partition(".")[2]])
def test_residues_in_any_other_format_are_a_mistake_in_the_settings(tmp_path, name):
    with pytest.raises(ConfigError, match=r"one vector a protein; write those of residues to an \.h5 file"):
        write(tmp_path / name, ["a"], [np.zeros((3, 5))], pooling="residues")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(4,), (6,), (1, 5), ()])
def test_an_embedding_of_another_shape_is_not_written(tmp_path, shape):
    with (
        pytest.raises(ValueError, match="the embedding of b has shape"),
        open_embedding_writer(tmp_path / "t.h5", 5, {}) as writer,
    ):
        writer.write(["a", "b"], [np.zeros(5), np.zeros(shape)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_not_written(tmp_path, name):
    broken = vectors(3)
    broken[1, 2] = np.inf
    with pytest.raises(DataError, match="the embedding of b is not finite"):
        write(tmp_path / name, ["a", "b", "c"], broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_leaves_the_earlier_file(tmp_path, name):
    write(tmp_path / name, ["a", "b"], vectors(2))
    before = (tmp_path / name).read_bytes()
    for error in (RuntimeError("the model failed"), KeyboardInterrupt(), OSError("no weights")):
        with pytest.raises(type(error)) as caught:
            fail_with(error, tmp_path / name)
        assert caught.value is error
    assert (tmp_path / name).read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / name]


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from enzyme_stability.embeddings.files import open_embedding_writer
from enzyme_stability.errors import DataError
path, rows, wait = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
try:
    with open_embedding_writer(path, 500, {}) as writer:
        for n in range(rows):
            writer.write([f"p{n}"], [np.random.default_rng(n).normal(size=500)])
        print("written", flush=True)
        time.sleep(wait)
except DataError as error:
    print(error)
"""


@posix
@pytest.mark.parametrize("name", ["t.h5", "t.parquet", "t.npy"])
def test_a_killed_run_leaves_no_file_under_the_name(tmp_path, name):
    run = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / name, "50", "60"], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "written\n"
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert not (tmp_path / name).exists()


@posix
@pytest.mark.parametrize("name", ["t.h5", "t.parquet", "t.pt", "t.safetensors", "t.npy"])
def test_a_full_disk_is_one_sentence_and_no_file(tmp_path, name, unmeasured):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + WRITER, tmp_path / name, "300", "0"],
        env=unmeasured,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path / name}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_is_refused_before_the_first_row(tmp_path):
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "file").touch()
    for path, reason in {
        tmp_path / "folder.h5": "is no file",
        tmp_path / "none" / "t.h5": "the folder does not exist",
        tmp_path / "file" / "t.h5": "the folder does not exist",
        tmp_path / "t.csv": "the suffix '.csv' names no format; take one of .h5",
        tmp_path / "t": "the suffix '' names no format",
        tmp_path / ("x" * 300 + ".pt"): "File name too long",
    }.items():
        with pytest.raises(DataError, match=reason), open_embedding_writer(path, 5, {}):
            pytest.fail("was opened")


@pytest.mark.parametrize(("name", "bad"), [("t.h5", "a\0b"), ("t.parquet", "\ud800")])
def test_an_id_that_a_format_cannot_hold_is_refused(tmp_path, name, bad):
    with pytest.raises(DataError, match="it cannot be written"):
        write(tmp_path / name, [bad], vectors(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_embeddings_is_refused(tmp_path, name):
    with open_embedding_writer(tmp_path / name, 5, METADATA):
        pass
    assert "holds no embeddings" in refused(tmp_path / name)


def test_files_of_biotrainer_are_read(tmp_path):
    with h5py.File(tmp_path / "embeddings.h5", "w") as file:
        for n, name in enumerate(["Seq2", "sp|P1/2|X", "Seq1"]):
            file.create_dataset(str(n), data=vectors(3)[n]).attrs["original_id"] = name
    table = read_embeddings(tmp_path / "embeddings.h5")
    assert table.ids == ["Seq2", "sp|P1/2|X", "Seq1"]
    np.testing.assert_array_equal(table.vectors, vectors(3))


def test_files_of_uniprot_are_read(tmp_path):
    halves = vectors(2).astype(np.float16)
    table = read_embeddings(hdf5(tmp_path / "per-protein.h5", {"P12345": halves[0], "A0A0": halves[1]}))
    assert (table.ids, table.metadata) == (["A0A0", "P12345"], {})
    np.testing.assert_array_equal(table.vectors, halves[::-1].astype(np.float32), strict=True)


def test_keys_with_a_slash_are_ids_with_a_slash(tmp_path):
    table = read_embeddings(hdf5(tmp_path / "t.h5", {"a/b": np.ones(3), "a/c/d": np.zeros(3), "e": np.ones(3)}))
    assert table.ids == ["a/b", "a/c/d", "e"]


def test_a_single_matrix_called_embeddings_has_a_row_for_each_protein(tmp_path):
    table = read_embeddings(hdf5(tmp_path / "t.h5", {"embeddings": vectors(4)}))
    assert table.ids == ["embedding_1", "embedding_2", "embedding_3", "embedding_4"]
    np.testing.assert_array_equal(table.vectors, vectors(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_precision_become_float32(tmp_path, dtype):
    tensor = torch.from_numpy(vectors(3)).to(dtype)
    save_torch_file({"embeddings": tensor}, tmp_path / "t.safetensors")
    for path in (saved(tmp_path / "t.pt", tensor), tmp_path / "t.safetensors"):
        np.testing.assert_array_equal(read_embeddings(path).vectors, tensor.float().numpy(), strict=True)


@pytest.mark.parametrize("old", [False, True])
def test_dictionaries_and_lists_of_tensors_are_read(tmp_path, old):
    matrix = torch.from_numpy(vectors(3)).requires_grad_()
    rows = {"b": matrix[0], "a/x": matrix[1], "é": matrix[2]}
    for content, ids in ((rows, list(rows)), (list(rows.values()), ["embedding_1", "embedding_2", "embedding_3"])):
        torch.save(content, tmp_path / "t.pt", _use_new_zipfile_serialization=not old)
        assert looks_like_embeddings(tmp_path / "t.pt")
        table = read_embeddings(tmp_path / "t.pt")
        assert table.ids == ids
        np.testing.assert_array_equal(table.vectors, vectors(3), strict=True)


def test_safetensors_of_named_vectors_are_read(tmp_path):
    save_file({"b": vectors(2)[0], "a": vectors(2)[1]}, tmp_path / "t.safetensors")
    table = read_embeddings(tmp_path / "t.safetensors")
    assert dict(zip(table.ids, table.vectors[:, 0], strict=True)) == {"b": vectors(2)[0, 0], "a": vectors(2)[1, 0]}


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float16()), pa.list_(pa.float32(), 5)])
def test_parquet_lists_of_any_kind_are_read(tmp_path, kind):
    numbers = vectors(9_000).astype(np.float16)
    column = pa.array(list(numbers)).cast(kind)
    table = read_embeddings(
        parquet(tmp_path / "t.parquet", accession=[f"p{n}" for n in range(9_000)], embedding=column)
    )
    assert table.ids[::8_999] == ["p0", "p8999"]
    np.testing.assert_array_equal(table.vectors, numbers.astype(np.float32), strict=True)


def test_parquet_columns_of_numbers_are_read(tmp_path):
    numbers = vectors(3)
    path = parquet(tmp_path / "t.parquet", e0=numbers[:, 0], id=["b", "a", None], e1=numbers[:, 1])
    table = read_embeddings(path)
    assert table.ids == ["b", "a", "embedding_3"]
    np.testing.assert_array_equal(table.vectors, numbers[:, :2])


def hostile_arrays(tmp_path: Path, values: np.ndarray) -> list[Path]:
    """The same array in each format that can hold it."""
    np.save(tmp_path / "t.npy", values)
    paths = [tmp_path / "t.npy", saved(tmp_path / "t.pt", torch.from_numpy(values))]
    save_file({"embeddings": values}, tmp_path / "t.safetensors")
    return [*paths, tmp_path / "t.safetensors"]


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 5), (5, 0), ()])
def test_arrays_that_are_no_matrix_are_refused(tmp_path, shape):
    for path in hostile_arrays(tmp_path, np.zeros(shape, dtype=np.float32)):
        message = refused(path)
        assert str(shape) in message
        assert "expected a matrix" in message or "holds no embeddings" in message


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_are_no_embedding(tmp_path, dtype):
    for path in hostile_arrays(tmp_path, np.ones((2, 3), dtype=dtype)):
        assert "expected floating-point numbers" in refused(path)
    column = pa.array([[1, 2], [3, 4]])
    for path in (
        hdf5(tmp_path / "t.h5", {"P1": np.ones(3, dtype=dtype)}),
        hdf5(tmp_path / "u.h5", {"P1": np.ones((4, 3), dtype=dtype)}),
        parquet(tmp_path / "t.parquet", id=["a", "b"], embedding=column),
        parquet(tmp_path / "u.parquet", id=["a", "b"], e0=[0.5, 1.5], length=[3, 4]),
        saved(tmp_path / "dict.pt", {"P1": torch.ones(3), "P2": torch.ones(3, dtype=torch.int32)}),
    ):
        assert "expected floating-point numbers" in refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused_with_their_record(tmp_path, value):
    values = np.ones((3, 4))
    values[1, 2] = value
    for path in hostile_arrays(tmp_path, values):
        assert "record embedding_2: 1 of 4 numbers are not finite" in refused(path)
    for path in (
        hdf5(tmp_path / "t.h5", {"a": values[0], "b": values[1]}),
        parquet(tmp_path / "t.parquet", id=["a", "b"], embedding=list(values[:2])),
        saved(tmp_path / "t.pt", {"a": torch.ones(4), "b": torch.from_numpy(values[1])}),
    ):
        assert "record b: 1 of 4" in refused(path)


def test_vectors_of_several_widths_are_refused_with_the_record(tmp_path):
    for path in (
        hdf5(tmp_path / "t.h5", {"a": np.ones(4), "b": np.ones(4), "c": np.ones(5)}),
        hdf5(tmp_path / "u.h5", {"a": np.ones((2, 4)), "c": np.ones((3, 5))}),
        parquet(tmp_path / "t.parquet", id=["a", "b", "c"], embedding=[[1.0] * 4, [1.0] * 4, [1.0] * 5]),
        saved(tmp_path / "t.pt", {"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(5)}),
    ):
        message = refused(path)
        assert "record c: 5 numbers were found, expected 4" in message


def test_widths_are_compared_between_the_parts_of_a_parquet_file(tmp_path):
    lists = [[1.0] * 4] * 5_000 + [[1.0] * 5] * 5_000
    assert "record embedding_5001: 5 numbers" in refused(parquet(tmp_path / "t.parquet", embedding=lists))


@pytest.mark.parametrize("embedding", [[[1.0], None], [[1.0], []], [[1.0], [None]]])
def test_missing_values_in_parquet_are_refused_with_the_record(tmp_path, embedding):
    path = parquet(tmp_path / "t.parquet", id=["a", "b"], embedding=pa.array(embedding, pa.list_(pa.float32())))
    assert "record b" in refused(path)


def test_parquet_without_embeddings_is_refused(tmp_path):
    for columns in (
        {"id": ["a"], "sequence": ["MKV"]},
        {"id": ["a"]},
        {"embedding": ["0.1 0.2"]},
        {"embedding": [0.5]},
        {"embedding": [[[0.5]]]},
    ):
        refused(parquet(tmp_path / "t.parquet", **columns))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_pt_file_is_never_run(tmp_path, old):
    target = tmp_path / "exploded"
    for content in (Bomb(target), {"a": torch.ones(3), "b": Bomb(target)}):
        torch.save(content, tmp_path / "t.pt", _use_new_zipfile_serialization=not old)
        assert "holds Python objects, which are not loaded for safety" in refused(tmp_path / "t.pt")
        assert not target.exists()
    torch.load(tmp_path / "t.pt", weights_only=False)
    assert target.exists()  # the bomb is one


def test_objects_in_a_npy_file_are_never_loaded(tmp_path):
    np.save(tmp_path / "t.npy", np.array([Bomb(tmp_path / "exploded")], dtype=object), allow_pickle=True)
    refused(tmp_path / "t.npy")
    assert not (tmp_path / "exploded").exists()


def test_pt_files_of_something_else_are_refused_with_what_was_found(tmp_path):
    for content, found in (
        ({"label": "P1", "mean_representations": {33: torch.ones(4)}}, "record label: a str was found"),
        ([torch.ones(4), [1.0]], "record embedding_2: a list was found"),
        ("text", "a str was found"),
        ({}, "holds no embeddings"),
        ([], "holds no embeddings"),
        ({"a": torch.ones(2, 4)}, "record a: shape (2, 4) was found"),
        (torch.ones(3, 4).to_sparse(), "a Tensor was found"),
        (torch.ones(3, 4, dtype=torch.complex64), "complex64"),
        (torch.ones(3, 4, device="meta"), "a Tensor was found"),
    ):
        assert found in refused(saved(tmp_path / "t.pt", content))


def test_a_few_numbers_that_claim_to_be_many_are_refused(tmp_path):
    path = saved(tmp_path / "t.pt", torch.ones(1).expand(10**9, 10**6))
    assert "more numbers than it has room for" in refused(path)


def test_a_pt_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    saved(tmp_path / "plain.pt", torch.zeros(1_000, 1_000))
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "t.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "damaged" in refused(tmp_path / "t.pt")


def test_hdf5_that_leads_out_of_the_file_is_refused(tmp_path):
    hdf5(tmp_path / "other.h5", {"a": np.ones(3)})
    (tmp_path / "raw").write_bytes(bytes(64))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/a")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("a", (8,), "f4", external=[(str(tmp_path / "raw"), 0, 64)])
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", (3,))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    for name in ("link.h5", "raw.h5", "virtual.h5"):
        assert "record a: its numbers are in another file" in refused(tmp_path / name)


def test_hdf5_that_claims_numbers_it_has_not_is_refused(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("a", (10**12,), "f4", chunks=(1_000,))
    assert "record a: the numbers were never written" in refused(tmp_path / "t.h5")


@pytest.mark.parametrize(
    "datasets",
    [
        {},
        {"a": np.float32(1)},
        {"a": np.zeros((2, 3, 4))},
        {"a": np.zeros((0, 4))},
        {"a": h5py.Empty("f4")},
        {"a": "text"},
        {"embeddings": vectors(2), "ids": ["a", "b"]},
    ],
)
def test_hdf5_without_vectors_is_refused(tmp_path, datasets):
    refused(hdf5(tmp_path / "t.h5", datasets))


def test_hdf5_with_a_loop_and_a_link_to_nowhere_ends(tmp_path):
    with h5py.File(tmp_path / "loop.h5", "w") as file:
        file.create_dataset("g/a", data=np.ones(3))
        file["g/again"] = file["g"]
        file["g/top"] = file["/"]
    with h5py.File(tmp_path / "nowhere.h5", "w") as file:
        file["a"] = h5py.SoftLink("/none")
    assert read_embeddings(tmp_path / "loop.h5").vectors.tolist() == [[1, 1, 1]]
    refused(tmp_path / "nowhere.h5")


@pytest.mark.parametrize("header", [b'{"embeddings":[]}', b"{", b'{"__metadata__":{"ids":"[1]"}}'])
def test_a_safetensors_header_that_makes_no_sense_is_refused(tmp_path, header):
    (tmp_path / "t.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(tmp_path / "t.safetensors")


@pytest.mark.parametrize("ids", ['["a"]', '{"a": 1}', "[1, 2]", "no json"])
def test_ids_that_do_not_fit_are_refused(tmp_path, ids):
    save_file({"embeddings": vectors(2)}, tmp_path / "t.safetensors", {"ids": ids})
    refused(tmp_path / "t.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_refused(tmp_path, name):
    write(tmp_path / name, [f"p{n}" for n in range(200)], vectors(200))
    size = (tmp_path / name).stat().st_size
    for left in (size - 1, size // 2, 20, 1):
        os.truncate(tmp_path / name, left)
        refused(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_changed_anywhere_never_end_in_a_traceback(tmp_path, name):
    write(tmp_path / name, ["a", "b"], vectors(2))
    content = bytearray((tmp_path / name).read_bytes())
    random = np.random.default_rng(5)
    for _ in range(60):
        changed = bytearray(content)
        for place in random.integers(0, min(len(content), 700), 8):
            changed[place] = random.integers(256)
        (tmp_path / name).write_bytes(changed)
        with suppress(DataError):
            read_embeddings(tmp_path / name)


@pytest.mark.parametrize("name", [*NAMES, "t.bin"])
def test_a_file_of_noise_and_an_empty_file_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(5_000))
    refused(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert "is empty" in refused(tmp_path / name)


def test_a_missing_file_a_folder_and_text_are_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.h5")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "t.h5").write_text(">a\nMKV\n")
    assert "holds no embeddings; expected one of HDF5" in refused(tmp_path / "t.h5")


def test_sequences_never_look_like_embeddings(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.fasta", ">a\nMKV\n")
    table = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"], "sequence": ["MKV"]}), table)
    fasta = b">a some {protein}\nMKV\n"
    for content in (
        fasta,
        b"\xef\xbb\xbf" + fasta,
        gzip.compress(fasta),
        b"id,sequence\r\na,MKV\r\n",
        table.getvalue(),
    ):
        for name in ("t.fasta", "t.csv", "t.gz", "t", "t.h5", "t.pt", "t.parquet"):
            (tmp_path / name).write_bytes(content)
            assert not looks_like_embeddings(tmp_path / name), (name, content)
    (tmp_path / "t.zip").write_bytes(buffer.getvalue())
    (tmp_path / "empty.fasta").touch()
    for name in ("-", tmp_path / "t.zip", tmp_path / "empty.fasta", tmp_path / "none.h5", tmp_path, "x" * 5_000):
        assert not looks_like_embeddings(name), name


def test_a_damaged_file_of_a_format_still_looks_like_one(tmp_path):
    for name in ("t.h5", "t.pt", "t.safetensors", "t.npy"):
        for content in (b"", bytes(100)):
            (tmp_path / name).write_bytes(content)
            assert looks_like_embeddings(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("t.h5", "h5py", "plm"),
        ("t.pt", "torch", "plm"),
        ("t.safetensors", "safetensors", "plm"),
        ("t.parquet", "pyarrow", "parquet"),
    ],
)
def test_a_package_that_is_not_installed_is_named_before_any_work(tmp_path, monkeypatch, name, package, extra):
    write(tmp_path / name, ["a"], vectors(1))
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"enzyme-stability\[{extra}\]"):
        read_embeddings(tmp_path / name)
    with pytest.raises(MissingDependencyError, match=rf"enzyme-stability\[{extra}\]"):
        open_embedding_writer(tmp_path / f"new-{name}", 5, {}).__enter__()
    assert not (tmp_path / f"new-{name}").exists()
