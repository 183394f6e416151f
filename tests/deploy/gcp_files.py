"""The files for Google Cloud as tests read them, and a gcloud that remembers its calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.cloud import aiplatform_v1, compute_v1, run_v2
from google.cloud._storage_v2 import Bucket
from google.cloud.billing import budgets_v1
from google.cloud.devtools import cloudbuild_v1
from google.protobuf.json_format import ParseDict

REPOSITORY = Path(__file__).parents[2]
GCP = REPOSITORY / "deploy" / "gcp"
VALUES = {
    "PROJECT": "my-project",
    "REGION": "europe-west1",
    "MODEL": "gs://my-project-enzyme-stability-models/registry/builtin@production",
    "CLOUD_SQL": "my-project:europe-west1:enzyme-stability",
    "IMAGE": "europe-west1-docker.pkg.dev/my-project/enzyme-stability/enzyme-stability-server:1",
    "CURRENCY": "EUR",
    "AMOUNT": "100",
    "GITHUB_OWNER": "owner",
    "GITHUB_NAME": "name",
}


def script(name: str, *words: str, environment: Mapping[str, str] | None = None, said: str = "") -> Any:
    return subprocess.run(
        ["bash", str(GCP / name), *words],
        env={**os.environ, **(environment or {})},
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )


def filled(name: str) -> Any:
    done = script("fill.sh", str(GCP / name), *(f"{key}={value}" for key, value in VALUES.items()))
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def machine(*options: str) -> Any:
    given = ["--project", "my-project", "--run", "net", "--dry-run", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = ["data.path=gs://b/clean.csv", 'head.hidden="[64]"']
    done = script("train_machine.sh", *given, "--", *settings, environment={"PATH": path})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parsed(kind: Any, values: Any) -> Any:
    return kind(ParseDict(values, kind.pb(kind())))


def lifecycle(name: str) -> Any:
    """As Cloud Storage's protocol writes it; its JSON differs in one name."""
    rules = json.loads((GCP / name).read_text())
    for rule in rules["rule"]:
        if "age" in rule["condition"]:
            rule["condition"]["ageDays"] = rule["condition"].pop("age")
    return rules


_TEMPLATE = {
    "autoscaling.knative.dev/minScale": ("scaling", "minInstanceCount"),
    "autoscaling.knative.dev/maxScale": ("scaling", "maxInstanceCount"),
}


def as_v2(service: dict[str, Any]) -> dict[str, Any]:
    """A service of Knative's form in that of the newer protocol, which has a type; what is unknown here stays over."""
    spec, template = service["spec"]["template"]["spec"], service["spec"]["template"]["metadata"]
    notes = dict(template.pop("annotations"))
    scaling = {new: int(notes.pop(old)) for old, (_, new) in _TEMPLATE.items()}
    resources = {
        "cpuIdle": notes.pop("run.googleapis.com/cpu-throttling") == "true",
        "startupCpuBoost": notes.pop("run.googleapis.com/startup-cpu-boost") == "true",
    }
    instances = notes.pop("run.googleapis.com/cloudsql-instances").split(",")
    generation = notes.pop("run.googleapis.com/execution-environment")
    assert not notes
    containers = spec.pop("containers")
    for container in containers:
        container["resources"] |= resources
        for variable in container["env"]:
            source = variable.pop("valueFrom")["secretKeyRef"]
            variable["valueSource"] = {"secretKeyRef": {"secret": source.pop("name"), "version": source.pop("key")}}
            assert not source
    volumes = spec.pop("volumes")
    for volume in volumes:
        secret = volume["secret"]
        secret["secret"] = secret.pop("secretName")
        secret["items"] = [{"version": i.pop("key"), **i} for i in secret["items"]]
    revision = {
        **template,
        "scaling": scaling,
        "executionEnvironment": f"EXECUTION_ENVIRONMENT_{generation.upper()}",
        "serviceAccount": spec.pop("serviceAccountName"),
        "maxInstanceRequestConcurrency": spec.pop("containerConcurrency"),
        "timeout": f"{spec.pop('timeoutSeconds')}s",
        "containers": containers,
        "volumes": [*volumes, {"name": "cloudsql", "cloudSqlInstance": {"instances": instances}}],
        **spec,
    }
    ingress = service["metadata"]["annotations"].pop("run.googleapis.com/ingress")
    return {"ingress": f"INGRESS_TRAFFIC_{ingress.upper()}", "template": revision}


DECLARED: dict[str, tuple[Any, Callable[[], Any]]] = {
    "cloudbuild.yaml": (cloudbuild_v1.Build, lambda: yaml.safe_load((GCP / "cloudbuild.yaml").read_text())),
    "trigger.yaml": (cloudbuild_v1.BuildTrigger, lambda: filled("trigger.yaml")),
    "budget.yaml": (budgets_v1.Budget, lambda: filled("budget.yaml")),
    "service.yaml": (run_v2.Service, lambda: as_v2(filled("service.yaml"))),
    "instance.yaml": (compute_v1.Instance, machine),
    "vertex/train.cpu.yaml": (
        aiplatform_v1.CustomJob,
        lambda: yaml.safe_load((GCP / "vertex/train.cpu.yaml").read_text()),
    ),
    "vertex/train.gpu.yaml": (
        aiplatform_v1.CustomJob,
        lambda: yaml.safe_load((GCP / "vertex/train.gpu.yaml").read_text()),
    ),
    "vertex/tune.yaml": (
        aiplatform_v1.HyperparameterTuningJob,
        lambda: yaml.safe_load((GCP / "vertex/tune.yaml").read_text()),
    ),
    **{f"lifecycle.{name}.json": (Bucket.Lifecycle, lambda name=name: lifecycle(f"lifecycle.{name}.json"))
       for name in ("data", "runs", "models")},
}  # fmt: skip


def fake_gcloud(folder: Path, *, found: bool) -> dict[str, str]:
    """Environment with a gcloud that writes down its calls, and finds everything or nothing."""
    program = folder / "bin" / "gcloud"
    program.parent.mkdir(exist_ok=True)
    look = "echo it; exit 0" if found else "exit 1"
    program.write_text(
        f'#!/bin/bash\necho "$*" >>{folder}/calls\ncase "$*" in *" describe "*|*" list "*) {look};; esac\n'
        f'case "$*" in *" import "*) cat >{folder}/imported;; esac\n'
    )
    program.chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    return {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


ALL = ["--billing-account", "0A-1", "--budget", "70USD", "--github", "owner/name", "--cloud-sql"]
LOOKS = (" describe ", " list ")
MAKES = (" create ", " import ")
