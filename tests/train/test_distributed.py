"""Several processes train together: the run is the one that a single process makes of the same recipe."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
import weakref
from functools import partial

import pytest
import test_loop as t
import torch
from making import changed

from sfumato.errors import UsageError
from sfumato.train import distributed
from sfumato.train.loop import train

SHARED = changed(t.RECIPE, gradient_accumulation=2)
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_distributed
test_distributed.work(test_distributed.t.line, {run!r}, steps=20, decay_steps=0)
test_distributed.check_left()
"""
groups = []
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["test_loop", "torch.distributed"])


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def work(line, folder, **changes):
    """What each process of a group does, and a weak reference to what joined it to the others."""
    with distributed.process_group("cpu") as device:
        groups.append(weakref.ref(torch.distributed.group.WORLD))
        with distributed.main_first():
            task = line()
        outcome = train(task, changed(t.RECIPE, run=str(folder), **changes), device)
        # in one piece: torchrun has its processes write without a buffer, into the same pipe
        sys.stdout.write(f"{distributed.rank()} {outcome.step} {outcome.metrics['slope']}\n")
        sys.stdout.flush()


def one(told, environment, line, folder):
    os.environ |= environment
    with open(told, "w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    status = 0
    try:
        work(line, folder)
    except BaseException:
        traceback.print_exc()
        status = 1
    check_left()
    sys.exit(status)


def check_left():
    """A group that anything still holds has threads, which can abort the end of a process."""
    assert [group() for group in groups] == [None]


def together(folder, *lines):
    """Exit status and errors of processes as torchrun starts them, but sooner, one with each of `lines`."""
    common = {"WORLD_SIZE": str(len(lines)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    told = [folder.with_name(f"{folder.name}-{rank}") for rank in range(len(lines))]
    running = []
    for rank, line in enumerate(lines):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), **common}
        running.append(processes.Process(target=one, args=(told[rank], places, line, folder)))
    for process in running:
        process.start()
    for process in running:
        process.join(100)
    return [(process.exitcode, path.read_text()) for process, path in zip(running, told, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The end of a single process's run in two parts."""
    folder = tmp_path_factory.mktemp("alone")
    train(t.line(), changed(SHARED, run=str(folder)), t.CPU)
    return t.restored(folder, gradient_accumulation=2)


def assert_same_run(folder, alone):
    """The run in `folder` ended as that of one process; sums over processes may round in another order."""
    found = t.restored(folder, gradient_accumulation=2)
    assert (found.progress.step, found.progress.examples) == (alone.progress.step, alone.progress.examples)
    torch.testing.assert_close(found.tensors(), alone.tensors(), rtol=1e-5, atol=1e-6)


def test_two_processes_of_torchrun_make_the_run_of_one_and_one_goes_on_with_theirs(tmp_path, alone):
    path = tmp_path / "two.py"
    path.write_text(SCRIPT.format(tests=os.path.dirname(__file__), run=str(tmp_path / "run")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr"]
    command += ["127.0.0.1", "--master-port", str(free_port()), str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    told = sorted(line.split() for line in ran.stdout.splitlines())
    assert [(rank, step) for rank, step, _ in told] == [("0", "20"), ("1", "20")]
    assert told[0][2] == told[1][2], "both get the outcome"
    train(t.line(), changed(SHARED, run=str(tmp_path / "run")), t.CPU)
    assert_same_run(tmp_path / "run", alone)


def test_two_processes_go_on_with_the_run_of_one_and_log_what_it_logs(tmp_path, alone):
    recipe = changed(SHARED, run=str(tmp_path / "run"))
    train(t.line(), changed(recipe, steps=20, decay_steps=0), t.CPU)
    told = together(tmp_path / "run", t.line, t.line)
    assert [status for status, _ in told] == [0, 0], told
    assert_same_run(tmp_path / "run", alone)
    train(t.line(), changed(recipe, run=str(tmp_path / "one")), t.CPU)
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("run", "one")
    ]
    for key in ("step", "examples", "loss", "size", "grad_norm"):
        assert [line[key] for line in logs[0]] == pytest.approx([line[key] for line in logs[1]], rel=1e-5)


def test_what_is_not_finite_in_one_process_stops_both_at_its_step(tmp_path):
    for status, err in together(tmp_path / "run", t.line, partial(t.line, poisoned_at=10)):
        assert status == 1
        assert "not finite at step 9" in err
    assert t.restored(tmp_path / "run", gradient_accumulation=2).progress.step == 7


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_partner_dies_ends_too(tmp_path, rank):
    lines = [t.line, t.line]
    lines[rank] = partial(t.interrupted, signal.SIGKILL, after=10)
    told = together(tmp_path / "run", *lines)
    assert told[rank][0] == -signal.SIGKILL
    assert told[1 - rank][0] == 1
    assert "cannot reach the others any more" in told[1 - rank][1]
    assert t.restored(tmp_path / "run", gradient_accumulation=2).progress.step == 7


def test_a_signal_to_one_of_them_stops_all_after_the_same_step(tmp_path, alone):
    told = together(tmp_path / "run", t.line, partial(t.interrupted, signal.SIGINT, after=5))
    assert all("KeyboardInterrupt" in err and "step 5 of 40 is kept" in err for _, err in told), told
    together(tmp_path / "run", t.line, t.line)
    assert_same_run(tmp_path / "run", alone)


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UsageError, match="batch_size = 8 cannot be taken in 3 parts, as 3 processes"):
        train(t.line(), changed(t.RECIPE, run=str(tmp_path)), t.CPU)


def test_a_team_that_nobody_can_find_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(UsageError, match="WORLD_SIZE is 2, but MASTER_ADDR, MASTER_PORT is not set"),
        distributed.process_group(),
    ):
        pass
