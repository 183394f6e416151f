"""Adapters of language models: what is written, and what is refused when they are merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from enzyme_stability.encoders.adapters import SETTINGS, WEIGHTS, add_adapter, merge_adapter, save_adapter
from enzyme_stability.errors import ArtifactError, ConfigError
from tiny_models import KINDS, save_tiny_model

IDS = torch.tensor([[5, 9, 7, 12, 6, 20, 8]])
CLASSES = {
    "prot_bert": "BertModel",
    "esm2": "EsmModel",
    "esm1b": "EsmModel",
    "prot_t5": "T5EncoderModel",
    "ankh": "T5EncoderModel",
}


def load(kind: str, folder: Path) -> Any:
    return getattr(transformers, CLASSES[kind]).from_pretrained(folder).eval()


def states(model: Any) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
    return hidden


@pytest.fixture(scope="module", params=KINDS)
def adapted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path, Any]:
    """Kind, checkpoint, adapter with random updates, and the model with it."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = save_tiny_model(request.param, folder / "checkpoint")
    model = add_adapter(load(request.param, checkpoint), rank=4, scale=6)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, folder / "adapter")
    return request.param, checkpoint, folder / "adapter", model


@pytest.fixture
def esm(tmp_path: Path) -> tuple[Path, Path]:
    checkpoint = save_tiny_model("esm2", tmp_path / "checkpoint")
    save_adapter(add_adapter(load("esm2", checkpoint), rank=2, scale=4), tmp_path / "adapter")
    return checkpoint, tmp_path / "adapter"


def change(adapter: Path, **settings: object) -> None:
    path = adapter / SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_merged_model_computes_what_the_adapted_one_does(adapted: tuple[str, Path, Path, Any]) -> None:
    kind, checkpoint, adapter, model = adapted
    base = load(kind, checkpoint)
    before = states(base)
    merged = merge_adapter(base, adapter)
    assert type(merged).__name__ == CLASSES[kind]
    torch.testing.assert_close(states(merged), states(model), atol=1e-5, rtol=1e-5)
    assert (states(merged) - before).abs().max() > 0.01
    assert {name for name, _ in merged.named_parameters()} == {
        name for name, _ in load(kind, checkpoint).named_parameters()
    }


def test_only_queries_and_values_are_trained(adapted: tuple[str, Path, Path, Any]) -> None:
    kind, _, adapter, model = adapted
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    letters = (".q.", ".v.") if CLASSES[kind] == "T5EncoderModel" else (".query.", ".value.")
    assert len(trained) == 3 * 2 * 2  # layers, matrices, factors
    assert all(any(letter in name for letter in letters) for name in trained)
    assert len(load_file(adapter / WEIGHTS)) == len(trained)


def test_a_new_adapter_changes_nothing(tmp_path: Path) -> None:
    checkpoint = save_tiny_model("prot_t5", tmp_path)
    base = states(load("prot_t5", checkpoint))
    assert torch.equal(states(add_adapter(load("prot_t5", checkpoint), rank=4, scale=8)), base)


def test_an_adapter_does_not_say_where_its_model_lies(esm: tuple[Path, Path], tmp_path: Path) -> None:
    _, adapter = esm
    assert {path.name for path in adapter.iterdir()} == {SETTINGS, WEIGHTS}
    for path in adapter.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_an_adapter_of_the_first_layers_fits_the_whole_model(tmp_path: Path) -> None:
    checkpoint = save_tiny_model("esm2", tmp_path / "checkpoint")

    def cut() -> Any:
        model = load("esm2", checkpoint)
        model.encoder.layer = model.encoder.layer[:2]
        model.encoder.emb_layer_norm_after = torch.nn.Identity()
        return model

    model = add_adapter(cut(), rank=2, scale=4)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, tmp_path / "adapter")
    whole = merge_adapter(load("esm2", checkpoint), tmp_path / "adapter")
    with torch.no_grad():
        second = whole(input_ids=IDS, attention_mask=torch.ones_like(IDS), output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(second, states(model), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states(merge_adapter(cut(), tmp_path / "adapter")), states(model), atol=1e-5, rtol=1e-5)


def test_a_missing_or_damaged_adapter_is_an_error(esm: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, adapter = esm
    with pytest.raises(ArtifactError, match=r"adapter_config\.json cannot be read"):
        merge_adapter(load("esm2", checkpoint), tmp_path / "nowhere")
    for name, content in ((WEIGHTS, b"\x80\x04nothing of the kind"), (SETTINGS, b"{"), (SETTINGS, b"[]")):
        damaged = tmp_path / "damaged"
        shutil.copytree(adapter, damaged, dirs_exist_ok=True)
        (damaged / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=name):
            merge_adapter(load("esm2", checkpoint), damaged)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=WEIGHTS):
        merge_adapter(load("esm2", checkpoint), adapter)


def test_an_adapter_of_another_model_is_an_error(esm: tuple[Path, Path], tmp_path: Path) -> None:
    _, adapter = esm
    other = load("prot_t5", save_tiny_model("prot_t5", tmp_path / "t5"))
    with pytest.raises(ArtifactError, match=r"does not fit the language model: .*target_modules"):
        merge_adapter(other, adapter)
    config = transformers.EsmConfig(
        vocab_size=33, pad_token_id=1, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )
    narrow = transformers.EsmModel(config, add_pooling_layer=False)
    with pytest.raises(ArtifactError, match="does not fit the language model"):
        merge_adapter(narrow, adapter)
    config.num_hidden_layers = 2
    with pytest.raises(ArtifactError, match="2 layers"):
        merge_adapter(transformers.EsmModel(config, add_pooling_layer=False), adapter)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"peft_type": "LOHA"},
        {"target_modules": ["query", "key", "value"]},
        {"layers_to_transform": [1, 2]},
        {"layers_to_transform": None},
        {"rank_pattern": {"query": 8}},
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        {"a_setting_of_the_future": 1},
        {"r": -2},
        {"r": "two"},
    ],
    ids=str,
)
def test_an_adapter_of_another_kind_is_an_error(esm: tuple[Path, Path], settings: dict[str, object]) -> None:
    checkpoint, adapter = esm
    change(adapter, **settings)
    with pytest.raises(ArtifactError, match="does not fit the language model"):
        merge_adapter(load("esm2", checkpoint), adapter)


def test_weights_that_are_no_numbers_are_an_error(esm: tuple[Path, Path]) -> None:
    checkpoint, adapter = esm
    weights = load_file(adapter / WEIGHTS)
    next(iter(weights.values()))[:] = float("nan")
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(ArtifactError, match="does not fit the language model"):
        merge_adapter(load("esm2", checkpoint), adapter)


def test_a_family_that_is_not_known_is_an_error() -> None:
    config = transformers.DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    with pytest.raises(ConfigError, match="cannot adapt a language model of type 'distilbert'; take one of type bert"):
        add_adapter(transformers.DistilBertModel(config), rank=2, scale=4)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    model = add_adapter(load("esm2", save_tiny_model("esm2", tmp_path / "checkpoint")), rank=2, scale=4)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_adapter(model, tmp_path / "file" / "adapter")
