"""Whether a version is slower than another: compare.py OLD NEW, folders with speed.json and head_training.json.

Compared are ratios to a bare process or loop measured in the same minutes, for seconds of two machines are not
comparable. Exit code 1 where a ratio got more than a tenth worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from enzyme_stability.errors import DataError
from reporting import number, run, show

TOLERATED_LOSS = 0.10


def main(
    old: Annotated[Path, typer.Argument(help="Folder with the figures to hold the new ones against.")],
    new: Annotated[Path, typer.Argument(help="Folder with the figures to judge.")],
) -> None:
    """Compare the speed of two versions; see the top of this file."""
    before, after = ratios(old), ratios(new)
    worse = {name for name in before if after[name] < before[name] * (1 - TOLERATED_LOSS)}
    show(
        "times as fast as the bare process or loop; of the memory at the end, the share at a tenth of the way",
        ("", "old", "new", ""),
        [(name, number(before[name], 3), number(after[name], 3), "worse" if name in worse else "") for name in before],
    )
    if worse:
        print(f"more than {TOLERATED_LOSS:.0%} worse: {', '.join(sorted(worse))}")
        raise typer.Exit(1)


def ratios(folder: Path) -> dict[str, float]:
    """Each figure of a folder; the larger the better.

    Raises:
        DataError: A file is missing or is none of these benchmarks.
    """
    try:
        speed, training = (_figures(folder / name) for name in ("speed.json", "head_training.json"))
        cold, proteome, core = speed["cold_start"]["rows"], speed["proteome"]["rows"], speed["throughput"]["rows"]
        bare = cold["import numpy, onnxruntime"]["fastest_s"]
        return {
            "cold predict": bare / cold["predict 12 enzymes"]["fastest_s"],
            "cold scan": bare / cold["scan 348 residues"]["fastest_s"],
            "proteome": proteome["read and count residues"]["fastest_s"] / proteome["predict"]["fastest_s"],
            "one core": core["read and count residues (whole program)"]["seconds"]
            / core["predict (whole program)"]["seconds"],
            "memory of a stream": speed["stream"]["peak_mb_at_a_tenth"] / speed["stream"]["peak_mb"],
            "training of a head": training["rows"]["ours"]["times_usual"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be compared ({error!r}); run speed.py and head_training.py again") from error


def _figures(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    run(main)
