"""Embeddings against the models of Transformers themselves: unbatched, unpacked, with their own eager attention."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from logging import Handler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.language_model import LanguageModel, best_precision
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS
from tiny_models import (
    KINDS,
    LAYERS,
    WIDTH,
    bert_config,
    esm_config,
    save_tiny_model,
    save_tokeniser,
    sizes,
    stir,
    t5_config,
)

ENCODERS = {
    "prot_bert": transformers.BertModel,
    "esm2": transformers.EsmModel,
    "esm1b": transformers.EsmModel,
    "prot_t5": transformers.T5EncoderModel,
    "ankh": transformers.T5EncoderModel,
}
SAME = 1e-5  # of the length of an embedding, float32
BATCHED_BFLOAT16, ROUNDED_BFLOAT16 = 2e-2, 3e-2
_choose = random.Random(3)


def protein(length: int) -> str:
    return "".join(_choose.choices(AMINO_ACIDS, k=length))


SHORT = [protein(length) for length in (1, 1, 2, 3, 17, 17, 30, 64, 150, 401)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread_without_bars() -> Iterator[None]:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def folder_of(kind: str, **size: int) -> Path:
        return save_tiny_model(kind, tmp_path_factory.mktemp(kind), **size)

    return folder_of


def load(folder: Path, **settings: Any) -> LanguageModel:
    return LanguageModel(folder, **{"precision": "float32", "device": "cpu", **settings})


def states(stock: Any, model: LanguageModel, residues: str) -> list[np.ndarray]:
    """Hidden states of the residues at every layer, by Transformers alone."""
    before, after = model.tokenisation.before, model.tokenisation.after
    ids = torch.tensor([[*before, *model.tokenisation.tokens(residues), *after]])
    with torch.no_grad():
        found = stock(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return [layer[0, len(before) : len(before) + len(residues)].numpy() for layer in found.hidden_states]


def stock_of(kind: str, folder: Path) -> Any:
    return ENCODERS[kind].from_pretrained(folder, attn_implementation="eager").eval()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def furthest(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> float:
    assert found.keys() == expected.keys()
    return max(distance(found[k], expected[k]) for k in expected)


def embedded(model: LanguageModel, residues: Sequence[str], pooling: Any = "mean") -> dict[int, np.ndarray]:
    pairs = list(model.embed(residues, pooling))
    assert sorted(k for k, _ in pairs) == list(range(len(residues)))  # each once
    assert all(vectors.dtype == np.float32 for _, vectors in pairs)
    return dict(pairs)


# --- what an embedding is, and that nothing around a sequence moves it


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_what_transformers_gives_for_the_sequence_alone(
    kind: str, checkpoint: Callable[..., Path]
) -> None:
    model, stock = load(checkpoint(kind)), stock_of(kind, checkpoint(kind))
    residues = embedded(model, SHORT, "residues")
    means = embedded(model, SHORT)
    for k, sequence in enumerate(SHORT):
        expected = states(stock, model, sequence)[-1]
        assert distance(residues[k], expected) < SAME
        assert distance(means[k], expected.mean(axis=0)) < SAME


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_order_and_budget_do_not_move_an_embedding(kind: str, checkpoint: Callable[..., Path]) -> None:
    # T5's table of relative positions takes seconds for its usual window
    model = load(checkpoint(kind), window=600 if kind in ("prot_t5", "ankh") else None)
    sequences = [*SHORT, protein(1000), protein(5000)]
    model.token_budget = 1
    alone = {pooling: embedded(model, sequences, pooling) for pooling in ("mean", "residues")}
    order = list(range(len(sequences)))
    for budget in (50, 1024, 100_000):
        model.token_budget = budget
        random.Random(budget).shuffle(order)
        for pooling, expected in alone.items():
            found = embedded(model, [sequences[k] for k in order], pooling)
            assert furthest({order[k]: vectors for k, vectors in found.items()}, expected) < SAME


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_within_its_bounds(kind: str, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(kind, width=256, layers=4)
    sequences = [*SHORT, protein(800)]
    exact = load(folder)
    model = load(folder, precision="bfloat16")
    for pooling in ("mean", "residues"):
        model.token_budget = 1
        alone = embedded(model, sequences, pooling)
        model.token_budget = 100_000
        assert furthest(embedded(model, sequences, pooling), alone) < BATCHED_BFLOAT16
        assert furthest(alone, embedded(exact, sequences, pooling)) < ROUNDED_BFLOAT16


@pytest.mark.parametrize("kind", KINDS)
def test_the_attention_of_accelerators_gives_the_same_embeddings(
    kind: str, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint(kind), token_budget=100_000)
    expected = embedded(model, SHORT, "residues")
    monkeypatch.setattr(packing, "_one_by_one", packing._padded)
    assert furthest(embedded(model, SHORT, "residues"), expected) < SAME


def test_the_table_of_relative_positions_grows_with_the_longest_sequence_not_with_the_batch(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = set()
    attend = packing._one_by_one

    def watched(*given: Any) -> torch.Tensor:
        tables.add(given[-1].shape)
        return attend(*given)

    monkeypatch.setattr(packing, "_one_by_one", watched)
    embedded(load(checkpoint("prot_t5")), [protein(30)] * 20)
    assert tables == {(1, 4, 31, 31)}


def test_sequences_of_one_length_and_duplicates_are_told_apart(checkpoint: Callable[..., Path]) -> None:
    model = load(checkpoint("esm2"))
    first, second = protein(20), protein(20)
    found = embedded(model, [first, second, first])
    assert distance(found[2], found[0]) < SAME
    assert distance(found[1], found[0]) > 0.1


@pytest.mark.parametrize("pooling", ["mean", "residues"])
def test_no_sequences_have_no_embeddings(pooling: Any, checkpoint: Callable[..., Path]) -> None:
    assert embedded(load(checkpoint("esm2")), [], pooling) == {}


def test_what_is_no_residue_is_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(SequenceError, match="'J' at position 3"):
        list(load(checkpoint("prot_t5")).embed(["MKT", "MKJ"]))


def test_two_threads_share_a_model(checkpoint: Callable[..., Path]) -> None:
    model = load(checkpoint("prot_t5"), token_budget=200)
    work = [[protein(length) for length in lengths] for lengths in ([5, 90, 33, 61] * 15, [150, 7, 8, 149] * 15)]
    expected = [embedded(model, sequences) for sequences in work]
    start, found = threading.Barrier(2, timeout=10), {}

    def run(k: int) -> None:
        start.wait()
        found[k] = embedded(model, work[k])

    threads = [threading.Thread(target=run, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(furthest(found[k], expected[k]) < SAME for k in (0, 1))


# --- layers


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_that_of_transformers(kind: str, checkpoint: Callable[..., Path]) -> None:
    stock, sequences = stock_of(kind, checkpoint(kind)), [protein(9), protein(25)]
    for layer in range(-LAYERS - 1, LAYERS + 1):
        model = load(checkpoint(kind), layer=layer)
        for k, vectors in embedded(model, sequences, "residues").items():
            assert distance(vectors, states(stock, model, sequences[k])[layer]) < SAME


@pytest.mark.parametrize("layer", [-LAYERS - 2, LAYERS + 1])
@pytest.mark.parametrize("kind", ["esm2", "prot_t5"])
def test_a_layer_that_is_not_there_is_refused(kind: str, layer: int, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=rf"encoder.layer is {layer}; .* layers 0 to {LAYERS}"):
        load(checkpoint(kind), layer=layer)


# --- windows


@pytest.mark.parametrize("kind", ["prot_bert", "esm2", "prot_t5"])
@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (1, 5), (10, 0), (10, 3), (10, 10), (10, 99), (11, 256)])
def test_a_long_sequence_gets_the_mean_over_its_windows(
    kind: str, window: int, overlap: int, checkpoint: Callable[..., Path]
) -> None:
    model = load(checkpoint(kind), window=window, overlap=overlap)
    stock = stock_of(kind, checkpoint(kind))
    sequences = [protein(length) for length in (window, window + 1, 29)]
    residues, means = embedded(model, sequences, "residues"), embedded(model, sequences)
    for k, sequence in enumerate(sequences):
        total, windows = np.zeros((len(sequence), WIDTH)), np.zeros((len(sequence), 1))
        for start, stop in packing.windows(len(sequence), window, min(overlap, window // 2)):
            total[start:stop] += states(stock, model, sequence[start:stop])[-1]
            windows[start:stop] += 1
        expected = (total / windows).astype(np.float32)
        assert distance(residues[k], expected) < SAME
        assert distance(means[k], expected.mean(axis=0)) < SAME


@pytest.mark.parametrize(("kind", "longest"), [("prot_bert", 2998), ("esm1b", 1022)])
def test_no_window_is_longer_than_the_table_of_positions(
    kind: str, longest: int, checkpoint: Callable[..., Path]
) -> None:
    for window in (0, longest + 1):
        with pytest.raises(ConfigError, match=f"encoder.window is {window}; .* takes 1 to {longest} residues"):
            load(checkpoint(kind), window=window)
    sequence = protein(longest)
    model = load(checkpoint(kind), window=longest)
    expected = states(stock_of(kind, checkpoint(kind)), model, sequence)[-1]
    assert distance(embedded(model, [sequence], "residues")[0], expected) < SAME


@pytest.mark.parametrize(("kind", "usual"), [("prot_bert", 2046), ("esm2", 1022), ("esm1b", 1022), ("prot_t5", 2046)])
def test_the_usual_window_is_that_of_the_family(kind: str, usual: int, checkpoint: Callable[..., Path]) -> None:
    assert load(checkpoint(kind)).window == usual


def test_relative_positions_set_no_limit_to_the_window(checkpoint: Callable[..., Path]) -> None:
    sequence = protein(1500)
    model = load(checkpoint("esm2"), window=1500)
    expected = states(stock_of("esm2", checkpoint("esm2")), model, sequence)[-1]
    assert distance(embedded(model, [sequence], "residues")[0], expected) < SAME
    with pytest.raises(ConfigError, match=r"encoder\.window is 0; this language model takes 1 or more residues"):
        load(checkpoint("esm2"), window=0)


# --- memory

SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.79 GB)"),
    MemoryError(),
]


def limit(model: LanguageModel, most: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Let streams of more tokens than ``most`` fail the way a full memory does; returns what was run, in tokens."""
    run: dict[str, list[int]] = {"done": [], "failed": []}
    forward = model._model.forward

    def limited(input_ids: torch.Tensor, **rest: Any) -> Any:
        if input_ids.numel() > most:
            run["failed"].append(input_ids.numel())
            assert len(run["failed"]) < 50, "it fails for ever"
            raise error
        run["done"].append(input_ids.numel())
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model._model, "forward", limited)
    return run


