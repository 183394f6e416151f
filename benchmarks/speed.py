"""How fast prediction is, how much memory it takes, how big the base install is: each beside what to compare it with.

Prints five tables and writes speed.json:

- a cold 'enzyme-stability predict examples/enzymes.fasta' and a cold full scan of one of these enzymes, the whole
  process, beside a bare Python and beside Python that imports numpy and onnxruntime (runs take turns; files are in the
  operating system's cache);
- the E. coli proteome, wall time and peak memory, beside the limit: a process that reads the file and counts residues;
- throughput on one core over 100,000 proteins drawn from the sequence pool, beside the limit, beside each stage alone
  and by length of the protein;
- a stream of 200,000 proteins (--full: a million) through standard input, the pool over and over: memory at a tenth of
  the way and at the end;
- the size of the installed files of the base dependencies, without extras.

Needs the extra 'dev' and, of the public data sets, proteomes/ and sequences/. Memory is the resident set, sampled
every 10 ms. Elsewhere than on Linux and Windows a process cannot be kept on one core: the figure is then of one thread.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import typer

from enzyme_stability.errors import DataError
from installed import install_size
from processes import Memory, finished, one_core, program
from reporting import DATA, RESULTS, ROOT, Data, Results, Smoke, data_file, keep, machine, number, run, show

TARGETS: dict[str, float] = {
    "cold_start_s": 1.0,
    "cold_scan_s": 2.0,
    "proteome_s": 5.0,
    "proteome_mb": 400.0,
    "sequences_per_second_and_core": 2000.0,
    "install_mb": 200.0,
}
"""What this project promises."""

PROTEOME = "proteomes/UP000000625_escherichia_coli.fasta.gz"
POOL = "sequences/pool.fasta.gz"
_EXAMPLES = ROOT / "examples" / "enzymes.fasta"
_SCANNED = "P00330"
_STAGES = str(Path(__file__).with_name("stages.py"))
_SEED = 0


class Sizes(NamedTuple):
    """How much work to do."""

    runs: int
    sample: int
    stream: int


def main(
    data: Data = DATA,
    limit: Annotated[int | None, typer.Option(min=100, help="Proteins in the stream.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Stream a million proteins.")] = False,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Measure speed, memory and size; see the top of this file."""
    sizes = Sizes(1, 300, 2000) if smoke else Sizes(7, 100_000, 1_000_000 if full else 200_000)
    sizes = sizes._replace(stream=limit or sizes.stream)
    proteome, pool = data_file(data, PROTEOME), data_file(data, POOL)
    facts = machine()
    figures = {
        "targets": TARGETS,
        "cold_start": cold_start(sizes.runs),
        "proteome": proteomefinished(proteome, max(1, sizes.runs - 2)),
        "throughput": throughput(pool, sizes.sample),
        "stream": stream(pool, sizes.stream),
        "install": install_size(),
    }
    _print(figures)
    print(f"\nfigures are in {keep('speed', results, figures, facts, smoke=smoke).name}")


def cold_start(runs: int) -> dict[str, Any]:
    """Median seconds of whole processes; the runs take turns, so that a busy moment meets all of them."""
    commands = {
        "predict 12 enzymes": [*program(), "predict", str(_EXAMPLES)],
        "scan 348 residues": [*program(), "scan", str(_EXAMPLES), "--id", _SCANNED],
        "import numpy, onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
        "bare Python": [sys.executable, "-c", "pass"],
    }
    return _in_turn(commands, runs)


