"""One JSON object per line on standard error: what was asked and answered, never by whom or with which sequence."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import re
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from enzyme_stability.errors import ConfigError

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered; every line logged meanwhile carries it."""

LEVELS = ("debug", "info", "warning", "error", "critical")
"""Names that ``log_config`` takes."""

FIELDS = ("method", "route", "status", "duration_ms", "records", "residues", "client")
"""Names that a line may carry beside its event, given as ``extra=``; others are left out."""

PRIVATE_FIELDS = ("ids", "sequences")
"""As ``FIELDS``, but only where the operator has asked for sequences."""

# What a library says may quote the input: chains are longer than words, keys start with es_.
_KEY = re.compile(r"\bes_[\w-]{20,}")
_CHAIN = re.compile(r"[A-Za-z*]{40,}")


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object without line breaks: time, level, logger, event, request_id, fields, error."""

    def __init__(self, sequences: bool = False) -> None:
        """Make a formatter.

        Args:
            sequences: Whether ids, sequences and the messages of exceptions, which may quote them, are written.
        """
        super().__init__()
        self._sequences = sequences

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; it never fails, as the text of a failure would hold the arguments."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._clean(_event(record)),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        for name in (*FIELDS, *(PRIVATE_FIELDS if self._sequences else ())):
            if (value := record.__dict__.get(name)) is not None:
                line[name] = _plain(value)
        if record.exc_info and record.exc_info[1]:
            line |= self._error(record.exc_info[1])
        return json.dumps(line, default=str)  # ASCII: line breaks of any alphabet are escaped

    def _clean(self, text: str) -> str:
        text = _KEY.sub("[key]", text)
        return text if self._sequences else _CHAIN.sub(lambda chain: f"[{len(chain[0])} letters]", text)

    def _error(self, error: BaseException) -> dict[str, object]:
        if self._sequences:
            trace = "".join(traceback.format_exception(error))
        else:
            trace = "".join(line for link in _chain(error) for line in traceback.format_tb(link.__traceback__))
        return {"error": " from ".join(type(link).__name__ for link in _chain(error)), "traceback": self._clean(trace)}


def log_config(level: str = "info", *, sequences: bool = False) -> dict[str, Any]:
    """Settings for ``logging.config.dictConfig`` and uvicorn's ``log_config``.

    uvicorn's own access lines are off: they hold paths as they were sent, and with them the ids of jobs.

    Args:
        level: One of ``LEVELS``, for this package and uvicorn; other packages speak from warnings on.
        sequences: See ``JsonFormatter``.

    Raises:
        ConfigError: The level is unknown.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"the log level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    least = level.upper()
    others = "WARNING" if LEVELS.index(level.lower()) < LEVELS.index("warning") else least
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}", "sequences": sequences}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"},
            "none": {"class": "logging.NullHandler"},  # without any, Python would write warnings as they are
        },
        "root": {"handlers": ["stderr"], "level": others},
        "loggers": {
            "enzyme_stability": {"level": least},
            "uvicorn": {"level": least},
            "uvicorn.error": {"level": least},
            "uvicorn.access": {"handlers": ["none"], "level": "CRITICAL", "propagate": False},
        },
    }


def _event(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except Exception:  # arguments that do not fit their message
        return str(record.msg)


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what each one was raised from."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
