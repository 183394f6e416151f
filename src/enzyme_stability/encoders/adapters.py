"""Low-rank adapters of language models (Hu et al. 2021, arXiv 2106.09685), in the form PEFT keeps them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

PROJECTIONS = {"bert": ("query", "value"), "esm": ("query", "value"), "t5": ("q", "v")}
"""Matrices of attention that are adapted, by family: those of queries and values (section 4.2 of the paper)."""

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_SAYS_NOTHING = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "peft_version",
    "revision",
    "task_type",
}
"""Settings in the file that do not change what a merged model computes."""


def check_family(family: str) -> None:
    """See that models of a family can be adapted.

    Raises:
        ConfigError: They cannot.
    """
    if family not in PROJECTIONS:
        raise ConfigError(
            f"head lora cannot adapt a language model of type '{family}'; take one of type {', '.join(PROJECTIONS)}, "
            "or another head"
        )


def add_adapter(model: Any, rank: int, scale: float) -> PeftModel:
    """Freeze a model and put an adapter, which changes nothing yet, into each of its layers.

    Args:
        model: Encoder of a family of ``PROJECTIONS``.
        rank: Of the updates.
        scale: Updates are multiplied by scale / rank.

    Raises:
        ConfigError: The model is of another family or has no layers.
        MissingDependencyError: PEFT is not installed.
    """
    try:
        import peft  # noqa: F401 - missing, it is to be told at once
    except ImportError:
        raise MissingDependencyError("Head lora", "plm") from None
    check_family(model.config.model_type)
    return _wrapped(model, _settings(model, rank, scale))


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter of a model, without a word about where the model lies.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    model.peft_config["default"].base_model_name_or_path = ""
    try:
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # a form that nobody has filled in
    except Exception as error:  # safetensors has an exception of its own for a full disk
        raise ArtifactError(f"the adapter cannot be written to {folder}: {error}") from None


def merge_adapter(model: Any, adapter: Path) -> Any:
    """Add an adapter's updates to the weights of the model it was trained on.

    Args:
        model: The encoder, best in float32 and turned into what it runs in afterwards: bfloat16 has three digits, and
            most updates are smaller than the last of them. Layers after those adapted may be there or not.
        adapter: Folder written by ``save_adapter``.

    Returns:
        The model, changed in place, as if it had never had an adapter.

    Raises:
        ArtifactError: The adapter is missing, damaged, of another model, or of a kind that this package does not make.
        MissingDependencyError: PEFT is not installed.
    """
    try:
        import peft
        from safetensors.torch import load_file
    except ImportError:
        raise MissingDependencyError("A fine-tuned language model", "plm") from None
    settings = _read_settings(adapter / SETTINGS)
    try:
        weights = load_file(adapter / WEIGHTS)
    except Exception as error:  # safetensors has an exception of its own for a damaged file
        raise ArtifactError(f"{adapter / WEIGHTS} cannot be read: {error}") from None
    try:
        check_family(model.config.model_type)
        made = _settings(model, settings["r"], settings["lora_alpha"], len(settings["layers_to_transform"]))
        if odd := _differences(settings, made):
            raise ArtifactError(f"{adapter / SETTINGS} does not fit the language model: {', '.join(odd)}")
        adapted = _wrapped(model, made)
        wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        if {n: v.shape for n, v in wanted.items()} != {n: v.shape for n, v in weights.items()}:
            raise ArtifactError(f"{adapter / WEIGHTS} does not fit the language model")
        peft.set_peft_model_state_dict(adapted, weights)
        return adapted.merge_and_unload(safe_merge=True)
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"the adapter in {adapter} does not fit the language model: {error}") from None


def _wrapped(model: Any, settings: LoraConfig) -> PeftModel:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers in words of an older version
        adapted: PeftModel = peft.get_peft_model(model, settings)
    return adapted


def _settings(model: Any, rank: int, scale: float, layers: int | None = None) -> LoraConfig:
    """What PEFT is told; the layers are named so that the adapter also fits the model before it was cut."""
    import peft

    from enzyme_stability.encoders.language_model import ARCHITECTURES  # which merges adapters itself

    family = model.config.model_type
    owner = model
    for name in ARCHITECTURES[family].layers.split("."):
        owner = getattr(owner, name)
    there = len(owner)
    if not there or (layers is not None and not 0 < layers <= there):
        raise ConfigError(f"a language model with {there} layers in use cannot have {layers or 'any'} of them adapted")
    return peft.LoraConfig(
        r=rank,
        lora_alpha=scale,  # type: ignore[arg-type, unused-ignore]  # any number does
        target_modules=list(PROJECTIONS[family]),
        layers_to_transform=list(range(layers or there)),
        layers_pattern=ARCHITECTURES[family].layers.rpartition(".")[2],
    )


def _differences(found: dict[str, Any], made: LoraConfig) -> list[str]:
    """Settings that PEFT would obey and that this package did not make; a missing one has its usual value."""
    usual: dict[str, Any] = vars(made)

    def plain(value: Any) -> Any:
        return sorted(map(str, value)) if isinstance(value, list | set) else value

    return [
        name
        for name, value in sorted(found.items())
        if name not in _SAYS_NOTHING and value and plain(value) != plain(usual.get(name))
    ]


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise ArtifactError(f"{path} is damaged: it holds no settings")
    return settings
