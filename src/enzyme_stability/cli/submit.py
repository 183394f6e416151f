"""The commands 'submit ...': train on Google Cloud."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.errors import ConfigError

submit = typer.Typer(no_args_is_help=True, help="Train on Google Cloud.")

Project = Annotated[str, typer.Option(help="Google Cloud project that the job belongs to.")]
Region = Annotated[str, typer.Option(help="Region of Google Cloud where the job runs.")]
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


@submit.command()
def vertex(
    project: Project,
    staging: Annotated[str, typer.Option(help="Where runs are kept, as gs://my-bucket/runs.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="As for 'train'; data.path is an address that the cloud can read.")
    ] = None,
    region: Region = "europe-west1",
    image: Annotated[
        str | None, typer.Option(help="Image of the trainer; else the latest of the project's registry in the region.")
    ] = None,
    machine: Annotated[str, typer.Option(help="Type of the machine.")] = "n1-standard-8",
    accelerator: Annotated[str | None, typer.Option(help="NVIDIA_L4, NVIDIA_TESLA_T4, ...; else none.")] = None,
    accelerators: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    spot: Annotated[bool, typer.Option("--spot", help="A cheaper machine that may be taken away.")] = False,
    service_account: Annotated[
        str | None, typer.Option(help="Account whose rights the job has; else Vertex AI's own.")
    ] = None,
    timeout: Annotated[str, typer.Option(help="Time after which the job is ended: 90m, 4h, 2d.")] = "4h",
    trials: Annotated[int, typer.Option(min=0, help="Search settings in so many trainings; 0 trains once.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="With --trials: how many at once.")] = 2,
    space: Annotated[
        str | None, typer.Option(help="With --trials: search space as for 'tune', a name or a YAML file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job as YAML and send nothing.")] = False,
) -> None:
    """Train on Vertex AI, once or as a search of settings, after all settings are checked here."""
    from enzyme_stability.cloud.vertex import Machine, to_yaml, training_job, tuning_job
    from enzyme_stability.cloud.vertex import submit as send

    if space is not None and not trials:
        raise ConfigError("--space is for a search: give --trials too")
    registry = f"{region}-docker.pkg.dev/{project}/enzyme-stability"
    runs_on = Machine.parse(
        {
            "image": image or f"{registry}/enzyme-stability-trainer:latest",
            "staging": staging.rstrip("/"),
            "machine_type": machine,
            "accelerator": accelerator,
            "accelerators": accelerators,
            "spot": spot,
            "service_account": service_account,
            "timeout_s": _seconds(timeout),
        },
        "submit vertex",
    )
    now = dt.datetime.now(dt.UTC)
    job = (
        tuning_job(settings or [], runs_on, now, trials=trials, parallel=parallel, space=space)
        if trials
        else training_job(settings or [], runs_on, now)
    )
    if dry_run:
        print(to_yaml(job), end="")
        return
    print(send(job, project, region))


@submit.command()
def file(
    job: Annotated[Path, typer.Argument(help="Job in YAML, as 'submit vertex --dry-run' prints it.")],
    project: Project,
    region: Region = "europe-west1",
) -> None:
    """Send a job to Vertex AI as a file describes it."""
    from enzyme_stability.cloud.vertex import from_yaml
    from enzyme_stability.cloud.vertex import submit as send

    try:
        text = job.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{job} cannot be read: {error}") from None
    print(send(from_yaml(text, str(job)), project, region))


def _seconds(text: str) -> int:
    given = re.fullmatch(r"(\d{1,6})([mhd])", text.strip())
    if given is None:
        raise ConfigError(f"--timeout is '{text}'; give 90m, 4h or 2d")
    return int(given[1]) * _SECONDS[given[2]]
