"""What goes where: results to stdout, everything else to stderr, a progress bar only to a terminal."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sfumato.errors import OutputError, SfumatoWarning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ReaderGoneError(OutputError):
    """Nobody reads stdout any more (`| head`): the command ends without a word."""


def result(line: str) -> None:
    """Write one line to stdout and send it off, so that a pipe has it while the next picture is drawn."""
    result_bytes(os.fsencode(line) + b"\n")


def result_bytes(content: bytes) -> None:
    """Write bytes to stdout. Raises `OutputError` where they cannot be taken."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGoneError("standard output was closed") from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def complain(line: str) -> None:
    """Write one line to stderr, if anybody listens there."""
    flat = " ".join(line.split())
    try:
        print(flat.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


class Meter:
    """The progress bar of one run. On anything but a terminal it only passes warnings on."""

    def __init__(self, quiet: bool, told: Iterable[str] = ()) -> None:
        """`quiet`: no bar and no warnings. `told`: warnings that need not be given again."""
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told = set(told)

    @contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """Show the bar, saying `doing` until the first `advance`, and print warnings above it, each once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("ignore" if self._quiet else "always", SfumatoWarning)
            warnings.showwarning = lambda message, *_args, **_kwargs: self._warn(str(message))
            if self._quiet or not sys.stderr.isatty():
                yield
                return
            self._bar = _bar()
            with self._bar:
                self._task = self._bar.add_task(doing, total=None, of="", left="")
                yield

    def advance(self, doing: str, total: int) -> None:
        """One more network evaluation of `total` is done."""
        if self._bar is None or self._task is None:
            return
        if self._bar.tasks[0].total is None:
            self._bar.reset(self._task, total=total)
        done = int(self._bar.tasks[0].completed) + 1
        self._bar.update(self._task, description=doing, advance=1, of=f"{done}/{total}")

    def stand(self, doing: str, done: int, total: int, left: str) -> None:
        """How far something else is that counts for itself, and what it says of the time left."""
        if self._bar is not None and self._task is not None:
            of = f"{done:,}/{total:,}"
            self._bar.update(self._task, description=doing, completed=done, total=total, of=of, left=left)

    def begin(self, doing: str) -> None:
        """Say what is being done that nobody knows the length of."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(doing, total=None, of="", left="")
        self.say(doing)

    def say(self, line: str) -> None:
        """Write to stderr what the bar tells where there is one."""
        if self._bar is None and not self._quiet:
            complain(line)

    def result(self, line: str) -> None:
        """Write one line to stdout without tearing the bar."""
        if self._bar is None or not sys.stdout.isatty():
            result(line)
            return
        self._bar.stop()
        result(line)
        self._bar.start()

    def _warn(self, text: str) -> None:
        if text in self._told:
            return
        self._told.add(text)
        if self._bar is None:
            complain(f"warning: {text}")
        else:
            self._bar.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Left(TimeRemainingColumn):
        """An estimate, where nothing better is known."""

        def render(self, task: Task) -> Text:
            left = task.fields["left"] or (f"{super().render(task)} left" if task.total else "")
            return Text(left, style="progress.remaining")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[of]}"),
        Left(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
