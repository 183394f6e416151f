"""A search space as a sweep of Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from enzyme_stability.errors import ConfigError, MissingDependencyError

_PROGRAM = "enzyme-stability"
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def write_sweep(
    space: Mapping[str, Mapping[str, Any]],
    path: Path,
    metric: str,
    goal: Literal["minimize", "maximize"],
    *,
    arguments: Sequence[str] = (),
) -> None:
    """Write a file for ``wandb sweep`` that searches the same space as the search with Optuna.

    Each agent runs ``enzyme-stability train``, with the values it is given as overrides.

    Args:
        space: What to try for each override: ``{"kind": "float", "low": ..., "high": ..., "log": False}``, the same
            with ``"int"``, or ``{"kind": "choice", "values": [...]}``. Both ends of a range belong to it.
        path: YAML file to write.
        metric: Name of the metric, as it is logged.
        goal: Whether small or large values of it are good.
        arguments: What else every run is given: the configuration, fixed overrides.

    Raises:
        ConfigError: An entry of the space makes no sense, there is none, or the file cannot be written.
        MissingDependencyError: The extra ``track`` is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("writing a sweep", "track") from None
    if not space:
        raise ConfigError("a sweep needs a search space with at least one parameter")
    if goal not in {"minimize", "maximize"}:
        raise ConfigError(f"the goal of a sweep is minimize or maximize, not {goal!r}")
    sweep = {
        "program": _PROGRAM,
        "command": [_PROGRAM, "train", *arguments, "${args_no_hyphens}"],
        "method": "bayes",
        "metric": {"name": metric, "goal": goal},
        "parameters": {name: _parameter(name, entry) for name, entry in space.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(sweep, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the sweep to {path}: {error}") from None


def _parameter(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    if not _PARAMETER.fullmatch(name):
        raise ConfigError(f"a sweep cannot set '{name}': it takes names of letters, digits, dots, '_' and '-'")
    match entry:
        case {"kind": "choice", "values": [_, *_] as values} if all(map(_is_plain, values)):
            return {"values": ["null" if value is None else value for value in values]}  # as Hydra spells it
        case {"kind": "float" | "int" as kind, "low": int() | float() as low, "high": int() | float() as high}:
            log = bool(entry.get("log"))
            if low <= high and (low > 0 or not log):
                number, linear, logarithmic = _RANGES[kind]
                return {"distribution": logarithmic if log else linear, "min": number(low), "max": number(high)}
    raise ConfigError(f"'{name}' has an entry in the search space that cannot be used: {dict(entry)!r:.120}")


_RANGES: dict[str, tuple[type[int] | type[float], str, str]] = {
    "float": (float, "uniform", "log_uniform_values"),
    "int": (int, "int_uniform", "q_log_uniform_values"),  # quantised to whole numbers, which is the default
}


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
