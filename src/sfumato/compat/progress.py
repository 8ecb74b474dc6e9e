"""The bar that runs along on a terminal while a batch is drawn."""

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bars


class Progress:
    """A bar of `total` steps on stderr; none where that is no terminal, or with `disable`."""

    def __init__(self, total: int, disable: bool = False, **settings: Any) -> None:
        """`settings`: those of other bars, which change nothing here."""
        self._bars = Bars(console=Console(file=sys.stderr), disable=disable or not sys.stderr.isatty())
        self._task = self._bars.add_task("drawing", total=total)

    def advance(self) -> None:
        self._bars.advance(self._task)

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
