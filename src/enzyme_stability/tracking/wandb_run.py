"""A run in Weights & Biases, on the server or in files to upload later."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enzyme_stability.command_line import command_line
from enzyme_stability.config import Tracking
from enzyme_stability.tracking.backend import Scalar, Status, remember_run, remembered_run
from enzyme_stability.tracking.credentials import wandb_key

if TYPE_CHECKING:
    from PIL.Image import Image

_OPENING_TIMEOUT_S = 30
_UPLOAD_TIMEOUT_S = 600
_STEP = "step"


class WandbRun:
    """Logs to Weights & Biases; continues the run that was begun in the folder.

    Without a key the run stays in files. Neither code, git state, command line nor names of the machine are logged.

    Args:
        settings: Project, entity, mode and tags.
        folder: Folder of the run; files lie in ``wandb`` below it.
        run_name: Name to show.
        hyperparameters: Flat settings of the run.
        report: Takes the sentence that says where the run is to be seen.
    """

    label = "Weights & Biases"

    def __init__(
        self,
        settings: Tracking,
        folder: Path,
        run_name: str,
        hyperparameters: Mapping[str, Scalar],
        report: Callable[[str], None],
    ) -> None:
        import wandb

        has_key = wandb_key() is not None
        online = settings.wandb_mode != "offline" and has_key
        wandb.setup(wandb.Settings(silent=True))  # what is printed before a run has settings of its own
        self._report = report
        self._run = wandb.init(
            mode="online" if online else "offline",
            dir=folder,
            project=settings.project,
            entity=settings.entity,
            name=run_name,
            tags=settings.tags,
            config=dict(hyperparameters),
            allow_val_change=True,
            id=remembered_run(folder, "wandb"),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                host="",
                save_code=False,
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_save_requirements=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", _OPENING_TIMEOUT_S)),
                finish_timeout=_UPLOAD_TIMEOUT_S,
                finish_timeout_raises=True,
            ),
        )
        remember_run(folder, "wandb", self._run.id)
        # Steps of its own: Weights & Biases drops a row whose step is below the last, as after a resume.
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)
        if online:
            report(f"Weights & Biases shows the run at {self._run.url}")
        else:
            why = "" if has_key or settings.wandb_mode == "offline" else " for want of a key (WANDB_API_KEY)"
            report(f"Weights & Biases keeps the run offline{why}; upload it with: {self._upload()}")

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""
        self._run.log({**values} if step is None else {**values, _STEP: step})

    def picture(self, name: str, picture: Image) -> None:
        """Show a picture at the last step."""
        import wandb

        self._run.log({name: wandb.Image(picture)})

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Log the files as an artifact of type ``model``; they stay in their place until they are uploaded."""
        import wandb

        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type="model")
        for path in files:
            # One by one, for `add_dir` prints; "immutable" spares a copy of them in the home folder.
            artifact.add_file(str(path.resolve()), path.relative_to(folder).as_posix(), policy="immutable")
        self._run.log_artifact(artifact)

    def summary(self, values: Mapping[str, float]) -> None:
        """Put the final figures in the place of the last points of curves of the same name."""
        self._run.summary.update(dict(values))

    def close(self, status: Status) -> None:
        """Upload what is left and end the run."""
        try:
            self._run.finish(exit_code=0 if status == "finished" else 1)
        except TimeoutError:
            self._report(f"Weights & Biases did not take all data in time; upload the rest with: {self._upload()}")

    def _upload(self) -> str:
        return command_line(["wandb", "sync", str(self._run.settings.sync_dir)])
