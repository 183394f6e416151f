"""What every tracker can do, and how a resumed run finds itself again in one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from enzyme_stability.tracking.credentials import redact

if TYPE_CHECKING:
    from PIL.Image import Image

Status = Literal["finished", "failed", "interrupted"]
Scalar = bool | int | float | str

_RUNS = "tracking.json"


class Backend(Protocol):
    """One tracker. Any method may raise anything: the caller reports it and goes on without this tracker."""

    label: str

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve; without a step, at the last one."""

    def picture(self, name: str, picture: Image) -> None:
        """Show a picture under a name."""

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Keep files of a folder, where the tracker keeps files."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Keep the final figures."""

    def close(self, status: Status) -> None:
        """Write what is buffered and end the run."""


def flatten(hyperparameters: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Nested settings as ``{"head.learning_rate": 0.01}``; other values become JSON, keys are blotted out."""
    flat: dict[str, Scalar] = {}
    for name, value in hyperparameters.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float):
            flat[f"{prefix}{name}"] = value
        else:
            text = value if isinstance(value, str | Path) else json.dumps(value, default=str)
            flat[f"{prefix}{name}"] = redact(str(text))
    return flat


def remembered_run(folder: Path, backend: str) -> str | None:
    """Id under which the backend knows the run that was begun in this folder, None for a first start."""
    return _read_runs(folder).get(backend)


def remember_run(folder: Path, backend: str, run_id: str) -> None:
    """Keep the id for a later ``remembered_run``."""
    runs = _read_runs(folder) | {backend: run_id}
    (folder / _RUNS).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _read_runs(folder: Path) -> dict[str, str]:
    try:
        runs = json.loads((folder / _RUNS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a damaged file costs a second run on the server, not this one
        return {}
    return {str(key): str(value) for key, value in runs.items()} if isinstance(runs, dict) else {}
