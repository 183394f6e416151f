"""The service as it is run: the command in a process of its own, or the same server in a thread of the tests."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import uvicorn

from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.serving.app import create_app

WAIT_S = 60.0
"""The machine may be busy; nothing here takes as long."""

LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRCKGTDVQ"
    "AWIRGCRL"
)

T = TypeVar("T")

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")


@dataclass
class Running:
    """The command ``serve`` in a process of its own.

    Attributes:
        process: Of the command.
        port: Where it listens on 127.0.0.1.
        said: File with all that it wrote.
    """

    process: psutil.Popen
    port: int
    said: Path

    @property
    def client(self) -> httpx.Client:
        """A new one."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=WAIT_S)

    def peak_mib(self) -> float:
        """The most memory that the process had at any time."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(how)
        return int(self.process.wait(WAIT_S))

    def kill(self) -> None:
        """End it and those that it started, at once."""
        for member in [*self.process.children(recursive=True), self.process]:
            member.kill()
        self.process.wait(WAIT_S)


def start(*options: str | Path, **environment: str) -> Running:
    """Run ``enzyme-stability serve`` on a free port, or the one in the variable PORT, until it answers."""
    # Coverage would leave a damaged file where a process is killed.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    with tempfile.NamedTemporaryFile(prefix="service-", suffix=".log", delete=False) as said:
        process = psutil.Popen(
            [sys.executable, "-m", "enzyme_stability", "serve", "--threads", "1", *map(str, options)],
            stdout=said,
            stderr=said,
            env=inherited | {"OMP_NUM_THREADS": "1", "PORT": "0"} | environment,
        )
    log = Path(said.name)

    def address() -> int | None:
        assert process.poll() is None, log.read_text()
        found = _ADDRESS.search(log.read_text())
        return int(found[1]) if found else None

    running = Running(process, until(address), log)
    until(lambda: _is_ready(running))
    return running


def _is_ready(running: Running) -> bool:
    with running.client as client:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def served(*options: str | Path, **environment: str) -> Iterator[Running]:
    """``start``, for as long as the block lasts."""
    running = start(*options, **environment)
    try:
        yield running
    finally:
        if running.process.is_running():
            running.kill()
        running.said.unlink()


@contextmanager
def served_here(**settings: Any) -> Iterator[httpx.Client]:
    """The same application in a thread of this process, with these settings; a client of it."""
    config = ServingConfig(**{"threads": 1, "watch_minutes": 0, **settings})
    options: dict[str, Any] = {"log_config": None, "http": "h11", "ws": "none", "timeout_keep_alive": 15}
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert thread.is_alive(), "the service does not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
        yield client
    server.should_exit = True
    thread.join(WAIT_S)


def until(found: Callable[[], T | None], wait_s: float = WAIT_S) -> T:
    """Wait for something to be there or true."""
    patience = time.monotonic() + wait_s
    while not (value := found()):
        assert time.monotonic() < patience, "waited in vain"
        time.sleep(0.02)
    return value


def figure(client: httpx.Client, name: str) -> float:
    """The value of a metric, named without ``enzyme_stability_``; 0 where it was never counted."""
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    start = f"enzyme_stability_{name} "
    return float(next((line.removeprefix(start) for line in lines if line.startswith(start)), 0))


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    """Wait for a job to end; what the service then says of it."""

    def ended() -> dict[str, Any] | None:
        status: dict[str, Any] = client.get(f"/v1/jobs/{job}").raise_for_status().json()
        return status if status["state"] in {"done", "failed", "cancelled"} else None

    return until(ended)
