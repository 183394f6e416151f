"""Log probabilities against Transformers' own masked language models: one sequence at a time, eager attention."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.language_model import LanguageModel
from enzyme_stability.encoders.masked import MaskedLanguageModel
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, SequenceError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from tiny_models import bert_config, esm_config, save_tiny_model, save_tokeniser, sizes, stir

MODELS = {
    "prot_bert": lambda: transformers.BertForMaskedLM(bert_config()),
    "esm2": lambda: transformers.EsmForMaskedLM(esm_config("rotary")),
    "esm1b": lambda: transformers.EsmForMaskedLM(esm_config("absolute")),
}
MASKS = {"bert": 4, "esm": 32}
STOCK, BATCHED = 1e-4, 1e-5
_choose = random.Random(11)


def protein(length: int) -> str:
    return "".join(_choose.choices(AMINO_ACIDS, k=length))


SHORT = [protein(1), protein(2), protein(30), protein(7) + "X" + protein(9)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread_without_bars() -> Iterator[None]:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def save(kind: str, folder: Path) -> Path:
    """A tiny checkpoint with its head, as the hub keeps the real ones."""
    torch.manual_seed(2)
    whole = MODELS[kind]()
    stir(whole)
    whole.save_pretrained(folder)
    save_tokeniser(kind, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder_of(kind: str) -> Path:
        return save(kind, tmp_path_factory.mktemp(kind))

    return folder_of


def load(folder: Path, **settings: Any) -> MaskedLanguageModel:
    return MaskedLanguageModel(folder, **{"precision": "float32", "device": "cpu", **settings})


def stock_of(folder: Path) -> Any:
    return transformers.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()


def by_stock(stock: Any, model: LanguageModel, residues: str, masked: Sequence[int] = ()) -> np.ndarray:
    """All log probabilities of the twenty residues, shape (L, 20), by Transformers alone."""
    tokens = model.tokenisation.tokens(residues).copy()
    tokens[list(masked)] = MASKS[stock.config.model_type]
    before, after = model.tokenisation.before, model.tokenisation.after
    ids = torch.tensor([[*before, *tokens, *after]])
    with torch.no_grad():
        logits = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    columns = [int(model.tokenisation.tokens(residue)[0]) for residue in AMINO_ACIDS]
    found: np.ndarray = logits.log_softmax(-1)[len(before) : len(before) + len(residues)][:, columns].numpy()
    return found


def off(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max(initial=0))


# --- what a log probability is


@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_transformers(kind: str, checkpoint: Callable[[str], Path]) -> None:
    model, stock = load(checkpoint(kind)), stock_of(checkpoint(kind))
    for residues in SHORT:
        assert off(model.log_probabilities(residues), by_stock(stock, model, residues)) < STOCK
    assert np.ptp(model.log_probabilities(SHORT[2])) > 1  # weights that make residues differ


@pytest.mark.parametrize("kind", MODELS)
def test_each_place_masked_on_its_own_is_as_in_transformers(kind: str, checkpoint: Callable[[str], Path]) -> None:
    model, stock = load(checkpoint(kind)), stock_of(checkpoint(kind))
    for residues in SHORT:
        answers = model.jointly_masked(residues, [[place] for place in range(len(residues))])
        for place, answer in enumerate(answers):
            assert off(answer, by_stock(stock, model, residues, [place])[[place]]) < STOCK
    unmasked = model.log_probabilities(SHORT[2])
    assert off(np.concatenate(model.jointly_masked(SHORT[2], [[k] for k in range(30)])), unmasked) > 0.1


@pytest.mark.parametrize("kind", MODELS)
def test_the_share_that_is_masked_counts_by_sequence_where_groups_of_all_sizes_share_a_stream(
    kind: str, checkpoint: Callable[[str], Path]
) -> None:
    model, stock = load(checkpoint(kind), token_budget=100_000), stock_of(checkpoint(kind))
    groups = [[], [3], [0, 29], [5, 4, 6], list(range(0, 30, 2)), list(range(30))]
    for group, answer in zip(groups, model.jointly_masked(SHORT[2], groups), strict=True):
        assert off(answer, by_stock(stock, model, SHORT[2], group)[group]) < STOCK
        assert off(answer, model.log_probabilities(SHORT[2], group)) < BATCHED


def test_an_esm_without_token_dropout_is_as_in_transformers(tmp_path: Path) -> None:
    save("esm2", tmp_path)
    dropping = load(tmp_path).log_probabilities(SHORT[2], [3, 4])
    change_settings(tmp_path, token_dropout=False)
    found = load(tmp_path).log_probabilities(SHORT[2], [3, 4])
    assert off(found, by_stock(stock_of(tmp_path), load(tmp_path), SHORT[2], [3, 4])[[3, 4]]) < STOCK
    assert off(found, dropping) > 0.01


@pytest.mark.parametrize("kind", MODELS)
def test_it_still_embeds_as_its_encoder(kind: str, checkpoint: Callable[[str], Path]) -> None:
    own, encoder = load(checkpoint(kind)), LanguageModel(checkpoint(kind), precision="float32", device="cpu")
    expected = dict(encoder.embed(SHORT))
    for k, vector in own.embed(SHORT):
        assert off(vector, expected[k]) < BATCHED


# --- windows


def by_most_central_window(
    stock: Any, model: MaskedLanguageModel, residues: str, place: int, masked: Sequence[int]
) -> np.ndarray:
    stretches = packing.windows(len(residues), model.window, model.overlap)
    start, stop = max(stretches, key=lambda own: min(place - own[0], own[1] - 1 - place))
    inside = [k - start for k in masked if start <= k < stop]
    row: np.ndarray = by_stock(stock, model, residues[start:stop], inside)[place - start]
    return row


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("length", [19, 20, 21, 32, 33, 57])
def test_a_place_in_a_long_protein_is_read_in_the_window_in_which_it_is_most_central(
    kind: str, length: int, checkpoint: Callable[[str], Path]
) -> None:
    model, stock = load(checkpoint(kind), window=20, overlap=8), stock_of(checkpoint(kind))
    residues = protein(length)
    unmasked = model.log_probabilities(residues)
    together = [0, 1, length // 2, length - 10, length - 1]
    singles = model.jointly_masked(residues, [[place] for place in range(length)])
    jointly = model.log_probabilities(residues, together)
    for place in range(length):
        assert off(unmasked[place], by_most_central_window(stock, model, residues, place, [])) < STOCK
        assert off(singles[place][0], by_most_central_window(stock, model, residues, place, [place])) < STOCK
    for place, row in zip(together, jointly, strict=True):
        assert off(row, by_most_central_window(stock, model, residues, place, together)) < STOCK


def test_only_places_that_see_a_residue_change_with_it(checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint("esm2"), window=20, overlap=8)
    residues = protein(70)
    for place in (0, 13, 35, 69):
        other = residues[:place] + ("A" if residues[place] != "A" else "W") + residues[place + 1 :]
        moved = np.abs(model.log_probabilities(other) - model.log_probabilities(residues)).max(axis=1) > 1e-4
        assert np.array_equal(np.flatnonzero(moved), model.places_that_see(70, [place]))
    assert len(model.places_that_see(20, [3])) == 20


# --- batches and memory


@pytest.mark.parametrize("kind", MODELS)
def test_budget_and_order_do_not_move_a_log_probability(kind: str, checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint(kind), window=40, overlap=10)
    residues = protein(90)
    groups = [*([k] for k in range(0, 90, 5)), [1, 2], [0, 45, 89], []]
    model.token_budget = 1
    alone, plain = model.jointly_masked(residues, groups), model.log_probabilities(residues)
    order = list(range(len(groups)))
    for budget in (50, 1024, 100_000):
        model.token_budget = budget
        random.Random(budget).shuffle(order)
        found = model.jointly_masked(residues, [groups[k] for k in order])
        assert max(off(found[at], alone[k]) for at, k in enumerate(order)) < BATCHED
        assert off(model.log_probabilities(residues), plain) < BATCHED


@pytest.mark.parametrize("kind", ["prot_bert", "esm2"])
def test_running_out_of_memory_changes_no_answer(
    kind: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint(kind), token_budget=100_000)
    groups = [[place] for place in range(30)]
    expected = model.jointly_masked(SHORT[2], groups)
    forward, run = model._model.forward, {"done": 0, "failed": 0}

    def limited(**given: Any) -> Any:
        tokens = given["position_ids"].numel()
        if tokens > 150:
            run["failed"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        run["done"] += tokens
        return forward(**given)

    monkeypatch.setattr(model._model, "forward", limited)
    passes: list[int] = []
    found = model.jointly_masked(SHORT[2], groups, passes.append)
    assert max(map(off, found, expected)) < BATCHED
    assert run["done"] == 30 * 32
    assert 1 <= run["failed"] <= 4
    assert sum(passes) == 30
    with pytest.raises(EnzymeStabilityError, match=r"200 residues does not fit into memory; set encoder\.window"):
        model.log_probabilities(protein(200))


def test_the_head_sees_the_residues_asked_for_alone(checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint("esm2"))
    seen: list[int] = []
    model._head.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape[0]))
    model.jointly_masked(SHORT[2], [[place] for place in range(30)])
    assert sum(seen) == 30


# --- precision


@pytest.mark.parametrize("kind", MODELS)
def test_the_head_is_float32_beside_an_encoder_in_bfloat16(kind: str, checkpoint: Callable[[str], Path]) -> None:
    model, exact = load(checkpoint(kind), precision="bfloat16"), load(checkpoint(kind))
    assert {weight.dtype for weight in model._head.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model._model.parameters()} == {torch.bfloat16}  # tied weights are not shared
    for masked in (None, [4, 9]):
        found, expected = (own.log_probabilities(SHORT[2], masked) for own in (model, exact))
        assert 0 < off(found, expected) < 0.03 * np.ptp(expected)
        assert found.dtype == expected.dtype == np.float64


# --- loading


def change_settings(folder: Path, **settings: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", MODELS)
def test_an_encoder_without_its_head_is_refused(kind: str, tmp_path: Path) -> None:
    save_tiny_model(kind, tmp_path)
    with pytest.raises(ArtifactError, match="without the weights of its head") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("prot_bert", "cls.predictions.transform.dense.weight"),
        ("prot_bert", "cls.predictions.bias"),
        ("esm2", "lm_head.layer_norm.bias"),
        ("esm2", "lm_head.bias"),
    ],
)
def test_a_head_that_lacks_a_weight_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    change_weights(tmp_path, lambda weights: {own: weights[own] for own in weights if own != name})
    with pytest.raises(ArtifactError, match="without the weights of its head"):
        load(tmp_path)


def test_an_encoder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    save("esm2", tmp_path)
    change_weights(tmp_path, lambda all_: {own: all_[own] for own in all_ if "layer.1.attention.self.key" not in own})
    with pytest.raises(ArtifactError, match="lacks 2 of its weights"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "decoder"), [("prot_bert", "cls.predictions.decoder.weight"), ("esm2", "lm_head.decoder.weight")]
)
def test_last_weights_of_its_own_are_used_and_never_made_up(kind: str, decoder: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    tied = load(tmp_path).log_probabilities(SHORT[2])
    assert decoder not in load_file(tmp_path / "model.safetensors")  # it is the token embedding
    change_settings(tmp_path, tie_word_embeddings=False)
    with pytest.raises(ArtifactError, match="without the weights of its head"):
        load(tmp_path)
    embedding = (
        "bert.embeddings.word_embeddings.weight" if kind == "prot_bert" else "esm.embeddings.word_embeddings.weight"
    )
    bias = {"cls.predictions.decoder.bias": torch.randn(30)} if kind == "prot_bert" else {}
    change_weights(tmp_path, lambda all_: {**all_, **bias, decoder: all_[embedding].flip(1).contiguous()})
    found = load(tmp_path).log_probabilities(SHORT[2])
    assert off(found, by_stock(stock_of(tmp_path), load(tmp_path), SHORT[2])) < STOCK
    assert off(found, tied) > 0.1


@pytest.mark.parametrize("kind", ["prot_t5", "ankh"])
def test_a_family_without_such_a_head_is_refused_and_others_are_named(kind: str, tmp_path: Path) -> None:
    save_tiny_model(kind, tmp_path)
    with pytest.raises(ConfigError, match=r"family t5, which has no head .* prot_bert, .*esm2_650m"):
        load(tmp_path)


def test_other_families_and_decoders_are_refused(tmp_path: Path) -> None:
    settings = transformers.RobertaConfig(vocab_size=30, max_position_embeddings=66, **sizes())
    transformers.RobertaForMaskedLM(settings).save_pretrained(tmp_path / "roberta")
    save_tokeniser("prot_bert", tmp_path / "roberta")
    with pytest.raises(ConfigError, match="family roberta"):
        load(tmp_path / "roberta")
    change_settings(save("prot_bert", tmp_path / "decoder"), is_decoder=True)
    with pytest.raises(ConfigError, match="no head"):
        load(tmp_path / "decoder")


def test_a_tokeniser_without_a_mask_is_refused(tmp_path: Path) -> None:
    save("prot_bert", tmp_path)
    words = (tmp_path / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(words.replace("[MASK]", "[JUNK]"))
    with pytest.raises(ArtifactError, match="no mask token"):
        load(tmp_path)


def test_a_mask_that_differs_between_tokeniser_and_settings_is_refused(tmp_path: Path) -> None:
    change_settings(save("esm2", tmp_path), mask_token_id=31)
    with pytest.raises(ArtifactError, match=r"token 32 in the tokeniser, 31 in config\.json"):
        load(tmp_path)


# --- bad input


@pytest.mark.parametrize("places", [[30], [-1], [3, 99]])
def test_a_place_outside_the_sequence_is_refused(places: list[int], checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(VariantError, match="the sequence has 0 to 29"):
        load(checkpoint("esm2")).log_probabilities(SHORT[2], places)


@pytest.mark.parametrize("residues", ["", "MKTJ", "mkt"])
def test_what_is_no_sequence_is_refused(residues: str, checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint("esm2"))
    for masked in (None, [0]):
        with pytest.raises(SequenceError):
            model.log_probabilities(residues, masked)
