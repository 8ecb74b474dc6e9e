"""`sfumato train`: go on with the run of a recipe."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console
from sfumato.cli.console import counted
from sfumato.cli.help import RUN
from sfumato.cli.options import Json, OptionGroup, Program, Quiet, argument, device_option, option
from sfumato.errors import UsageError
from sfumato.files import check_folder
from sfumato.options import DeviceOptions

if TYPE_CHECKING:
    import torch

    from sfumato.train.loop import TrainingProgress
    from sfumato.train.stages import Plan, Stage, StageResult

program = Program()


@dataclass(frozen=True)
class Options:
    """The options of `train` and `distill`; `None` leaves a key as the recipe has it."""

    recipe: Annotated[Path, argument("RECIPE", "What to train and how: a TOML file.")]
    seconds: Annotated[
        float | None, option("--seconds N", RUN, "Stop after N seconds; run again to resume. Default: never.")
    ] = None
    steps: Annotated[int | None, option("--steps N", RUN, "The last step. Default: the recipe's.")] = None
    data: Annotated[str | None, option("--data FOLDER", RUN, "The data. Default: the recipe's.")] = None
    base: Annotated[
        str | None, option("--base MODEL", RUN, "The model to start from. Default: the recipe's.")
    ] = None
    run: Annotated[
        str | None, option("--run FOLDER", RUN, "Where to keep the run. Default: the recipe's.")
    ] = None
    shards: Annotated[
        Path | None, option("--shards FOLDER", RUN, "Save the model in files below 15 MB, too. Default: not.")
    ] = None
    device: Annotated[str | None, device_option("device")] = None
    threads: Annotated[int | None, device_option("threads")] = None
    as_json: Json = False
    quiet: Quiet = False


RunOptions = Annotated[Options, OptionGroup.of(Options)]


@program.add(
    examples="""sfumato train recipes/icons/all.toml --seconds 540         (again: resumes)
sfumato train my.toml --steps 20000 --base runs/mine/autoencoder/model"""
)
def train(options: RunOptions) -> None:
    """Train, and print the outcome of every stage."""
    carry_out(options)


def carry_out(options: Options, *, students: bool = False) -> None:
    """Train by a recipe. `students`: refuse a recipe that trains no student of few steps."""
    computing = DeviceOptions(device=options.device, threads=options.threads)
    from sfumato import devices
    from sfumato.train import distributed, stages

    devices.set_threads(computing)
    if options.seconds is not None and options.seconds <= 0:
        raise UsageError(f"--seconds {options.seconds:g} must be more than 0")
    changes = {name: getattr(options, name) for name in ("steps", "base", "run")}
    changes["data.folder"] = options.data
    meter = console.Meter(options.quiet)
    with meter.shown(options.recipe.name):
        plan = stages.read(
            options.recipe, {key: value for key, value in changes.items() if value is not None}
        )
    for stage in plan.stages:
        if students and not stage.recipe.objective.FEW_STEPS:
            raise UsageError(
                f"{stage.name}: objective {stage.recipe.objective.NAME!r} trains no student of few steps; "
                "`sfumato train` carries it out"
            )
    if options.shards is not None:
        from sfumato.checkpoint.layout import INDEX

        check_folder(options.shards, marker=INDEX, overwrite=True)
    with distributed.process_group(options.device) as place:
        meter = console.Meter(options.quiet or not distributed.is_main())
        several = len(plan.stages) > 1
        with meter.shown(options.recipe.name):
            results = go_on(plan, place, meter, options.seconds)
            if not distributed.is_main():
                return
            if options.shards is not None:
                meter.begin(f"writing {options.shards}")
                stages.leave(plan, options.shards)
    again = _again(options, students)
    if options.as_json:
        found = [_described(result, again) for result in results]
        done = all(result.outcome.done for result in results)
        console.result(console.as_json({"done": done, "stages": found} if several else found[0]))
        return
    for result in results:
        _print(result)
    _print_next(results, again)


def go_on(
    plan: "Plan", device: "torch.device", meter: console.Meter, seconds: float | None
) -> "tuple[StageResult, ...]":
    """Go on with `plan` for `seconds`, and show on `meter` what is done."""
    from sfumato.train import stages

    def report(stage: "Stage", now: "TrainingProgress") -> None:
        name = f"{stage.name}: " if len(plan.stages) > 1 else ""
        per_second = now.examples_per_second
        speed = f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"
        metrics, left = f"loss {now.loss:.4f}  {speed} examples/s", _left(now.seconds_left)
        meter.update(f"{name}{metrics}", now.step, now.steps, left)
        if now.logged:
            meter.say(f"{name}step {now.step:,}/{now.steps:,}  {metrics}  {left}")

    return stages.carry_out(plan, device, seconds=seconds or math.inf, progress=report, report=meter.begin)


def _again(options: Options, students: bool) -> list[str]:
    """The command that was typed, as far as it says what to train."""
    named = {
        name: getattr(options, name)
        for name in ("seconds", "steps", "data", "base", "run", "shards", "device")
    }
    given = [(f"--{name}", str(value)) for name, value in named.items() if value is not None]
    command = "distill" if students else "train"
    return ["sfumato", command, str(options.recipe), *(part for pair in given for part in pair)]


def _next(result: "StageResult", again: list[str]) -> list[str]:
    """What to type after a stage."""
    recipe = result.stage.recipe
    return recipe.objective.usage(recipe) if result.outcome.done else again


def _described(result: "StageResult", again: list[str]) -> dict[str, Any]:
    recipe = result.stage.recipe
    outcome = {**vars(result.outcome), "metrics": dict(result.outcome.metrics)}
    written = {"result": str(recipe.objective.result(recipe))} if result.outcome.done else {}
    following = shlex.join(_next(result, again)) or None
    return {"stage": result.stage.name, "run": recipe.run, **outcome, **written, "next": following}


def _print(result: "StageResult") -> None:
    outcome, recipe = result.outcome, result.stage.recipe
    if outcome.step == 0:
        console.result(f"{recipe.run}: not begun, run again to go on")
        return
    stopped = f"stopped at step {outcome.step:,} of {recipe.steps:,}, run again to go on"
    state = "done" if outcome.done else stopped
    examples = counted(outcome.examples, "example")
    console.result(f"{recipe.run}: {state}; {examples} in {outcome.seconds:,.0f} s")
    for name, value in outcome.metrics.items():
        console.result(f"{name:16} {value:.4g}")
    if outcome.done:
        console.result(f"{'result':16} {recipe.objective.result(recipe)}")


def _print_next(results: "Sequence[StageResult]", again: list[str]) -> None:
    """What to type after the last stage, or to go on with the first that is not done."""
    result = next((one for one in results if not one.outcome.done), results[-1])
    if following := _next(result, again):
        console.result(f"{'next':16} {shlex.join(following)}")
        return
    recipe = result.stage.recipe
    own = recipe.objective.result(recipe)
    console.result(f"{'next':16} a recipe with base = {str(own)!r}: its denoiser is to be trained for it")


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
