"""Composes a training configuration with Hydra and validates it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enzyme_stability.config import TrainConfig
from enzyme_stability.errors import ConfigError, MissingDependencyError

_CONF = Path(__file__).parent / "conf"


def compose(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration ``name`` (one that ships, or a YAML file) with Hydra ``overrides`` such as ``seed=1``.

    Raises:
        ConfigError: There is no such configuration, or a setting cannot be used; the message names it.
        MissingDependencyError: Hydra is not installed.
    """
    try:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError
    except ImportError:
        raise MissingDependencyError("Training", "train") from None
    shipped = _CONF / f"train_{name}.yaml"
    try:
        path = shipped if shipped.is_file() else Path(name).resolve()
        found = path.is_file()
    except (OSError, ValueError):  # no file can have such a name
        found = False
    if not found:
        names = sorted(p.stem.removeprefix("train_") for p in _CONF.glob("train_*.yaml"))
        raise ConfigError(f"no configuration {name!r:.200}: give one of {', '.join(names)}, or a YAML file")
    if path.suffix != ".yaml":
        raise ConfigError(f"{path.name}: a configuration is a file ending in .yaml")
    try:
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            composed = hydra_compose(path.stem, overrides=list(overrides))
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{path.name}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds no settings")
    return TrainConfig.parse({str(key): value for key, value in values.items()}, path.name)
