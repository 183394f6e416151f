"""Dockerfiles, scripts and compose file name things that there are; ``build_check.sh`` builds and tries the images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "docker"
DOCKERFILES = sorted(FOLDER.glob("*.dockerfile"))
COMPOSE = FOLDER / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def checked(program: str, *arguments: str | Path) -> None:
    """Run a program of the environment that says by its exit code whether it is content."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def instructions(dockerfile: Path) -> list[list[str]]:
    """The words of each instruction."""
    lines = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if line]


def default(dockerfile: Path, argument: str) -> str:
    """What a build argument is where nobody gives it."""
    (value,) = re.findall(rf"^ARG {argument}=(.*)$", dockerfile.read_text(), re.MULTILINE)
    return value


@pytest.mark.skipif(sys.platform == "win32", reason="there is no hadolint for Windows on the package index")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    checked("hadolint", dockerfile)


def test_shellcheck_finds_nothing() -> None:
    checked("shellcheck", *FOLDER.glob("*.sh"))


def test_the_compose_file_is_one() -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_both_images_have_the_same_base_of_a_fixed_version() -> None:
    bases = {default(dockerfile, "BASE") for dockerfile in DOCKERFILES}
    assert len(DOCKERFILES) == 2
    assert [bool(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)) for base in bases] == [True]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_extras_of_an_image_exist(dockerfile: Path) -> None:
    assert set(default(dockerfile, "EXTRAS").split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last line that fits counts."""
    keep_out = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if pattern in {"*", path} or path.startswith(f"{pattern}/"):
            keep_out = not line.startswith("!")
    return keep_out


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_sent_to_the_build(dockerfile: Path) -> None:
    copied = [words[1:-1] for words in instructions(dockerfile) if words[0] == "COPY" and "--from" not in words[1]]
    sources = [source for sources in copied for source in sources]
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(sources)
    assert [source for source in sources if not (REPOSITORY / source).exists() or ignored(source)] == []


@pytest.mark.parametrize(
    "path", [".git", ".env", "data", "outputs", "keys.json", "tests", ".venv", "deploy/docker/.env"]
)
def test_what_an_image_does_not_need_is_not_sent_to_the_build(path: str) -> None:
    assert ignored(path)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_its_own_user_and_says_what_it_is(dockerfile: Path) -> None:
    words = instructions(dockerfile)
    last = max(number for number, instruction in enumerate(words) if instruction[0] == "FROM")
    assert [instruction[1] for instruction in words[last:] if instruction[0] == "USER"] == ["10001:10001"]
    (labels,) = [instruction[1:] for instruction in words if instruction[0] == "LABEL"]
    name = {"serve": "server", "train": "trainer"}[dockerfile.stem]
    assert f'org.opencontainers.image.title="enzyme-stability-{name}"' in labels
    assert f'org.opencontainers.image.licenses="{PYPROJECT["project"]["license"]}"' in labels


def test_what_compose_mounts_is_there() -> None:
    mounted = [
        volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"] if volume.startswith(".")
    ]
    assert len(mounted) == 4
    assert [path for path in mounted if not (FOLDER / path).exists()] == []


def test_compose_builds_the_server_and_prometheus_scrapes_it() -> None:
    build = SERVICES["enzyme-stability"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "serve.dockerfile"
    prometheus = yaml.safe_load((REPOSITORY / "deploy/monitoring/prometheus.yml").read_text())
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    port = next(words[1] for words in instructions(FOLDER / "serve.dockerfile") if words[0] == "EXPOSE")
    assert targets == [f"enzyme-stability:{port}"]
    assert SERVICES["enzyme-stability"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_mounts_what_prometheus_and_grafana_look_for() -> None:
    places = {volume.split(":")[1] for name in ("prometheus", "grafana") for volume in SERVICES[name]["volumes"]}
    provider = REPOSITORY / "deploy/monitoring/grafana/provisioning/dashboards/enzyme-stability.yml"
    dashboards = yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"]
    assert {f"{dashboards}/dashboard.json", "/etc/prometheus/alerts.yml", "/etc/grafana/provisioning"} <= places
    (source,) = yaml.safe_load((provider.parents[1] / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://{next(name for name in SERVICES if name == 'prometheus')}:9090"


def test_prometheus_accepts_the_files_where_compose_mounts_them(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert os.environ.get("ENZYME_STABILITY_NEEDS_PROMETHEUS") != "1", "promtool is not installed"
        pytest.skip("promtool is not installed")
    for volume in SERVICES["prometheus"]["volumes"]:
        source, place, *_ = volume.split(":")
        if place.startswith("/etc/prometheus/"):
            shutil.copy(FOLDER / source, tmp_path / Path(place).name)
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_of_compose_can_do_no_more_than_it_must() -> None:
    server = SERVICES["enzyme-stability"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert server["tmpfs"] == ["/tmp"]  # noqa: S108 - in the container
    (volume,) = [words[1] for words in instructions(FOLDER / "serve.dockerfile") if words[0] == "VOLUME"]
    assert server["volumes"] == [f"home:{volume}"]


def test_no_password_is_written_down_and_every_image_has_a_version() -> None:
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert len(secrets) == 3
    assert [value for value in secrets if not re.fullmatch(r"\$\{\w+:\?.+\}", value)] == []
    others = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert [image for image in others if not re.search(r":v?\d+", image)] == []
