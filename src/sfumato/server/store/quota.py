"""How much an owner may ask for within an hour, and the error where that or the queue is full."""

import time
from collections import defaultdict, deque

from sqlalchemy import Connection, func, select

from sfumato.errors import SfumatoError
from sfumato.server.store.tables import jobs

QUOTA_SECONDS = 3600
QUEUE_SECONDS = 5
"""After which a client may try again where the queue is full."""


class BusyError(SfumatoError):
    """No more may be asked for now; `seconds` from now perhaps."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class Quota:
    """Pictures that owners may ask for: those of stored jobs, and those of others, which are counted here."""

    def __init__(self) -> None:
        self._unstored: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        """By owner: when a job that is not stored was accepted, and for how many pictures."""

    def check(self, connection: Connection, owner: str, count: int, quota: int) -> None:
        """Raise `BusyError` where `owner` would have asked for more than `quota` pictures within an hour."""
        now = time.time()
        lately = (jobs.c.owner == owner, jobs.c.created > now - QUOTA_SECONDS)
        query = select(func.coalesce(func.sum(jobs.c.count), 0), func.min(jobs.c.created)).where(*lately)
        asked, first = connection.execute(query).one()
        unstored = self._unstored[owner]
        while unstored and unstored[0][0] <= now - QUOTA_SECONDS:
            unstored.popleft()
        asked += sum(count for _, count in unstored)
        if asked + count > quota:
            oldest = min([now if first is None else first, *(when for when, _ in unstored)])
            seconds = max(int(oldest + QUOTA_SECONDS - now) + 1, 1)
            raise BusyError(
                f"{asked} pictures were asked for within an hour, of {quota} that may be", seconds
            )

    def count(self, owner: str, pictures: int) -> None:
        """A job of `owner` that is not stored was accepted."""
        self._unstored[owner].append((time.time(), pictures))
