"""Where the time and memory of a command go: a report of its Python code, and a trace of what PyTorch does."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from enzyme_stability.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import torch

TRACED_BATCHES = 10
"""Batches of each kind that are traced: the trace of a whole training run would have gigabytes."""

SAMPLED_S = 600.0
"""Seconds after which the Python code is no longer sampled where PyTorch runs: every sample takes memory."""

_OPERATORS = 40  # rows of the table, the slowest first
_MIB = 2**20
_NO_LOG = "99"  # else the tracer of PyTorch announces itself on standard error

Work = Literal["language_model", "training"]


@contextmanager
def profiled(folder: Path | None) -> Iterator[None]:
    """Write to ``folder`` where the time goes until the end, which may be an error or Ctrl-C.

    ``profile.html`` and ``profile.txt`` show the Python code of this thread by the time it takes; ``summary.json`` has
    seconds and peak memory. Where PyTorch runs, ``<work>_trace.json`` and ``<work>_operators.txt`` are about the first
    ``TRACED_BATCHES`` batches. PyTorch is not imported for it.

    Args:
        folder: Made where it is not there; None profiles nothing.

    Raises:
        ConfigError: The folder cannot be written to.
        MissingDependencyError: pyinstrument is not installed.
    """
    global _going_on  # noqa: PLW0603 - the batches are run far below, by code that knows of no profile
    if folder is None:
        yield
        return
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    profile = _going_on = _Profile(folder)
    ended_by: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended_by = error
        raise
    finally:
        _going_on = None
        with _writing(folder, unless=ended_by):
            profile.write(ended_by)


def before_batch(work: Work) -> None:
    """Say that PyTorch is about to run a batch; the first ones are traced where a profile was asked for."""
    if _going_on is not None:
        _going_on.before_batch(work)


class _Profile:
    """A profile that has begun: the Python code of this thread, then one kind of batches after the other."""

    def __init__(self, folder: Path) -> None:
        try:
            from pyinstrument import Profiler
        except ImportError:
            raise MissingDependencyError("--profile", "profile") from None
        os.environ.setdefault("KINETO_LOG_LEVEL", _NO_LOG)
        self._folder = folder
        self._batches: dict[str, int] = {}
        self._traces: dict[str, torch.profiler.profile] = {}
        self._traced: str | None = None
        self._wall, self._processor = time.perf_counter(), time.process_time()
        self._sampler = Profiler(async_mode="disabled")
        self._sampler.start(target_description=shlex.join(["enzyme-stability", *sys.argv[1:]]))

    def before_batch(self, work: Work) -> None:
        if time.perf_counter() - self._wall > SAMPLED_S:
            self._end_sampling()
        if self._traced is not None and (self._traced != work or self._batches[work] == TRACED_BATCHES):
            self._end_trace()
        if work not in self._batches:
            self._begin_trace(work)
        if self._traced == work:
            self._batches[work] += 1

    def write(self, ended_by: BaseException | None) -> None:
        """End the profile and write it."""
        self._end_sampling()
        self._end_trace()
        summary = {
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "processor_s": round(time.process_time() - self._processor, 3),
            "peak_memory_mib": _peak_memory_mib(),
            "peak_gpu_memory_mib": _peak_gpu_memory_mib(),
            "traced_batches": self._batches,
            "ended_by": None if ended_by is None else type(ended_by).__name__,
        }
        (self._folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (self._folder / "profile.txt").write_text(self._sampler.output_text(unicode=True), encoding="utf-8")
        (self._folder / "profile.html").write_text(self._sampler.output_html(), encoding="utf-8")
        for work, trace in self._traces.items():
            trace.export_chrome_trace(str(self._folder / f"{work}_trace.json"))
            order = "self_device_time_total" if _gpu_in_use() else "self_cpu_time_total"
            table = trace.key_averages().table(sort_by=order, row_limit=_OPERATORS)
            (self._folder / f"{work}_operators.txt").write_text(table, encoding="utf-8")

    def _end_sampling(self) -> None:
        if self._sampler.is_running:
            self._sampler.stop()

    def _begin_trace(self, work: Work) -> None:
        from torch import cuda, profiler

        kinds = [profiler.ProfilerActivity.CPU, *([profiler.ProfilerActivity.CUDA] if cuda.is_available() else [])]
        self._traced, self._batches[work] = work, 0
        self._traces[work] = profiler.profile(activities=kinds)
        self._traces[work].start()

    def _end_trace(self) -> None:
        if self._traced is not None:
            self._traces[self._traced].stop()
            self._traced = None


_going_on: _Profile | None = None


@contextmanager
def _writing(folder: Path, unless: BaseException | None = None) -> Iterator[None]:
    """Turn what a disk does not let happen into one sentence, unless something else went wrong before."""
    try:
        yield
    except OSError as error:
        if unless is None:
            raise ConfigError(f"--profile: cannot write to {folder}: {error.strerror or error}") from None


def _peak_memory_mib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows does not have it
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / _MIB, 1)


def _gpu_in_use() -> bool:
    loaded = sys.modules.get("torch")
    return loaded is not None and loaded.cuda.is_initialized()


def _peak_gpu_memory_mib() -> float | None:
    return round(sys.modules["torch"].cuda.max_memory_allocated() / _MIB, 1) if _gpu_in_use() else None
