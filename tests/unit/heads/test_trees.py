"""Trees on the embedding: they learn, their export says the same, their number is decided on validation proteins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_examples import made_up, repeated, rmse, with_negligible, with_other_validation_tm

from enzyme_stability.config import Trees
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, Memory, Scaling, pooled_to_onnx
from enzyme_stability.heads.trees import TreesHead, fit_trees, fit_trees_head

SETTINGS = Trees(trees=60, learning_rate=0.1, leaves=6, minimum_leaf_size=5, patience=60, feature_share=0.7)


def fit(examples: Examples, settings: Trees = SETTINGS, seed: int = 0) -> TreesHead:
    return fit_trees_head(Scaling.fit(examples.embeddings)(examples.embeddings), examples, settings, seed, 1)


def exported(head: TreesHead, examples: Examples) -> HeadOutput:
    scaling = Scaling.fit(examples.embeddings)
    memory = Memory.fit(scaling(examples.embeddings), 0)
    return OnnxHead(pooled_to_onnx(head, scaling, memory), threads=1).predict(examples.embeddings)


def models(head: TreesHead) -> list[str]:
    return [booster.model_to_string() for boosters in head.boosters.values() for booster in boosters]


def test_they_can_learn_proteins_by_heart() -> None:
    examples = replace(repeated(made_up(64, noise=5)), weights=np.ones(128))
    settings = Trees(
        trees=300,
        learning_rate=0.2,
        leaves=64,
        minimum_leaf_size=1,
        l2_penalty=0,
        feature_share=1,
        row_share=1,
        huber_celsius=50,
        patience=300,
    )
    assert rmse(exported(fit(examples, settings), examples), examples.tm) < 0.3


def test_they_find_what_tm_depends_on() -> None:
    examples = made_up(400)
    found = exported(fit(examples), examples[examples.validation])
    held_out = examples.tm[examples.validation]
    assert rmse(found, held_out) < 0.75 * held_out.std()
    inside = (found.lower < held_out) & (held_out < found.upper)
    assert 0.5 < inside.mean() < 0.98


def test_the_export_says_what_lightgbm_says() -> None:
    examples = made_up(200)
    head = fit(examples)
    features = Scaling.fit(examples.embeddings)(examples.embeddings)
    found = exported(head, examples)
    for name, boosters in head.boosters.items():
        wanted = np.mean([booster.predict(features) for booster in boosters], axis=0)
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-4)


def test_the_number_of_trees_is_the_best_on_validation_proteins() -> None:
    noise = replace(made_up(200), tm=np.random.default_rng(0).normal(50, 10, 200), weights=np.ones(200))
    wild = SETTINGS.model_copy(update={"learning_rate": 0.3, "minimum_leaf_size": 1})
    features = Scaling.fit(noise.embeddings)(noise.embeddings)
    learnt, held_out = ~noise.validation, noise.validation
    every = fit_trees(features[learnt], noise.tm[learnt], wild, 0, 1, weights=noise.weights[learnt])["tm"][1]
    errors = [
        np.mean((every.predict(features[held_out], num_iteration=k) - noise.tm[held_out]) ** 2) for k in range(1, 61)
    ]
    stopped = fit(noise, wild).boosters["tm"][1]
    assert stopped.num_trees() == int(np.argmin(errors)) + 1 < 60
    np.testing.assert_array_equal(stopped.predict(features), every.predict(features, num_iteration=stopped.num_trees()))


def test_validation_proteins_only_say_when_to_stop() -> None:
    examples = made_up(200)
    pairs = zip(models(fit(examples)), models(fit(with_other_validation_tm(examples))), strict=True)
    for one, other in pairs:
        shorter, longer = sorted(
            ([tree.split("\n\n")[0] for tree in m.split("Tree=")[1:]] for m in (one, other)), key=len
        )
        assert shorter
        assert longer[: len(shorter)] == shorter


def test_a_protein_of_no_weight_does_not_matter() -> None:
    examples = made_up(200)
    cold, hot = (exported(fit(with_negligible(examples, tm)), examples) for tm in (30.0, 95.0))
    heavy = exported(fit(replace(examples, tm=with_negligible(examples, 95.0).tm)), examples)
    # Not the same to the last digit: the least difference decides between two splits that are equally good.
    assert np.abs(cold.tm - hot.tm).mean() < 0.01
    assert np.abs(heavy.tm - hot.tm).mean() > 0.1


def test_the_seed_decides_everything() -> None:
    examples = made_up(200)
    one, again, other = (models(fit(examples, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


@pytest.mark.parametrize("level", ["lower", "upper"])
def test_the_bounds_are_quantiles(level: str) -> None:
    random = np.random.default_rng(1)
    examples = replace(made_up(500), tm=random.normal(50, 10, 500), weights=np.ones(500))
    found = exported(fit(examples, SETTINGS.model_copy(update={"learning_rate": 0.01})), examples)
    share = (examples.tm < getattr(found, level)).mean()
    assert share == pytest.approx({"lower": 0.1, "upper": 0.9}[level], abs=0.05)
