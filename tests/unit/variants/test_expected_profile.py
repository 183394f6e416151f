"""The network foretells more of a family than the background does, and the same of a place wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from enzyme_stability.config.delta_tm import ExpectedProfileSettings
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.heads.graph import Graph
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants import expected_profile_training
from enzyme_stability.variants.expected_profile import BLOCK, OUTSIDE, REACH, ExpectedProfile, composition, windows
from enzyme_stability.variants.expected_profile_training import train_expected_profile
from enzyme_stability.variants.features import UNKNOWN, indices

RANDOM = np.random.default_rng(3)
Trained = tuple[Path, dict[str, Any]]


def chain(length: int) -> str:
    return "".join(RANDOM.choice(list(AMINO_ACIDS), length))


def shuffled(text: str) -> str:
    return "".join(RANDOM.permutation(list(text)))


@pytest.fixture(scope="module")
def network(profile_network: Trained) -> ExpectedProfile:
    return ExpectedProfile(profile_network[0], threads=1)


def test_a_window_holds_the_neighbours_and_what_is_outside() -> None:
    seen = windows(indices("ACX"))
    assert seen.shape == (3, 2 * REACH + 1)
    assert seen[:, REACH].tolist() == [0, 1, UNKNOWN]
    assert seen[0].tolist() == [*[OUTSIDE] * REACH, 0, 1, UNKNOWN, *[OUTSIDE] * (REACH - 2)]
    assert seen[2].tolist() == [*[OUTSIDE] * (REACH - 2), 0, 1, UNKNOWN, *[OUTSIDE] * REACH]


def test_the_composition_is_of_the_known_residues() -> None:
    share = composition(indices("AACXX"))
    assert share[:2].tolist() == [2 / 3, 1 / 3]
    assert share.sum() == pytest.approx(1)
    assert composition(indices("XX")).tolist() == [0] * 20


def test_the_network_learns_more_than_the_background(profile_network: Trained) -> None:
    _, figures = profile_network
    assert figures["proteins"] == 140
    assert 70 * 80 < figures["columns"] < 70 * 120  # about three in ten are left out
    assert figures["background"] == pytest.approx(np.log(20), abs=0.1)
    assert figures["validation"] < figures["background"] - 0.5


def test_residues_that_relatives_exchange_are_foretold(network: ExpectedProfile) -> None:
    for own, like, unlike in (("I", "L", "K"), ("K", "R", "D"), ("D", "E", "F"), ("F", "Y", "D")):
        text = chain(60)
        row = network.probabilities(indices(f"{text[:30]}{own}{text[30:]}"))[30]
        there, exchanged, never = (row[AMINO_ACIDS.index(residue)] for residue in (own, like, unlike))
        assert min(there, exchanged) > 5 * never


@pytest.mark.parametrize("length", [1, 2, REACH, 2 * REACH + 1, BLOCK - 1, BLOCK, BLOCK + 1, 600])
def test_every_length_gives_a_row_of_probabilities_a_residue(network: ExpectedProfile, length: int) -> None:
    probabilities = network.probabilities(indices(chain(length)))
    assert probabilities.shape == (length, 20)
    assert probabilities.min() > 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_blocks_leave_no_seam(network: ExpectedProfile) -> None:
    tandem = 3 * chain(200)
    probabilities = network.probabilities(indices(tandem))
    np.testing.assert_array_equal(probabilities[REACH:200], probabilities[200 + REACH : 400])
    np.testing.assert_array_equal(probabilities[200 : 400 - REACH], probabilities[400 : 600 - REACH])


def test_only_the_neighbours_and_the_composition_count(network: ExpectedProfile) -> None:
    left, core, right = chain(50), chain(40 + 2 * REACH), chain(50)
    inside = slice(50 + REACH, 50 + REACH + 40)
    there = network.probabilities(indices(left + core + right))[inside]
    with_other_flanks = network.probabilities(indices(shuffled(left) + core + shuffled(right)))[inside]
    np.testing.assert_array_equal(with_other_flanks, there)
    apart = shuffled(right + left)
    shifted = network.probabilities(indices(apart + core))[100 + REACH : 100 + REACH + 40]
    np.testing.assert_allclose(shifted, there, atol=1e-6)


def test_a_neighbour_within_reach_counts(network: ExpectedProfile) -> None:
    text = chain(80)
    other = list(text)
    other[40], other[70] = other[70], other[40]  # the composition stays
    assert text[40] != text[70]
    change = np.abs(network.probabilities(indices(text)) - network.probabilities(indices("".join(other)))).max(axis=1)
    near = np.minimum(np.abs(np.arange(80) - 40), np.abs(np.arange(80) - 70)) <= REACH
    assert (change[near] > 0).all()
    assert (change[~near] == 0).all()


def test_unknown_residues_are_neither_known_ones_nor_the_end(network: ExpectedProfile) -> None:
    text = chain(40)
    unknown = network.probabilities(indices(f"{text[:20]}X{text[21:]}"))
    assert np.isfinite(unknown).all()
    assert not np.allclose(unknown[20], network.probabilities(indices(text))[20], atol=1e-3)
    assert not np.allclose(unknown[:20], network.probabilities(indices(text[:20])), atol=1e-3)
    nothing_known = network.probabilities(indices("X" * 15))
    np.testing.assert_allclose(nothing_known.sum(axis=1), 1, atol=1e-12)


def test_the_saved_network_gives_what_the_trained_one_gives(tmp_path: Path) -> None:
    torch.manual_seed(4)
    trained = expected_profile_training._network(24)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    path = tmp_path / "network.onnx"
    path.write_bytes(expected_profile_training._to_onnx(trained, {}))
    residues = indices(f"{chain(150)}XX{chain(150)}")
    shares = np.tile(composition(residues).astype(np.float32), (len(residues), 1))
    with torch.inference_mode():
        logits = trained(torch.from_numpy(windows(residues).copy()), torch.from_numpy(shares))
    by_torch = logits.double().softmax(1).numpy()
    assert by_torch.max() > 0.2  # it is not just the same everywhere
    np.testing.assert_allclose(ExpectedProfile(path, threads=1).probabilities(residues), by_torch, atol=1e-5)


def test_two_runs_give_the_same_network(
    profile_network: Trained, unlabelled: Path, profile_settings: ExpectedProfileSettings, tmp_path: Path
) -> None:
    path, figures = profile_network
    said: list[str] = []
    again = train_expected_profile(unlabelled, profile_settings, tmp_path / "new" / "again.onnx", said.append, 1)
    assert again == figures
    assert (tmp_path / "new" / "again.onnx").read_bytes() == path.read_bytes()
    assert [line.split()[0] for line in said] == ["140", "epoch", "epoch", "epoch"]


def test_ten_steps_are_as_good_as_any_number(
    unlabelled: Path, profile_settings: ExpectedProfileSettings, tmp_path: Path
) -> None:
    few = profile_settings.model_copy(update={"epochs": 10, "batch": 100_000})
    figures = train_expected_profile(unlabelled, few, tmp_path / "few.onnx", lambda _: None, 1)
    assert np.isfinite(figures["validation"])


def test_too_few_proteins_with_relatives_are_refused(profile_settings: ExpectedProfileSettings, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers.fasta"
    strangers.write_text("".join(f">{k}\n{chain(60)}\n" for k in range(5)))
    with pytest.raises(DataError, match=r"strangers\.fasta: only 0 proteins have 2 relatives or more"):
        train_expected_profile(strangers, profile_settings, tmp_path / "none.onnx", lambda _: None, 1)
    assert not (tmp_path / "none.onnx").exists()


def test_proteins_outside_the_lengths_and_unusable_ones_are_not_learned_from(
    unlabelled: Path, profile_settings: ExpectedProfileSettings, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed.fasta"
    odd = f">short\n{chain(40)}\n>long\n{chain(700)}\n>broken\nMK?V{chain(60)}\n>stop\n{chain(30)}*{chain(30)}\n"
    mixed.write_text(odd + unlabelled.read_text())
    chosen = expected_profile_training._choose(
        mixed, profile_settings.model_copy(update={"proteins": 1000}), np.random.default_rng(0)
    )
    assert len(chosen) == 150
    assert {len(one) for one in chosen} == {70}


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(ArtifactError, match=f"{name} cannot be loaded as a model"):
            ExpectedProfile(tmp_path / name)


@pytest.mark.parametrize(
    "inputs",
    [
        {"descriptors": (None, 20)},
        {"windows": (None, 2 * REACH + 1)},
        {"windows": (None, 2 * REACH + 3), "composition": (None, UNKNOWN)},
    ],
)
def test_another_network_is_refused(inputs: dict[str, tuple[int | None, ...]], tmp_path: Path) -> None:
    graph = Graph()
    graph.add("Softmax", graph.add("Cast", next(iter(inputs)), to=1), name="probabilities")
    path = tmp_path / "other.onnx"
    path.write_bytes(graph.serialise(inputs, integers=("windows",), outputs={"probabilities": UNKNOWN}))
    with pytest.raises(ArtifactError, match="does not foretell profiles"):
        ExpectedProfile(path)


def test_a_residue_that_the_network_rules_out_keeps_a_probability_above_nought(tmp_path: Path) -> None:
    graph = Graph()
    certain = graph.add("Mul", "composition", graph.constant(np.array(1e4, dtype=np.float32)))
    nowhere = graph.add("Mul", graph.add("Cast", "windows", to=1), graph.constant(np.array(0, dtype=np.float32)))
    sum_of_nothing = graph.add("ReduceSum", nowhere, graph.constant(np.array([1], dtype=np.int64)))
    graph.add("Softmax", graph.add("Add", certain, sum_of_nothing), name="probabilities", axis=-1)
    inputs = {"windows": (None, 2 * REACH + 1), "composition": (None, UNKNOWN)}
    path = tmp_path / "certain.onnx"
    path.write_bytes(graph.serialise(inputs, integers=("windows",), outputs={"probabilities": UNKNOWN}))
    assert np.isfinite(np.log(ExpectedProfile(path).probabilities(indices("A" * 12)))).all()
