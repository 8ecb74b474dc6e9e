"""What a worker does with its models: with more than memory holds, and where half precision does not do."""

import threading
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
import torch
from running import TINY, quick_model

from sfumato import checkpoint
from sfumato.nets.denoiser import Denoiser
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.server.worker import messages
from sfumato.server.worker import models as studios
from sfumato.server.worker.loop import Worker
from sfumato.server.worker.models import Models
from sfumato.studio import Studio


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [str(quick_model(folder / name)) for name in ("a", "b")]


@pytest.fixture
def work():
    """Sends jobs (name, model, priority), with previews, to a worker with `memory` bytes, and at last cancels
    those that are named; what it says until all others are over.
    """

    def drawn(memory, *jobs, cancelled=(), dtype=None):
        ours, theirs = Pipe()
        for name, model, priority in jobs:
            request = {**TINY, "steps": 2, "seed": 1, "model": model}
            ours.send(messages.Draw(name, request, priority))
            ours.send(messages.Watch(name, True))
        for name in cancelled:
            ours.send(messages.Cancel(name))
        worker = Worker(theirs, DeviceOptions(device="cpu", dtype=dtype), memory, rows=4)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        told, over = [], 0
        while over < len(jobs) - len(cancelled):
            assert ours.poll(60), told
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


def test_a_model_that_waits_is_drawn_with_where_the_one_before_it_is_cancelled(models, work):
    a, b = models
    told = work(1, ("a1", a, 0), ("b1", b, 0), cancelled=["a1"])
    assert finished(told) == ["b1"]


def test_a_model_leaves_before_the_next_one_is_loaded(models, work, monkeypatch):
    held, load = [], Models.load
    monkeypatch.setattr(Models, "load", lambda self, options: held.append(self.names) or load(self, options))
    work(1, *((name, model, 0) for name, model in zip(("a1", "b1"), models, strict=True)))
    assert held == [frozenset()] * 2


def test_the_least_recently_used_model_leaves_first_but_none_that_draws(monkeypatch):
    def opened(options, device):
        return SimpleNamespace(weight_bytes=400)

    monkeypatch.setattr(studios, "open_studio", opened)
    held = Models(DeviceOptions(), budget=2 * 400)
    a, b, c = (ModelOptions.of(name) for name in "abc")
    first, second = held.load(a), held.load(b)
    assert held.get(a) is first
    assert held.make_room(c, []) == [second]
    third = held.load(c)
    assert held.make_room(b, [first]) == [third]
    assert held.names == {"a"}


@pytest.fixture(scope="module")
def large_numbers(tmp_path_factory):
    """A model whose answers are finite in float32, and not in float16."""
    model = checkpoint.load("embedded")
    with torch.no_grad():
        model.networks["unet"].conv_out.weight.mul_(1e5)
    folder = tmp_path_factory.mktemp("large")
    checkpoint.save(model, folder)
    return str(folder)


def test_pictures_that_fail_together_in_half_precision_are_drawn_again(large_numbers, work):
    told = work(None, ("one", large_numbers, 0), ("two", large_numbers, 0), dtype="float16")
    assert sorted(finished(told)) == ["one", "two"]


def test_a_picture_that_fails_in_full_precision_too_fails_once(models, work, monkeypatch):
    calls = []

    def answer(self, rows):
        calls.append(self.dtype)
        assert len(calls) < 9
        return [torch.full_like(point.x, torch.nan) for point, _ in rows]

    monkeypatch.setattr(Denoiser, "__call__", answer)
    told = work(None, ("one", models[0], 0), dtype="bfloat16")
    assert "not finite" in told[-1].error
    assert calls == [torch.bfloat16, torch.float32]


def test_a_preview_that_does_not_fit_into_memory_costs_no_picture(models, work, monkeypatch):
    def preview(self, x0, picture):
        asked.append(x0)
        raise torch.OutOfMemoryError("no room")

    asked = []
    monkeypatch.setattr(Studio, "preview", preview)
    told = work(None, ("one", models[0], 0))
    assert finished(told) == ["one"]
    assert len(asked) == 1
    assert [type(each) for each in told].count(messages.PictureDrawn) == 1
