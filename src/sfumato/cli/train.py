"""`sfumato train`: go on with a recipe's run, for as long as is allowed."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.cli import console
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.train.loop import Report
    from sfumato.train.stages import Result, Stage


def train(
    recipe: Path,
    changes: dict[str, Any],
    seconds: float | None,
    shards: Path | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
    *,
    students: bool = False,
) -> None:
    """Train and say what came of it. `changes` replace keys of the recipe, unless `None`; `students`: refuse
    whatever makes none."""
    from sfumato.train import distributed, stages
    from sfumato.train.recipe import StudentRecipe

    if seconds is not None and seconds <= 0:
        raise UsageError(f"--seconds {seconds:g} must be more than 0")
    plan = stages.read(recipe, {key: value for key, value in changes.items() if value is not None})
    for stage in plan.stages:
        if students and not isinstance(stage.recipe, StudentRecipe):
            raise UsageError(
                f"{stage.name}: objective = {stage.recipe.objective!r} makes no student of few steps; "
                "`sfumato train` carries it out"
            )
    with distributed.process_group(device) as place:
        quiet = quiet or not distributed.is_main()
        meter = console.Meter(quiet)
        several = len(plan.stages) > 1
        with meter.shown(recipe.name):

            def tell(stage: "Stage", report: "Report") -> None:
                name = f"{stage.name}: " if several else ""
                left = _left(report.seconds_left)
                meter.stand(f"{name}{_figures(report)}", report.step, report.steps, left)
                if report.logged:
                    meter.say(f"{name}{_line(report)}")

            results = stages.carry_out(plan, place, seconds=seconds or math.inf, tell=tell, say=meter.begin)
            if not distributed.is_main():
                return
            if shards is not None:
                stages.leave(plan, shards)
    if as_json:
        told = [_told(result) for result in results]
        done = all(result.outcome.done for result in results)
        console.result(json.dumps({"done": done, "stages": told} if several else told[0]))
        return
    for result in results:
        _print(result)


def _told(result: "Result") -> dict[str, Any]:
    outcome = {**vars(result.outcome), "figures": dict(result.outcome.figures)}
    return {"stage": result.stage.name, "run": result.stage.recipe.run, **outcome}


def _print(result: "Result") -> None:
    outcome, recipe = result.outcome, result.stage.recipe
    if outcome.step == 0:
        console.result(f"{recipe.run}: not begun, run again to go on")
        return
    stopped = f"stopped at step {outcome.step:,} of {recipe.steps:,}, run again to go on"
    state = "done" if outcome.done else stopped
    console.result(f"{recipe.run}: {state}; {outcome.examples:,} examples in {outcome.seconds:,.0f} s")
    for name, value in outcome.figures.items():
        console.result(f"{name:16} {value:.4g}")


def _line(report: "Report") -> str:
    done = f"step {report.step:,}/{report.steps:,}"
    return f"{done}  {_figures(report)}  {_left(report.seconds_left)}"


def _figures(report: "Report") -> str:
    speed = f"{report.rate:,.0f}" if report.rate >= 10 else f"{report.rate:.2g}"
    return f"loss {report.loss:.4f}  {speed}/s"


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
