"""What Windows lacks is not used: modules and functions of POSIX alone, an encoding that every letter has."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import enzyme_stability
from enzyme_stability.command_line import command_line

SOURCE = Path(enzyme_stability.__file__).parent
POSIX_MODULES = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        *("chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid"),
        *("killpg", "mkfifo", "nice", "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "O_DIRECTORY"),
    },
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
    "time": {"tzset"},
}

# Read by Python before it begins; other packages have their own ways on Windows.
WITHOUT_POSIX = f"""
import builtins
present = builtins.__import__
def absent(name, globals=None, *others, **more):
    if name in {POSIX_MODULES!r} and (globals or {{}}).get("__name__", "").startswith("enzyme_stability"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return present(name, globals, *others, **more)
builtins.__import__ = absent
"""


@pytest.fixture(scope="module")
def without_posix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python in which this package finds no module of POSIX alone."""
    folder = tmp_path_factory.mktemp("without_posix")
    (folder / "sitecustomize.py").write_text(WITHOUT_POSIX, encoding="utf-8")
    measured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return measured | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def run(cwd: Path, environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "enzyme_stability", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "{examples}", "-o", "tm.csv", "--report", "tm.html", "--profile", "profile"),
        ("scan", "{examples}", "--id", "P61494", "-o", "scan.csv"),
        ("keys", "create", "me", "--file", "keys.json"),
        ("train", "tm50", "--show"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_needs_nothing_that_windows_lacks(
    tmp_path: Path, examples: Path, without_posix: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = run(tmp_path, without_posix, *(word.format(examples=examples) for word in arguments))
    assert done.returncode == 0, done.stderr.decode()


def test_no_module_uses_what_posix_alone_has() -> None:
    used = []
    for path in SOURCE.rglob("*.py"):
        tree = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        tried = {
            child
            for node in tree
            if isinstance(node, ast.Try) and any(h.type and ast.unparse(h.type) == "ImportError" for h in node.handlers)
            for child in node.body
        }
        for node in (node for node in tree if node not in tried):
            match node:
                case ast.Import(names=names):
                    found = {name.name for name in names} & POSIX_MODULES
                case ast.ImportFrom(module=module, names=names):
                    found = {module} & POSIX_MODULES or {n.name for n in names} & POSIX_NAMES.get(str(module), set())
                case ast.Attribute(value=ast.Name(id=module), attr=name):
                    found = {name} & POSIX_NAMES.get(module, set())
                case _:
                    continue
            used += [f"{path.relative_to(SOURCE)}:{node.lineno} {name}" for name in found]
    assert used == []


def test_text_files_are_opened_with_an_encoding() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--preview", "--select", "PLW1514", SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_letter_that_the_terminal_lacks_ends_no_command(tmp_path: Path, encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = run(tmp_path, environment, "info", "builtin")
    assert done.returncode == 0, done.stderr.decode()
    card = done.stdout.decode(encoding)
    assert ("°C" if encoding == "cp1252" else "?C") in card


def test_a_command_is_quoted_as_the_system_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["enzyme-stability", "train", "--resume", "my runs"]
    read = {}
    for name in ("posix", "nt"):
        with monkeypatch.context() as system:
            system.setattr("os.name", name)
            read[name] = command_line(words)
    assert read["posix"] == "enzyme-stability train --resume 'my runs'"
    assert read["nt"] == 'enzyme-stability train --resume "my runs"'
