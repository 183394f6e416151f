"""How much the HTTP service answers on this machine, how fast, in how much memory; beside a naive endpoint.

Servers run as processes of their own; wrk (Debian package wrk) asks over loopback from another one, a single protein a
request, drawn from Tm50Train. Server, load and database share the machine's cores. Prints and writes service_load.json:

- throughput, median and 99th percentile at rising numbers of connections, each of which asks again once it is answered;
- the same at half of the highest throughput, with random (exponential) pauses between the requests of 64 connections;
- ten times as many connections as gave the highest throughput: which statuses are answered, and what fails;
- memory of all processes of the server before and after 100,000 requests;
- the naive endpoint (naive_service.py), at its best number of connections.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Annotated, Any

import pandas as pd
import psutil
import typer

from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, keep, machine, number, run, show

TABLE = "tm/tm50/Tm50Train.csv"
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
BODIES = 500
_PATIENCE_S = 60

_SCRIPT = Template("""
local bodies = {}
for line in io.lines("$bodies") do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json"}
local threads, next_one = {}, 0
function setup(thread) table.insert(threads, thread) end
function init(args) statuses = {}; statuses_seen = "" end
function request()
  next_one = next_one % #bodies + 1
  return wrk.format("POST", "$path", headers, bodies[next_one])
