"""`sfumato train`: go on with a recipe's run, for as long as is allowed."""

import json
import math
from pathlib import Path
from typing import Any

from sfumato.cli import console
from sfumato.errors import UsageError


def train(
    recipe: Path,
    changes: dict[str, Any],
    seconds: float | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train and say what came of it. `changes` replace keys of the recipe."""
    from sfumato import devices
    from sfumato.train import recipe as recipes
    from sfumato.train.loop import Report
    from sfumato.train.loop import train as run
    from sfumato.train.tasks import task

    if seconds is not None and seconds <= 0:
        raise UsageError(f"--seconds {seconds:g} must be more than 0")
    asked = recipes.read(recipe, changes)
    place = devices.pick_device(device)
    if not quiet:
        console.complain(f"{recipe.name}: reading data for {devices.describe(place)}")
    prepared = task(asked, place)

    def tell(report: Report) -> None:
        if not quiet:
            console.complain(_line(report))

    outcome = run(prepared, asked, place, seconds=seconds or math.inf, tell=tell)
    if as_json:
        console.result(json.dumps({**vars(outcome), "figures": dict(outcome.figures)}))
        return
    state = (
        "done" if outcome.done else f"stopped at step {outcome.step:,} of {asked.steps:,}, run again to go on"
    )
    console.result(f"{asked.run}: {state}; {outcome.examples:,} examples in {outcome.seconds:,.0f} s")
    for name, value in outcome.figures.items():
        console.result(f"{name:16} {value:.4g}")


def _line(report: Any) -> str:
    left = f"{report.seconds_left / 60:.0f} min left" if math.isfinite(report.seconds_left) else ""
    done = f"step {report.step:,}/{report.steps:,}"
    return f"{done}  loss {report.loss:.4f}  {report.rate:,.0f}/s  {left}"
