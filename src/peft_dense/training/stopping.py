"""Ctrl-C and SIGTERM end a run after its step, with a whole state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["SIGNALS", "SignalHeard", "SignalListener", "Stopped"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What ends a run: Ctrl-C, and what schedulers and `kill` send."""


class Stopped(SystemExit):
    """A run was ended by a signal, and its state is kept.

    As a ``SystemExit`` it ends a script with the exit code that shells know: 130 for SIGINT, 143
    for SIGTERM.

    Args:
        number: The signal's.

    Example:
        >>> Stopped(signal.SIGTERM).code
        143
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class SignalHeard(BaseException):
    """A signal came within `SignalListener.leaving_at_once`."""


class SignalListener:
    """Note signals in ``heard`` instead of ending the process, between entry and exit.

    Outside the main thread, where Python can't listen, signals act as before.

    Example:
        >>> import os
        >>> with SignalListener() as listener:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     listener.heard == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.heard = 0
        self._leave = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> SignalListener:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number
        if self._leave:
            self._leave = False
            raise SignalHeard

    @contextmanager
    def leaving_at_once(self) -> Iterator[None]:
        """Let a signal raise `SignalHeard` at once within the context."""
        self._leave = True
        try:
            if self.heard:
                raise SignalHeard
            yield
        finally:
            self._leave = False
