"""Several recipes in a row, each resumed where the last slice stopped, within one limit of time.

    stages = ["text.toml", "autoencoder.toml", "denoiser.toml"]
    icons = 256

Stages lie beside the file that lists them. Each names its own run, and as its base the model of an earlier
one.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field

from sfumato import checkpoint, weights
from sfumato.checkpoint.layout import INDEX
from sfumato.config.base import Config
from sfumato.data import pack, render
from sfumato.data.folder import check_is_there
from sfumato.devices import describe
from sfumato.errors import CheckpointError, DataError, SfumatoError, UsageError, memory_ran_out
from sfumato.files import check_made, parse_json, read_json
from sfumato.train import distributed, recipe_file
from sfumato.train.log import counts
from sfumato.train.loop import OUTCOME, Outcome, TrainingProgress, check, metrics_of, train
from sfumato.train.objectives import task
from sfumato.train.recipe import MODEL, Recipe
from sfumato.train.state import FILE

SHARD_BYTES = 15_000_000
"""The largest file of a model that is left in shards."""
_OVERRIDES = ("data.folder",)
"""Keys that may be changed in all stages at once."""
MEMORY_HELP = (
    "less is needed with a lower batch_size (gradient_accumulation learns the same), data.resolution or "
    "adapter.rank, and with gradient_checkpointing = true (of teach: --batch-size, --resolution)"
)
NOT_BEGUN = Outcome(0, 0, 0.0, False, {})


@pydantic.dataclasses.dataclass(frozen=True)
class Listed(Config):
    """What a file with `stages` may say."""

    ERROR = UsageError

    stages: Annotated[tuple[str, ...], Field(min_length=1)] = ()
    icons: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Make the icon set first where it is not there, its pictures so many pixels wide."""


