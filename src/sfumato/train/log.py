"""The log of a run: means of its metrics, a line of JSON at a time, and to TensorBoard if asked."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.errors import NumericsError, UsageError
from sfumato.files import output_error, replace_atomically
from sfumato.train import distributed

LINES, BOARD = "log.jsonl", "tensorboard"
_NEVER = 1 << 62


class Log:
    """Sums on the device, so that no step waits for a number to come back."""

    def __init__(self, folder: Path, device: torch.device, step: int, board: bool) -> None:
        """Go on after `step`: lines of later steps, which a run that was cut off wrote, are taken back.

        `board`: write for TensorBoard as well. Raises `UsageError` where that is not installed.
        """
        self._path = folder / LINES
        self._device = device
        self._bad = torch.tensor(_NEVER, device=device)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._board = None
        if distributed.is_main():
            cut(self._path, step)
            self._board = _board(folder / BOARD, step) if board else None

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Add the `metrics` of a part of `step`, the same ones in every process."""
        for name, value in metrics.items():
            value = value.detach().float()
            self._bad = torch.where(torch.isfinite(value), self._bad, self._bad.clamp(max=step))
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def check(self) -> None:
        """Raise `NumericsError` if a metric was not finite since the beginning, in any process."""
        bad = -distributed.all_reduce_max(-int(self._bad))[0]
        if bad != _NEVER:
            raise NumericsError(
                f"the loss or its gradient is not finite at step {bad}, whose number determines its batch; "
                f"the last good checkpoint stays in {self._path.parent}: lower learning_rate, or use float32"
            )

    def mean(self, name: str) -> float:
        """The mean of a metric since the last line, in this process."""
        return float(self._sums[name]) / self._counts[name]

    def write(self, step: int, examples: int, seconds: float, rate: float, speed: float) -> None:
        """Append the means over all processes since the last line. Raises `OutputError`."""
        totals = torch.stack(list(self._sums.values()))
        distributed.all_reduce_sum([totals])
        counts = [distributed.world_size() * count for count in self._counts.values()]
        means = {
            name: total / count
            for name, total, count in zip(self._sums, totals.tolist(), counts, strict=True)
        }
        self._sums, self._counts = {}, {}
        if not distributed.is_main():
            return
        line = {"step": step, "examples": examples, "seconds": round(seconds, 2)}
        line |= {"learning_rate": rate, "examples_per_second": round(speed, 1)}
        line |= {name: float(f"{mean:.6g}") for name, mean in means.items()}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self._board is not None:
                for name in ("learning_rate", "examples_per_second", *means):
                    self._board.add_scalar(name, line[name], step)
                self._board.flush()
        except OSError as error:
            raise output_error(self._path, error) from error

    def picture(self, step: int, path: Path) -> None:
        """Log the sample grid in `path`, if there is one, for TensorBoard."""
        if self._board is not None and path.is_file():
            with Image.open(path) as grid:
                self._board.add_image("samples", np.asarray(grid.convert("RGB")), step, dataformats="HWC")


def counts(report: Callable[[str], None], doing: str, seconds: float = 3.0) -> Callable[[int, int], None]:
    """`(done, total)` to a `report` of both after what is being done, at most once in `seconds`."""
    last = -math.inf

    def now_and_then(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            report(f"{doing} {done:,}/{total:,}")

    return now_and_then


def cut(path: Path, step: int) -> None:
    """Remove the lines after `step`, and broken ones, from the log in `path`. Raises `OutputError`."""
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    except OSError as error:
        raise output_error(path, error) from error
    kept = [line for line in lines if _step(line) <= step]
    if kept != lines:
        with replace_atomically(path) as file:
            file.writelines(kept)


def _step(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "tensorboard = true needs the package tensorboard: pip install 'sfumato[train]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)
