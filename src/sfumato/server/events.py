"""From the threads that see what happens to the clients that listen."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sfumato.server.jobs import Event

MOST_WAITING = 256
"""Events that a listener may be behind; one that is further behind loses the oldest."""


class Listener:
    """The events of one job, or of all."""

    def __init__(self, job: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self.job, self._loop = job, loop
        self._queue: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)

    def tell(self, event: Event) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # the loop is closed: nobody listens any more
            return

    def _put(self, event: Event) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def next(self) -> Event:
        """The next event."""
        return await self._queue.get()


class Events:
    """Who listens to what."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._lock = Lock()

    @contextmanager
    def listening(self, job: str | None = None) -> Iterator[Listener]:
        """A listener to one job, or to all. Within a running event loop."""
        listener = Listener(job, asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def tell(self, event: Event) -> None:
        """Tell everybody who listens. From any thread."""
        with self._lock:
            listeners = [each for each in self._listeners if each.job in (None, event.job)]
        for listener in listeners:
            listener.tell(event)