end
function response(status) statuses[status] = (statuses[status] or 0) + 1
  local parts = {}
  if status ~= 200 or statuses[status] % 100 == 1 then
    for code, count in pairs(statuses) do parts[#parts + 1] = '"' .. code .. '":' .. count end
    statuses_seen = table.concat(parts, ",")
  end
end
function delay() return math.floor(-math.log(1 - math.random()) * $pause) end
function done(summary, latency, requests)
  local seen = {}
  for _, thread in ipairs(threads) do seen[#seen + 1] = "{" .. thread:get("statuses_seen") .. "}" end
  print(string.format('FIGURES {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"not_2xx":%d,"connect":%d,"read":%d,'
    .. '"write":%d,"timeout":%d,"statuses":[%s]}', summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.status, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.timeout, table.concat(seen, ",")))
end
""")


def main(
    data: Data = DATA,
    results: Results = RESULTS,
    smoke: Smoke = False,
    seconds: Annotated[int, typer.Option(min=1, help="Of each measurement.")] = 10,
    requests: Annotated[int, typer.Option(min=1, help="Requests over which memory is watched.")] = 100_000,
) -> None:
    """Load the service and the naive endpoint in turn."""
    facts = machine()
    if shutil.which("wrk") is None:
        typer.echo("error: wrk is not installed: apt-get install wrk", err=True)
        raise typer.Exit(2)
    seconds, requests = (1, 200) if smoke else (seconds, requests)
    connections = CONNECTIONS[:2] if smoke else CONNECTIONS
    sequences = pd.read_csv(data_file(data, TABLE)).sequence.sample(BODIES, random_state=0).tolist()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ours = scratch / "ours.jsonl"
        ours.write_text("".join(json.dumps({"records": [{"sequence": s}]}) + "\n" for s in sequences))
        naive = scratch / "naive.jsonl"
        naive.write_text("".join(json.dumps({"sequence": s}) + "\n" for s in sequences))
        figures: dict[str, Any] = {
            f"{workers} worker{'s' * (workers > 1)}": of_service(scratch, ours, workers, connections, seconds, requests)
            for workers in ((1,) if smoke else (1, 2))
        }
        with serving(
            "-m", "uvicorn", "naive_service:app", "--log-level", "error", "--port", cwd=Path(__file__).parent
        ) as (
            port,
            _,
        ):
            rows = [load(scratch, port, "/predict", naive, n, seconds) for n in connections[:4]]
        figures["naive"] = {"rising": rows, "peak": best(rows)}
    ratio = {name: one["peak"]["per_s"] / figures["naive"]["peak"]["per_s"] for name, one in figures.items()}
    say(figures, ratio)
    path = keep(
        "service_load", results, {"seconds": seconds, "figures": figures, "times_naive": ratio}, facts, smoke=smoke
    )
    print(f"\nwritten to {path}")


def of_service(
    scratch: Path, bodies: Path, workers: int, connections: tuple[int, ...], seconds: int, requests: int
) -> dict[str, Any]:
    """All measurements of the service with so many workers."""
    database = scratch / f"service_{workers}.db"
    command = ("-m", "enzyme_stability", "serve", "--log-level", "error", "--workers", str(workers))
    with serving(*command, "--database", f"sqlite:///{database}", "--port") as (port, process):
        path = "/v1/predict"
        load(scratch, port, path, bodies, 8, min(seconds, 3))  # warm
        rising = [load(scratch, port, path, bodies, n, seconds) for n in connections]
        peak = best(rising)
        pause = round(1000 * 64 / (peak["per_s"] / 2))
        half = load(scratch, port, path, bodies, 64, seconds, pause_ms=pause)
        overload = load(scratch, port, path, bodies, 10 * peak["connections"], seconds)
        before, done = memory(process), 0
        course = [before]
        while done < requests:
            done += load(scratch, port, path, bodies, peak["connections"], seconds)["requests"]
            course.append(memory(process))
    return {
        "rising": rising,
        "peak": peak,
        "half_of_peak": half,
        "overload": overload,
        "memory": {"requests": done, "before_mib": before, "after_mib": course[-1], "course_mib": course},
    }


def best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with the highest throughput."""
    return max(rows, key=lambda row: row["per_s"])


@contextmanager
def serving(*command: str, cwd: Path | None = None) -> Iterator[tuple[int, psutil.Process]]:
    """A server on a free port, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, *command, str(port)], cwd=cwd, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            time.sleep(0.2)
        yield port, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(_PATIENCE_S)


def answers(port: int) -> bool:
    """Whether something on the port speaks HTTP; the naive endpoint has no /readyz, and says so."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 404
    except OSError:
        return False


def load(
    scratch: Path, port: int, path: str, bodies: Path, connections: int, seconds: int, pause_ms: int = 0
) -> dict[str, Any]:
    """One run of wrk."""
    script = scratch / "load.lua"
    script.write_text(_SCRIPT.substitute(bodies=bodies, path=path, pause=pause_ms))
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
    done = subprocess.run(
        ["wrk", *options, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True, timeout=seconds + 120
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("FIGURES "))
    found = json.loads(line.removeprefix("FIGURES "))
    return {
        "connections": connections,
        "requests": found["requests"],
        "per_s": found["requests"] / found["microseconds"] * 1e6,
        "p50_ms": found["p50"] / 1000,
        "p99_ms": found["p99"] / 1000,
        "not_200": found["not_2xx"],
        "statuses_not_200": {code: n for code, n in found["statuses"][0].items() if code != "200"},
        "broken_connections": found["connect"] + found["read"] + found["write"] + found["timeout"],
    }


def memory(process: psutil.Process) -> float:
    """Resident memory of a process and those it started, in MiB."""
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 2**20


def say(figures: dict[str, Any], ratio: dict[str, float]) -> None:
    """Print the tables."""
    columns = ("", "connections", "requests/s", "median (ms)", "99 % (ms)", "not 200", "broken")

    def row(name: str, one: dict[str, Any]) -> tuple[Any, ...]:
        said = ", ".join(f"{n} x {code}" for code, n in one["statuses_not_200"].items()) or one["not_200"]
        speed = (number(one[key], 1) for key in ("per_s", "p50_ms", "p99_ms"))
        return (name, one["connections"], *speed, said, one["broken_connections"])

    for name, one in figures.items():
        rows = [row("", each) for each in one["rising"]]
        rows += [row(what.replace("_", " "), one[what]) for what in ("half_of_peak", "overload") if what in one]
        show(f"{name}: {ratio[name]:.1f} times the naive endpoint", columns, rows)
        if "memory" in one:
            watched = one["memory"]
            print(
                f"memory: {watched['before_mib']:.0f} MiB before, {watched['after_mib']:.0f} MiB after "
                f"{watched['requests']:,} requests"
            )


if __name__ == "__main__":
    run(main)
