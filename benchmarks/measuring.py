"""What the benchmarks share: figures printed as they are measured, the machine and its load beside them."""

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sfumato import devices
from sfumato.machine import processor as processor_name

LOAD = f"load of {os.cpu_count()} cores"
"""The head of a table's column of loads."""
Run = Callable[[], Any]


def say(text: str, end: str = "\n") -> None:
    """Print at once, so that a run that is stopped has printed what it has measured."""
    print(text, end=end, flush=True)


def load() -> str:
    """The processes that were running or waiting for a core, on average over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def processor() -> str:
    """The processor's name, and which bfloat16 instructions it has."""
    abilities = [key for key in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(key)]
    return f"{processor_name()} ({', '.join(abilities) or 'no bfloat16 instructions'})"


def machine(device: str) -> str:
    """What the figures are taken on."""
    chip = f"{processor()}, {torch.get_num_threads()} threads"
    where = chip if device == "cpu" else f"{devices.describe(torch.device(device))}, {chip}"
    return f"{where}; torch {torch.__version__}, diffusers {version('diffusers')}"


def medians(
    runs: Mapping[str, Run],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 1,
    before: Run = lambda: None,
    after: Run = lambda: None,
) -> dict[str, float]:
    """Median seconds of each run, all taking turns in every round; `warm_up` more rounds do not count.

    Every time is printed when it is known. `before` a run is outside its time, `after` it inside.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        counted = number - warm_up + 1
        say(f"  round {counted} of {rounds}:" if counted > 0 else "  warm-up:", end="")
        for name, run in runs.items():
            before()
            start = clock()
            run()
            after()
            seconds[name].append(clock() - start)
            say(f" {name} {seconds[name][-1]:.3f} s,", end="")
        say(f" {LOAD} {load()}")
    return {name: statistics.median(times[warm_up:]) for name, times in seconds.items()}


class Table:
    """A table of Markdown that is printed row by row, and kept as far as it has come in a page's marks."""

    def __init__(
        self, name: str, head: Sequence[str], page: Path | None = None, *, beside: bool = False
    ) -> None:
        """Print the head, the lines down to the first row. Exits where `page` lacks the marks of `name`.

        `beside`: the tables of other processors are kept.
        """
        self.name, self.lines, self.page = name, list(head), page
        self.others = others(page, name) if page is not None and beside else []
        if page is not None:
            around(page, name)
        say("\n".join(head))

    def add(self, row: str) -> None:
        """Print a row and write it."""
        self.lines.append(row)
        say(row)
        if self.page is not None:
            write("\n\n".join(["\n".join(self.lines), *self.others]), self.page, self.name)


def around(page: Path, name: str) -> tuple[str, str]:
    """The page up to the begin of what the benchmark `name` wrote, and from its end, marks included."""
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{page} lacks the marks {begin} and {end}")
    return before + begin, end + after


def others(page: Path, name: str) -> list[str]:
    """What stands between the page's marks of that name of other processors than this one."""
    before, after = around(page, name)
    text = page.read_text("utf-8")[len(before) : -len(after)]
    tables = re.split(r"\n\n(?=[^|\n]* threads; torch )", text.strip())
    return [each for each in tables if each and not each.startswith(f"{processor()}, ")]


def write(text: str, page: Path, name: str) -> None:
    """Put `text` between the page's marks of that name."""
    before, after = around(page, name)
    page.write_text(f"{before}\n{text}\n{after}", "utf-8")
