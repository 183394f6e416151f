"""Fine-tuning: what is trained is what is used, memory does not grow with the step, and what every network must do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
    sequences_of,
    trainer,
    with_negligible,
    with_other_validation_tm,
)
from safetensors.torch import load_file

from enzyme_stability.config import Lora, Trainer
from enzyme_stability.encoders import packing
from enzyme_stability.encoders.adapters import add_adapter, merge_adapter, save_adapter
from enzyme_stability.encoders.language_model import ARCHITECTURES, LanguageModel, read_settings
from enzyme_stability.encoders.packing import Piece
from enzyme_stability.encoders.tokenisation import Tokenisation
from enzyme_stability.errors import ConfigError, SequenceError
from enzyme_stability.heads.lora import AdaptedModel, LoraFit, fit_lora, load_encoder, padded_batches
from enzyme_stability.heads.mlp import Perceptron
from enzyme_stability.heads.network import BEST, LAST
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, Memory, Scaling, pooled_to_onnx
from tiny_models import KINDS, WIDTH, save_tiny_model

SETTINGS = Lora(rank=2, scale=4, hidden=(8,), learning_rate=0.003)
WINDOW, OVERLAP = 30, 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("esm2", tmp_path_factory.mktemp("esm2"))


def embeddings_of(checkpoint: Path, residues: Sequence[str], layer: int = -1) -> np.ndarray:
    model = LanguageModel(
        checkpoint, layer=layer, window=WINDOW, overlap=OVERLAP, precision="float32", device="cpu", threads=1
    )
    found = dict(model.embed(residues))
    return np.stack([found[k] for k in range(len(residues))])


def merged(checkpoint: Path, adapter: Path, folder: Path) -> Path:
    """A checkpoint with the adapter in its weights."""
    family = read_settings(checkpoint)["model_type"]
    model = packing.load(checkpoint, ARCHITECTURES[family].model, torch.float32)
    shutil.copytree(checkpoint, folder)
    merge_adapter(model, adapter).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def examples(checkpoint: Path) -> Examples:
    plain = made_up(30, longest=45)
    return replace(plain, embeddings=embeddings_of(checkpoint, plain.residues))


def fit(
    examples: Examples,
    checkpoint: Path,
    folder: Path,
    settings: Lora = SETTINGS,
    how: Trainer | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    layer: int = -1,
) -> LoraFit:
    return fit_lora(
        examples,
        settings,
        how or trainer(max_epochs=3),
        seed,
        folder,
        journal or Journal(),
        checkpoint=checkpoint,
        layer=layer,
        window=WINDOW,
        overlap=OVERLAP,
    )


def exported(tuned: LoraFit, embeddings: np.ndarray) -> HeadOutput:
    memory = Memory.fit(tuned.scaling(embeddings), 0)
    return OnnxHead(pooled_to_onnx(tuned.head, tuned.scaling, memory), threads=1).predict(embeddings)


def weights_of(tuned: LoraFit) -> np.ndarray:
    perceptron = [p.detach().numpy().ravel() for p in tuned.head.members[0].parameters()]
    adapter = [
        values.numpy().ravel() for _, values in sorted(load_file(tuned.adapter / "adapter_model.safetensors").items())
    ]
    return np.concatenate([*perceptron, *adapter])


def network(checkpoint: Path, layer: int = 3, token_budget: int = 200) -> AdaptedModel:
    """With updates that are far from nothing."""
    torch.manual_seed(2)
    encoder = add_adapter(load_encoder(checkpoint, layer, torch.float32), rank=2, scale=4)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    scaling = Scaling(np.full(WIDTH, 0.1, dtype=np.float32), np.full(WIDTH, 2, dtype=np.float32))
    tokenisation = Tokenisation.of(checkpoint, read_settings(checkpoint)["model_type"])
    perceptron = Perceptron(WIDTH, (4,), 0)
    return AdaptedModel(encoder, perceptron, scaling, tokenisation, WINDOW, OVERLAP, token_budget).train()


def tokens_of(checkpoint: Path, residues: Sequence[str]) -> list[np.ndarray]:
    tokenisation = Tokenisation.of(checkpoint, read_settings(checkpoint)["model_type"])
    return [tokenisation.tokens(sequence) for sequence in residues]


@pytest.mark.parametrize("layer", [3, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_is_what_predicts(kind: str, layer: int, tmp_path: Path) -> None:
    """Padded, in windows, the adapter beside the weights; packed, the adapter merged: the same embedding."""
    checkpoint = save_tiny_model(kind, tmp_path / "checkpoint")
    residues = sequences_of(25, longest=100, shortest=1)
    adapted = network(checkpoint, layer)
    with torch.no_grad():
        trained = adapted.pool(tokens_of(checkpoint, residues)).numpy()
    save_adapter(adapted.encoder, tmp_path / "adapter")
    used = embeddings_of(merged(checkpoint, tmp_path / "adapter", tmp_path / "merged"), residues, layer)
    np.testing.assert_allclose(trained, used, atol=1e-5 * np.abs(used).max())
    assert np.abs(used - embeddings_of(checkpoint, residues, layer)).max() > 0.01


def test_a_large_step_has_the_gradient_of_one_that_fits(checkpoint: Path) -> None:
    tokens = tokens_of(checkpoint, sequences_of(20, longest=80))
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))
    gradients = []
    for budget in (1, 150, 1_000_000):
        adapted = network(checkpoint, token_budget=budget)
        (adapted(tokens) * weights).sum().backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 3 * 2 * 2 + 2 + 4  # adapter; the hidden layer; the output
    for some in gradients[:2]:
        for name, gradient in gradients[2].items():
            torch.testing.assert_close(some[name], gradient, rtol=1e-4, atol=1e-5)


def test_activations_in_memory_are_those_of_one_batch(checkpoint: Path) -> None:
    """What is kept for the gradient grows with the number of proteins only by their pooled embeddings."""
    tokens = tokens_of(checkpoint, ["ACDEFGHIKLMNPQRSTVWY"] * 64)
    kept = []
    for count in (8, 64):
        adapted = network(checkpoint, token_budget=176)  # 8 proteins of 22 tokens
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {parameter.untyped_storage().data_ptr() for parameter in adapted.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = adapted(tokens[:count])
        kept.append(sum(size for pointer, size in sizes.items() if pointer not in own))
        del out
    one_batch, eight_batches = kept
    assert eight_batches < one_batch


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_batches_hold_each_piece_once_and_no_more_than_fit(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 50)
    pieces = [Piece(k, 0, int(length)) for k, length in enumerate(lengths)]
    batches = list(padded_batches(pieces, budget, 2))
    assert sorted(piece for batch in batches for piece in batch) == pieces
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (max(piece.length for piece in batch) + 2) <= budget
    assert list(padded_batches([], budget, 2)) == []


def test_dropout_of_the_language_model_stays_off(tmp_path: Path) -> None:
    checkpoint = save_tiny_model("prot_t5", tmp_path)  # whose settings ask for dropout
    adapted = network(checkpoint).train()
    tokens = tokens_of(checkpoint, sequences_of(5))
    with torch.no_grad():
        assert torch.equal(adapted.pool(tokens), adapted.pool(tokens))


def test_it_can_learn_proteins_by_heart(checkpoint: Path, tmp_path: Path) -> None:
    plain = made_up(64, noise=5, longest=15)
    plain = repeated(replace(plain, embeddings=embeddings_of(checkpoint, plain.residues)))
    settings = Lora(rank=8, scale=16, hidden=(64,), learning_rate=0.01, weight_decay=0)
    how = trainer(max_epochs=50, patience=50, batch_size=32)
    tuned = fit(plain, checkpoint, tmp_path, settings, how)
    adapted = embeddings_of(merged(checkpoint, tuned.adapter, tmp_path / "merged"), plain.residues)
    assert rmse(exported(tuned, adapted), plain.tm) < 0.05 * plain.tm.std()


@pytest.mark.parametrize("layer", [-1, 1])
def test_the_saved_model_is_the_one_that_did_best(
    examples: Examples, checkpoint: Path, tmp_path: Path, layer: int
) -> None:
    own = replace(examples, embeddings=embeddings_of(checkpoint, examples.residues, layer))
    journal = Journal()
    tuned = fit(own, checkpoint, tmp_path, how=trainer(max_epochs=6), journal=journal, layer=layer)
    assert tuned.adapter == tmp_path / "adapter"
    held_out = own[own.validation]
    adapted = embeddings_of(merged(checkpoint, tuned.adapter, tmp_path / "merged"), held_out.residues, layer)
    error = np.average(np.abs(exported(tuned, adapted).tm - held_out.tm), weights=held_out.weights)
    best = int(np.argmin(journal.of("validation_loss")))
    assert error == pytest.approx(journal.of("validation_mae_celsius")[best], abs=1e-4)


def test_the_adapter_is_trained_and_not_the_head_alone(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    tuned = fit(examples, checkpoint, tmp_path)
    updates = load_file(tuned.adapter / "adapter_model.safetensors")
    assert all(values.abs().max() > 1e-4 for name, values in updates.items() if "lora_B" in name)


def test_the_scaling_is_of_the_embeddings_learned_from(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    tuned = fit(examples, checkpoint, tmp_path, how=trainer(max_epochs=1))
    wanted = Scaling.fit(examples.embeddings[~examples.validation])
    assert np.array_equal(tuned.scaling.mean, wanted.mean)
    assert np.array_equal(tuned.scaling.deviation, wanted.deviation)


def test_checkpoints_hold_what_is_trained_alone(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    fit(examples, checkpoint, tmp_path, how=trainer(max_epochs=1))
    for name in (LAST, BEST):
        state = torch.load(tmp_path / "member_0" / name, weights_only=True)["state_dict"]
        assert len(state) == 3 * 2 * 2 + 2 + 4
        assert all("lora_" in key or key.startswith("network.perceptron.") for key in state)


def test_the_adapter_does_not_say_where_the_model_lies(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    tuned = fit(examples, checkpoint, tmp_path, how=trainer(max_epochs=1))
    settings = json.loads((tuned.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == ""
    assert str(checkpoint) not in json.dumps(settings)


def test_the_seed_decides_everything(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    one, again, other = (
        weights_of(fit(examples, checkpoint, tmp_path / n, seed=s)) for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_validation_proteins_are_not_learned_from(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    journals = Journal(), Journal()
    for number, own in enumerate((examples, with_other_validation_tm(examples))):
        fit(own, checkpoint, tmp_path / str(number), journal=journals[number])
    assert journals[0].of("training_loss") == journals[1].of("training_loss")
    assert journals[0].of("validation_loss") != journals[1].of("validation_loss")


def test_a_protein_of_no_weight_does_not_matter(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    cold, hot = (
        exported(fit(with_negligible(examples, tm), checkpoint, tmp_path / str(tm)), examples.embeddings)
        for tm in (30.0, 95.0)
    )
    np.testing.assert_allclose(cold.tm, hot.tm, atol=1e-3)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    whole = fit(examples, checkpoint, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(examples, checkpoint, tmp_path / "killed", journal=Journal(2))
    again = Journal()
    resumed = fit(examples, checkpoint, tmp_path / "killed", journal=again)
    assert again.of("epoch") == [2]
    assert np.array_equal(weights_of(resumed), weights_of(whole))


def test_settings_that_make_no_sense_are_errors(examples: Examples, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set trainer\.ensemble to 1"):
        fit(examples, checkpoint, tmp_path, how=trainer(ensemble=2))
    with pytest.raises(ConfigError, match=r"encoder\.layer is 0, the token embedding"):
        fit(examples, checkpoint, tmp_path, layer=0)
    with pytest.raises(ConfigError, match=r"encoder\.layer is 9"):
        fit(examples, checkpoint, tmp_path, layer=9)
    with pytest.raises(SequenceError, match="no residue"):
        fit(replace(examples, residues=("MK1", *examples.residues[1:])), checkpoint, tmp_path)


def test_a_family_that_is_not_known_is_an_error(examples: Examples, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConfigError, match="cannot adapt a language model of type 'mamba'"):
        fit(examples, tmp_path, tmp_path / "run")
