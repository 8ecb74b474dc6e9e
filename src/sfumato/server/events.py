"""From the threads that see what happens to the clients that listen."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from sfumato.server.jobs import Event

MOST_WAITING = 256
"""Events that a listener may be behind; one that is further behind loses the oldest about progress."""


class Listener:
    """The events of one job, or of all that are stored."""

    def __init__(self, job: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self.job, self._loop = job, loop
        self._waiting: deque[Event | None] = deque()
        self._arrived = asyncio.Event()

    def tell(self, event: Event | None) -> None:
        """From any thread; `None`: there will be no more."""
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # the loop is closed: nobody listens any more
            return

    def _put(self, event: Event | None) -> None:
        if len(self._waiting) >= MOST_WAITING:
            progress = (each for each in self._waiting if each is not None and each.kind == "progress")
            self._waiting.remove(next(progress, self._waiting[0]))
        self._waiting.append(event)
        self._arrived.set()

    async def next(self) -> Event | None:
        """The next event; `None` where there will be no more."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


class Events:
    """Who listens to what."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._lock = Lock()
        self._closed = False
        self.observers: list[Callable[[Event], None]] = []
        """What sees every event where it happens, in any thread, before the listeners."""

    @contextmanager
    def listening(self, job: str | None = None) -> Iterator[Listener]:
        """A listener to one job, or to all that are stored. Within a running event loop."""
        listener = Listener(job, asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
            if self._closed:
                listener.tell(None)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def tell(self, event: Event) -> None:
        """Tell everybody who listens. From any thread."""
        for observer in self.observers:
            observer(event)
        with self._lock:
            meant = {event.job, None} if event.stored else {event.job}
            listeners = [each for each in self._listeners if each.job in meant]
        for listener in listeners:
            listener.tell(event)

    def close(self) -> None:
        """Nothing more will happen: everybody's listening ends."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener.tell(None)
