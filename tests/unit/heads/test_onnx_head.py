"""Running an exported head: what it takes, and that the same protein always gets the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from enzyme_stability.errors import ArtifactError
from enzyme_stability.heads.graph import Graph
from enzyme_stability.heads.onnx_head import BLOCK, HeadOutput, OnnxHead

WIDTH = 40


def pooled() -> bytes:
    """Some matrix products of the descriptors: sums of another order would show."""
    graph = Graph()
    weights = np.random.default_rng(0).normal(size=(WIDTH, 4)).astype(np.float32)
    product = graph.add("MatMul", "descriptors", graph.constant(weights))
    for k, name in enumerate(HeadOutput._fields):
        graph.add("Gather", product, graph.constant(np.array([k], dtype=np.int64)), axis=1, name=name)
    return graph.serialise({"descriptors": (None, WIDTH)})


def by_residue() -> bytes:
    graph = Graph()
    mean = graph.add("ReduceMean", "residues", axes=[0], keepdims=1)
    weights = np.random.default_rng(0).normal(size=(WIDTH, 4)).astype(np.float32)
    product = graph.add("MatMul", mean, graph.constant(weights))
    for k, name in enumerate(HeadOutput._fields):
        graph.add("Gather", product, graph.constant(np.array([k], dtype=np.int64)), axis=1, name=name)
    return graph.serialise({"residues": (None, WIDTH)})


def test_it_says_what_it_takes() -> None:
    heads = OnnxHead(pooled()), OnnxHead(by_residue())
    assert [(head.pooling, head.width) for head in heads] == [("mean", WIDTH), ("residues", WIDTH)]


def test_outputs_are_of_their_proteins() -> None:
    random = np.random.default_rng(1)
    weights = np.random.default_rng(0).normal(size=(WIDTH, 4)).astype(np.float32)
    descriptors = random.normal(size=(BLOCK + 3, WIDTH))
    found = OnnxHead(pooled()).predict(descriptors)
    assert all(values.dtype == np.float64 and values.shape == (BLOCK + 3,) for values in found)
    np.testing.assert_allclose(np.stack(found, axis=1), descriptors @ weights, atol=1e-4)
    proteins = [random.normal(size=(length, WIDTH)) for length in (1, 500, 7)]
    found = OnnxHead(by_residue()).predict(proteins)
    assert all(values.dtype == np.float64 and values.shape == (3,) for values in found)
    means = np.stack([protein.mean(axis=0) for protein in proteins])
    np.testing.assert_allclose(np.stack(found, axis=1), means @ weights, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_and_of_proteins_changes_no_bit(threads: int) -> None:
    random = np.random.default_rng(2)
    proteins = [random.normal(size=(length, WIDTH)).astype(np.float32) for length in random.integers(1, 300, 40)]
    means = np.stack([protein.mean(axis=0) for protein in proteins])
    for graph, given in ((by_residue(), proteins), (pooled(), means)):
        wanted = [np.stack(OnnxHead(graph, 1).predict(given[k : k + 1])) for k in range(40)]
        assert np.array_equal(np.stack(OnnxHead(graph, threads).predict(given)), np.concatenate(wanted, axis=1))


def test_no_proteins_give_no_answers() -> None:
    for head, nothing in ((OnnxHead(pooled()), np.empty((0, WIDTH))), (OnnxHead(by_residue()), [])):
        assert [values.shape for values in head.predict(nothing)] == [(0,)] * 4


def test_what_is_no_head_is_an_error(tmp_path: Path) -> None:
    graph = Graph()
    for name in HeadOutput._fields:
        graph.add("Identity", "pixels", name=name)
    (tmp_path / "other.onnx").write_bytes(graph.serialise({"pixels": (None, 1)}))
    with pytest.raises(ArtifactError, match=r"other\.onnx is no head: it takes pixels"):
        OnnxHead(tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="the exported head cannot be loaded"):
        OnnxHead(pooled()[:-50])
