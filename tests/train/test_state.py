"""The state of a run: whole or not at all, and what is said when it is not."""

import errno
import json
import os
from dataclasses import replace

import pytest
import test_loop as t
from making import changed

from sfumato import files, weights
from sfumato.errors import CheckpointError, NumericsError, OutputError, UsageError
from sfumato.train.loop import train
from sfumato.train.recipe import Objective
from sfumato.train.state import FILE


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def kept(tmp_path):
    """A run that stands at step 21, and its recipe."""
    recipe = changed(t.RECIPE, run=str(tmp_path))
    with pytest.raises(t.StoppedError):
        train(t.stopping(t.line(), 23), recipe, t.CPU)
    return recipe


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "write"])
@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space"), (errno.EIO, "input/output")])
def test_a_disk_that_refuses_a_checkpoint_leaves_the_last_one(
    kept, tmp_path, monkeypatch, call, number, words
):
    before = (tmp_path / FILE).read_bytes()
    if call == "write":
        monkeypatch.setattr(weights, "write_to", fail_with(number))
    elif call == "open":  # for writing alone
        former, fail = files.os.open, fail_with(number)
        monkeypatch.setattr(
            files.os, "open", lambda *given: fail() if given[1] & files.os.O_CREAT else former(*given)
        )
    else:
        monkeypatch.setattr(files.os, call, fail_with(number))
    with pytest.raises(OutputError, match=rf"cannot write .*{FILE}: .*{words}") as caught:
        train(t.line(), kept, t.CPU)
    monkeypatch.undo()
    assert caught.value.__notes__ == [f"step 21 of 40 is kept in {tmp_path}, run again to go on"]
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []
    train(t.line(), kept, t.CPU)
    train(t.line(), replace(kept, run=str(tmp_path / "unbroken")), t.CPU)
    assert t.digest(tmp_path) == t.digest(tmp_path / "unbroken")


def test_what_a_killed_writer_left_is_cleared_away(kept, tmp_path):
    (tmp_path / f".{FILE}.0123456789ab.tmp").write_bytes(b"half")
    train(t.line(), kept, t.CPU)
    assert [path.name for path in tmp_path.glob(".*")] == []


def cut_short(raw):
    return raw[:-7]


def turned_to_nan(raw):
    return raw[:-4] + b"\xff\xff\xff\x7f"


def emptied(raw):
    return b""


def of_something_else(raw):
    return raw.replace(b'"progress"', b'"progrezz"')


@pytest.mark.parametrize("damage", [cut_short, turned_to_nan, emptied, of_something_else])
def test_a_damaged_state_is_an_error_that_says_what_to_do_and_stays_as_it_is(kept, tmp_path, damage):
    path = tmp_path / FILE
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    advice = "put a sound copy in its place to go on, or delete it to begin the run anew"
    with pytest.raises(CheckpointError, match=advice) as caught:
        train(t.line(), kept, t.CPU)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


def test_a_run_of_another_objective_is_not_continued(kept):
    class Curve(Objective):
        NAME = "curve"

        def task(self, recipe, device, report):
            raise AssertionError("it is refused before")

    with pytest.raises(UsageError, match=r"objective\.name was '' and is 'curve'; set it back to go on"):
        train(t.line(), replace(kept, objective=Curve()), t.CPU)


def test_the_state_of_an_earlier_version_is_an_error_that_says_so(kept, tmp_path):
    metadata = weights.metadata(tmp_path / FILE)
    earlier = {**metadata, "recipe": json.dumps({"objective": "line", "rate": 0.05})}
    weights.write(tmp_path / FILE, weights.read(tmp_path / FILE), earlier)
    with pytest.raises(UsageError, match="written by an earlier version, whose recipes had other keys"):
        train(t.line(), kept, t.CPU)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_what_is_not_finite_in_any_part_of_a_step_stops_it(tmp_path, parts):
    recipe = changed(t.RECIPE, run=str(tmp_path), gradient_accumulation=parts)
    with pytest.raises(NumericsError, match=r"not finite at step 9, .*last good checkpoint"):
        train(t.line(poisoned_at=10 * parts), recipe, t.CPU)
    state = t.restored(tmp_path, gradient_accumulation=parts)
    assert state.progress.step == 7
    lines = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [5]
