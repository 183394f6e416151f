"""The folder of a training run: what went in, what was said, how far it is, so that it can be repeated and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enzyme_stability import __version__
from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.manifest import ADAPTER, MANIFEST, writing
from enzyme_stability.measured import HELD_OUT_FOLDS
from enzyme_stability.storage import fetch

if TYPE_CHECKING:
    import pandas as pd

CONFIG, ENVIRONMENT, SPLIT, LOG, METRICS = "config.yaml", "environment.json", "split.csv", "train.log", "metrics.json"
PLOTS, CHECKPOINTS, FOLDS = "plots", "checkpoints", "folds"
_OF_A_RUN = (CONFIG, ENVIRONMENT, SPLIT, LOG, METRICS, "metrics.csv", "tracking.json", MANIFEST, "CARD.md")
_FOLDERS_OF_A_RUN = (PLOTS, CHECKPOINTS, FOLDS, "tensorboard", "wandb", "mlruns", ADAPTER)
_OF_THIS_MACHINE = {
    *("output", "mirror", "store", "threads", "tracking", "data.path"),
    *("encoder.device", "encoder.token_budget", "trainer.accelerator", "trainer.devices", "trainer.nodes"),
}
"""Settings that may differ where a run is taken up again; whether the data are the same, their checksum tells."""


def is_finished(folder: Path) -> bool:
    """Whether a run in this folder came to its end; its figures are written last."""
    return (folder / MANIFEST).is_file() and (folder / METRICS).is_file()


def is_unfinished(folder: Path) -> bool:
    """Whether a run in this folder was interrupted and left something to go on from."""
    started = (path for name in (CHECKPOINTS, FOLDS) for path in (folder / name).rglob("*"))
    return (folder / CONFIG).is_file() and not is_finished(folder) and any(path.is_file() for path in started)


def refuse_unusable(config: TrainConfig, *, resume: bool) -> None:
    """Say before anything is computed that the run cannot be written to its folder.

    Raises:
        ConfigError: The folder holds an unfinished run, none that could be resumed, one with other settings, or files
            that no run has written.
    """
    folder = config.output
    if resume:
        _refuse_other_settings(config)
    elif is_unfinished(folder):
        raise ConfigError(
            f"{folder} holds an unfinished run: go on with it by 'enzyme-stability train --resume {folder}', "
            "or give this run another run_name"
        )
    elif not any((folder / name).is_file() for name in (ENVIRONMENT, MANIFEST)):
        clashes = [name for name in (*_OF_A_RUN, *_FOLDERS_OF_A_RUN) if (folder / name).exists()]
        if clashes:
            raise ConfigError(f"{folder} holds {clashes[0]}, which is of no run: set output to another folder")


def _refuse_other_settings(config: TrainConfig) -> None:
    path = config.output / CONFIG
    if not path.is_file():
        raise ConfigError(f"{config.output} holds no run to go on with")
    before = compose([str(path)])
    if others := list(_differences(before.model_dump(mode="json"), config.model_dump(mode="json"))):
        raise ConfigError(f"the run in {config.output} was begun with another {', '.join(others)}: start a new run")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Settings that make another run of it."""
    for name in before.keys() | after.keys():
        one, other = before.get(name), after.get(name)
        place = f"{above}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping) and place not in _OF_THIS_MACHINE:
            yield from _differences(one, other, f"{place}.")
        elif one != other and place not in _OF_THIS_MACHINE:
            yield place


class RunFolder:
    """A run's folder, opened for a new run or to go on with an interrupted one.

    Args:
        config: The run; ``refuse_unusable`` had nothing against it.
        report: Called with what is said to the user; it is written to the log too.
        resume: Go on with the run in the folder.

    Raises:
        ConfigError: The run cannot be resumed: its data have changed.
        ArtifactError: The folder cannot be written.
    """

    def __init__(self, config: TrainConfig, report: Callable[[str], None], *, resume: bool) -> None:
        self.path = config.output
        self._say = report
        self.data_sha256 = _sha256(fetch(config.data.path))
        with writing(self.path):
            if resume:
                self._check_same_data()
            else:
                self._clear()
            (self.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            self._write(CONFIG, _yaml(config))
            self._write(ENVIRONMENT, json.dumps(environment() | {"data_sha256": self.data_sha256}, indent=1) + "\n")

    def report(self, sentence: str) -> None:
        """Say something to the user and to the log."""
        self._say(sentence)
        self.log(sentence)

    def log(self, sentence: str) -> None:
        """Write something to the log alone."""
        with writing(self.path), (self.path / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {sentence}\n")

    def write_split(self, table: pd.DataFrame, parts: Any) -> None:
        """Which protein went where."""
        named = [column for column in ("id", "cluster") if column in table]
        self._write(SPLIT, table[named].assign(split=parts).to_csv(index=False))

    def write_folds(self, folds: pd.DataFrame) -> None:
        """Every protein as predicted without its cluster."""
        self._write(f"{HELD_OUT_FOLDS}.csv", folds.to_csv(index=False, float_format="%.3f"))

    def write_metrics(self, figures: Any) -> None:
        """The figures of the finished run."""
        self._write(METRICS, json.dumps(figures, indent=1) + "\n")

    def finish(self) -> None:
        """Drop what only an unfinished run needs."""
        for name in (CHECKPOINTS, FOLDS):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _check_same_data(self) -> None:
        try:
            before = json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))["data_sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{self.path} holds no run to go on with") from None
        if before != self.data_sha256:
            raise ConfigError(f"the data of the run in {self.path} have changed since it began: start a new run")

    def _clear(self) -> None:
        for name in _OF_A_RUN:
            (self.path / name).unlink(missing_ok=True)
        for old in (*self.path.glob("head_*.onnx"), *self.path.glob(f"{HELD_OUT_FOLDS}*")):
            old.unlink()
        for name in _FOLDERS_OF_A_RUN:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        unfinished = self.path / f".{name}.part"
        with writing(self.path):
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self.path / name)


def _yaml(config: TrainConfig) -> str:
    from omegaconf import OmegaConf

    text: str = OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))
    return text


def environment() -> dict[str, Any]:
    """What a run depends on beside its settings: versions, machine, commit of the working folder."""
    return {
        "enzyme_stability": __version__,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "git_commit": _git_commit(),
        "packages": dict(sorted({str(d.metadata["Name"]): d.version for d in distributions()}.items())),
    }


def _git_commit() -> str | None:
    """Commit of the working folder, with '-dirty' where it has changes; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
