"""The perceptron: it learns, its export says the same, ensembles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_examples import (
    Journal,
    Killed,
    made_up,
    repeated,
    rmse,
    trainer,
    with_negligible,
    with_other_validation_tm,
)

from enzyme_stability.config import Mlp, Trainer
from enzyme_stability.heads.mlp import NetworkHead, ensemble, fit_mlp
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, Memory, Scaling, pooled_to_onnx

SETTINGS = Mlp(hidden=(16, 8), learning_rate=0.01, dropout=0.2)


def fit(
    examples: Examples,
    folder: Path,
    settings: Mlp = SETTINGS,
    how: Trainer | None = None,
    seed: int = 0,
    journal: Journal | None = None,
) -> NetworkHead:
    features = Scaling.fit(examples.embeddings)(examples.embeddings)
    return fit_mlp(features, examples, settings, how or trainer(), seed, folder, journal or Journal())


def exported(head: NetworkHead, examples: Examples) -> HeadOutput:
    scaling = Scaling.fit(examples.embeddings)
    memory = Memory.fit(scaling(examples.embeddings), 0)
    return OnnxHead(pooled_to_onnx(head, scaling, memory), threads=1).predict(examples.embeddings)


def weights_of(head: NetworkHead) -> np.ndarray:
    values = [p.detach().numpy().ravel() for member in head.members for p in member.parameters()]
    return np.concatenate(values)


def test_it_can_learn_proteins_by_heart(tmp_path: Path) -> None:
    examples = repeated(made_up(64, noise=5))
    settings = Mlp(hidden=(128, 64), learning_rate=0.003, dropout=0, weight_decay=0)
    head = fit(examples, tmp_path, settings, trainer(max_epochs=150, patience=150, batch_size=32))
    assert rmse(exported(head, examples), examples.tm) < 0.05 * examples.tm.std()


def test_it_finds_what_tm_depends_on(tmp_path: Path) -> None:
    examples = made_up(300)
    head = fit(examples, tmp_path, how=trainer(max_epochs=40, patience=10))
    held_out = examples.validation
    assert rmse(exported(head, examples[held_out]), examples.tm[held_out]) < 0.5 * examples.tm[held_out].std()


@pytest.mark.parametrize("members", [1, 3])
def test_the_export_says_what_the_network_says(tmp_path: Path, members: int) -> None:
    examples = made_up()
    head = fit(examples, tmp_path, how=trainer(max_epochs=2, ensemble=members))
    features = torch.from_numpy(Scaling.fit(examples.embeddings)(examples.embeddings))
    with torch.no_grad():
        mean = torch.stack([member(features) for member in head.members]).mean(dim=0).numpy()
    value, down, up = (mean * head.targets.deviation).T.astype(np.float64)
    found = exported(head, examples)
    np.testing.assert_allclose(found.tm, value + head.targets.mean, atol=1e-4)
    np.testing.assert_allclose(found.lower, found.tm - down, atol=1e-4)
    np.testing.assert_allclose(found.upper, found.tm + up, atol=1e-4)
    assert (down > 0).all()
    assert (up > 0).all()


def test_the_raw_interval_holds_about_what_it_should(tmp_path: Path) -> None:
    examples = made_up(400, noise=4)
    head = fit(examples, tmp_path, Mlp(hidden=(8,), learning_rate=0.01, dropout=0), trainer(max_epochs=30))
    found = exported(head, examples)
    inside = (found.lower < examples.tm) & (examples.tm < found.upper)
    assert 0.7 < inside.mean() < 0.9
    assert 0.03 < (examples.tm < found.lower).mean() < 0.17


def test_an_interval_costs_the_value_nothing(tmp_path: Path) -> None:
    examples = made_up()
    how = trainer(gradient_clip=1e6)  # the norm that is clipped is that of all weights
    one, other = (
        fit(examples, tmp_path / name, SETTINGS.model_copy(update={"quantiles": levels}), how)
        for name, levels in (("a", (0.1, 0.9)), ("b", (0.3, 0.4)))
    )
    assert np.array_equal(exported(one, examples).tm, exported(other, examples).tm)
    assert not np.array_equal(exported(one, examples).upper, exported(other, examples).upper)


def test_members_differ_in_their_seed_and_their_mean_is_the_answer(tmp_path: Path) -> None:
    examples = made_up()
    journal = Journal()
    together = fit(examples, tmp_path / "all", how=trainer(ensemble=2), seed=6, journal=journal)
    alone = [fit(examples, tmp_path / str(seed), seed=seed) for seed in (6, 7)]
    assert journal.members == ["member_0", "member_1"]
    assert np.array_equal(weights_of(together), np.concatenate([weights_of(head) for head in alone]))
    mean = np.mean([exported(head, examples).tm for head in alone], axis=0)
    np.testing.assert_allclose(exported(together, examples).tm, mean, atol=1e-4)


def test_members_by_folds_validate_on_other_clusters_each() -> None:
    examples = made_up(60)
    members = ensemble(examples, trainer(ensemble=4, ensemble_by="folds"), seed=9)
    assert [seed for seed, _ in members] == [9, 10, 11, 12]
    held_out = np.stack([own.validation for _, own in members])
    assert (held_out.sum(axis=0) == 1).all()
    for own in held_out:
        assert not set(examples.clusters[own]) & set(examples.clusters[~own])
    same = ensemble(examples, trainer(ensemble=4), seed=9)
    assert all(own is examples for _, own in same)


def test_members_by_folds_train(tmp_path: Path) -> None:
    examples = made_up(40)
    head = fit(examples, tmp_path, how=trainer(max_epochs=2, ensemble=2, ensemble_by="folds"))
    assert len(head.members) == 2
    assert np.isfinite(exported(head, examples).tm).all()


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    examples = made_up()
    one, again, other = (weights_of(fit(examples, tmp_path / n, seed=s)) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_validation_proteins_are_not_learned_from(tmp_path: Path) -> None:
    examples = made_up()
    journals = Journal(), Journal()
    for number, own in enumerate((examples, with_other_validation_tm(examples))):
        fit(own, tmp_path / str(number), journal=journals[number])
    assert journals[0].of("training_loss") == journals[1].of("training_loss")
    assert journals[0].of("validation_loss") != journals[1].of("validation_loss")


def test_a_protein_of_no_weight_does_not_matter(tmp_path: Path) -> None:
    examples = made_up()
    cold, hot = (exported(fit(with_negligible(examples, tm), tmp_path / str(tm)), examples) for tm in (30.0, 95.0))
    np.testing.assert_allclose(cold.tm, hot.tm, atol=1e-3)
    heavy = exported(fit(replace(examples, tm=with_negligible(examples, 95.0).tm), tmp_path / "heavy"), examples)
    assert np.abs(heavy.tm - hot.tm).max() > 0.5


def test_an_ensemble_killed_in_its_second_member_goes_on(tmp_path: Path) -> None:
    examples = made_up()
    how = trainer(ensemble=2, max_epochs=4)
    whole = fit(examples, tmp_path / "whole", how=how)

    class Second(Journal):
        def __call__(self, member: str) -> object:  # type: ignore[override]
            self._epochs = 2 if member == "member_1" else None
            return super().__call__(member)

    with pytest.raises(Killed):
        fit(examples, tmp_path / "killed", how=how, journal=Second())
    again = Journal()
    resumed = fit(examples, tmp_path / "killed", how=how, journal=again)
    assert again.of("epoch") == [2, 3]
    assert np.array_equal(weights_of(resumed), weights_of(whole))
