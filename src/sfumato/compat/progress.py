"""A progress bar with the methods of tqdm's that programs call."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import MappingProxyType
from typing import Any, Self

from rich.console import Console
from rich.progress import Progress

from sfumato.errors import UsageError


class ProgressMixin:
    """Diffusers' methods for a pipeline's progress bar."""

    progress: Mapping[str, Any] = MappingProxyType({})

    def set_progress_bar_config(self, **config: Any) -> None:
        """`disable=True` for none; `desc` is what it says. Others of diffusers' settings change nothing."""
        self.progress = config

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> "ProgressBar":
        """A progress bar for a loop of one's own. Raises `UsageError` unless one of both is given."""
        if (iterable is None) == (total is None):
            raise UsageError("progress_bar takes an iterable or a total, one of the two")
        return ProgressBar(iterable, total, **self.progress)


class ProgressBar:
    """A progress bar on stderr, if that is a terminal: over an iterable, or of `total` steps for `update`."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        total: int | None = None,
        disable: bool = False,
        desc: str | None = None,
        **others: Any,
    ) -> None:
        """`disable`: show nothing; `desc`: what it says. `others` of tqdm's settings change nothing."""
        self.iterable = iterable
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        hidden = disable or not sys.stderr.isatty()
        self.bar = Progress(console=Console(file=sys.stderr), disable=hidden)
        self.task = self.bar.add_task(desc or "drawing", total=total)

    def update(self, n: int = 1) -> None:
        """`n` more steps are done."""
        self.bar.advance(self.task, n)

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        """Say something else."""
        self.bar.update(self.task, description=desc or "")

    def close(self) -> None:
        self.bar.stop()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with self:
            for each in self.iterable or ():
                yield each
                self.update()
