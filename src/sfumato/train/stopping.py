"""Stopping between two steps: signals that wait until the step is saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sfumato.errors import warn


class Signals:
    """The first SIGINT or SIGTERM is only remembered; the second does what the first would have done."""

    def __init__(self) -> None:
        self.received = 0
        """The number of the one that is remembered, else 0."""
        self._former: dict[int, Any] = {}

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """In the block signals wait. Only the main thread can have that; in any other this does nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._former[number] = signal.signal(number, self._remember)
        try:
            yield
        finally:
            for former, handler in self._former.items():
                signal.signal(former, handler)

    def deliver(self, number: int) -> None:
        """Have signal `number` do, after the block, what it would have done."""
        handler = self._former.get(number, signal.SIG_DFL)
        if callable(handler):
            handler(number, None)
        else:
            os.kill(os.getpid(), number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self.deliver(number)
        self.received = number
        # stderr may be in the middle of a line, which it does not let itself be interrupted in
        with suppress(RuntimeError):
            warn("stopping after this step; a second signal (Ctrl-C) stops at once")