def proteomefinished(path: Path, runs: int) -> dict[str, Any]:
    """A whole proteome, beside reading the file and counting residues."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "predict": [*program(), "predict", str(path), "--output", str(Path(folder, "tm.csv"))],
            "read and count residues": [sys.executable, _STAGES, "count", str(path)],
        }
        measured = _in_turn(commands, runs)
        with Path(folder, "tm.csv").open(encoding="utf-8") as rows:
            measured["proteins"] = sum(1 for _ in rows) - 1
    return measured


def throughput(pool: Path, sample: int) -> dict[str, Any]:
    """Sequences a second on one core: the whole program, the limit, each stage alone and by length."""
    with tempfile.TemporaryDirectory() as folder, one_core() as pinned:
        path = Path(folder, "sample.fasta")
        _draw(pool, sample, path)
        limit = finished([sys.executable, _STAGES, "count", str(path)])
        whole = finished([*program(), "predict", str(path), "--threads", "1", "--output", str(Path(folder, "tm.csv"))])
        parts = json.loads(finished([sys.executable, _STAGES, "stages", str(path)]).output)
    sequences = parts["sequences"]
    seconds = {"predict (whole program)": whole.wall_s, "read and count residues (whole program)": limit.wall_s}
    seconds |= {f"{name} alone": value for name, value in parts["seconds"].items()}
    return {
        "one_core": pinned,
        "sequences": sequences,
        "residues": parts["residues"],
        "peak_mb": whole.peak_mb,
        "rows": {
            name: {"seconds": value, "sequences_per_second": sequences / value if value else None}
            for name, value in seconds.items()
        },
        "by_length": [
            {
                **bucket,
                "sequences_per_second": bucket["sequences"] / bucket["seconds"],
                "residues_per_second": bucket["residues"] / bucket["seconds"],
            }
            for bucket in parts["by_length"]
        ],
    }


def stream(pool: Path, proteins: int) -> dict[str, Any]:
    """Peak memory after a tenth of a long stream and at its end."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [*program(), "predict", "-", "--format", "csv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if child.stdin is None or child.stderr is None:
        raise DataError("the program could not be given a stream")
    said: list[bytes] = []
    listener = threading.Thread(target=lambda source: said.append(source.read()), args=(child.stderr,))
    listener.start()
    with Memory(child.pid) as memory:
        residues, tenth = _feed(child.stdin, pool, proteins, memory)
        child.wait()
    listener.join()
    if child.returncode:
        raise DataError(f"prediction of the stream failed: {b''.join(said).decode()}")
    seconds = time.perf_counter() - started
    return {
        "proteins": proteins,
        "residues": residues,
        "seconds": seconds,
        "sequences_per_second": proteins / seconds,
        "peak_mb_at_a_tenth": tenth,
        "peak_mb": memory.peak_mb,
    }


def _in_turn(commands: dict[str, list[str]], runs: int) -> dict[str, Any]:
    walls: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            walls[name].append(finished(command, watch=False).wall_s)
    rows = {
        name: {
            "median_s": statistics.median(seconds),
            "fastest_s": min(seconds),
            "slowest_s": max(seconds),
            "peak_mb": finished(commands[name]).peak_mb,
        }
        for name, seconds in walls.items()
    }
    return {"runs": runs, "rows": rows}


def _pool_records(pool: Path) -> Iterator[bytes]:
    """Sequences of the pool, line ends left in; one at a time, to keep this process small."""
    with gzip.open(pool) as lines:
        parts: list[bytes] = []
        for line in lines:
            if line.startswith(b">"):
                if parts:
                    yield b"".join(parts)
                parts = []
            else:
                parts.append(line)
        if parts:
            yield b"".join(parts)


def _draw(pool: Path, sample: int, path: Path) -> None:
    """Write ``sample`` proteins of the pool, drawn at random, as FASTA."""
    available = sum(1 for _ in _pool_records(pool))
    chosen = set(random.Random(_SEED).sample(range(available), min(sample, available)))  # noqa: S311 (not a secret)
    with path.open("wb") as out:
        for place, sequence in enumerate(_pool_records(pool)):
            if place in chosen:
                out.write(b">p%d\n%s" % (place, sequence))


