"""Processes watched from outside, for speed.py: how long they take, what memory they hold, on which core they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from enzyme_stability.errors import DataError

_SAMPLE_EVERY_S = 0.01


class Run(NamedTuple):
    """One finished process: seconds it took and megabytes it held at most."""

    wall_s: float
    peak_mb: float
    output: str


class Memory:
    """Watches the resident set of a process from a thread of this one; use as a context manager."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            try:
                memory = self._process.memory_info()
            except psutil.Error:  # it has ended
                return
            self.peak_mb = max(self.peak_mb, getattr(memory, "peak_wset", memory.rss) / 1e6)
            self._done.wait(_SAMPLE_EVERY_S)


def program() -> list[str]:
    """The console script of the environment that runs this."""
    if os.name == "nt":  # there the script is a small program that starts Python: its memory would be watched instead
        return [sys.executable, "-c", "from enzyme_stability.cli import main; main()"]
    found = shutil.which("enzyme-stability", path=str(Path(sys.executable).parent)) or shutil.which("enzyme-stability")
    if found is None:
        raise DataError("the program 'enzyme-stability' is not installed beside this Python")
    return [found]


def finished(command: Sequence[str], *, watch: bool = True) -> Run:
    """Run to the end; memory is watched only where asked for, since that costs a little time."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if watch:
        with Memory(child.pid) as memory:
            output, said = child.communicate()
        peak = memory.peak_mb
    else:
        output, said = child.communicate()
        peak = float("nan")
    seconds = time.perf_counter() - started
    if child.returncode:
        raise DataError(f"{Path(command[0]).name} failed: {said.strip()[-500:]}")
    return Run(seconds, peak, output)


@contextmanager
def one_core() -> Iterator[bool]:
    """Keep this process and its children on one core; yields whether the system can do that."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        yield False
        return
    allowed = process.cpu_affinity()
    process.cpu_affinity(allowed[-1:])
    try:
        yield True
    finally:
        process.cpu_affinity(allowed)
