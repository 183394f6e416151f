"""The tutorials, step by step: what they tell readers to run works, and prints what they show."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from documented_steps import FENCE, Background, commands, run

REPOSITORY = Path(__file__).parents[2]
TUTORIALS = REPOSITORY / "docs" / "tutorials"

_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d+(?:\.\d+)?")
_EXIT_CODE = re.compile(r"# exit code (\d)$")


class Line(NamedTuple):
    """A printed line: its words with a mark in the place of each number, and the numbers."""

    words: str
    numbers: list[float]


def read(line: str) -> Line:
    numbers = [float(number) for number in _NUMBER.findall(line)]
    return Line(" ".join(_NUMBER.sub("#", line).split()), numbers)


def shows(shown: str, printed: str) -> bool:
    """Whether the printed line begins as the one that is shown; another processor may differ in the last digits."""
    excerpt, line = read(shown), read(printed)
    same = line.words.startswith(excerpt.words)
    return same and line.numbers[: len(excerpt.numbers)] == pytest.approx(excerpt.numbers, rel=0.02, abs=0.06)


def assert_printed(excerpt: str, printed: str) -> None:
    rest = iter(printed.splitlines())
    for shown in excerpt.splitlines():
        assert shown == "..." or any(shows(shown, line) for line in rest), (
            f"{shown}\nis not printed, in this order:\n{printed}"
        )


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.end()


@pytest.mark.parametrize("name", ["report", "training", "service"])
def test_a_tutorial_prints_what_it_shows(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    background: Background,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENZYME_STABILITY_DATABASE", f"sqlite:///{tmp_path / 'service.db'}")
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    if name == "service":
        program = next(block for kind, block in FENCE.findall(text_of("training")) if kind == "python")
        exec(compile(program, "training.md", "exec"), {})  # noqa: S102 - our own text
    printed = ""
    compared = 0
    for kind, block in FENCE.findall(text_of(name).replace("8080", background.port)):
        if kind == "text":
            assert_printed(block, printed)
            printed, compared = "", compared + 1
        elif kind == "python":
            exec(compile(block, f"{name}.md", "exec"), {})  # noqa: S102 - our own text
            printed += capfd.readouterr().out
        elif kind == "bash":
            for command in commands(block):
                if command.startswith("enzyme-stability serve"):
                    background.start(command)
                    continue
                background.settle()
                code = _EXIT_CODE.search(command)
                assert run(command, monkeypatch) == (int(code[1]) if code else 0), command
                printed += "".join(capfd.readouterr())
    assert compared > 2


def text_of(name: str) -> str:
    return (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")


def test_an_excerpt_with_another_figure_is_noticed() -> None:
    printed = "id,tm\nP1,51.81\nP2,60.02\n"
    assert_printed("id,tm\n...\nP2,60.0\n", printed)
    with pytest.raises(AssertionError, match="P2"):
        assert_printed("P2,62.0\n", printed)
    with pytest.raises(AssertionError, match="P1"):
        assert_printed("P2,60.02\nP1,51.81\n", printed)
