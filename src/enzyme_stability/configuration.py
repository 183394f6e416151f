"""Composes training configurations with Hydra and validates them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from enzyme_stability.config import TrainConfig
from enzyme_stability.config.base import did_you_mean
from enzyme_stability.errors import ConfigError, MissingDependencyError

_CONF = Path(__file__).parent / "conf"
_BASE = "train"


def compose(overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration that ``overrides`` make of the defaults.

    Args:
        overrides: Hydra overrides such as ``head=ridge`` or ``seed=1``. The first may instead be the name of an
            experiment that ships (``builtin``), or a YAML file: the settings of an earlier run, or ``defaults:
            [train]`` and what differs.

    Raises:
        ConfigError: There is no such configuration, or a setting cannot be used; the message names it.
        MissingDependencyError: Hydra is not installed.
    """
    path, overrides = _primary(overrides)
    return TrainConfig.parse(_composed(path, overrides), path.name)


def sweep(overrides: Sequence[str]) -> Iterator[tuple[list[str], TrainConfig]]:
    """Every combination of overrides that list several values, such as ``seed=1,2,3 head=mlp,ridge``.

    Yields:
        What sets the run apart, and its configuration; its output is a numbered folder in that of the base.

    Raises:
        ConfigError: As ``compose``; before the first run, for all of them.
    """
    try:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException
    except ImportError:
        raise MissingDependencyError("Training", "train") from None
    first, plain = ([*overrides[:1]], overrides[1:]) if overrides and "=" not in overrides[0] else ([], overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(list(plain))
        choices = [
            [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
            if o.is_sweep_override()
            else [str(o.input_line)]
            for o in parsed
        ]
    except HydraException as error:
        raise ConfigError(_explained(str(error), plain, [])) from None
    varied = [len(options) > 1 for options in choices]
    runs = []
    for number, combination in enumerate(product(*choices)):
        config = compose([*first, *combination])
        apart = [override for override, several in zip(combination, varied, strict=True) if several]
        name = f"{config.run_name}-{number}"
        runs.append((apart, config.model_copy(update={"output": config.output / str(number), "run_name": name})))
    yield from runs


def _primary(overrides: Sequence[str]) -> tuple[Path, list[str]]:
    """The file to compose from, and the overrides left."""
    base = _CONF / f"{_BASE}.yaml"
    if not overrides or "=" in overrides[0] or overrides[0].startswith(("~", "+")):
        return base, list(overrides)
    name, rest = overrides[0], list(overrides[1:])
    if name in experiments():
        return base, [f"experiment={name}", *rest]
    try:
        path = Path(name).resolve()
        found = path.is_file()
    except (OSError, ValueError):  # no file can have such a name
        found = False
    if not found:
        raise ConfigError(
            f"no configuration {name!r:.200}: give one of {', '.join(experiments())}, a YAML file, "
            "or settings such as data.path=mine.csv"
        )
    if path.suffix != ".yaml":
        raise ConfigError(
            f"{path.name}: a configuration is a file ending in .yaml; a table is given as data.path={name}"
        )
    return path, rest


def experiments() -> list[str]:
    """Names of the configurations that ship."""
    return sorted(path.stem for path in (_CONF / "experiment").glob("*.yaml"))


def _composed(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
        from yaml import YAMLError
    except ImportError:
        raise MissingDependencyError("Training", "train") from None
    own = [] if path.parent == _CONF else [f"hydra.searchpath=[{_CONF.as_uri()}]"]

    def values_of(chosen: Sequence[str], *, complete: bool) -> Any:
        with initialize_config_dir(str(path.parent), version_base="1.3"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*missing `_self_`")  # then what a file says counts last
            composed = hydra_compose(path.stem, overrides=[*own, *chosen])
        return OmegaConf.to_container(composed, resolve=complete, throw_on_missing=complete)

    try:
        values = values_of(overrides, complete=True)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ConfigError(
            f"{key} is not set: give it on the command line, as in {key}={_EXAMPLE.get(key, '...')}"
        ) from None
    except (HydraException, OmegaConfBaseException, YAMLError, OSError, TypeError, ValueError) as error:
        try:
            known = [*_groups(), *_names(values_of(_choices(overrides), complete=False))]
        except (HydraException, OmegaConfBaseException, YAMLError, OSError, TypeError, ValueError):
            known = []
        raise ConfigError(f"{path.name}: {_explained(str(error), overrides, known)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds no settings")
    return {str(key): value for key, value in values.items() if key != "experiment"}


_EXAMPLE = {"data.path": "measured.csv", "encoder.model": "facebook/esm2_t6_8M_UR50D"}


def _groups() -> dict[str, set[str]]:
    """The groups of settings, of which each run chooses one file, and the names of their files."""
    folders = (path for path in _CONF.iterdir() if path.is_dir() and not path.name.startswith("_"))
    return {folder.name: {path.stem for path in folder.glob("*.yaml")} for folder in folders}


def _choices(overrides: Sequence[str]) -> list[str]:
    """The overrides that choose a file of a group."""
    return [override for override in overrides if override.partition("=")[0] in _groups()]


def _names(values: Any, above: str = "") -> list[str]:
    """Every setting as it is given on the command line."""
    if isinstance(values, Mapping):
        inside = [(f"{above}{name}", value) for name, value in values.items()]
    elif isinstance(values, list):
        inside = [(f"{above}{place}", value) for place, value in enumerate(values)]
    else:
        return []
    return [place for name, value in inside for place in (name, *_names(value, f"{name}."))]


def _explained(message: str, overrides: Sequence[str], known: Sequence[str]) -> str:
    """What Hydra says, in one sentence and without its advice on its own files.

    Args:
        message: Of Hydra's error.
        overrides: What was given.
        known: Names of settings that there are; none where that cannot be told.
    """
    if absent := re.search(r"Could not find '([^/']+)/([^']*)'", message):
        group, name = absent.groups()
        options = [line.strip() for line in message.partition("Config search path")[0].splitlines() if line[:1] == "\t"]
        suggestion = did_you_mean(name, options)
        return f"there is no {group} '{name}': choose from {', '.join(options)}{suggestion}"
    if unreadable := _unreadable(overrides):
        return unreadable
    for override in overrides:
        name, _, value = override.partition("=")
        name = name.lstrip("~")
        if known and override[:1] != "+" and name not in known:
            meant = [group for group, choices in _groups().items() if value in choices]
            return f"there is no setting '{name}'{did_you_mean(name, meant) or did_you_mean(name, known)}"
    return " ".join(message.partition("Config search path")[0].split())


def _unreadable(overrides: Sequence[str]) -> str:
    """What is wrong with the first override that is none; empty where all are."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        if "=" not in override and override[:1] != "~":
            return f"{override!r:.200} is no setting: give name=value, as in seed=1"
        try:
            several = parser.parse_override(override).is_sweep_override()
        except HydraException:
            return f"{override!r:.200} cannot be read; put the value into quotes of its own, as in {_QUOTED}"
        if several and "," in override:
            return f"{override!r:.200} is several values: add --multirun to run each, or quote them, as in {_QUOTED}"
    return ""


_QUOTED = "'data.path=\"a,b.csv\"'"
