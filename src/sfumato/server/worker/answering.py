"""What a worker does for the server besides drawing, in a thread of its own: it answers questions."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sfumato.errors import SfumatoError


@dataclass(frozen=True)
class Question:
    """A function of a module, and what it is called with."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def answer(self) -> "Answer":
        """What the function gives or raises, in this process."""
        try:
            return Answer(self.function(*self.args, **self.options))
        except SfumatoError as error:
            return Answer(error=error.with_traceback(None))
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            return Answer(error=RuntimeError(f"in a worker:\n{text}"))


@dataclass(frozen=True)
class Answer:
    """What the function of a question gave, or the `error` that it raised."""

    value: Any = None
    error: Exception | None = None


def answer_all(connection: Connection) -> None:
    """Answer the questions that come, with their numbers, until the server is gone."""
    while True:
        try:
            number, question = connection.recv()
            connection.send((number, question.answer))
        except (EOFError, OSError):
            return
