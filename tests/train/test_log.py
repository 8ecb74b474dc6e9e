"""The log: what it says after a run was cut off anywhere is what the unbroken run says."""

import builtins
import json
import sys
from dataclasses import replace

import pytest
import test_loop as t
from making import changed
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sfumato.errors import OutputError, UsageError
from sfumato.train.log import cut
from sfumato.train.loop import train


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def drawing(task):
    """`task`, whose sheets are one grey pixel."""

    def show(state, path):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1), "#888").save(path)

    return replace(task, show=show)


def test_a_run_that_was_cut_off_tells_every_step_once(tmp_path):
    recipe = changed(t.RECIPE, run=str(tmp_path), checkpoint_every=10, log_every=2)
    with pytest.raises(t.StoppedError):
        train(t.stopping(t.line(), 17), recipe, t.CPU)
    assert steps(tmp_path)[-1] == 16, "but step 10 is the last that is kept"
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 18, "lo')
    train(t.line(), recipe, t.CPU)
    assert steps(tmp_path) == list(range(2, 41, 2))


def test_a_run_that_begins_anew_has_a_new_log(tmp_path):
    recipe = changed(t.RECIPE, run=str(tmp_path), checkpoint_every=100)
    with pytest.raises(t.StoppedError):
        train(t.stopping(t.line(), 17), recipe, t.CPU)
    train(t.line(), recipe, t.CPU)
    assert steps(tmp_path) == list(range(5, 41, 5))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b'{"step": 1}\n{"step": 3}\n', b'{"step": 1}\n'),
        (b'{"step": 1}\n{"step": 2}', b'{"step": 1}\n'),
        (
            b'{"step": 1}\n\x00\x00\n[]\n{"step": null}\n{"loss": 1}\n{"step": 2}\n',
            b'{"step": 1}\n{"step": 2}\n',
        ),
    ],
)
def test_a_log_is_cut_back_to_whole_lines_of_steps_that_are_kept(tmp_path, before, after):
    path = tmp_path / "log.jsonl"
    path.write_bytes(before)
    cut(path, 2)
    assert path.read_bytes() == after


def test_a_log_that_is_right_is_not_written_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n')
    before = path.stat().st_ino
    cut(path, 2)
    assert path.stat().st_ino == before


def test_tensorboard_shows_what_the_log_says_and_the_sheets_and_takes_back_what_was_not_kept(tmp_path):
    recipe = changed(
        t.RECIPE, run=str(tmp_path), checkpoint_every=10, log_every=2, every=20, tensorboard=True
    )
    with pytest.raises(t.StoppedError):
        train(drawing(t.stopping(t.line(), 17)), recipe, t.CPU)
    train(drawing(t.line()), recipe, t.CPU)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "learning_rate", "examples_per_second", "size"):
        scalars = board.Scalars(name)
        assert [one.step for one in scalars] == steps(tmp_path)
        assert [one.value for one in scalars] == pytest.approx([line[name] for line in told], rel=1e-4)
    assert [one.step for one in board.Images("samples")] == [20]


def test_a_missing_tensorboard_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    usual = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return usual(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'sfumato\[train\]'"):
        train(t.line(), changed(t.RECIPE, run=str(tmp_path), tensorboard=True), t.CPU)


def test_a_log_that_cannot_be_written_is_named_with_what_is_kept(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl: it is a folder") as caught:
        train(t.line(), changed(t.RECIPE, run=str(tmp_path)), t.CPU)
    assert caught.value.__notes__ == [f"nothing yet is kept in {tmp_path}, run again to go on"]
