"""Training jobs of Vertex AI: made of a checked training configuration, written as YAML, sent to Google."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from enzyme_stability.cloud.trial import METRIC
from enzyme_stability.config.base import Strict
from enzyme_stability.config.search import Choice, FloatRange, Parameter, as_override
from enzyme_stability.configuration import compose, experiments
from enzyme_stability.errors import ConfigError, EnzymeStabilityError, MissingDependencyError
from enzyme_stability.search import Search
from enzyme_stability.storage import is_url

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import CustomJob, HyperparameterTuningJob, JobServiceClient

_ANSWER_S = 60.0
_COMMAND = ("python", "-m", "enzyme_stability.cloud.trial")
_LABELS = {"app": "enzyme-stability"}
_MACHINES = {
    "NVIDIA_TESLA_P4": "n1-",
    "NVIDIA_TESLA_T4": "n1-",
    "NVIDIA_TESLA_P100": "n1-",
    "NVIDIA_TESLA_V100": "n1-",
    "NVIDIA_L4": "g2-",
    "NVIDIA_TESLA_A100": "a2-",
    "NVIDIA_A100_80GB": "a2-ultragpu-",
    "NVIDIA_H100_80GB": "a3-",
    "NVIDIA_H100_MEGA_80GB": "a3-",
    "NVIDIA_H200_141GB": "a3-",
}
"""Machines that take an accelerator. Source: https://cloud.google.com/vertex-ai/docs/training/configure-compute"""


class SubmissionError(EnzymeStabilityError):
    """Google does not take a job, or cannot be asked; the message says what to do."""


