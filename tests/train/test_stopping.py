"""Signals wait until what was learned is safe."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import test_loop as t
from making import changed

from sfumato.errors import SfumatoWarning
from sfumato.train.loop import train
from sfumato.train.stopping import Signals


class ToldError(Exception):
    """What the usual handler of these tests does."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    """A signal, whose handler raises."""

    def handler(number, frame):
        raise ToldError(number)

    former = signal.signal(request.param, handler)
    yield request.param
    signal.signal(request.param, former)


def send(number):
    os.kill(os.getpid(), number)


def test_the_first_signal_waits_and_does_afterwards_what_it_would_have_done(number):
    signals = Signals()
    with signals.postponed():
        with pytest.warns(SfumatoWarning, match="stopping after this step"):
            send(number)
        assert signals.received == number
    with pytest.raises(ToldError):
        signals.deliver(signals.received)
    with pytest.raises(ToldError):
        send(number)


def test_the_second_signal_does_not_wait(number):
    signals = Signals()
    with signals.postponed():
        with pytest.warns(SfumatoWarning):
            send(number)
        with pytest.raises(ToldError):
            send(number)


def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    signals = Signals()
    with signals.postponed():
        send(number)
    assert signals.received == 0


def test_a_run_in_another_thread_leaves_signals_alone(number):
    before = signal.getsignal(number)
    found = []

    def look():
        with Signals().postponed():
            found.append(signal.getsignal(number))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_run_that_gets_a_signal_keeps_its_step_and_goes_on_as_if_it_had_not(number, tmp_path):
    recipe = changed(t.RECIPE, run=str(tmp_path))
    with pytest.raises(ToldError) as caught:
        train(t.interrupted(number, after=12), recipe, t.CPU)
    assert caught.value.__notes__ == [f"step 12 of 40 is kept in {tmp_path}, run again to go on"]
    assert t.restored(tmp_path).progress.step == 12
    train(t.line(), recipe, t.CPU)
    train(t.line(), changed(recipe, run=str(tmp_path / "unbroken")), t.CPU)
    assert t.digest(tmp_path) == t.digest(tmp_path / "unbroken")


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_second_signal_leaves_the_last_checkpoint(number, tmp_path):
    task = t.interrupted(number, after=12)
    asked = 0

    def objective(batch, generator):
        nonlocal asked
        asked += 1
        told = task.loss(batch, generator)
        if asked == 12:
            send(number)
        return told

    with pytest.raises(ToldError) as caught:
        train(replace(task, loss=objective), changed(t.RECIPE, run=str(tmp_path)), t.CPU)
    assert caught.value.__notes__ == [f"step 7 of 40 is kept in {tmp_path}, run again to go on"]
    assert t.restored(tmp_path).progress.step == 7
