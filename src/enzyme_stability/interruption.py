"""Ctrl-C that waits until nothing is half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self


class Interruption:
    """While it is entered, the first Ctrl-C stops what is ``allowed`` to be stopped, now or when it next begins.

    Elsewhere it is only remembered, for an exception out of nowhere leaves databases locked and threads behind. A
    second Ctrl-C stops whatever is going on.

    Attributes:
        asked: Whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._allowed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others are never sent one
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """What may be stopped at any point.

        Raises:
            KeyboardInterrupt: There was a Ctrl-C, before or within.
        """
        self._allowed = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False

    def _hear(self, *_: object) -> None:
        again, self.asked = self.asked, True
        if self._allowed or again:
            raise KeyboardInterrupt
