"""What the training loop logs to; a tracker that fails costs its own curves, never the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from enzyme_stability.config import Tracking
from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.tracking.backend import Backend, Status, flatten
from enzyme_stability.tracking.credentials import redact
from enzyme_stability.tracking.csv_file import CsvFile
from enzyme_stability.tracking.mlflow_run import MlflowRun
from enzyme_stability.tracking.tensorboard_events import TensorBoardEvents
from enzyme_stability.tracking.wandb_run import WandbRun

_PACKAGES = {"tensorboard": ("torch", "tensorboard"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
_LONGEST_REASON = 240


class Tracker:
    """Passes metrics, pictures and files of one training run on to every tracker that is switched on.

    A tracker that fails is reported in one sentence and switched off; the others go on. As a context manager it closes
    with ``finished``, with ``interrupted`` after Ctrl-C, and with ``failed`` after any other exception.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._backends: list[Backend] = []

    @classmethod
    def open(
        cls,
        settings: Tracking,
        folder: Path,
        run_name: str,
        hyperparameters: Mapping[str, Any],
        report: Callable[[str], None],
    ) -> Self:
        """Start every tracker that the settings name.

        A run that was begun in the same folder is continued.

        Args:
            settings: Which trackers, and where they log to.
            folder: Folder of the run, made if it is not there; everything that stays on disk lies below it.
            run_name: Name to show.
            hyperparameters: Settings of the run, which may be nested; never keys or passwords.
            report: Takes one sentence for the user at a time. Keys are blotted out.

        Raises:
            MissingDependencyError: A tracker is switched on whose package is not installed.
        """
        for name, packages in _PACKAGES.items():
            if getattr(settings, name) and not all(map(importlib.util.find_spec, packages)):
                raise MissingDependencyError(f"experiment tracking with {name}", "track")
        tracker = cls(lambda sentence: report(redact(sentence)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            tracker._report(f"the run is not tracked: {_reason(error)}")
            return tracker
        flat = flatten(hyperparameters)
        if settings.csv:
            tracker._start(CsvFile.label, lambda: CsvFile(folder / "metrics.csv"))
        if settings.tensorboard:
            tracker._start(TensorBoardEvents.label, lambda: TensorBoardEvents(folder / "tensorboard", flat))
        if settings.wandb:
            tracker._start(WandbRun.label, lambda: WandbRun(settings, folder, run_name, flat, tracker._report))
        if settings.mlflow:
            tracker._start(MlflowRun.label, lambda: MlflowRun(settings, folder, run_name, flat))
        return tracker

    @classmethod
    def silent(cls) -> Self:
        """A tracker that does nothing, for every process of a distributed run but the first."""
        return cls(lambda _: None)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to each curve.

        Args:
            values: Figure of each metric; one that is not a number is logged as such.
            step: Where on the curve, without it at the last step. Steps may come again after a resume.
        """
        figures = {name: float(value) for name, value in values.items()}
        self._each(lambda backend: backend.metrics(figures, step))

    def picture(self, name: str, path: Path) -> None:
        """Show a picture; one that cannot be read is reported and left out.

        Args:
            name: Name to show it under.
            path: A PNG file.
        """
        if not self._backends:
            return
        try:
            from PIL import Image

            with Image.open(path) as file:
                picture = file.convert("RGB")
        except Exception as error:  # Pillow raises many kinds for a damaged file
            self._report(f"the picture {path} is not tracked: {_reason(error)}")
            return
        self._each(lambda backend: backend.picture(name, picture))

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Keep a predictor with the run, where the tracker keeps files.

        Args:
            folder: Its folder, which must stay in place until a run that is kept offline is uploaded.
            files: Which of the files below it belong to the predictor.
            name: Name to show it under.
        """
        if not self._backends:
            return
        if absent := [path for path in files if not path.is_file()]:
            self._report(f"the predictor is not tracked: {absent[0]} does not exist")
            return
        self._each(lambda backend: backend.artefact(folder, files, name))

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the final figures of the run."""
        figures = {name: float(value) for name, value in values.items()}
        self._each(lambda backend: backend.summary(figures))

    def close(self, status: Status = "finished") -> None:
        """Write what is buffered and end the run; a second time it does nothing."""
        self._each(lambda backend: backend.close(status))
        self._backends.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("finished")
        else:
            self.close("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _start(self, label: str, backend: Callable[[], Backend]) -> None:
        try:
            self._backends.append(backend())
        except Exception as error:  # of four packages and the network: none of it is worth the run
            self._report(f"{label} does not track this run: {_reason(error)}")

    def _each(self, action: Callable[[Backend], None]) -> None:
        for backend in tuple(self._backends):
            try:
                action(backend)
            except Exception as error:  # see _start
                self._backends.remove(backend)
                self._report(f"{backend.label} is switched off for the rest of the run: {_reason(error)}")


def _reason(error: Exception) -> str:
    """The message of the error on one line, cut where it turns into a log."""
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
