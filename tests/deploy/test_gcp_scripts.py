"""The scripts for Google Cloud: run against a gcloud that remembers its calls, and read by gcloud itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from gcp_files import ALL, DECLARED, GCP, LOOKS, MAKES, calls, fake_gcloud, filled, machine, parsed, script
from google.cloud import compute_v1
from google.cloud.billing import budgets_v1
from google.cloud.devtools import cloudbuild_v1

ACCOUNT = re.compile(r"([a-z-]+)@my-project\.iam\.gserviceaccount\.com")


def test_a_deployment_without_a_database_attaches_none(tmp_path: Path) -> None:
    steps = {s["id"]: s for s in yaml.safe_load((GCP / "cloudbuild.yaml").read_text())["steps"]}
    for database in ("", "p:r:i"):
        environment = fake_gcloud(tmp_path, found=True) | {
            "PROJECT_ID": "my-project",
            "COMMIT_SHA": "c0ffee",
            "_REGION": "europe-west1",
            "_REGISTRY": "registry",
            "_MODEL": "builtin",
            "_CLOUD_SQL": database,
        }
        shutil.copytree(GCP, tmp_path / "deploy" / "gcp", dirs_exist_ok=True)
        subprocess.run(
            ["bash", "-c", steps["deploy"]["script"]], cwd=tmp_path, env={**os.environ, **environment}, check=True
        )
        service = yaml.safe_load((tmp_path / "service.yaml").read_text())
        notes = service["spec"]["template"]["metadata"]["annotations"]
        assert notes.get("run.googleapis.com/cloudsql-instances", "") == database
        (container,) = service["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry/enzyme-stability-server:c0ffee"
        assert calls(tmp_path)[-1].startswith("run services replace service.yaml")


def test_a_machine_gets_its_settings_one_a_line_and_its_script_whole() -> None:
    instance = parsed(compute_v1.Instance, machine("--spot", "--hours", "2", "--zone", "us-east1-c"))
    metadata = {item.key: item.value for item in instance.metadata.items}
    assert metadata["trainer-settings"].splitlines() == [
        *("data.path=gs://b/clean.csv", 'head.hidden="[64]"', "run_name=net"),
        "mirror=gs://my-project-enzyme-stability-runs/runs/net",
    ]
    assert metadata["trainer-image"].startswith("us-east1-docker.pkg.dev/my-project/")
    assert metadata["startup-script"] == (GCP / "train_startup.sh").read_text().rstrip()
    assert instance.scheduling.max_run_duration.seconds == 7200
    assert (instance.scheduling.provisioning_model, instance.scheduling.instance_termination_action) == (
        "SPOT",
        "DELETE",
    )


@pytest.mark.parametrize("trained", [True, False])
def test_a_machine_trains_with_its_settings_and_shuts_down_whatever_happens(trained: bool, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    log = tmp_path / "log"
    answers = {"trainer-image": "eu-docker.pkg.dev/p/r/trainer:1", "trainer-settings": "head=mlp\ndata.path=a b"}
    fakes = {
        "curl": "".join(f"case $* in *{name}) printf %s '{value}';; esac\n" for name, value in answers.items()),
        "docker-credential-gcr": f'echo "credentials $*" >>{log}',
        "docker": f'printf "%s|" docker "$@" >>{log}; echo >>{log}; exit {0 if trained else 1}',
        "shutdown": f'echo "shutdown $*" >>{log}',
        "mkdir": "",
    }
    for name, body in fakes.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{body}\n")
        (bin_ / name).chmod(0o755)
    done = script("train_startup.sh", environment={"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"})
    assert (done.returncode == 0) == trained
    credentials, docker, shutdown = log.read_text().splitlines()
    assert credentials.endswith("--registries=eu-docker.pkg.dev")
    assert docker.endswith("trainer:1|-m|enzyme_stability.cloud.trial|head=mlp|data.path=a b|")
    assert shutdown == "shutdown -h now"


def test_setup_makes_what_is_not_there_and_a_second_time_nothing(tmp_path: Path) -> None:
    done = script("setup.sh", "--project", "my-project", *ALL, environment=fake_gcloud(tmp_path, found=False))
    assert done.returncode == 0, done.stderr
    first = calls(tmp_path)
    assert sum(any(word in f"{call} " for word in MAKES) for call in first) == 13
    trigger = parsed(cloudbuild_v1.BuildTrigger, yaml.safe_load((tmp_path / "imported").read_text()))
    assert (trigger.github.owner, trigger.github.push.branch) == ("owner", "^main$")

    done = script("setup.sh", "--project", "my-project", *ALL, environment=fake_gcloud(tmp_path, found=True))
    assert done.returncode == 0, done.stderr
    again = calls(tmp_path)
    assert not [call for call in again if any(word in f"{call} " for word in MAKES)]
    assert [call for call in first if call in again] == again


def test_a_dry_run_prints_the_calls_and_needs_no_gcloud(tmp_path: Path) -> None:
    environment = fake_gcloud(tmp_path, found=False)
    printed = script("setup.sh", "--project", "my-project", *ALL, "--dry-run", environment=environment)
    assert not (tmp_path / "calls").exists()
    assert script("setup.sh", "--project", "my-project", *ALL, environment=environment).returncode == 0
    shown = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert shown == [["gcloud", *call.split(" ")] for call in calls(tmp_path)]


def test_the_budget_is_that_of_its_file(tmp_path: Path) -> None:
    script("setup.sh", "--project", "my-project", *ALL, environment=fake_gcloud(tmp_path, found=False))
    (made,) = [call for call in calls(tmp_path) if "budgets create" in call]
    budget = parsed(budgets_v1.Budget, filled("budget.yaml"))
    rules = [
        f"--threshold-rule=percent={rule.threshold_percent},basis={rule.spend_basis.name.lower().replace('_', '-')}"
        for rule in budget.threshold_rules
    ]
    assert [word for word in made.split() if word.startswith("--threshold")] == rules
    assert "--budget-amount=70USD" in made
    assert f"--display-name={budget.display_name}" in made
    assert f"--filter-projects={budget.budget_filter.projects[0]}" in made
    assert f"--calendar-period={budget.budget_filter.calendar_period.name.lower()}" in made


def test_every_right_is_given_where_it_is_written_down() -> None:
    rights = yaml.safe_load((GCP / "access.yaml").read_text())
    given = script("setup.sh", "--project", "my-project", "--dry-run").stdout.splitlines()
    given = [line for line in given if "add-iam-policy-binding" in line]
    assert len(given) == len(rights)
    for right, line in zip(rights, given, strict=True):
        assert f"serviceAccount:{right['account']}@my-project.iam.gserviceaccount.com --role={right['role']}" in line
        kind, _, name = right["at"].partition("/")
        place = {"bucket": f"-{name} ", "secret": f" {name} ", "account": f" {name}@", "images": " repositories "}
        assert place.get(kind, f"gcloud {kind}s ") in line
    assert not {right["role"] for right in rights} & {"roles/owner", "roles/editor", "roles/storage.admin"}


def test_every_account_secret_and_bucket_that_a_file_names_is_made_by_setup() -> None:
    made = script("setup.sh", "--project", "my-project", "--dry-run").stdout
    accounts = set(re.findall(r"service-accounts create (\S+)", made))
    texts = [yaml.safe_dump(read()) for _, read in DECLARED.values()]
    assert {name for text in texts for name in ACCOUNT.findall(text)} == accounts
    buckets = {name for text in texts for name in re.findall(r"gs://([\w-]+-enzyme-stability-\w+)", text)}
    assert buckets == set(re.findall(r"buckets create gs://(\S+)", made))
    (container,) = filled("service.yaml")["spec"]["template"]["spec"]["containers"]
    secrets = {variable["valueFrom"]["secretKeyRef"]["name"] for variable in container["env"]}
    secrets |= {v["secret"]["secretName"] for v in filled("service.yaml")["spec"]["template"]["spec"]["volumes"]}
    assert secrets == set(re.findall(r"secrets create (\S+)", made))


def test_teardown_deletes_all_that_setup_makes(tmp_path: Path) -> None:
    made = script("setup.sh", "--project", "my-project", *ALL, "--dry-run").stdout
    options = ["--yes", "--delete-data", "--billing-account", "0A-1"]
    done = script("teardown.sh", "--project", "my-project", *options, environment=fake_gcloud(tmp_path, found=True))
    assert done.returncode == 0, done.stderr
    deleted = [call for call in calls(tmp_path) if not any(word in f"{call} " for word in LOOKS)]
    for kind, name in re.findall(r"^gcloud (.*?) create (\S+)", made, re.MULTILINE):
        if kind == "storage buckets":
            assert any(call.startswith(f"storage rm {name} --recursive") for call in deleted), name
        elif kind == "billing budgets":
            assert any(call.startswith("billing budgets delete it ") for call in deleted)
        elif kind != "sql databases":  # they go with their instance
            assert any(call.startswith(f"{kind} delete {name}") for call in deleted), (kind, name)
    assert any("triggers delete enzyme-stability-main" in call for call in deleted)
    assert any("run services delete enzyme-stability " in call for call in deleted)
    assert all("--quiet" in call for call in deleted)


def test_teardown_keeps_data_and_asks_for_the_name_of_the_project(tmp_path: Path) -> None:
    environment = fake_gcloud(tmp_path, found=True)
    refused = script("teardown.sh", "--project", "my-project", environment=environment, said="my-projekt\n")
    assert (refused.returncode, (tmp_path / "calls").exists()) == (2, False)
    assert "nothing was deleted" in refused.stderr

    program = tmp_path / "bin" / "gcloud"
    program.write_text(program.read_text() + 'case "$*" in "storage buckets delete "*) exit 1;; esac\n')
    done = script("teardown.sh", "--project", "my-project", environment=environment, said="my-project\n")
    assert done.returncode == 0
    assert done.stderr.count("holds data and stays") == 3
    assert not [
        call for call in calls(tmp_path) if "storage rm" in call or "sql instances" in call or "billing" in call
    ]


def test_a_teardown_of_nothing_deletes_nothing(tmp_path: Path) -> None:
    environment = fake_gcloud(tmp_path, found=False)
    options = ["--yes", "--delete-data", "--billing-account", "0A-1"]
    script("teardown.sh", "--project", "my-project", *options, environment=environment)
    assert all(any(word in f"{call} " for word in LOOKS) for call in calls(tmp_path))


@pytest.mark.parametrize("words", [[], ["--project", "X"], ["--project", "my-project", "--reigon", "r"], ["--project"]])
@pytest.mark.parametrize("name", ["setup.sh", "teardown.sh", "train_machine.sh"])
def test_wrong_options_are_answered_with_the_right_ones(name: str, words: list[str]) -> None:
    done = script(name, *words)
    assert done.returncode == 2
    assert f"{name} --project P" in done.stderr
    assert "set -euo" not in done.stderr


def test_a_name_that_nothing_is_given_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: ${ONE} ${TWO}\n")
    assert script("fill.sh", str(path), "ONE=a&b/c", "TWO=").stdout == "a: a&b/c \n"
    done = script("fill.sh", str(path), "ONE=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{path} also needs ${{TWO}}\n"


needs_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")


def own_gcloud(tmp_path: Path, *words: str) -> Any:
    """Google's program with no account, so that it cannot do more than read its arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE", "CLOUDSDK"))}
    environment |= {"CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true", "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    return subprocess.run(["gcloud", *words], env=environment, capture_output=True, text=True, check=False)


@needs_gcloud
def test_gcloud_itself_knows_every_call(tmp_path: Path) -> None:
    everything = ["--billing-account", "0A-1", "--delete-data", "--dry-run"]
    lines = script("setup.sh", "--project", "my-project", *ALL, "--dry-run").stdout.splitlines()
    lines += script("teardown.sh", "--project", "my-project", *everything).stdout.splitlines()
    lines += script("teardown.sh", "--project", "my-project", "--dry-run").stdout.splitlines()
    kinds = {re.sub(r"my-project-\S+|enzyme-stability-\S+|=\S+", "", line): line for line in lines}
    path = tmp_path / "calls.json"
    path.write_text(json.dumps([{"command_string": line} for line in kinds.values()]))
    answers = json.loads(own_gcloud(tmp_path, "meta", "lint-gcloud-commands", f"--commands-file={path}").stdout)
    assert len(answers) == len(kinds)
    assert not [(a["command_string"], a["error_message"]) for a in answers if not a["success"]]


@needs_gcloud
def test_gcloud_itself_reads_the_service(tmp_path: Path) -> None:
    service = filled("service.yaml")
    path = tmp_path / "service.yaml"
    for name, refused in (("containers", False), ("container", True)):
        spec = service["spec"]["template"]["spec"]
        spec[name] = spec.pop("containers")
        path.write_text(yaml.safe_dump(service))
        done = own_gcloud(tmp_path, "run", "services", "replace", str(path), "--region=europe-west1", "--project=p")
        assert ("Failed to parse" in done.stderr) == refused
        assert ("active account" in done.stderr) != refused
