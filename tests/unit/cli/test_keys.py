from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enzyme_stability.cli.keys import keys
from enzyme_stability.errors import ConfigError
from enzyme_stability.serving.access import Access, UnauthorisedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run(*arguments: str | Path) -> tuple[str, str]:
    outcome = CliRunner().invoke(keys, list(map(str, arguments)), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout, outcome.stderr


def test_the_printed_line_is_the_key_and_nothing_else(path: Path) -> None:
    out, err = run("create", "lab", "--file", path)

    assert Access(path).check(out.removesuffix("\n")) == "lab"
    assert out.strip() not in err


def test_a_limit_is_kept_with_the_key(path: Path) -> None:
    run("create", "lab", "--requests-per-minute", "30", "--file", path)

    assert json.loads(path.read_text())["keys"][0]["requests_per_minute"] == 30


def test_the_list_shows_names_limits_and_days_but_no_key_or_hash(path: Path) -> None:
    key = run("create", "lab", "--requests-per-minute", "30", "--file", path)[0].strip()
    run("create", "line-2", "--file", path)
    run("revoke", "line-2", "--file", path)

    lines = run("list", "--file", path)[0].splitlines()

    stored = json.loads(path.read_text())["keys"]
    today = stored[1]["revoked"]
    assert [line.split("\t") for line in lines] == [
        ["name", "created", "requests_per_minute", "revoked"],
        ["lab", today, "30", "-"],
        ["line-2", today, "-", today],
    ]
    for secret in (key, stored[0]["sha256"]):
        assert secret not in "".join(lines)


def test_a_revoked_key_no_longer_lets_in(path: Path) -> None:
    key = run("create", "lab", "--file", path)[0].strip()

    run("revoke", "lab", "--file", path)

    with pytest.raises(UnauthorisedError, match="revoked"):
        Access(path).check(key)


@pytest.mark.parametrize("command", [("list",), ("revoke", "lab")])
def test_a_missing_file_is_said_with_what_to_do(path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="keys create"):
        run(*command, "--file", path)


def test_a_limit_of_nothing_is_refused(path: Path) -> None:
    outcome = CliRunner().invoke(keys, ["create", "lab", "--requests-per-minute", "0", "--file", str(path)])

    assert outcome.exit_code == 2
    assert not path.exists()
