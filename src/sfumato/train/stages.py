"""The whole of a recipe, stage after stage, each going on where the last slice stopped, all in one slice.

    stages = ["text.toml", "autoencoder.toml", "denoiser.toml"]
    icons = 256

Stages lie beside the file that lists them. Each names its own run, and as its base the model of an earlier
one.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato import checkpoint, weights
from sfumato.checkpoint.layout import INDEX
from sfumato.config import Config
from sfumato.data import pack, render
from sfumato.devices import describe
from sfumato.errors import CheckpointError, DataError, SfumatoError, UsageError
from sfumato.files import parse_json, read_json
from sfumato.train import distributed
from sfumato.train import recipe as recipes
from sfumato.train.loop import OUTCOME, Outcome, Report, check, train
from sfumato.train.recipe import Recipe, different
from sfumato.train.state import FILE
from sfumato.train.tasks import task
from sfumato.train.tasks.common import MODEL
from sfumato.train.tasks.text import PACK

SHARD_BYTES = 15_000_000
"""The largest file of a model that is left in shards."""
_OVERRIDES = ("data",)
"""Keys that may be changed in all stages at once."""
NOT_BEGUN = Outcome(0, 0, 0.0, False, {})
_TOLD_EVERY = 5.0
"""Seconds between two lines about rendering."""


@dataclass(frozen=True)
class Listed(Config):
    """What a file with `stages` may say."""

    stages: tuple[str, ...] = ()
    icons: int = 0
    """Make the icon set first where it is not there, its pictures so many pixels wide; 0: make no data."""

    def check(self) -> None:
        if not self.stages:
            raise ValueError("stages must name at least one recipe")
        if self.icons and not 8 <= self.icons <= 1024:
            raise ValueError(f"icons = {self.icons} must be 8 to 1024 pixels, or 0")


@dataclass(frozen=True)
class Stage:
    """One recipe of several, called by the name of its file."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """What is to be carried out, in this order."""

    stages: tuple[Stage, ...]
    icons: int = 0


@dataclass(frozen=True)
class Result:
    """How a stage stands."""

    stage: Stage
    outcome: Outcome


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Plan:
    """The plan in the TOML file `path`: the stages that it lists, or the one that it is itself.

    `changes` are made to the keys of every stage. Raises `UsageError`, also for changes that can only be
    meant for one stage.
    """
    mapping = recipes.toml(path)
    if "stages" not in mapping:
        return Plan((Stage(path.name, recipes.read(path, changes)),))
    try:
        listed = Listed.from_dict(mapping, str(path))
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    for key in changes or {}:
        if key not in _OVERRIDES:
            raise UsageError(
                f"--{key} cannot be the same for all stages of {path.name}: change it in one of "
                f"{', '.join(listed.stages)}, or carry that one out by itself"
            )
    stages = tuple(Stage(name, recipes.read(path.parent / name, changes)) for name in listed.stages)
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
    tell: Callable[[Stage, Report], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Result, ...]:
    """Go on with the stages of `plan`, until the last is done or for `seconds`.

    A stage that is done is not even prepared; one that is begun takes a step at least. `tell` hears how a
    stage stands, `say` what is being prepared. In a `process_group` all of its processes
    call this. Raises what `task` and `train` raise, the stage named.
    """
    ends = time.monotonic() + seconds
    goes_on = _provide(plan, ends, say)
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
            outcome = _go_on(plan, stage, device, ends, tell, say)
        goes_on = goes_on and outcome.done
        results.append(Result(stage, outcome))
    return tuple(results)


def outcome_of(recipe: Recipe) -> Outcome:
    """How the run of `recipe` stood when its last slice ended; not done if there is anything left to do."""
    folder = Path(recipe.run)
    if not (folder / OUTCOME).is_file():
        return NOT_BEGUN
    told = read_json(folder / OUTCOME)
    try:
        outcome = Outcome(**{key: told[key] for key in vars(NOT_BEGUN)})
    except KeyError as error:
        raise CheckpointError(f"{folder / OUTCOME} does not say {error}") from None
    same = (outcome.step, told.get("ema")) == (recipe.steps, recipe.kept) and _follows(folder, recipe)
    return replace(outcome, done=outcome.done and same)


def _follows(folder: Path, recipe: Recipe) -> bool:
    """Whether the state in `folder`, if any, is one of `recipe`; of a damaged one, going on tells more."""
    if not (folder / FILE).is_file():
        return True
    try:
        told = weights.metadata(folder / FILE).get("recipe", "")
        return not different(parse_json(told.encode("utf-8"), str(folder / FILE)), recipe)
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
    tell: Callable[[Stage, Report], None],
    say: Callable[[str], None],
) -> Outcome:
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    say(f"{stage.name}: reading data for {describe(device)}{processes}")
    try:
        check(stage.recipe)
        with distributed.main_first():
            prepared = task(stage.recipe, device, say)
        # what is prepared is kept: should it have taken all the time, the next slice begins with it
        seconds = max(ends - time.monotonic(), 0.0)
        return train(prepared, stage.recipe, device, seconds=seconds, tell=lambda report: tell(stage, report))
    except SfumatoError as error:
        if len(plan.stages) > 1:
            error.args = (f"{stage.name}: {error}",)
        raise


def _provide(plan: Plan, ends: float, say: Callable[[str], None]) -> bool:
    """Make the icon set where a stage looks for it; whether it is whole and there is time left."""
    if not plan.icons:
        return True
    folders = dict.fromkeys(Path(stage.recipe.data) for stage in plan.stages)
    whole = distributed.is_main() and all(_icons(folder, plan.icons, ends, say) for folder in folders)
    return distributed.broadcast_object(whole)


def _icons(folder: Path, size: int, ends: float, say: Callable[[str], None]) -> bool:
    packed = folder / PACK
    if not (packed / pack.INDEX).is_file():
        pack.build(packed, folder / "npm", say)
    if missing := pack.parts(packed)[1]:
        raise DataError(f"{packed} lacks {', '.join(missing)}; bring the whole pack, or render without")
    _check_size(folder, size)
    if not (waiting := render.waiting(packed, folder)):
        return True
    say(f"{folder}: rendering {len(waiting)} parts of {packed}")
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_EVERY:
            told = time.monotonic()
            say(f"{folder}: rendering {done:,}/{total:,}")

    render.render(packed, folder, size, progress, seconds=ends - time.monotonic())
    return not render.waiting(packed, folder) and time.monotonic() < ends


def _check_size(folder: Path, size: int) -> None:
    for path in sorted(folder.glob("part-*.npy"))[:1]:
        try:
            side = np.load(path, mmap_mode="r").shape[1]
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if side != size:
            raise DataError(f"{folder} holds pictures of {side} pixels, and icons = {size} is asked for")
