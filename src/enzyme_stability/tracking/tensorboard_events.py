"""Metrics for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enzyme_stability.tracking.backend import Scalar, Status

if TYPE_CHECKING:
    from PIL.Image import Image

_FLUSH_S = 10


class TensorBoardEvents:
    """Writes event files; a resumed run adds one beside those of the earlier run.

    Args:
        folder: Folder of the event files; made if it is not there.
        hyperparameters: Flat settings of the run.
    """

    label = "TensorBoard"

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Scalar]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hyperparameters = dict(hyperparameters)
        self._step = 0
        self._writer = SummaryWriter(str(folder), flush_secs=_FLUSH_S)
        lines = (f"    {name}: {value}" for name, value in hyperparameters.items())  # indented, Markdown keeps lines
        self._writer.add_text("hyperparameters", "\n".join(lines))

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""
        self._step = self._step if step is None else step
        for name, value in values.items():
            self._writer.add_scalar(name, value, self._step)

    def picture(self, name: str, picture: Image) -> None:
        """Show a picture at the last step."""
        import numpy as np

        self._writer.add_image(name, np.asarray(picture), self._step, dataformats="HWC")

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Nothing: TensorBoard keeps no files."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Enter the final figures beside the hyperparameters, for the table that compares runs."""
        # Without a name of its own the entry would be shown as a second run.
        self._writer.add_hparams(self._hyperparameters, dict(values), run_name=".", global_step=self._step)

    def close(self, status: Status) -> None:
        """Note how the run ended and write what is buffered."""
        self._writer.add_text("status", status)
        self._writer.close()
