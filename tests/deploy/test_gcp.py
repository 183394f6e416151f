"""The files for Google Cloud: read by Google's own types, which know a misspelt field."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gcp_files import DECLARED, GCP, REPOSITORY, filled, parsed
from google.cloud.devtools import cloudbuild_v1
from google.protobuf.json_format import ParseError

from enzyme_stability import cli

PAGE = (REPOSITORY / "docs" / "cloud.md").read_text(encoding="utf-8")


def innermost(values: Any) -> list[dict[str, Any]]:
    """Every mapping inside, those in lists too, but not those whose names are free."""
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, list) else []
    own = [values] if isinstance(values, dict) and values else []
    free = {"labels", "substitutions", "limits"}
    kept = [v for k, v in values.items() if k not in free] if isinstance(values, dict) else inside
    return [*own, *(found for value in kept for found in innermost(value))]


@pytest.mark.parametrize("name", DECLARED)
def test_a_file_is_what_google_reads_and_a_misspelt_field_anywhere_in_it_is_not(name: str) -> None:
    kind, read = DECLARED[name]
    values = read()
    parsed(kind, values)
    for mapping in innermost(values):
        field = next(iter(mapping))
        mapping[f"{field}z"] = mapping.pop(field)
        with pytest.raises(ParseError):
            parsed(kind, values)
        mapping[field] = mapping.pop(f"{field}z")


def test_every_file_that_declares_something_is_checked() -> None:
    declared = {path.relative_to(GCP).as_posix() for path in GCP.rglob("*") if path.suffix in {".yaml", ".json"}}
    assert declared - {"access.yaml", "prices.yaml"} == set(DECLARED)


def test_the_schema_of_cloud_build_is_kept() -> None:
    checked = ["check-jsonschema", "--builtin-schema", "vendor.cloudbuild", str(GCP / "cloudbuild.yaml")]
    done = subprocess.run(
        [Path(sys.executable).parent / checked[0], *checked[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_build_uses_files_and_substitutions_that_are_there() -> None:
    text = (GCP / "cloudbuild.yaml").read_text()
    build = parsed(cloudbuild_v1.Build, yaml.safe_load(text))
    for path in re.findall(r"deploy/[\w./-]+\.(?:sh|yaml)", text):
        assert (REPOSITORY / path).is_file(), path
    own = set(build.substitutions)
    assert set(re.findall(r"\$\{?(_\w+)", text)) <= own
    assert set(filled("trigger.yaml")["substitutions"]) <= own
    steps = {step.id: step for step in build.steps}
    assert all(before in steps or before == "-" for step in build.steps for before in step.wait_for)
    assert "test" in steps["push"].wait_for
    assert steps["deploy"].wait_for == ["push"]
    assert filled("trigger.yaml")["filename"] == "deploy/gcp/cloudbuild.yaml"


@pytest.mark.parametrize("step", ["test", "build", "push", "deploy"])
def test_the_steps_of_a_build_are_sound_shell(step: str, tmp_path: Path) -> None:
    steps = {s["id"]: s for s in yaml.safe_load((GCP / "cloudbuild.yaml").read_text())["steps"]}
    path = tmp_path / f"{step}.sh"
    path.write_text(steps[step]["script"])
    shellcheck(path)


def shellcheck(*paths: Path) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([program, "-x", *map(str, paths)], capture_output=True, text=True, check=False, cwd=GCP)
    assert done.returncode == 0, done.stdout


def test_the_scripts_are_sound_shell() -> None:
    shellcheck(*sorted(GCP.glob("*.sh")))


def test_the_service_is_told_options_and_settings_that_it_has() -> None:
    import typer

    (container,) = filled("service.yaml")["spec"]["template"]["spec"]["containers"]
    serve = typer.main.get_command(cli.app).commands["serve"]
    assert serve.make_context("serve", [*container["args"], "--host", "0.0.0.0"]).params["keys"]  # noqa: S104
    known = {parameter.envvar for parameter in serve.params}
    assert {variable["name"] for variable in container["env"]} <= known
    folder = container["volumeMounts"][0]["mountPath"]
    assert container["args"][-1] == f"{folder}/keys.json"
    assert {container["startupProbe"]["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]} == {
        "/readyz",
        "/healthz",
    }


def test_the_stored_jobs_are_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((GCP / "vertex").glob("*.yaml")):
        text = path.read_text()
        (shown,) = re.findall(r"^# Printed by: enzyme-stability (.*)$", text, re.MULTILINE)
        own = ["--project", "my-project", "--staging", "gs://my-project-enzyme-stability-runs/runs", "--dry-run"]
        account = ["--service-account", "enzyme-stability-trainer@my-project.iam.gserviceaccount.com"]
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", *shlex.split(shown), *own, *account])
        with pytest.raises(SystemExit):
            cli.main()
        printed = re.sub(r"-\d{8}-\d{6}", "", capsys.readouterr().out)
        assert yaml.safe_load(printed) == yaml.safe_load(text), path.name


def costs() -> Any:
    spec = importlib.util.spec_from_file_location("costs", GCP / "costs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_costs_of_the_assumptions() -> None:
    printed = subprocess.run([sys.executable, str(GCP / "costs.py")], capture_output=True, text=True, check=True).stdout
    assert printed in PAGE
    assert yaml.safe_load((GCP / "prices.yaml").read_text())["date"] in PAGE


def test_costs_follow_their_assumptions() -> None:
    module = costs()
    assumed = yaml.safe_load((GCP / "prices.yaml").read_text())
    before = module.costs(assumed["prices"], assumed["usage"])
    assumed["usage"]["requests"] *= 2
    after = module.costs(assumed["prices"], assumed["usage"])
    assert after["Cloud Run"][1] == pytest.approx(2 * before["Cloud Run"][1])
    assert {name: row for name, row in after.items() if name != "Cloud Run"} == {
        name: row for name, row in before.items() if name != "Cloud Run"
    }
    for price in assumed["prices"]:
        dearer = module.costs(assumed["prices"] | {price: 2 * assumed["prices"][price]}, assumed["usage"])
        assert sum(row[1] for row in dearer.values()) > sum(row[1] for row in after.values()), price
