"""The loop: a run that is stopped anywhere and resumed is bit for bit the run that was not."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from making import bare, changed
from torch import nn

from sfumato.errors import NumericsError, UsageError
from sfumato.train.context import seed_of
from sfumato.train.loop import train
from sfumato.train.state import FILE, begin, restore
from sfumato.train.task import Task

CPU = torch.device("cpu")
RECIPE = bare(
    steps=40, batch_size=8, learning_rate=0.05, warmup_steps=4, decay_steps=10, ema_decays=(0.9, 0.99),
    precision="float32", checkpoint_every=7, log_every=5,
)  # fmt: skip


def line(told=None, poisoned_at=None):
    """Learn y = x·(1, 2, 3) from noisy examples."""
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    count = 0

    def batches(context, count):
        x = torch.randn(count, 3, generator=context.generator)
        error = 0.1 * torch.randn(count, 1, generator=context.generator)
        return x, x @ torch.tensor([[1.0], [2.0], [3.0]]) + error

    def objective(batch, generator):
        nonlocal count
        count += 1
        x, y = batch
        loss = ((net(x) - y) ** 2).mean(1)
        return loss * (math.nan if count == poisoned_at else 1), {"size": x.abs().mean()}

    def finish(state, folder):
        if told is not None:
            told.append(state)
        return {"slope": float(state["weight"][0, 0])}

    return Task(net, batches, objective, lambda state, path: None, finish)


def restored(folder, **changes):
    recipe = changed(RECIPE, run=str(folder), **changes)
    state = begin(line().net, recipe, CPU)
    assert restore(state, recipe, folder)
    return state


def digest_of(state):
    """SHA-256 over every bit of a state: equal for equal runs."""
    numbers = json.dumps(state.optimizer_structure, sort_keys=True)
    found = hashlib.sha256(f"{state.progress.step} {numbers}".encode())
    for name, tensor in sorted(state.tensors().items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest(folder, **changes):
    return digest_of(restored(folder, **changes))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    train(line(), changed(RECIPE, run=str(folder)), CPU)
    return digest(folder)


def test_it_learns(tmp_path):
    outcome = train(line(), changed(RECIPE, run=str(tmp_path), steps=400, decay_steps=100), CPU)
    assert outcome.metrics["slope"] == pytest.approx(1, abs=0.05)
    assert outcome.done
    assert outcome.examples == 3200


class StoppedError(Exception):
    """Raised in the middle of a step."""


def stopping(task, after):
    """`task`, whose objective raises once it has been asked `after` times."""
    asked = 0

    def objective(batch, generator):
        nonlocal asked
        if asked == after:
            raise StoppedError
        asked += 1
        return task.loss(batch, generator)

    return replace(task, loss=objective)


def interrupted(number, after):
    """`line`, whose process gets signal `number` in the middle of step `after`."""
    task, asked = line(), 0

    def objective(batch, generator):
        nonlocal asked
        asked += 1
        if asked == after:
            os.kill(os.getpid(), number)
        return task.loss(batch, generator)

    return replace(task, loss=objective)


@pytest.mark.parametrize("stops", [(7,), (1, 2, 3), (39,), (14, 20)])
def test_a_run_that_is_stopped_in_mid_step_equals_the_unbroken_run(tmp_path, unbroken, stops):
    recipe = changed(RECIPE, run=str(tmp_path))
    for after in stops:
        with pytest.raises(StoppedError):
            train(stopping(line(), after), recipe, CPU)
    train(line(), recipe, CPU)
    assert digest(tmp_path) == unbroken


def test_a_slice_ends_when_its_time_is_over_and_the_next_goes_on(tmp_path, unbroken):
    recipe = changed(RECIPE, run=str(tmp_path))
    outcomes = [train(line(), recipe, CPU, seconds=1e-9) for _ in range(3)]
    assert [outcome.step for outcome in outcomes] == [1, 2, 3]
    assert not outcomes[-1].done
    assert train(line(), recipe, CPU).done
    assert digest(tmp_path) == unbroken


def test_resuming_a_finished_run_does_nothing(tmp_path):
    recipe, told = changed(RECIPE, run=str(tmp_path)), []
    first = train(line(told), recipe, CPU)
    before = (tmp_path / FILE).read_bytes(), (tmp_path / "log.jsonl").read_text()
    again = train(line(told), recipe, CPU)
    assert again == first
    assert len(told) == 1
    assert ((tmp_path / FILE).read_bytes(), (tmp_path / "log.jsonl").read_text()) == before


def test_a_batch_taken_in_parts_is_as_large_as_one_taken_whole(tmp_path):
    outcome = train(line(), changed(RECIPE, run=str(tmp_path), gradient_accumulation=4), CPU)
    assert outcome.examples == 40 * 8


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    recipe = changed(RECIPE, run=str(tmp_path))
    with pytest.raises(NumericsError, match=r"not finite at step 9, .*last good checkpoint"):
        train(line(poisoned_at=10), recipe, CPU)
    task = line()
    state = begin(task.net, recipe, CPU)
    assert restore(state, recipe, tmp_path)
    assert state.progress.step == 7
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.tensors().values())


def test_a_run_of_another_recipe_is_not_continued(tmp_path):
    train(line(), changed(RECIPE, run=str(tmp_path)), CPU, seconds=1e-9)
    with pytest.raises(UsageError, match=r"another recipe: optimizer.learning_rate was 0.05 and is 0.1"):
        train(line(), changed(RECIPE, run=str(tmp_path), learning_rate=0.1), CPU)


def test_a_run_may_be_given_more_steps(tmp_path):
    train(line(), changed(RECIPE, run=str(tmp_path), steps=10, decay_steps=0), CPU)
    assert train(line(), changed(RECIPE, run=str(tmp_path), steps=20, decay_steps=5), CPU).step == 20


def test_the_log_tells_every_figure_at_every_so_many_steps(tmp_path):
    train(line(), changed(RECIPE, run=str(tmp_path)), CPU)
    lines = [json.loads(one) for one in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == list(range(5, 41, 5))
    assert {"loss", "size", "grad_norm", "learning_rate", "examples_per_second", "examples"} <= lines[
        0
    ].keys()


def test_seeds_differ_by_every_number():
    seeds = {
        seed_of(*numbers)
        for numbers in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 1 << 63 for seed in seeds)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_loop as t
recipe = t.changed(t.RECIPE, run={run!r}, checkpoint_every=1)
t.train(t.line(), recipe, t.CPU, progress=lambda report: print(report.step, flush=True))
"""


@pytest.mark.parametrize("after", [1, 6])
def test_a_run_that_is_killed_equals_the_unbroken_run(tmp_path, unbroken, after):
    script = KILLED.format(tests=os.path.dirname(__file__), run=str(tmp_path))
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for _ in range(after):
        running.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    train(line(), changed(RECIPE, run=str(tmp_path)), CPU)
    assert digest(tmp_path) == unbroken