@pytest.mark.parametrize("error", SHORTAGES, ids=["cuda", "cpu", "mps", "python"])
@pytest.mark.parametrize("pooling", ["mean", "residues"])
def test_running_out_of_memory_changes_no_answer_and_repeats_no_work(
    error: Exception, pooling: Any, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint("prot_t5"), window=100, overlap=20, token_budget=100_000)
    sequences = [*SHORT, protein(99), protein(100), protein(101)]
    expected = embedded(model, sequences, pooling)
    run = limit(model, 260, error, monkeypatch)
    assert furthest(embedded(model, sequences, pooling), expected) < SAME
    windows = [window for sequence in sequences for window in packing.windows(len(sequence), 100, 20)]
    assert sum(run["done"]) == sum(stop - start + 1 for start, stop in windows)
    assert 1 <= len(run["failed"]) <= 4  # halved each time, and the smaller budget is kept
    assert len(list(model.embed(sequences))) == len(sequences)
    assert len(run["failed"]) <= 4


def test_a_stretch_too_large_for_the_memory_is_an_error_that_says_what_to_do(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint("esm2"))
    limit(model, 50, SHORTAGES[1], monkeypatch)
    answers = model.embed([protein(20), protein(70), protein(20)])
    with pytest.raises(EnzymeStabilityError, match=r"70 residues does not fit into memory; set encoder\.window"):
        list(answers)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint("esm2"))
    run = limit(model, 50, RuntimeError("the size of tensor a must match"), monkeypatch)
    with pytest.raises(RuntimeError, match="must match"):
        list(model.embed([protein(20)] * 9))
    assert len(run["failed"]) == 1