@dataclass(frozen=True)
class Stage:
    """One recipe of several, called by the name of its file."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """The stages to carry out, in this order."""

    stages: tuple[Stage, ...]
    icons: int | None = None


@dataclass(frozen=True)
class StageResult:
    """The outcome of a stage so far."""

    stage: Stage
    outcome: Outcome


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Plan:
    """The plan in the TOML file `path`: the stages that it lists, or the one that it is itself.

    `changes` are made to the keys of every stage. Raises `UsageError`, also for changes that can only be
    meant for one stage.
    """
    mapping = recipe_file.toml(path)
    if "stages" not in mapping:
        return Plan((Stage(path.name, recipe_file.read(path, changes)),))
    listed = Listed.from_dict(mapping, str(path))
    for key in changes or {}:
        if key not in _OVERRIDES:
            raise UsageError(
                f"--{key.split('.')[0]} cannot be the same for all stages of {path.name}: change it in one "
                f"of {', '.join(listed.stages)}, or carry that one out by itself"
            )
    stages = tuple(Stage(name, recipe_file.read(path.parent / name, changes)) for name in listed.stages)
    runs = [stage.recipe.run for stage in stages]
    for place, run in enumerate(runs):
        if run in runs[:place]:
            first, second = stages[runs.index(run)].name, stages[place].name
            raise UsageError(f"{path}: {first} and {second} have the same run = {run!r}; each needs its own")
    return Plan(stages, listed.icons)


def carry_out(
    plan: Plan,
    device: torch.device,
    *,
    seconds: float = math.inf,
    progress: Callable[[Stage, TrainingProgress], None] = lambda *_: None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[StageResult, ...]:
    """Go on with the stages of `plan`, until the last is done or for `seconds`.

    A stage that is done is not even prepared; one that is begun takes a step at least. `progress` is called
    while a stage trains, `report(message)` before what is prepared for it. In a `process_group` all of its
    processes call this. Raises what `task` and `train` raise, the stage named.
    """
    ends = time.monotonic() + seconds
    if distributed.is_main():
        for stage in plan.stages:
            check_made(Path(stage.recipe.run))
    goes_on = _make_icons(plan, ends, report)
    begun, results = False, []
    for stage in plan.stages:
        outcome = distributed.broadcast_object(
            outcome_of(stage.recipe) if distributed.is_main() else NOT_BEGUN
        )
        if (
            goes_on
            and not outcome.done
            and not (begun and distributed.broadcast_object(time.monotonic() >= ends))
        ):
            begun = True
            outcome = _go_on(plan, stage, device, ends, progress, report)
        goes_on = goes_on and outcome.done
        results.append(StageResult(stage, outcome))
    return tuple(results)


def outcome_of(recipe: Recipe) -> Outcome:
    """How the run of `recipe` stood when its last slice ended; not done if there is anything left to do."""
    folder = Path(recipe.run)
    if not (folder / OUTCOME).is_file():
        return NOT_BEGUN
    kept = read_json(folder / OUTCOME)
    try:
        kept.setdefault("stopped_early", False)
        outcome = Outcome(
            **{key: kept[key] for key in vars(NOT_BEGUN) if key != "metrics"}, metrics=metrics_of(kept)
        )
    except KeyError as error:
        raise CheckpointError(f"{folder / OUTCOME} does not say {error}") from None
    early = outcome.stopped_early and kept.get("patience") == recipe.validation.patience
    same = (outcome.step == recipe.steps or early) and kept.get("ema") == recipe.result_decay
    return replace(outcome, done=outcome.done and same and _follows(folder, recipe))


def _follows(folder: Path, recipe: Recipe) -> bool:
    """Whether the state in `folder`, if any, is one of `recipe`; of a damaged one, going on tells more."""
    if not (folder / FILE).is_file():
        return True
    try:
        identity = weights.metadata(folder / FILE).get("recipe", "")
        return not recipe.changed_since(parse_json(identity.encode("utf-8"), str(folder / FILE)))
    except CheckpointError:
        return False


def leave(plan: Plan, folder: Path) -> Path | None:
    """Write the newest model of `plan` to `folder` in files of at most `SHARD_BYTES`; which one it was.

    Nothing is written before a stage has left a model. Raises `OutputError`.
    """
    models = [Path(stage.recipe.run) / MODEL for stage in plan.stages]
    there = [model for model in models if (model / INDEX).is_file()]
    if not there:
        return None
    checkpoint.save(checkpoint.load(there[-1]), folder, shard_bytes=SHARD_BYTES, overwrite=True)
    return there[-1]


def _go_on(
    plan: Plan,
    stage: Stage,
    device: torch.device,
    ends: float,
    progress: Callable[[Stage, TrainingProgress], None],
    report: Callable[[str], None],
) -> Outcome:
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    report(f"{stage.name}: reading the data; training on {describe(device)}{processes}")
    try:
        check(stage.recipe)
        _check_is_there(stage.recipe)
        with distributed.main_first():
            prepared = task(stage.recipe, device, report)
        # what is prepared is kept: should it have taken all the time, the next slice begins with it
        seconds = max(ends - time.monotonic(), 0.0)
        return train(
            prepared, stage.recipe, device, seconds=seconds, progress=partial(progress, stage), report=report
        )
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        ran_out = SfumatoError(f"{stage.name}: out of memory; {MEMORY_HELP}")
        for note in getattr(error, "__notes__", ()):
            ran_out.add_note(note)
        raise ran_out from error
    except SfumatoError as error:
        if len(plan.stages) > 1:
            error.args = (f"{stage.name}: {error}",)
        raise


def _check_is_there(recipe: Recipe) -> None:
    """Raise `UsageError` for a base that another run has not made yet, `DataError` without data."""
    base = Path(recipe.base)
    if base.name == MODEL and base.parent.name and not base.exists():
        raise UsageError(
            f"base = {recipe.base!r} is not there yet: first carry out the recipe with run = "
            f"{str(base.parent)!r}"
        )
    check_is_there(Path(recipe.data.folder))


def _make_icons(plan: Plan, ends: float, report: Callable[[str], None]) -> bool:
    """Make the icon set where a stage looks for it; whether it is whole and there is time left."""
    if not plan.icons:
        return True
    folders = dict.fromkeys(Path(stage.recipe.data.folder) for stage in plan.stages)
    whole = distributed.is_main() and all(_icons(folder, plan.icons, ends, report) for folder in folders)
    return distributed.broadcast_object(whole)


def _icons(folder: Path, size: int, ends: float, report: Callable[[str], None]) -> bool:
    rendered = render.make(
        folder,
        size,
        report=report,
        progress=counts(report, f"{folder}: rendering"),
        seconds=ends - time.monotonic(),
    )
    if rendered.missing:
        missing = ", ".join(rendered.missing)
        raise DataError(f"{folder / pack.FOLDER} lacks {missing}; bring the whole pack, or render without")
    in_time = not rendered.pictures or time.monotonic() < ends
    return in_time and not render.waiting(folder / pack.FOLDER, folder)