def _feed(pipe: IO[bytes], pool: Path, proteins: int, memory: Memory) -> tuple[int, float]:
    """Write ``proteins`` records; returns their residues and the peak memory after a tenth of them."""
    endless = chain.from_iterable(_pool_records(path) for path in repeat(pool))
    residues, tenth = 0, 0.0
    with suppress(BrokenPipeError), pipe:  # a program that has stopped says why on its standard error
        for place, sequence in zip(count(1), islice(endless, proteins)):
            pipe.write(b">p%d\n%s" % (place, sequence))
            residues += len(sequence) - sequence.count(b"\n")
            if place == proteins // 10:
                tenth = memory.peak_mb
    return residues, tenth


def _print(figures: dict[str, Any]) -> None:
    cold, proteome, one_core, streamed, size = (
        figures[key] for key in ("cold_start", "proteome", "throughput", "stream", "install")
    )
    targets = [f"{TARGETS[name]:g} s" for name in ("cold_start_s", "cold_scan_s")]
    _print_turns("cold start, whole process", cold, "targets < {}, scan < {}".format(*targets))
    _print_turns(
        f"E. coli proteome, {proteome['proteins']:,} proteins",
        proteome,
        f"targets < {TARGETS['proteome_s']:g} s, < {TARGETS['proteome_mb']:g} MB",
    )
    fastest = one_core["rows"]["predict (whole program)"]["seconds"]
    show(
        f"{'one core' if one_core['one_core'] else 'one thread'}: {one_core['sequences']:,} proteins, "
        f"{one_core['residues']:,} residues, peak {one_core['peak_mb']:.0f} MB; "
        f"target >= {TARGETS['sequences_per_second_and_core']:,.0f} a second",
        ("", "seconds", "sequences a second", "share of predict's time"),
        [
            (name, number(r["seconds"]), number(r["sequences_per_second"], 0), f"{r['seconds'] / fastest:.0%}")
            for name, r in one_core["rows"].items()
        ],
    )
    show(
        "by length of the protein, prediction in one process on one thread",
        ("residues", "proteins", "sequences a second", "residues a second"),
        [
            (
                b["length"],
                f"{b['sequences']:,}",
                number(b["sequences_per_second"], 0),
                number(b["residues_per_second"], 0),
            )
            for b in one_core["by_length"]
        ],
    )
    ratio = streamed["peak_mb"] / streamed["peak_mb_at_a_tenth"] if streamed["peak_mb_at_a_tenth"] else None
    show(
        f"stream of {streamed['proteins']:,} proteins through standard input, all cores: "
        f"{streamed['seconds']:.1f} s, {streamed['sequences_per_second']:,.0f} a second",
        ("", "peak MB"),
        [
            ("after a tenth of the stream", number(streamed["peak_mb_at_a_tenth"], 0)),
            ("at its end", number(streamed["peak_mb"], 0)),
            ("ratio", number(ratio, 3)),
        ],
    )
    largest = sorted(size["distributions_mb"].items(), key=lambda item: -item[1])
    show(
        f"base install, target < {TARGETS['install_mb']:g} MB",
        ("distribution", "MB"),
        [
            *((name, number(megabytes, 1)) for name, megabytes in largest[:6]),
            (f"{len(largest[6:])} others", number(sum(megabytes for _, megabytes in largest[6:]), 1)),
            ("all", number(size["total_mb"], 1)),
        ],
    )


def _print_turns(title: str, measured: dict[str, Any], target: str) -> None:
    rows = measured["rows"]
    first = next(iter(rows.values()))
    show(
        f"{title}, median of {measured['runs']} runs; {target}",
        ("", "seconds", "fastest", "slowest", "first / this", "peak MB"),
        [
            (
                name,
                number(row["median_s"], 3),
                number(row["fastest_s"], 3),
                number(row["slowest_s"], 3),
                number(first["median_s"] / row["median_s"], 1),
                number(row["peak_mb"], 0),
            )
            for name, row in rows.items()
        ],
    )


if __name__ == "__main__":
    run(main)
