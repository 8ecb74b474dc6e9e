"""What the server asks the processes that draw: how a prompt is read, what a model is. They have torch, and
the server stays light without it.
"""

from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import BoundedSemaphore, Condition, Lock
from time import monotonic
from typing import ParamSpec, TypeVar

from sfumato.server.store.quota import BusyError
from sfumato.server.worker.answering import Answer, Question

MOST_WAITING = 8
"""Questions that may wait for their answers."""
PATIENCE_SECONDS = 30.0
"""How long one waits, as while a worker starts."""
BUSY_SECONDS = 2
P = ParamSpec("P")
T = TypeVar("T")


class Questions:
    """Has functions called in a worker. `answered`: as that of `Workers`."""

    def __init__(self, answered: Callable[[Question, float], Answer | None]) -> None:
        self._answered = answered
        self._room = BoundedSemaphore(MOST_WAITING)

    def ask(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """What `function`, of a module, gives in a worker, or raises there.

        Raises `BusyError` where no worker answers in time, or too many ask.
        """
        if not self._room.acquire(blocking=False):
            raise BusyError("too many prompts and models are being read; try again later", BUSY_SECONDS)
        try:
            answer = self._answered(Question(function, args, options), PATIENCE_SECONDS)
        finally:
            self._room.release()
        if answer is None:
            raise BusyError("no process that draws answers yet; try again later", BUSY_SECONDS)
        if answer.error is not None:
            raise answer.error
        found: T = answer.value
        return found


class QuestionPipe:
    """The way of questions to the worker of this machine that started last."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._changed = Condition()
        self._asking = Lock()
        self._sent = 0

    def connect(self, connection: Connection) -> None:
        """A worker has started, which answers at the other end of `connection`."""
        with self._changed:
            self._connection = connection
            self._changed.notify_all()

    def answered(self, question: Question, seconds: float) -> Answer | None:
        """The answer; `None` where none comes in this time."""
        end = monotonic() + seconds
        with self._asking:
            while True:
                with self._changed:
                    left = max(end - monotonic(), 0)
                    if not self._changed.wait_for(lambda: self._connection is not None, left):
                        return None
                    connection = self._connection
                assert connection is not None
                try:
                    return self._asked(connection, question, end)
                except (EOFError, OSError):  # the worker ended: the next one is asked
                    with self._changed:
                        if self._connection is connection:
                            self._connection = None

    def _asked(self, connection: Connection, question: Question, end: float) -> Answer | None:
        self._sent += 1
        connection.send((self._sent, question))
        while connection.poll(max(end - monotonic(), 0)):
            number, answer = connection.recv()
            if number == self._sent:  # not one that was waited for too long
                found: Answer = answer
                return found
        return None
