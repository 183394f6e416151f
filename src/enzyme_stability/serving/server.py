"""Runs the application under uvicorn: one process or several, and a quiet end."""

from __future__ import annotations

import math
import os
import socket
import tempfile
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.errors import ConfigError
from enzyme_stability.predictor import Predictor
from enzyme_stability.serving.answers import error_response
from enzyme_stability.serving.app import SETTINGS, create_app
from enzyme_stability.serving.limits import SECURITY_HEADERS
from enzyme_stability.serving.logs import log_config

_KEEP_ALIVE_S = 15
_HEADERS = 32 << 10  # bytes
_BACKLOG = 2048  # connections that wait to be taken


class Connection(H11Protocol):
    """As uvicorn's, but a request has to begin in good time, and what is no HTTP is answered like everything else.

    Args:
        arguments: Of uvicorn's.
        patience_s: Seconds for the head of a request to arrive.
        settings: Of uvicorn's.
    """

    def __init__(self, *arguments: Any, patience_s: float, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._patience_s = patience_s
        self._patience: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._be_patient(self._patience_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn would do so for ever once the first byte of it, or of a body, is there."""
        still_sending = self.conn.their_state is h11.SEND_BODY
        self._be_patient(self._patience_s + (0 if still_sending else self.timeout_keep_alive))
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read."""
        answer = error_response(400, "malformed", msg, {**SECURITY_HEADERS, "Connection": "close"})
        for event in (
            h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _be_patient(self, seconds: float) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def serve(
    config: ServingConfig,
    *,
    host: str,
    port: int,
    workers: int,
    log_level: str,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer requests until told to end by SIGTERM or Ctrl-C.

    Args:
        config: Of the service.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        workers: Processes, each with the built-in model in its memory. A language model takes all cores by itself and
            is held once.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        announce: Told the address once connections are taken.

    Raises:
        ConfigError: Several processes are asked for a language model, the address is taken, or a setting is wrong.
        ArtifactError: The model cannot be loaded.
    """
    predictor = Predictor.load(config.model, config.threads)
    if workers > 1 and predictor.manifest["encoder"]["kind"] != "composition":
        raise ConfigError(
            f"{predictor.name} is a language model, which takes all cores by itself: serve it with one worker"
        )
    settings: dict[str, Any] = {
        "log_config": log_config(log_level, sequences=config.log_sequences),
        "http": partial(Connection, patience_s=config.body_timeout_s),
        "h11_max_incomplete_event_size": _HEADERS,
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": math.ceil(config.drain_timeout_s),
        "server_header": False,
        "proxy_headers": False,
        "access_log": False,
        "ws": "none",
    }
    app = create_app(config)
    app.state.service.load()  # what is wrong with it is said before anything begins
    with _listening(host, port) as listener:
        settings |= {"host": host, "port": listener.getsockname()[1]}
        announce(f"http://{f'[{host}]' if ':' in host else host}:{settings['port']}/")
        if workers == 1:
            with suppress(KeyboardInterrupt):  # uvicorn has ended by then, and passes it on
                uvicorn.Server(uvicorn.Config(app, **settings)).run([listener])
            return
        os.environ[SETTINGS] = config.model_dump_json()
        with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as metrics:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics  # where the processes add up what they count
            factory = "enzyme_stability.serving.app:from_environment"
            Multiprocess(uvicorn.Config(factory, factory=True, workers=workers, **settings), [listener]).run()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"no service can listen on {host}, port {port}: {why}; choose another --port") from None
