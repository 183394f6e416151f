"""What a reader of the documents would carry out, and how the tests do it for them."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enzyme_stability import cli

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
REDIRECTIONS = {"<", ">", "|"}
_SHELLS = {"bash", "console", "sh"}


def commands(block: str) -> list[str]:
    """The command lines of a shell block that call this package."""
    lines = (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("enzyme-stability ")]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """What a reader would carry out, in order: ('bash', a command) or ('python', a program)."""
    for language, block in FENCE.findall(text):
        if language in _SHELLS:
            yield from (("bash", command) for command in commands(block))
        elif language == "python":
            yield "python", block


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Exit code of a command, run in this process where no shell is needed: imports cost more than the work."""
    words = shlex.split(command, comments=True)
    if REDIRECTIONS.intersection(words):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(["bash", "-c", command], env={**os.environ, "PATH": path}, check=False).returncode
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


class Background:
    """The service that a reader starts and leaves running, on a port that is free."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: str) -> None:
        words = [sys.executable, "-m", "enzyme_stability", *shlex.split(command)[1:], "--port", self.port]
        self._running.append(subprocess.Popen(words))
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"http://localhost:{self.port}/readyz", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError(f"{command} does not answer")

    def settle(self) -> None:
        """Wait until every prediction is in the log, where there is a service: people type more slowly than tests."""
        while self._running:
            with urllib.request.urlopen(f"http://localhost:{self.port}/metrics", timeout=5) as metrics:
                if b"\nenzyme_stability_prediction_log_waiting 0.0\n" in metrics.read():
                    return
            time.sleep(0.1)

    def end(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait(30)
