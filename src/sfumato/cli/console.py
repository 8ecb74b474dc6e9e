"""Output: results to stdout, everything else to stderr, a progress bar only to a terminal."""

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfumato.errors import OutputError, SfumatoWarning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


SILENCE = 5.0
"""Seconds after which a line says what is being done, where no bar shows it; longer in a long run."""
_LONGEST_SILENCE = 30.0


class ReaderGoneError(OutputError):
    """Nobody reads stdout any more (`| head`): the command ends silently."""


class Interrupted(BaseException):
    """A signal asked the command to stop. Not an `Exception`, so that nothing on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.status = 128 + number


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


def as_json(value: Any) -> str:
    """A value as one line of JSON, for `result`."""
    return json.dumps(value, ensure_ascii=False)


def counted(number: int, noun: str) -> str:
    """A number of things, as "1 shard" and "1,024 shards"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def complain(line: str) -> None:
    """Write one line to stderr, if anybody listens there."""
    flat = " ".join(line.split())
    try:
        print(flat.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


class Meter:
    """Progress and warnings of one run: a bar on a terminal; elsewhere a line on stderr every few seconds."""

    def __init__(self, quiet: bool = False, known: Iterable[str] = ()) -> None:
        """`quiet`: no bar and no warnings. `known`: warnings not to repeat."""
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._warned = set(known)
        self._doing = ""
        self._done = 0
        self._said = time.monotonic()

    @contextmanager
    def told_warnings(self) -> Iterator[None]:
        """In the block, print each warning of this package once, and no other."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("ignore" if self._quiet else "always", SfumatoWarning)
            warnings.showwarning = lambda message, *_args, **_kwargs: self._warn(str(message))
            yield

    @contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """Show the bar, labelled `doing` until the first progress, and print each warning once above it."""
        with self.told_warnings():
            self._doing = doing
            if self._quiet:
                yield
                return
            if not sys.stderr.isatty():
                with self._never_silent():
                    yield
                return
            self._bar = _bar()
            with self._bar:
                self._task = self._bar.add_task(doing, total=None, of="", left="")
                yield

    def advance(self, doing: str, total: int) -> None:
        """One more network evaluation of `total` is done."""
        self._done += 1
        self._doing = f"{doing}, {self._done:,}/{total:,}"
        if self._bar is None or self._task is None:
            return
        if self._bar.tasks[0].total is None:
            self._bar.reset(self._task, total=total)
        done = int(self._bar.tasks[0].completed) + 1
        self._bar.update(self._task, description=doing, advance=1, of=f"{done}/{total}")

    def update(self, doing: str, done: int, total: int, left: str = "") -> None:
        """`done` of `total` are done; `left`: the time left, else estimated."""
        of = f"{done:,}/{total:,}"
        self._doing = f"{doing}, {of}" + (f", {left}" if left else "")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=doing, completed=done, total=total, of=of, left=left)

    def begin(self, doing: str) -> None:
        """Start something of unknown length."""
        if self._bar is not None and self._task is not None:
            self._bar.refresh()  # what was begun before is seen to its end
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(doing, total=None, of="", left="")
        self._doing, self._done = doing, 0
        self.say(doing)

    def say(self, line: str) -> None:
        """Write a line to stderr, unless there is a bar to show the same."""
        if self._bar is None and not self._quiet:
            self._said = time.monotonic()
            complain(line)

    def result(self, line: str) -> None:
        """Write one line to stdout, with the bar out of its way."""
        self._said = time.monotonic()
        if self._bar is None or not sys.stdout.isatty():
            result(line)
            return
        self._bar.stop()
        result(line)
        self._bar.start()

    @contextmanager
    def _never_silent(self) -> Iterator[None]:
        """In the block, say what is being done and for how long, whenever nothing was said for a while."""
        began, over = time.monotonic(), threading.Event()
        self._said = began

        def watch() -> None:
            while not over.wait(SILENCE / 10):
                now = time.monotonic()
                if now - self._said >= max(SILENCE, min(_LONGEST_SILENCE, (now - began) / 20)):
                    self.say(f"{self._doing} ({now - began:.0f} s)")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _warn(self, text: str) -> None:
        if text in self._warned:
            return
        self._warned.add(text)
        if self._bar is None:
            complain(f"warning: {text}")
        else:
            self._bar.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Left(TimeRemainingColumn):
        """The time left as it was given, else estimated."""

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
