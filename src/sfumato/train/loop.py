"""The training loop. It knows no diffusion: a task holds what is trained, a recipe how.

The random numbers of a step come from (seed, step, part) alone, so that a run that was stopped anywhere
and resumed is bit for bit the run that was not, on a device that computes the same twice as CPUs do.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.errors import NumericsError, UsageError
from sfumato.files import check_room, make_folder, read_json, write_json
from sfumato.nets.layers import enable_checkpointing
from sfumato.train import distributed
from sfumato.train.context import StepContext, seed_of
from sfumato.train.log import Log
from sfumato.train.lr_schedule import LR_SCHEDULES
from sfumato.train.optimizers import FACTOR, RATE
from sfumato.train.recipe import Recipe
from sfumato.train.state import FILE, State, begin, broadcast, reached, restore, save, tidy
from sfumato.train.stopping import Signals
from sfumato.train.task import B, Task

OUTCOME = "outcome.json"
_LOOK = 1.0
"""Seconds between two synchronisations with the device for a report."""
_LEAST_SCALE = 2.0**-10
"""Of float16 gradients: below it no scale would bring them into range."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run."""

    step: int
    steps: int
    loss: float
    """The mean since the last line of the log."""
    examples_per_second: float
    """Examples, in this slice."""
    seconds_left: float
    logged: bool
    """Whether the log has it too: reports come at least every second, lines of the log now and then."""


@dataclass(frozen=True)
class Outcome:
    """What a slice has done."""

    step: int
    examples: int
    seconds: float
    """Of training, over all slices."""
    done: bool
    metrics: Mapping[str, float]
    """Of the result, where the run is done."""
    stopped_early: bool = False
    """Whether it is done because what is held out was not learned any better."""


