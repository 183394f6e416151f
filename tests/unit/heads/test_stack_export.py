"""The exported graph says what LightGBM and the ridges say, and a protein's answer never depends on its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.config import StackedHead
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.errors import ArtifactError
from enzyme_stability.heads.landmark_ridge import kernel
from enzyme_stability.heads.onnx_export import to_onnx
from enzyme_stability.heads.onnx_head import BLOCK, HeadOutput, OnnxHead
from enzyme_stability.heads.stacked import FittedStack, fit_stack
from enzyme_stability.sequence import AMINO_ACIDS

TOLERANCE_CELSIUS = 0.01
"""Single precision against double; below the rounding of a prediction."""


class Fitted:
    """A stack fitted on made-up proteins, and proteins it has not seen."""

    def __init__(self, table: pd.DataFrame, settings: dict[str, Any]) -> None:
        encoder = CompositionEncoder(settings["encoder"]["blocks"])
        self.descriptors = encoder.encode(table["sequence"].tolist())
        self.growth = table["growth_temperature_celsius"].to_numpy()
        self.columns = encoder.columns
        self.tm = table["tm_celsius"].to_numpy()
        self.clusters = table["cluster"].to_numpy()
        self.head = StackedHead.parse(settings["head"], "the test")
        learn = np.arange(len(table)) < 300
        self.stack = self.fit(learn)
        self.fresh = self.descriptors[~learn]
        self.fresh_growth = np.nan_to_num(self.growth[~learn], nan=37.0)

    def fit(self, learn: np.ndarray, growth: np.ndarray | None = None) -> FittedStack:
        growth = self.growth if growth is None else growth
        of = (self.descriptors[learn], self.columns, self.tm[learn], self.clusters[learn], growth[learn])
        return fit_stack(*of, self.head, seed=1, threads=1)


@pytest.fixture(scope="module")
def fitted(made_up_proteins: pd.DataFrame, quick_settings: dict[str, Any]) -> Fitted:
    return Fitted(made_up_proteins, quick_settings)


@pytest.fixture(scope="module")
def head(fitted: Fitted) -> OnnxHead:
    return OnnxHead(to_onnx(fitted.stack, with_growth_temperature=False), threads=1)


def in_python(stack: FittedStack, descriptors: np.ndarray, growth: np.ndarray | None) -> HeadOutput:
    """The same answer from the libraries that fitted the parts, in double precision."""
    scaled = [scaling(descriptors) for scaling in stack.scalings]
    level_1 = [ridge.predict(points) for ridge, points in zip(stack.ridges, scaled, strict=True)]
    features = np.concatenate([descriptors[:, stack.columns], *level_1], axis=1).astype(float)
    models = stack.trees
    if growth is not None:
        assert stack.trees_with_growth is not None
        features, models = np.column_stack([features, growth]), stack.trees_with_growth
    value = {name: np.mean([tree.predict(features) for tree in trees], axis=0) for name, trees in models.items()}
    similarity = kernel(scaled[0], stack.ridges[0].landmarks).max(axis=1)
    return HeadOutput(value["tm"], value["lower"], value["upper"], similarity)


def assert_same_bits(one: HeadOutput, other: HeadOutput) -> None:
    for name, a, b in zip(HeadOutput._fields, one, other, strict=True):
        assert a.tobytes() == b.tobytes(), f"{name}: {(a != b).sum()} of {a.size} values moved"


@pytest.mark.parametrize("given_growth", [False, True])
def test_graph_equals_the_libraries_that_fitted_it(fitted: Fitted, given_growth: bool) -> None:
    growth = fitted.fresh_growth if given_growth else None
    exported = OnnxHead(to_onnx(fitted.stack, with_growth_temperature=given_growth), threads=1)
    found = exported.predict(fitted.fresh, growth)
    expected = in_python(fitted.stack, fitted.fresh, growth)
    for name in ("tm", "lower", "upper"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=TOLERANCE_CELSIUS, err_msg=name
        )
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-5)


def test_value_is_the_mean_of_two_losses(fitted: Fitted) -> None:
    assert {name: len(trees) for name, trees in fitted.stack.trees.items()} == {"tm": 2, "lower": 1, "upper": 1}


def test_fit_finds_what_tm_depends_on(fitted: Fitted, head: OnnxHead) -> None:
    found = head.predict(fitted.fresh)
    measured = fitted.tm[300:]
    assert np.abs(found.tm - measured).mean() < 0.5 * np.abs(measured - fitted.tm[:300].mean()).mean()
    assert (found.lower < measured).mean() > 0.7
    assert (measured < found.upper).mean() > 0.7


def test_growth_temperature_makes_a_difference_only_where_it_is_given(fitted: Fitted) -> None:
    exported = OnnxHead(to_onnx(fitted.stack, with_growth_temperature=True), threads=1)
    cold, hot = (exported.predict(fitted.fresh, np.full(len(fitted.fresh), t)).tm for t in (20.0, 75.0))
    assert (hot - cold).mean() > 1


def test_training_proteins_are_like_themselves(fitted: Fitted, head: OnnxHead) -> None:
    similarity = head.predict(fitted.descriptors[:300]).similarity
    assert similarity.max() == pytest.approx(1, abs=1e-3)  # the landmarks
    assert ((similarity > 0) & (similarity <= 1)).all()
    assert similarity.mean() > head.predict(fitted.fresh).similarity.mean()


@pytest.mark.parametrize("count", [1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_a_batch_of_any_size_gives_the_same_bits(fitted: Fitted, head: OnnxHead, count: int) -> None:
    several = fitted.descriptors[:count]
    together = head.predict(fitted.descriptors)
    assert_same_bits(head.predict(several), HeadOutput(*(values[:count] for values in together)))


def test_alone_and_in_any_order_a_protein_gets_the_same_bits(fitted: Fitted, head: OnnxHead) -> None:
    together = head.predict(fitted.descriptors)
    alone = [head.predict(row[None]) for row in fitted.descriptors[:60]]
    assert_same_bits(
        HeadOutput(*map(np.concatenate, zip(*alone, strict=True))), HeadOutput(*(v[:60] for v in together))
    )
    order = np.random.default_rng(4).permutation(len(fitted.descriptors))
    assert_same_bits(head.predict(fitted.descriptors[order]), HeadOutput(*(values[order] for values in together)))


def test_a_wild_neighbour_changes_nothing(fitted: Fitted, head: OnnxHead) -> None:
    wild = np.full((1, fitted.descriptors.shape[1]), 1e6, dtype=np.float32)
    among = head.predict(np.vstack([wild, fitted.fresh[:20], -wild]))
    assert_same_bits(HeadOutput(*(v[1:-1] for v in among)), head.predict(fitted.fresh[:20]))


@pytest.mark.parametrize("given_growth", [False, True])
def test_threads_do_not_change_a_bit(fitted: Fitted, given_growth: bool) -> None:
    growth = fitted.fresh_growth if given_growth else None
    graph = to_onnx(fitted.stack, with_growth_temperature=given_growth)
    one, two, three = (OnnxHead(graph, threads).predict(fitted.fresh, growth) for threads in (1, 2, 3))
    assert_same_bits(one, two)
    assert_same_bits(one, three)


def test_no_proteins_give_no_answers(fitted: Fitted, head: OnnxHead) -> None:
    assert all(values.shape == (0,) for values in head.predict(fitted.fresh[:0]))


def test_the_same_seed_gives_the_same_graph(fitted: Fitted) -> None:
    again = fitted.fit(np.arange(480) < 300)
    assert to_onnx(again, with_growth_temperature=True) == to_onnx(fitted.stack, with_growth_temperature=True)


def test_without_any_growth_temperature_there_is_no_such_head(fitted: Fitted) -> None:
    stack = fitted.fit(np.arange(480) < 240, growth=np.full(480, np.nan))
    assert stack.trees_with_growth is None
    with pytest.raises(ValueError, match="growth temperature"):
        to_onnx(stack, with_growth_temperature=True)


def test_level_two_learns_from_values_predicted_without_the_whole_cluster() -> None:
    # Tm is noise that near-copies share: a level-1 value is of use only if it has seen the protein or a copy of it
    random = np.random.default_rng(0)
    chains, tm = [], []
    for noise in random.normal(55, 8, 100):
        chain = random.choice(list(AMINO_ACIDS), 150)
        for _ in range(3):
            chain[random.integers(150)] = random.choice(list(AMINO_ACIDS))
            chains.append("".join(chain))
            tm.append(noise)
    encoder = CompositionEncoder(["amino_acids", "termini"])
    settings = {
        "thresholds_celsius": [55],
        "ridges": [{"block_weights": {"amino_acids": 1, "termini": 1}, "penalty": 0.001, "sharpness": 3}],
        "trees": {"blocks": ["amino_acids"], "trees": 40, "learning_rate": 0.1, "leaves": 6, "feature_share": 1},
    }
    stack = fit_stack(
        encoder.encode(chains),
        encoder.columns,
        np.array(tm),
        np.repeat(np.arange(100), 3),
        np.full(300, np.nan),
        StackedHead.parse(settings, "the test"),
        seed=0,
        threads=1,
    )
    for trees in stack.trees["tm"]:
        gain = trees.feature_importance("gain")
        assert gain[stack.columns.size :].sum() / gain.sum() < 0.5  # 0.98 where folds cut a cluster


def test_what_is_no_model_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        OnnxHead(b"not a graph")
    with pytest.raises(ArtifactError, match=r"missing\.onnx"):
        OnnxHead(tmp_path / "missing.onnx")
