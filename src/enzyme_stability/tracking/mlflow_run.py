"""A run in MLflow, on a server or in files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enzyme_stability.config import Tracking
from enzyme_stability.tracking.backend import Scalar, Status, remember_run, remembered_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

_ENVIRONMENT = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a database store would need SQLAlchemy, which mlflow-skinny leaves out
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that has gone would otherwise hold up training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_PARAMETERS_A_REQUEST = 100


class MlflowRun:
    """Logs to MLflow; continues the run that was begun in the folder.

    Args:
        settings: Address, experiment and tags.
        folder: Folder of the run; without an address, files lie in ``mlruns`` below it.
        run_name: Name to show.
        hyperparameters: Flat settings of the run.
    """

    label = "MLflow"

    def __init__(self, settings: Tracking, folder: Path, run_name: str, hyperparameters: Mapping[str, Scalar]) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=settings.mlflow_uri or (folder / "mlruns").resolve().as_uri())
        self._step = 0
        earlier = remembered_run(folder, "mlflow")
        if earlier and self._resume(earlier):
            self._id = earlier
            return
        experiment = _experiment(self._client, settings.project)
        tags = dict.fromkeys(settings.tags, "true")
        self._id = self._client.create_run(experiment, run_name=run_name, tags=tags).info.run_id
        remember_run(folder, "mlflow", self._id)
        self._log_parameters(hyperparameters)

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""
        from mlflow.entities import Metric

        self._step = self._step if step is None else step
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, v, now, self._step) for name, v in values.items()])

    def picture(self, name: str, picture: Image) -> None:
        """Keep a picture among the artifacts."""
        self._client.log_image(self._id, picture, artifact_file=f"pictures/{name}.png")

    def artefact(self, folder: Path, files: Sequence[Path], name: str) -> None:
        """Keep the files among the artifacts."""
        for path in files:
            where = Path(name, path.relative_to(folder)).parent.as_posix()
            self._client.log_artifact(self._id, str(path), artifact_path=where)

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the final figures as metrics at the last step."""
        self.metrics(values, None)

    def close(self, status: Status) -> None:
        """End the run."""
        self._client.set_terminated(self._id, _STATUS[status])

    def _resume(self, run_id: str) -> bool:
        """Whether the store still has the run."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _log_parameters(self, hyperparameters: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)) for name, value in hyperparameters.items()]
        for start in range(0, len(parameters), _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._id, params=parameters[start : start + _PARAMETERS_A_REQUEST])


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment of that name, made if there is none."""
    from mlflow.exceptions import MlflowException

    if known := client.get_experiment_by_name(name):
        return str(known.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        if known := client.get_experiment_by_name(name):  # another run of the same search was quicker
            return str(known.experiment_id)
        raise