def train(
    task: Task[B],
    recipe: Recipe,
    device: torch.device,
    *,
    seconds: float = math.inf,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
    report: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Go on with the run in `recipe.run`, or begin it, until its last step or for `seconds`.

    `report(message)` is called before what takes long besides the steps.

    SIGINT and SIGTERM wait until the step is done and kept; a second one stops at once. In a `process_group`
    all of its processes call this, the first one writes, and all get the outcome. Raises
    `NumericsError` at a loss that is not finite; the last checkpoint is then kept as it is.
    """
    folder = Path(recipe.run)
    recipe = _divided(recipe)
    state = begin(task.net, recipe, device, task.ema_networks, task.frozen_base)
    if distributed.is_main():
        make_folder(folder)
        tidy(folder)
        # the weights, their averages and two moments of those that are trained; the model is not larger
        trained = sum(weight.nbytes for weight in state.trained.values())
        check_room(folder / FILE, sum(tensor.nbytes for tensor in state.tensors().values()) + 2 * trained)
        restore(state, recipe, folder)
    broadcast(state)
    if state.progress.step < recipe.steps and not _learned(state, recipe):
        _slice(task, recipe, state, device, seconds, progress, report)
    outcome = _outcome(state, recipe, {})
    if distributed.is_main():
        outcome = _finished(task, recipe, state, folder, report)
    return distributed.broadcast_object(outcome)


def check(recipe: Recipe) -> None:
    """Raise what `train` would raise of a run in `recipe.run`, before anything is prepared for it."""
    recipe = _divided(recipe)
    if distributed.is_main():
        reached(recipe, Path(recipe.run))


def metrics_of(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in the content of an `OUTCOME`; an earlier version called them figures."""
    return dict(outcome.get("metrics", outcome.get("figures", {})))


def averaged(state: State, recipe: Recipe) -> dict[str, Tensor]:
    """The state of the network with its trained weights replaced by their average."""
    return {**state.net.state_dict(), **state.averages[str(recipe.result_decay)]}


def result(state: State, recipe: Recipe) -> dict[str, Tensor]:
    """The same of the best step, where steps are measured."""
    return {**averaged(state, recipe), **state.best}


def _divided(recipe: Recipe) -> Recipe:
    """With a step in as many parts as can be divided evenly among all processes."""
    parts = math.lcm(recipe.gradient_accumulation, distributed.world_size())
    if recipe.batch_size % parts:
        raise UsageError(
            f"batch_size = {recipe.batch_size} cannot be taken in {parts} parts, as "
            f"{distributed.world_size()} processes with gradient_accumulation = "
            f"{recipe.gradient_accumulation} do"
        )
    return replace(recipe, gradient_accumulation=parts)


def _finished(
    task: Task[B], recipe: Recipe, state: State, folder: Path, report: Callable[[str], None]
) -> Outcome:
    if (folder / OUTCOME).is_file():
        kept = read_json(folder / OUTCOME)
        if (kept["step"], kept.get("ema")) == (state.progress.step, recipe.result_decay):
            return _outcome(state, recipe, metrics_of(kept))
    task.net.eval()
    report(f"{folder}: writing and measuring the result of step {state.progress.step:,}")
    outcome = _outcome(state, recipe, task.finish(result(state, recipe), folder))
    content = {**vars(outcome), "ema": recipe.result_decay, "metrics": dict(outcome.metrics)}
    content |= {"patience": recipe.validation.patience} if outcome.stopped_early else {}
    write_json(folder / OUTCOME, content)
    return outcome


def _slice(
    task: Task[B],
    recipe: Recipe,
    state: State,
    device: torch.device,
    seconds: float,
    report_progress: Callable[[TrainingProgress], None],
    report: Callable[[str], None],
) -> None:
    """Steps until the last one, until `seconds` are over, or until a signal comes."""
    folder, progress, signals = Path(recipe.run), state.progress, Signals()
    began, before, first, kept = time.monotonic(), progress.seconds, progress.examples, progress.step
    generator = torch.Generator(device)
    if recipe.gradient_checkpointing:
        enable_checkpointing(task.net)
    task.net.train()
    over, signal, looked = False, 0, began
    try:
        log = Log(folder, device, kept, recipe.tensorboard)
        with signals.postponed():
            while not over:
                rate = advance(task, recipe, state, generator, log)
                step = progress.step
                written, drawn = _due(step, recipe.log_every), _due(step, recipe.samples.every)
                over = step == recipe.steps
                if task.validate and (over or _due(step, recipe.validation.every)):
                    loss = _measure(task.validate, recipe, state)
                    log.add(step, {"held_out_loss": torch.tensor(loss, device=device)})
                    over = over or _learned(state, recipe)
                due = over or written or drawn or device.type == "cpu"
                due = due or step - kept >= recipe.checkpoint_every
                now = time.monotonic()
                # a clock is the first process's alone, or the others would do otherwise at times
                late = distributed.is_main() and now - began >= seconds
                due = due or late or (distributed.is_main() and now - looked >= _LOOK)
                looks, ends, signal = distributed.all_reduce_max(due, late, signals.received)
                over = over or bool(ends or signal)
                if not (looks or signal):
                    continue
                log.check()
                looked = time.monotonic()
                lasted = looked - began
                progress.seconds = before + lasted
                speed = (progress.examples - first) / lasted
                mean = log.mean("loss")
                if written or over:
                    log.write(step, progress.examples, progress.seconds, rate, speed)
                if distributed.is_main():
                    left = min((recipe.steps - step) * recipe.batch_size / speed, seconds - lasted)
                    report_progress(
                        TrainingProgress(step, recipe.steps, mean, speed, max(0.0, left), written or over)
                    )
                    if over or step - kept >= recipe.checkpoint_every:
                        save(state, recipe, folder)
                    if drawn and not over:
                        sheet = folder / "samples" / f"{step:07}.webp"
                        report(f"{folder}: drawing samples of step {step:,}")
                        task.net.eval()
                        task.show(averaged(state, recipe), sheet)
                        task.net.train()
                        log.picture(step, sheet)
                if over or step - kept >= recipe.checkpoint_every:
                    kept = step
        if signal:
            signals.deliver(signal)
    except NumericsError:
        raise
    except BaseException as error:
        done = f"step {kept:,} of {recipe.steps:,}" if kept else "nothing yet"
        error.add_note(f"{done} is kept in {folder}, run again to go on")
        raise


def advance(task: Task[B], recipe: Recipe, state: State, generator: torch.Generator, log: Log) -> float:
    """One step, this process's parts of it one after another; its learning rate."""
    step, parts, device = state.progress.step, recipe.gradient_accumulation, generator.device
    own = parts // distributed.world_size()
    dtype, optimizer = recipe.dtype(device), recipe.optimizer
    schedule = LR_SCHEDULES[optimizer.lr_schedule]
    rate = optimizer.learning_rate * schedule(
        step, recipe.steps, optimizer.warmup_steps, optimizer.decay_steps
    )
    for group in state.optimizer.param_groups:
        group[RATE] = rate * group[FACTOR]
    for part in range(distributed.rank() * own, (distributed.rank() + 1) * own):
        generator.manual_seed(seed_of(recipe.seed, step, part))
        batch = task.batches(StepContext(step, part, parts, generator), recipe.batch_size // parts)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses, metrics = task.loss(batch, generator)
        loss = losses.mean()
        state.scaler.scale(loss / parts).backward()
        log.add(step, {"loss": loss, **metrics})
    trained = list(state.trained.values())
    distributed.all_reduce_sum([weight.grad for weight in trained if weight.grad is not None])
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(trained, optimizer.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    for decay, average in state.averages.items():
        # while there is little to average, the average is short
        w = 1 - min(float(decay), (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [weight.detach() for weight in trained], w)
    log.add(step, {"grad_norm": norm} if not state.scaler.is_enabled() else _scaled(norm, state))
    state.progress.step, state.progress.examples = step + 1, state.progress.examples + recipe.batch_size
    return rate


def _scaled(norm: Tensor, state: State) -> dict[str, Tensor]:
    """Of a float16 step: one that was left out has no gradient, and is bad only if there are too many."""
    scale = state.scaler.scale(torch.ones_like(norm))
    return {
        "grad_norm": torch.where(torch.isfinite(norm), norm, 0.0),
        "loss_scale": torch.where(scale >= _LEAST_SCALE, scale, torch.nan),
    }


def _measure(validate: Callable[[dict[str, Tensor]], float], recipe: Recipe, state: State) -> float:
    """The loss of what is held out after a step, whose weights are kept if it is the lowest so far."""
    progress, averages = state.progress, state.averages[str(recipe.result_decay)]
    loss = distributed.broadcast_object(validate(averaged(state, recipe)) if distributed.is_main() else 0.0)
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_step, progress.best_loss, progress.measured_since = progress.step, loss, 0
        state.best.update({name: weight.clone() for name, weight in averages.items()})
    else:
        progress.measured_since += 1
    return loss


def _learned(state: State, recipe: Recipe) -> bool:
    """Whether the recipe's patience is over."""
    return 0 < recipe.validation.patience <= state.progress.measured_since


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _outcome(state: State, recipe: Recipe, metrics: Mapping[str, float]) -> Outcome:
    progress = state.progress
    early = _learned(state, recipe)
    done = progress.step >= recipe.steps or early
    if done and progress.best_loss is not None:
        metrics = {**metrics, "best_step": progress.best_step, "held_out_loss": progress.best_loss}
    return Outcome(progress.step, progress.examples, round(progress.seconds, 2), done, metrics, early)
