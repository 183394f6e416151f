"""Attention over residues: padding, its export for one protein at a time, and what every network must do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_examples import (
    WIDTH,
    Journal,
    Killed,
    embed,
    made_up,
    repeated,
    rmse,
    sequences_of,
    trainer,
    with_negligible,
    with_other_validation_tm,
)

from enzyme_stability.config import LightAttention, Trainer
from enzyme_stability.heads.light_attention import AttentionNetwork, LightAttentionHead, fit_light_attention, grouped
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, Memory, Scaling

SETTINGS = LightAttention(channels=8, kernel=5, hidden=8, learning_rate=0.01, dropout=0.1)


def fit(
    examples: Examples,
    folder: Path,
    settings: LightAttention = SETTINGS,
    how: Trainer | None = None,
    seed: int = 0,
    journal: Journal | None = None,
) -> LightAttentionHead:
    return fit_light_attention(examples, settings, how or trainer(), seed, folder, journal or Journal(), embed)


def export(head: LightAttentionHead, examples: Examples) -> OnnxHead:
    scaling = Scaling.fit(examples.embeddings)
    return OnnxHead(head.to_onnx(scaling, Memory.fit(scaling(examples.embeddings), 0)), threads=2)


def exported(head: LightAttentionHead, examples: Examples) -> HeadOutput:
    return export(head, examples).predict(embed(examples.residues))


def weights_of(head: LightAttentionHead) -> np.ndarray:
    values = [p.detach().numpy().ravel() for member in head.members for p in member.parameters()]
    return np.concatenate(values)


@pytest.fixture(scope="module")
def network() -> AttentionNetwork:
    """Not trained, but with features far from their scaled size, so that what padding adds would be seen."""
    torch.manual_seed(1)
    random = np.random.default_rng(1)
    scaling = Scaling(*(random.uniform(1, 3, WIDTH).astype(np.float32) for _ in range(2)))
    return AttentionNetwork(scaling, SETTINGS).eval()


@pytest.mark.parametrize("budget", [1, 50, 200, 100_000])
def test_padding_does_not_move_an_answer(network: AttentionNetwork, budget: int) -> None:
    sequences = sequences_of(30, longest=60, shortest=1)
    with torch.no_grad():
        together = network(grouped(sequences, embed, budget))
        alone = torch.cat([network(grouped([sequence], embed)) for sequence in sequences])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert alone[:, 0].std() > 0.01


def test_groups_hold_each_protein_once_and_no_more_than_fit() -> None:
    sequences = sequences_of(40, longest=70)
    asked: list[int] = []

    def counted(some: Sequence[str]) -> list[np.ndarray]:
        asked.append(len(some))
        return embed(some)

    groups = list(grouped(sequences, counted, 150))
    assert sorted(place for group in groups for place in group.places.tolist()) == list(range(40))
    assert all(group.residues.shape[0] * group.residues.shape[1] <= 150 for group in groups)
    assert asked == [len(group.places) for group in groups]
    lazily = grouped(sequences, counted, 150)
    next(lazily)
    assert len(asked) == len(groups) + 1  # those to come are not embedded yet


def test_the_network_is_the_one_of_the_paper(network: AttentionNetwork) -> None:
    vectors = embed(["MKVLAW"])[0]
    scaled = (vectors - network.mean.numpy()) / network.deviation.numpy()
    around = np.pad(scaled, ((2, 2), (0, 0)))  # kernel 5
    seen = np.stack([around[k : k + 5] for k in range(6)])  # (length, kernel, width)
    feature, attention = (
        np.einsum("lkw,cwk->lc", seen, layer.weight.detach().numpy()) for layer in (network.feature, network.attention)
    )
    assert network.feature.bias is not None
    feature = feature + network.feature.bias.detach().numpy()
    share = np.exp(attention) / np.exp(attention).sum(axis=0)
    pooled = np.concatenate([(share * feature).sum(axis=0), feature.max(axis=0)])
    with torch.no_grad():
        wanted = network.output(torch.relu(network.hidden(torch.from_numpy(pooled[None].astype(np.float32)))))
        np.testing.assert_allclose(network(grouped(["MKVLAW"], embed)), wanted, atol=1e-5)


def test_it_can_learn_proteins_by_heart(tmp_path: Path) -> None:
    examples = repeated(made_up(64, noise=5))
    settings = LightAttention(channels=32, kernel=5, hidden=32, learning_rate=0.003, dropout=0, weight_decay=0)
    head = fit(examples, tmp_path, settings, trainer(max_epochs=100, patience=100, batch_size=32))
    assert rmse(exported(head, examples), examples.tm) < 0.05 * examples.tm.std()


def test_it_sees_what_the_mean_over_residues_hides(tmp_path: Path) -> None:
    # The same letters in another order: Tm depends on the first half alone.
    random = np.random.default_rng(0)
    hot, cold = "W" * 12, "G" * 12
    residues = tuple((hot + cold, cold + hot)[k % 2] + "A" * int(random.integers(1, 4)) for k in range(80))
    base = made_up(80)
    examples = Examples(
        embeddings=np.stack([vectors.mean(axis=0) for vectors in embed(residues)]),
        tm=50 + 20.0 * (np.arange(80) % 2),
        growth_temperature=base.growth_temperature,
        weights=base.weights,
        clusters=base.clusters,
        validation=base.validation,
        residues=residues,
    )
    head = fit(examples, tmp_path, how=trainer(max_epochs=30, patience=30))
    assert rmse(exported(head, examples), examples.tm) < 3


@pytest.mark.parametrize("members", [1, 2])
def test_the_export_says_what_the_network_says(tmp_path: Path, members: int) -> None:
    examples = made_up()
    head = fit(examples, tmp_path, how=trainer(max_epochs=2, ensemble=members))
    with torch.no_grad():
        each = [member(grouped(examples.residues, embed)) for member in head.members]
    value, down, up = (torch.stack(each).mean(dim=0).numpy() * head.targets.deviation).T.astype(np.float64)
    found = exported(head, examples)
    np.testing.assert_allclose(found.tm, value + head.targets.mean, atol=1e-4)
    np.testing.assert_allclose(found.lower, found.tm - down, atol=1e-4)
    np.testing.assert_allclose(found.upper, found.tm + up, atol=1e-4)


def test_the_similarity_is_that_of_the_mean_over_residues(tmp_path: Path) -> None:
    examples = made_up(20)
    strangers = sequences_of(5, seed=9)
    run = export(fit(examples, tmp_path, how=trainer(max_epochs=1)), examples)
    np.testing.assert_allclose(run.predict(embed(examples.residues)).similarity, 1, atol=0.01)
    scaling = Scaling.fit(examples.embeddings)
    memory = Memory.fit(scaling(examples.embeddings), 0)
    means = scaling(np.stack([vectors.mean(axis=0) for vectors in embed(strangers)])) / memory.unit
    distances = ((means[:, None] - memory.landmarks[None].astype(np.float64)) ** 2).sum(axis=2)
    np.testing.assert_allclose(run.predict(embed(strangers)).similarity, np.exp(-distances.min(axis=1)), atol=1e-4)


def test_alone_or_among_others_a_protein_gets_the_same_bits(tmp_path: Path) -> None:
    examples = made_up(40)
    run = export(fit(examples, tmp_path, how=trainer(max_epochs=1)), examples)
    assert (run.pooling, run.width) == ("residues", WIDTH)
    vectors = embed([*examples.residues, *sequences_of(20, seed=2, shortest=1, longest=900)])
    together = run.predict(vectors)
    alone = [run.predict([one]) for one in vectors]
    for name in HeadOutput._fields:
        assert np.array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))


def test_members_by_folds_train(tmp_path: Path) -> None:
    examples = made_up(40)
    journal = Journal()
    how = trainer(max_epochs=1, ensemble=2, ensemble_by="folds")
    head = fit(examples, tmp_path, how=how, journal=journal)
    assert journal.members == ["member_0", "member_1"]
    assert np.isfinite(exported(head, examples).tm).all()


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    examples = made_up(40)
    one, again, other = (
        weights_of(fit(examples, tmp_path / n, seed=s, how=trainer(max_epochs=3)))
        for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_validation_proteins_are_not_learned_from(tmp_path: Path) -> None:
    examples = made_up()
    journals = Journal(), Journal()
    for number, own in enumerate((examples, with_other_validation_tm(examples))):
        fit(own, tmp_path / str(number), how=trainer(max_epochs=3), journal=journals[number])
    assert journals[0].of("training_loss") == journals[1].of("training_loss")
    assert journals[0].of("validation_loss") != journals[1].of("validation_loss")


def test_the_scaling_is_of_proteins_learned_from(tmp_path: Path) -> None:
    examples = made_up(30)
    head = fit(examples, tmp_path, how=trainer(max_epochs=1))
    learnt = [sequence for sequence, held in zip(examples.residues, examples.validation, strict=True) if not held]
    wanted = Scaling.fit(np.concatenate(embed(learnt)))
    np.testing.assert_allclose(head.scaling.mean, wanted.mean, atol=1e-6)
    np.testing.assert_allclose(head.scaling.deviation, wanted.deviation, atol=1e-6)


def test_a_protein_of_no_weight_does_not_matter(tmp_path: Path) -> None:
    examples = made_up(40)
    cold, hot = (
        exported(fit(with_negligible(examples, tm), tmp_path / str(tm), how=trainer(max_epochs=3)), examples)
        for tm in (30.0, 95.0)
    )
    np.testing.assert_allclose(cold.tm, hot.tm, atol=1e-3)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    examples = made_up(40)
    how = trainer(max_epochs=4)
    whole = fit(examples, tmp_path / "whole", how=how)
    with pytest.raises(Killed):
        fit(examples, tmp_path / "killed", how=how, journal=Journal(2))
    again = Journal()
    resumed = fit(examples, tmp_path / "killed", how=how, journal=again)
    assert again.of("epoch") == [2, 3]
    assert np.array_equal(weights_of(resumed), weights_of(whole))
