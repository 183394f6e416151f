"""The line on the embedding: it learns, its export says the same, its penalty is chosen over clusters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up_examples import made_up, rmse, with_negligible
from sklearn.linear_model import Ridge as SklearnRidge

from enzyme_stability.config import Ridge
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, Memory, Scaling, pooled_to_onnx
from enzyme_stability.heads.ridge import RidgeHead, fit_ridge

SETTINGS = Ridge(penalties=(0.1, 10, 1000))


def fit(examples: Examples, settings: Ridge = SETTINGS, seed: int = 0) -> RidgeHead:
    return fit_ridge(Scaling.fit(examples.embeddings)(examples.embeddings), examples, settings, seed)


def exported(head: RidgeHead, examples: Examples) -> HeadOutput:
    scaling = Scaling.fit(examples.embeddings)
    memory = Memory.fit(scaling(examples.embeddings), 0)
    return OnnxHead(pooled_to_onnx(head, scaling, memory), threads=1).predict(examples.embeddings)


def wide(count: int, width: int, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    return replace(made_up(count), embeddings=random.normal(size=(count, width)).astype(np.float32))


def test_it_can_learn_proteins_by_heart() -> None:
    examples = wide(64, 80)  # more features than proteins
    found = exported(fit(examples, Ridge(penalties=(1e-4,))), examples)
    assert rmse(found, examples.tm) < 0.3


def test_it_finds_what_tm_depends_on() -> None:
    examples = made_up(300)
    learnt, held_out = examples[~examples.validation], examples[examples.validation]
    scaling = Scaling.fit(learnt.embeddings)
    head = fit_ridge(scaling(learnt.embeddings), learnt, SETTINGS, 0)
    graph = pooled_to_onnx(head, scaling, Memory.fit(scaling(learnt.embeddings), 0))
    assert rmse(OnnxHead(graph).predict(held_out.embeddings), held_out.tm) < 0.5 * held_out.tm.std()


def test_the_export_says_what_the_lines_say() -> None:
    examples = made_up()
    head = fit(examples)
    features = Scaling.fit(examples.embeddings)(examples.embeddings).astype(np.float64)
    tm, log_residual = (features @ head.coefficients + head.offsets).T
    half = np.exp(np.clip(log_residual, *head.bounds))
    found = exported(head, examples)
    np.testing.assert_allclose(found.tm, tm, atol=1e-4)
    np.testing.assert_allclose(found.lower, tm - half, atol=1e-4)
    np.testing.assert_allclose(found.upper, tm + half, atol=1e-4)


def test_the_line_is_that_of_scikit_learn() -> None:
    examples = made_up()
    features = Scaling.fit(examples.embeddings)(examples.embeddings)
    line = SklearnRidge(alpha=10).fit(features, examples.tm, sample_weight=examples.weights)
    found = exported(fit(examples, Ridge(penalties=(10,))), examples)
    np.testing.assert_allclose(found.tm, line.predict(features), atol=1e-4)


def test_the_penalty_is_the_one_that_helps_other_clusters() -> None:
    # Relatives are nearly the same protein with nearly the same Tm, which follows from nothing else.
    random = np.random.default_rng(4)
    centres, tm = random.normal(size=(65, 60)), random.normal(50, 10, 65)
    clusters = np.repeat(np.arange(65), 6)
    embeddings = centres[clusters] + random.normal(0, 0.01, (390, 60))
    relatives = replace(made_up(390), embeddings=embeddings.astype(np.float32), tm=tm[clusters], clusters=clusters)
    settings = Ridge(penalties=(0.01, 1e6))
    assert exported(fit(relatives, settings), relatives).tm.std() < 1  # all but the mean: nothing can be known
    strangers = replace(relatives, clusters=np.arange(390))
    assert exported(fit(strangers, settings), strangers).tm.std() > 5


def test_the_interval_is_wider_where_residuals_are() -> None:
    examples = made_up(600, noise=0)
    hard = examples.embeddings[:, 0] > 0
    noise = np.random.default_rng(0).normal(0, np.where(hard, 12, 2))
    found = exported(fit(replace(examples, tm=examples.tm + noise), Ridge(penalties=(1,))), examples)
    widths = found.upper - found.lower
    assert np.median(widths[hard]) > 1.3 * np.median(widths[~hard])


def test_a_protein_of_no_weight_does_not_matter() -> None:
    examples = made_up()
    cold, hot = (exported(fit(with_negligible(examples, tm)), examples) for tm in (30.0, 95.0))
    np.testing.assert_allclose(cold.tm, hot.tm, atol=1e-3)
    heavy = exported(fit(replace(examples, tm=with_negligible(examples, 95.0).tm)), examples)
    assert np.abs(heavy.tm - hot.tm).max() > 0.5


def test_the_seed_decides_everything() -> None:
    examples = made_up()
    one, again, other = (fit(examples, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.coefficients, again.coefficients)
    assert not np.array_equal(one.coefficients, other.coefficients)  # other folds, other residuals
