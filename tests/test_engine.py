"""The engine: many jobs in common batches come out as they do alone."""

import math

import pytest
import torch

from sfumato.diffusion.guidance import ClassifierFree, Unguided
from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.samplers import evaluations, sampler_named
from sfumato.diffusion.sampling import SeededNoise
from sfumato.diffusion.spacing import spacing_named
from sfumato.engine import Engine, Evaluated, Failed, Job

PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))


class Text:
    """A conditioning for the stand-in network: a number to draw, and a text length."""

    def __init__(self, number, length=77):
        self.number, self.text, self.length = number, self, length


class Network:
    """Stands in for the denoiser, smooth in latent, level and conditioning; counts its batches."""

    dtype = torch.float32

    def __init__(self, spoil=None, room=None):
        self.batches, self.spoil, self.room = [], spoil, room

    def __call__(self, points, terms):
        self.batches.append([point.level.t for point in points])
        if self.room is not None and len(points) > self.room:
            raise torch.OutOfMemoryError("no room")
        return [
            [
                torch.full_like(point.x, math.nan)
                if term.number == self.spoil and point.step == 1
                else torch.tanh(point.x + term.number) * point.level.a
                for term in own
            ]
            for point, own in zip(points, terms, strict=True)
        ]


def job(key, sampler="ddim", steps=4, seed=0, number=1.0, scale=3.0, size=8, length=77):
    levels, noise = spacing_named("trailing").levels(PATH, steps), SeededNoise([seed])
    x = noise(torch.empty(1, 4, size, size))
    guidance = Unguided() if scale == 1 else ClassifierFree(scale)
    texts = [Text(number, length)] if scale == 1 else [Text(number, length), Text(0.0, length)]
    return Job(key, sampler_named(sampler).sample(x, levels, noise), texts, guidance)


CROWD = [
    dict(key="a", sampler="ddim", steps=3, seed=1, scale=1.0),
    dict(key="b", sampler="dpmpp-2m", steps=7, seed=2, number=0.5),
    dict(key="c", sampler="euler-a", steps=5, seed=3, scale=7.0),
    dict(key="d", sampler="heun", steps=4, seed=4),
    dict(key="e", sampler="dpmpp-2m", steps=4, seed=5, size=16),
    dict(key="f", sampler="ddim", steps=4, seed=6, length=154),
]


def latents(events):
    return {e.key: e.latent for e in events if isinstance(e, Evaluated) and e.latent is not None}


def alone(arguments):
    return latents(Engine(Network()).run([job(**arguments)]))[arguments["key"]]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_jobs_in_a_crowd_equal_themselves_alone(most):
    drawn = latents(Engine(Network(), most).run(job(**arguments) for arguments in CROWD))
    assert set(drawn) == set("abcdef")
    for arguments in CROWD:
        assert torch.equal(drawn[arguments["key"]], alone(arguments)), arguments


def test_points_of_different_size_or_text_length_never_share_a_batch():
    network = Network()
    list(Engine(network, 8).run(job(**arguments) for arguments in CROWD))
    assert max(map(len, network.batches)) == 4


def test_every_evaluation_is_reported_once_and_in_order():
    events = list(Engine(Network(), 8).run(job(**arguments) for arguments in CROWD))
    for arguments in CROWD:
        own = [event for event in events if event.key == arguments["key"]]
        levels = spacing_named("trailing").levels(PATH, arguments["steps"])
        total = evaluations(arguments["sampler"], levels)
        assert [event.index for event in own] == list(range(1, total + 1))
        assert [event.latent is not None for event in own] == [False] * (total - 1) + [True]


def test_a_job_that_leaves_the_finite_numbers_fails_alone_and_names_its_evaluation():
    crowd = [dict(key="good", seed=1), dict(key="bad", number=9.0), dict(key="fine", sampler="heun")]
    events = list(Engine(Network(spoil=9.0), 8).run(job(**arguments) for arguments in crowd))
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.key for event in failed] == ["bad"]
    assert "evaluation 2" in str(failed[0].error)
    assert set(latents(events)) == {"good", "fine"}


def test_a_batch_that_does_not_fit_is_split_and_nothing_changes():
    network = Network(room=2)
    engine = Engine(network, 8)
    crowd = [dict(key=k, seed=k, steps=3) for k in range(5)]
    drawn = latents(engine.run(job(**arguments) for arguments in crowd))
    assert engine.most_points <= 2
    for arguments in crowd:
        assert torch.equal(drawn[arguments["key"]], alone(arguments))


def test_one_point_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        list(Engine(Network(room=0)).run([job("a")]))


def test_a_cancelled_job_is_not_evaluated_again_and_the_others_go_on():
    engine = Engine(Network(), 8)
    for arguments in CROWD[:3]:
        engine.submit(job(**arguments))
    engine.step()
    assert engine.cancel("b")
    assert not engine.cancel("b")
    events = []
    while not engine.idle:
        events += engine.step()
    assert {event.key for event in events} == {"a", "c"}


def test_no_waiting_job_starves_behind_a_crowd():
    network = Network()
    engine = Engine(network, 2)
    for k in range(6):
        engine.submit(job(k, seed=k, steps=5, size=8 if k else 16))
    seen = []
    for _ in range(6):
        seen += [event.key for event in engine.step()]
    assert set(seen) == set(range(6))


def test_closing_the_run_cancels_what_is_left():
    engine = Engine(Network(), 2)
    events = engine.run(job(**arguments) for arguments in CROWD)
    next(events)
    events.close()
    assert engine.idle


def test_a_key_in_use_is_refused():
    engine = Engine(Network(), 2)
    engine.submit(job("a"))
    with pytest.raises(ValueError, match="'a'"):
        engine.submit(job("a"))