def test_weights_too_large_for_the_memory_are_an_error_that_says_what_to_do(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SHORTAGES[0]

    monkeypatch.setattr(transformers.EsmModel, "to", full)
    with pytest.raises(EnzymeStabilityError, match=r"does not fit into the memory of cpu; set encoder\.device"):
        load(checkpoint("esm2"))


# --- loading


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def change_settings(folder: Path, **settings: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("prot_bert", "encoder.layer.1.attention.self.query.weight"),
        ("prot_bert", "embeddings.LayerNorm.bias"),
        ("esm2", "encoder.emb_layer_norm_after.weight"),
        ("esm1b", "embeddings.position_embeddings.weight"),
        ("prot_t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        ("prot_t5", "shared.weight"),
    ],
)
def test_weights_that_are_missing_are_not_made_up(kind: str, name: str, tmp_path: Path) -> None:
    save_tiny_model(kind, tmp_path)
    change_weights(tmp_path, lambda weights: {own: weights[own] for own in weights if own != name})
    with pytest.raises(ArtifactError, match=r"lacks [12] of its weights") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    for own, other in (("prot_bert", "prot_t5"), ("esm2", "prot_bert"), ("prot_t5", "esm2")):
        save_tiny_model(own, tmp_path / own)
        save_tiny_model(other, tmp_path / "other")
        (tmp_path / "other" / "model.safetensors").replace(tmp_path / own / "model.safetensors")
        with pytest.raises(ArtifactError, match=r"config\.json is that of another model|cannot be loaded"):
            load(tmp_path / own)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_tiny_model("esm2", tmp_path)
    change_settings(tmp_path, intermediate_size=48)
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 1000, 20_000])
def test_weights_that_break_off_are_refused(kept: int, tmp_path: Path) -> None:
    save_tiny_model("prot_bert", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="cannot be loaded") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    save_tiny_model("prot_bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(tmp_path)


@pytest.mark.parametrize("text", [None, "", "[]", '{"model_type": "esm",', '{"model_type": "esm"}', "{}"])
def test_damaged_settings_are_refused(text: str | None, tmp_path: Path) -> None:
    save_tiny_model("esm2", tmp_path)
    (tmp_path / "config.json").unlink()
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        load(tmp_path)


WHOLE = {
    "prot_bert": lambda: transformers.BertForMaskedLM(bert_config()),
    "esm2": lambda: transformers.EsmForMaskedLM(esm_config("rotary")),
    "esm1b": lambda: transformers.EsmForMaskedLM(esm_config("absolute")),
    "prot_t5": lambda: transformers.T5ForConditionalGeneration(t5_config("prot_t5")),
    "ankh": lambda: transformers.T5ForConditionalGeneration(t5_config("ankh")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_with_heads_and_decoder_embeds_as_its_encoder(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = WHOLE[kind]().eval()
    stir(whole)
    whole.save_pretrained(tmp_path)
    save_tokeniser(kind, tmp_path)
    model = load(tmp_path)
    encoder = whole.get_encoder() if "t5" in whole.config.model_type else whole.base_model
    for k, vectors in embedded(model, SHORT, "residues").items():
        assert distance(vectors, states(encoder, model, SHORT[k])[-1]) < SAME


def test_pooler_contact_head_and_frequencies_may_be_missing(tmp_path: Path) -> None:
    save_tiny_model("esm2", tmp_path)
    expected = embedded(load(tmp_path), SHORT)
    unused = ("pooler", "contact_head", "inv_freq")
    change_weights(tmp_path, lambda all_: {name: all_[name] for name in all_ if not any(u in name for u in unused)})
    assert furthest(embedded(load(tmp_path), SHORT), expected) == 0


def test_a_tokeniser_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    save_tiny_model("esm2", tmp_path)
    words = (tmp_path / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(words.replace("\nL\n", "\nJ\n") + "\nL")
    with pytest.raises(ArtifactError, match="the tokeniser has token 33, the model only those below 33"):
        load(tmp_path)


def test_code_that_comes_with_a_checkpoint_never_runs(tmp_path: Path) -> None:
    (tmp_path / "armed").mkdir()
    save_tiny_model("esm2", tmp_path / "armed")
    (tmp_path / "armed" / "armed.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Armed: pass\n")
    armed = {"AutoConfig": "armed.Armed", "AutoModel": "armed.Armed", "AutoModelForMaskedLM": "armed.Armed"}
    change_settings(tmp_path / "armed", auto_map=armed)
    expected = embedded(load(save_tiny_model("esm2", tmp_path / "plain")), SHORT)
    assert furthest(embedded(load(tmp_path / "armed"), SHORT), expected) == 0
    change_settings(tmp_path / "armed", model_type="unheard-of")
    with pytest.raises(ArtifactError, match=r"cannot be loaded|tokeniser"):
        load(tmp_path / "armed")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_loading_prints_nothing_and_leaves_transformers_as_it_was(
    kind: str, checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(kind)
    logging.enable_progress_bar()
    logging.set_verbosity_info()
    records: list[str] = []
    listener = Handler()
    listener.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.add_handler(listener)
    capfd.readouterr()
    try:
        embedded(load(folder), SHORT[:3])
        assert capfd.readouterr() == ("", "")
        assert records == []
        assert logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.remove_handler(listener)
        logging.disable_progress_bar()
        logging.set_verbosity_warning()


# --- models of other families, one sequence after the other

OTHERS = {
    "roberta": lambda: transformers.RobertaModel(
        transformers.RobertaConfig(vocab_size=30, max_position_embeddings=66, pad_token_id=1, **sizes())
    ),
    "electra": lambda: transformers.ElectraModel(
        transformers.ElectraConfig(vocab_size=30, embedding_size=16, max_position_embeddings=64, **sizes())
    ),
    "albert": lambda: transformers.AlbertModel(
        transformers.AlbertConfig(vocab_size=30, embedding_size=16, max_position_embeddings=64, **sizes())
    ),
    "causal_bert": lambda: transformers.BertModel(
        transformers.BertConfig(vocab_size=30, max_position_embeddings=64, is_decoder=True, **sizes())
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_of_another_family_embeds_as_in_transformers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    stock = OTHERS[name]().eval()
    stir(stock)
    stock.save_pretrained(tmp_path)
    save_tokeniser("prot_bert", tmp_path)
    for layer in (0, 1, -1):
        model = load(tmp_path, layer=layer)
        assert model.window == 62
        sequences = [protein(62), protein(1), protein(30)]
        for k, vectors in embedded(model, sequences, "residues").items():
            assert distance(vectors, states(stock, model, sequences[k])[layer]) < SAME
    assert embedded(load(tmp_path), [protein(150)])[0].shape == (WIDTH,)


def test_an_attention_named_in_the_settings_is_not_fetched(tmp_path: Path) -> None:
    OTHERS["roberta"]().save_pretrained(tmp_path)
    save_tokeniser("prot_bert", tmp_path)
    change_settings(tmp_path, attn_implementation="lab/kernel")
    assert load(tmp_path)._model.config._attn_implementation in ("eager", "sdpa")


def test_another_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=30,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    transformers.BartModel(config).save_pretrained(tmp_path)
    save_tokeniser("prot_bert", tmp_path)
    with pytest.raises(ArtifactError, match="only T5 can embed, not bart"):
        load(tmp_path)


# --- device and precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(device: str, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=f"encoder.device is '{device}', which PyTorch does not find here"):
        load(checkpoint("esm2"), device=device)


@pytest.mark.parametrize("device", ["toaster", "cpu:3", "meta", ""])
def test_what_is_no_device_is_refused(device: str, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=f"encoder.device is '{device}'"):
        load(checkpoint("esm2"), device=device)


def test_the_automatic_precision_follows_the_processor(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for avx, amx, expected in (
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda answer=avx: answer)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda answer=amx: answer)
        model = load(checkpoint("esm2"), precision="auto")
        assert model.dtype == next(model._model.parameters()).dtype == expected
    assert best_precision("mps", "auto") == "float32"
    assert load(checkpoint("esm2"), precision="bfloat16").dtype == torch.bfloat16
