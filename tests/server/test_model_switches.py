"""What a worker does with more models than its memory holds."""

import threading
from multiprocessing import Pipe

import pytest
from running import TINY, quick_model

from sfumato.options import DeviceOptions
from sfumato.server.worker import messages
from sfumato.server.worker.loop import Worker


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [str(quick_model(folder / name)) for name in ("a", "b")]


@pytest.fixture
def work():
    """Sends jobs (name, model, priority) to a worker with `memory` bytes; what it says until all are over."""

    def drawn(memory, *jobs):
        ours, theirs = Pipe()
        for name, model, priority in jobs:
            request = {**TINY, "seed": 1, "model": model}
            ours.send(messages.Draw(name, request, priority))
        worker = Worker(theirs, DeviceOptions(device="cpu"), memory)
        thread = threading.Thread(target=worker.run)
        thread.start()
        told, over = [], 0
        while over < len(jobs):
            told.append(ours.recv())
            over += isinstance(told[-1], messages.JobFinished)
        ours.send(messages.Stop())
        thread.join()
        return told

    return drawn


def loaded(told):
    return [each.job for each in told if isinstance(each, messages.Loading)]


def finished(told):
    assert all(each.error is None for each in told if isinstance(each, messages.JobFinished))
    return [each.job for each in told if isinstance(each, messages.JobFinished)]


def test_a_model_that_does_not_fit_beside_a_busy_one_waits_for_it_and_draws_all_its_jobs(models, work):
    a, b = models
    told = work(1, ("a1", a, 0), ("b1", b, 0), ("a2", a, 0), ("b2", b, 0))
    assert loaded(told) == ["a1", "b1", "a2"]
    assert finished(told)[0] == "a1"
    assert finished(told)[-1] == "a2"


def test_the_model_of_the_highest_priority_comes_next(models, work):
    a, b = models
    told = work(1, ("a1", a, 0), ("b1", b, 0), ("a2", a, 1))
    assert loaded(told) == ["a1", "b1"]
    assert finished(told) == ["a1", "a2", "b1"]


def test_models_that_fit_are_loaded_once(models, work):
    a, b = models
    told = work(1 << 30, ("a1", a, 0), ("b1", b, 0), ("a2", a, 0), ("b2", b, 0))
    assert loaded(told) == ["a1", "b1"]