class Machine(Strict):
    """What a job runs on, and where its run is kept.

    Attributes:
        image: The trainer's image.
        staging: Folder of a bucket; each job keeps its run in a folder of its own below it.
        machine_type: As Compute Engine names it.
        accelerator: As Vertex AI names it; none is a machine without.
        accelerators: Accelerators of the machine.
        disk_gb: Size of its disk.
        spot: Whether the machine is cheaper and may be taken away; the run then goes on from its mirror on another.
        service_account: Whose rights the job has; none is the project's own account for Vertex AI.
        timeout_s: Seconds after which the job is ended.
    """

    image: str = Field(pattern=r"^[a-z0-9.-]+(/[\w.-]+)+([:@][\w.:-]+)?$")
    staging: str = Field(pattern=r"^gs://[a-z0-9][a-z0-9._-]+(/[\w.-]+)*$")
    machine_type: str = Field("n1-standard-8", pattern=r"^[a-z0-9]+(-[a-z0-9]+)+$")
    accelerator: str | None = None
    accelerators: int = Field(1, ge=1, le=16)
    disk_gb: int = Field(100, ge=100)
    spot: bool = False
    service_account: str | None = Field(None, pattern=r"^[a-z][a-z0-9-]+@[\w.-]+$")
    timeout_s: int = Field(4 * 3600, ge=60, le=7 * 86400)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.accelerator is None:
            return self
        if self.accelerator not in _MACHINES:
            raise ValueError(f"there is no accelerator {self.accelerator}: give one of {', '.join(_MACHINES)}")
        family = _MACHINES[self.accelerator]
        if not self.machine_type.startswith(family):
            raise ValueError(f"{self.accelerator} needs a machine of type {family}..., not {self.machine_type}")
        return self

    def job_spec(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The fields of a ``CustomJobSpec`` that trains here with these settings."""
        machine: dict[str, Any] = {"machine_type": self.machine_type}
        if self.accelerator is not None:
            machine |= {"accelerator_type": self.accelerator, "accelerator_count": self.accelerators}
        pool = {
            "machine_spec": machine,
            "replica_count": 1,
            "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": self.disk_gb},
            "container_spec": {"image_uri": self.image, "command": list(_COMMAND), "args": list(arguments)},
        }
        scheduling = {"timeout": dt.timedelta(seconds=self.timeout_s), "restart_job_on_worker_restart": True}
        return {
            "worker_pool_specs": [pool],
            "scheduling": scheduling | ({"strategy": "SPOT"} if self.spot else {}),
            "service_account": self.service_account or "",
        }


def training_job(overrides: Sequence[str], machine: Machine, now: dt.datetime) -> CustomJob:
    """A job that trains once.

    Args:
        overrides: As for ``enzyme-stability train``.
        machine: What it runs on.
        now: Told apart by it are two runs of one name.

    Raises:
        ConfigError: A setting cannot be used, or not in the cloud.
        MissingDependencyError: Hydra or the package of Vertex AI is not installed.
    """
    types = _types()
    name, arguments = _checked(overrides, machine, now)
    return types.CustomJob(display_name=name, labels=_LABELS, job_spec=machine.job_spec(arguments))


def tuning_job(
    overrides: Sequence[str], machine: Machine, now: dt.datetime, *, trials: int, parallel: int, space: str | None
) -> HyperparameterTuningJob:
    """A job that trains many times, each time with other values, to find those of the least error.

    Args:
        overrides: What every trial has in common.
        machine: What each trial runs on.
        now: Told apart by it are two runs of one name.
        trials: How many.
        parallel: How many at once.
        space: Search space as for ``enzyme-stability tune``; the one of the head where None.

    Raises:
        ConfigError: A setting or the space cannot be used, or not in the cloud.
        MissingDependencyError: Hydra or the package of Vertex AI is not installed.
    """
    types = _types()
    name, arguments = _checked(overrides, machine, now)
    parameters = Search.plan(overrides, space).space.parameters
    study = {
        "metrics": [{"metric_id": METRIC, "goal": "MINIMIZE"}],
        "parameters": [_parameter(key, parameter) for key, parameter in parameters.items()],
    }
    return types.HyperparameterTuningJob(
        display_name=name,
        labels=_LABELS,
        study_spec=study,
        max_trial_count=trials,
        parallel_trial_count=min(parallel, trials),
        trial_job_spec=machine.job_spec(arguments),
    )


def to_yaml(job: CustomJob | HyperparameterTuningJob) -> str:
    """A job as Google's documentation writes it."""
    import yaml
    from google.protobuf.json_format import MessageToDict

    text: str = yaml.safe_dump(MessageToDict(type(job).pb(job)), sort_keys=False, width=120)
    return text


def from_yaml(text: str, source: str) -> CustomJob | HyperparameterTuningJob:
    """The job that a YAML text describes.

    Raises:
        ConfigError: It is no YAML, or a field is misspelt or of the wrong kind; ``source`` is named.
        MissingDependencyError: The package of Vertex AI is not installed.
    """
    types = _types()
    import yaml
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        values = yaml.safe_load(text)
        if not isinstance(values, dict) or not values.keys() & {"jobSpec", "studySpec"}:
            raise ConfigError(f"{source} is no job: it has neither jobSpec (a training) nor studySpec (a tuning)")
        kind = types.HyperparameterTuningJob if "studySpec" in values else types.CustomJob
        return kind(ParseDict(values, kind.pb(kind())))
    except (yaml.YAMLError, ParseError) as error:
        raise ConfigError(f"{source} is no job of Vertex AI: {' '.join(str(error).split())}") from None


def submit(
    job: CustomJob | HyperparameterTuningJob, project: str, region: str, client: JobServiceClient | None = None
) -> str:
    """Send a job to Google, which starts it when there is a machine.

    Args:
        job: What to run.
        project: Who pays.
        region: Where it runs.
        client: Of the job service; one with the default credentials where None.

    Returns:
        Address of the page on the job.

    Raises:
        SubmissionError: There are no credentials, no rights or no quota, or Google refuses the job or is out of reach.
    """
    parent = f"projects/{project}/locations/{region}"
    with _explained(project, region):
        client = client or job_client(region)
        if hasattr(job, "study_spec"):
            made = client.create_hyperparameter_tuning_job(
                parent=parent, hyperparameter_tuning_job=job, timeout=_ANSWER_S
            )
        else:
            made = client.create_custom_job(parent=parent, custom_job=job, timeout=_ANSWER_S)
    number = made.name.rpartition("/")[2]
    return f"https://console.cloud.google.com/vertex-ai/locations/{region}/training/{number}?project={project}"


def job_client(region: str) -> JobServiceClient:
    """The client of a region's job service, with Google's default credentials."""
    endpoint = {"api_endpoint": f"{region}-aiplatform.googleapis.com"}
    return _types().JobServiceClient(client_options=endpoint)


@contextmanager
def _explained(project: str, region: str) -> Iterator[None]:
    from google.api_core import exceptions as answers
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAuthError, answers.Unauthenticated):
        raise SubmissionError(
            "Google does not know who asks: sign in with 'gcloud auth application-default login'"
        ) from None
    except answers.PermissionDenied as error:
        raise SubmissionError(
            f"project {project} refuses you ({error.message}): it takes roles/aiplatform.user, "
            "roles/iam.serviceAccountUser on the job's account, and the API aiplatform.googleapis.com switched on"
        ) from None
    except answers.ResourceExhausted as error:
        raise SubmissionError(
            f"the quota of project {project} in {region} does not allow it ({error.message}): ask for more, "
            "or choose another region, machine or accelerator"
        ) from None
    except (answers.ServiceUnavailable, answers.DeadlineExceeded, answers.RetryError) as error:
        raise SubmissionError(f"Vertex AI in {region} cannot be reached ({error.message}): try again later") from None
    except answers.GoogleAPICallError as error:
        raise SubmissionError(f"Vertex AI refuses the job: {error.message}") from None


