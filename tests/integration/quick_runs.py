"""Training runs that take a second or two, in this process or as a command of their own."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose

ENCODER = ("encoder=composition", "encoder.blocks=[amino_acids,whole_chain]")
HEADS = {
    "ridge": ("head=ridge", "head.inner_folds=3"),
    "trees": ("head=trees", "head.trees=40", "head.learning_rate=0.15", "head.minimum_leaf_size=8"),
    "mlp": ("head=mlp", "head.hidden=[16]", "head.learning_rate=0.01", "trainer.max_epochs=12"),
}
SPLIT = ("split.calibration_share=0.3", "split.folds=0")
WAIT_S = 120.0


def overrides(head: str, table: Path, output: Path, *changes: str) -> list[str]:
    """What 'train' is given; of two values for one setting the last counts."""
    given = [f'data.path="{table}"', *ENCODER, *HEADS[head], *SPLIT, f'output="{output}"', *changes]
    return [f"{name}={value}" for name, value in dict(o.split("=", 1) for o in given).items()]


def configured(head: str, table: Path, output: Path, *changes: str) -> TrainConfig:
    return compose(overrides(head, table, output, *changes))


def heads_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(*arguments: str | Path, before: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own.

    Args:
        arguments: Of the command line.
        before: A command that runs it.
        environment: Variables to set.
    """
    return subprocess.Popen(
        [*before, sys.executable, "-m", "enzyme_stability", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        # A background shell has its children ignore the interrupt; a person's terminal does not.
        preexec_fn=_heed_interrupts if os.name == "posix" else None,  # noqa: PLW1509
    )


def finish(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error; there is never a traceback."""
    try:
        _, err = running.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        running.kill()
        raise
    assert "Traceback" not in err, err
    return running.returncode, err


def stop_when(running: subprocess.Popen[str], due: Callable[[], bool], by: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as ``due`` says so; exit code and standard error."""
    patience = time.monotonic() + WAIT_S
    while not due():
        assert running.poll() is None, f"it ended before: {running.communicate()[1]}"
        assert time.monotonic() < patience
        time.sleep(0.002)
    running.send_signal(by)
    return finish(running)


def epochs(folder: Path, stage: str) -> int:
    """Epochs that a run has logged of one stage: the start of its column's name."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return sum(bool(row.get(f"{stage}validation_loss")) for row in rows)
