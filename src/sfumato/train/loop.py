"""The loop. It knows no diffusion: a task says what is learned, a recipe how, and every step is seeded.

The random numbers of a step come from (seed, step, part) alone, so that a run that was stopped anywhere
and resumed is bit for bit the run that was not.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sfumato.devices import DTYPES
from sfumato.errors import NumericsError
from sfumato.files import output_error, read_json, write_json
from sfumato.train.moment import Moment, seed_of
from sfumato.train.rates import SCHEDULES
from sfumato.train.recipe import Recipe
from sfumato.train.state import State, begin, restore, save

B = TypeVar("B")
B_in = TypeVar("B_in", contravariant=True)
LOG, OUTCOME = "log.jsonl", "outcome.json"
_NEVER = 1 << 62


class Objective(Protocol[B_in]):
    """What is minimised."""

    def __call__(self, batch: B_in, generator: torch.Generator, /) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of every example (B,), and averages worth logging, by name."""
        ...


@dataclass(frozen=True, eq=False)
class Task(Generic[B]):
    """A network, the examples it learns from and what it learns, and what to do with what it has learned.

    The objective reaches the network by itself; `net` is there for its parameters.
    """

    net: nn.Module
    batches: Callable[[Moment, int], B]
    """`(moment, count)` to a batch of `count`, which nothing but the moment determines."""
    objective: Objective[B]
    show: Callable[[dict[str, Tensor], Path], None]
    """Given the averaged weights, draw a sample sheet."""
    finish: Callable[[dict[str, Tensor], Path], Mapping[str, float]]
    """Given the averaged weights, write the model and say how good it is."""


@dataclass(frozen=True)
class Report:
    """How a run stands."""

    step: int
    steps: int
    loss: float
    rate: float
    """Examples a second in this slice."""
    seconds_left: float


@dataclass(frozen=True)
class Outcome:
    """What a slice has done."""

    step: int
    examples: int
    seconds: float
    """Of training, over all slices."""
    done: bool
    figures: Mapping[str, float]


def train(
    task: Task[B],
    recipe: Recipe,
    device: torch.device,
    *,
    seconds: float = math.inf,
    tell: Callable[[Report], None] = lambda _: None,
) -> Outcome:
    """Go on with the run in `recipe.run`, or begin it, until its last step or for `seconds`.

    Raises `NumericsError` at a loss that is not finite; the last checkpoint is then kept as it is.
    """
    folder = Path(recipe.run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    state = begin(task.net, recipe, device)
    restore(state, recipe, folder)
    if state.progress.step < recipe.steps:
        _slice(task, recipe, state, device, seconds, tell)
    elif (folder / OUTCOME).is_file():
        told = read_json(folder / OUTCOME)
        if told["step"] == state.progress.step:
            return _outcome(state, recipe, told["figures"])
    outcome = _outcome(state, recipe, task.finish(result(state, recipe), folder))
    write_json(folder / OUTCOME, {**vars(outcome), "figures": dict(outcome.figures)})
    return outcome


def result(state: State, recipe: Recipe) -> dict[str, Tensor]:
    """The state of the network with its trained weights replaced by their average."""
    return {**state.net.state_dict(), **state.averages[str(recipe.ema[0])]}


def _slice(
    task: Task[B],
    recipe: Recipe,
    state: State,
    device: torch.device,
    seconds: float,
    tell: Callable[[Report], None],
) -> None:
    folder, progress = Path(recipe.run), state.progress
    dtype = DTYPES[recipe.precision]
    trained = list(state.trained.values())
    averages = [(float(decay), list(average.values())) for decay, average in state.averages.items()]
    generator = torch.Generator(device)
    log = _Log(folder, device)
    began, before, kept = time.monotonic(), progress.seconds, progress.step
    first = progress.examples
    task.net.train()
    while progress.step < recipe.steps:
        step = progress.step
        rate = recipe.rate * SCHEDULES[recipe.schedule](step, recipe.steps, recipe.warmup, recipe.decay)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        for part in range(recipe.accumulate):
            generator.manual_seed(seed_of(recipe.seed, step, part))
            moment = Moment(step, part, recipe.accumulate, generator)
            batch = task.batches(moment, recipe.batch // recipe.accumulate)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                losses, metrics = task.objective(batch, generator)
            loss = losses.mean()
            (loss / recipe.accumulate).backward()
            log.add(step, {"loss": loss, **metrics})
        norm = nn.utils.clip_grad_norm_(trained, recipe.clip)
        state.optimizer.step()
        state.optimizer.zero_grad()
        for decay, average in averages:
            # while there is little to average, the average is short
            w = 1 - min(decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [weight.detach() for weight in trained], w)
        log.add(step, {"gradient": norm})
        progress.step, progress.examples = step + 1, progress.examples + recipe.batch

        over = progress.step == recipe.steps
        if over or progress.step % recipe.log_every == 0 or device.type == "cpu":
            log.check()
            lasted = time.monotonic() - began
            progress.seconds = before + lasted
            over = over or lasted >= seconds
            speed = (progress.examples - first) / lasted
            if over or progress.step % recipe.log_every == 0:
                mean = log.write(progress.step, progress.examples, progress.seconds, rate, speed)
                left = (recipe.steps - progress.step) * recipe.batch / speed
                tell(Report(progress.step, recipe.steps, mean, speed, max(0.0, min(left, seconds - lasted))))
            if over or progress.step - kept >= recipe.keep_every:
                save(state, recipe, folder)
                kept = progress.step
            if recipe.samples_every and progress.step % recipe.samples_every == 0:
                task.net.eval()
                task.show(result(state, recipe), folder / "samples" / f"{progress.step:07}.webp")
                task.net.train()
        if over:
            break
    task.net.eval()


class _Log:
    """Sums on the device, so that no step waits for a number to come back."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._path = folder / LOG
        self._device = device
        self._bad = torch.tensor(_NEVER, device=device)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, step: int, figures: Mapping[str, Tensor]) -> None:
        """Take the `figures` of a part of `step` along."""
        for name, value in figures.items():
            value = value.detach().float()
            self._bad = torch.where(torch.isfinite(value), self._bad, self._bad.clamp(max=step))
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def check(self) -> None:
        """Raise `NumericsError` if a loss or a gradient was not finite since the beginning of the slice."""
        if (bad := int(self._bad)) != _NEVER:
            raise NumericsError(
                f"the loss or its gradient is not finite at step {bad}, whose number determines its batch; "
                f"the last good checkpoint is kept in {self._path.parent}: lower the rate, or use float32"
            )

    def write(self, step: int, examples: int, seconds: float, rate: float, speed: float) -> float:
        """Append the means since the last line to the log; the mean loss."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        line = {"step": step, "examples": examples, "seconds": round(seconds, 2), "rate": rate}
        line |= {"per_second": round(speed, 1), **{name: round(mean, 6) for name, mean in means.items()}}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        self._sums, self._counts = {}, {}
        return means["loss"]


def _outcome(state: State, recipe: Recipe, figures: Mapping[str, float]) -> Outcome:
    progress = state.progress
    done = progress.step >= recipe.steps
    return Outcome(progress.step, progress.examples, round(progress.seconds, 2), done, figures)