def _checked(overrides: Sequence[str], machine: Machine, now: dt.datetime) -> tuple[str, list[str]]:
    """Name of the job and the arguments of its training, which can be carried out far from here."""
    first = overrides[0] if overrides else ""
    if first and "=" not in first and first not in experiments():
        raise ConfigError(f"{first} lies on this machine only: give its settings one by one, as in head=mlp")
    config = compose(overrides)
    if not is_url(config.data.path) or config.data.path.lower().startswith("file:"):
        raise ConfigError(
            f"data.path is {config.data.path}, which the cloud cannot read: copy the table to a bucket "
            "and give its address, as in data.path=gs://my-bucket/clean.csv"
        )
    if config.mirror is not None and not config.mirror.startswith("gs://"):
        raise ConfigError(f"mirror is {config.mirror}: the run is lost with its machine unless that is a gs:// address")
    if config.trainer.nodes > 1:
        raise ConfigError("trainer.nodes is more than 1: a job here runs on one machine")
    devices = machine.accelerators if machine.accelerator else 1
    if config.trainer.devices > devices:
        raise ConfigError(
            f"trainer.devices is {config.trainer.devices}, but the machine has {devices}: set --accelerators"
        )
    name = f"{config.run_name}-{now:%Y%m%d-%H%M%S}"
    kept = [] if config.mirror else [f"mirror={machine.staging}/{name}"]
    return name, [*overrides, *kept]


def _parameter(key: str, parameter: Parameter) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        return {
            "parameter_id": key,
            "categorical_value_spec": {"values": [as_override(value) for value in parameter.values]},
        }
    kind = "double_value_spec" if isinstance(parameter, FloatRange) else "integer_value_spec"
    return {
        "parameter_id": key,
        kind: {"min_value": parameter.low, "max_value": parameter.high},
        "scale_type": "UNIT_LOG_SCALE" if parameter.log else "UNIT_LINEAR_SCALE",
    }


def _types() -> Any:
    try:
        from google.cloud import aiplatform_v1
    except ImportError:
        raise MissingDependencyError("Training on Vertex AI", "vertex") from None
    return aiplatform_v1
