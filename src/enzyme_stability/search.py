"""What a hyperparameter search tries: a space of settings around a configuration, checked before the first trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enzyme_stability.config import SearchSpace, TrainConfig
from enzyme_stability.config.search import Value, as_override
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError

_SPACES = Path(__file__).parent / "conf" / "search"
_LOCAL = {"output", "run_name", "description", "threads", "store", "mirror", "tracking"}
_OF_THE_MACHINE = ("device", "token_budget")


@dataclass(frozen=True)
class Search:
    """What is tried, and what all trials share.

    Attributes:
        overrides: As for ``compose``: what every trial starts from.
        space: What is tried for each setting.
        base: The configuration in one corner of the space.
    """

    overrides: tuple[str, ...]
    space: SearchSpace
    base: TrainConfig

    @classmethod
    def plan(
        cls, overrides: Sequence[str], space: str | None = None, report: Callable[[str], None] = lambda _: None
    ) -> Search:
        """Check that every setting of the space can be tried.

        Args:
            overrides: As for ``compose``. A setting given here keeps its value.
            space: Name of a search space that ships, or a YAML file; the one of the head where None.
            report: Told which settings keep their value.

        Raises:
            ConfigError: There is no such space, or a setting of it is misspelt or out of bounds.
            MissingDependencyError: Hydra is not installed.
        """
        asked = read_space(space or _space_of(compose(overrides).head.kind))
        given = {override.partition("=")[0].lstrip("+") for override in overrides if "=" in override}
        if fixed := sorted(given.intersection(asked.parameters)):
            report(f"not searched, for the settings give a value: {', '.join(fixed)}")
        left = {key: parameter for key, parameter in asked.parameters.items() if key not in given}
        if not left:
            raise ConfigError("nothing is left to search: the settings give a value to all that the space holds")
        searched = SearchSpace(parameters=left)
        corners = [compose([*overrides, *corner]) for corner in searched.corners()]
        if any(corner.trainer.devices * corner.trainer.nodes > 1 for corner in corners):
            raise ConfigError(
                "a trial is trained by one process: set trainer.devices and trainer.nodes to 1, "
                "and start several searches that share a study"
            )
        return cls(tuple(overrides), searched, corners[0])

    def chosen(self, values: Mapping[str, Value]) -> list[str]:
        """The overrides that make the configuration of a trial."""
        return [*self.overrides, *(f"{key}={as_override(values[key])}" for key in self.space.parameters)]

    def identity(self) -> dict[str, Any]:
        """Settings that two searches must share for their trials to be comparable, by dotted name.

        Raises:
            DataError: The table cannot be read.
        """
        from enzyme_stability.storage import fetch

        settings = self.base.model_dump(mode="json", exclude=_LOCAL)
        del settings["data"]["embeddings"]  # what is looked up is what would be computed
        for name in _OF_THE_MACHINE:
            settings["encoder"].pop(name, None)
        try:
            with fetch(self.base.data.path).open("rb") as table:
                settings["data"]["path"] = hashlib.file_digest(table, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{self.base.data.path} cannot be read: {error.strerror or error}") from None
        settings["space"] = self.space.model_dump(mode="json")["parameters"]
        return dict(_flat(settings))


def read_space(name: str) -> SearchSpace:
    """A search space that ships, or one in a YAML file.

    Raises:
        ConfigError: There is no such space, or it cannot be used.
        MissingDependencyError: Hydra, which reads it, is not installed.
    """
    try:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError
    except ImportError:
        raise MissingDependencyError("Tuning", "tune") from None
    path = _SPACES / f"{name}.yaml" if name in spaces() else Path(name)
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"no search space {name!r:.200}: give one of {', '.join(spaces())}, or a YAML file") from None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read as a search space: {error}") from None
    return SearchSpace.parse({"parameters": values}, str(path))


def spaces() -> list[str]:
    """Names of the search spaces that ship: the heads they are for."""
    return sorted(path.stem for path in _SPACES.glob("*.yaml"))


def write_search_sweep(search: Search, path: Path) -> None:
    """Write a file for ``wandb sweep`` that looks for the least error in the same space.

    Raises:
        ConfigError: The file cannot be written.
        MissingDependencyError: Weights & Biases is not installed.
    """
    from enzyme_stability.tracking import write_sweep

    base, run = search.base, "${oc.env:WANDB_RUN_ID}"  # each run of an agent gets a folder of its own
    output = str(base.output).replace("'", r"\'")
    own = ["tracking.wandb=true", f"run_name={base.run_name}-{run}", f"output='{output}/{run}'"]
    space = {key: parameter.model_dump() for key, parameter in search.space.parameters.items()}
    metric = "held_out_folds/rmse" if base.split.folds else "calibration_proteins/rmse"
    write_sweep(space, path, metric, "minimize", arguments=[*search.overrides, *own])


def _space_of(head: str) -> str:
    if head not in spaces():
        raise ConfigError(f"head {head} has no search space of its own: give a YAML file with one")
    return head


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
