"""The engine: many jobs in common batches come out as they do alone."""

import math

import pytest
import torch

from sfumato.diffusion.guidance import ClassifierFreeGuidance, Term, WeightedConditioning, weighted_sum
from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.samplers import evaluations, sampler_named
from sfumato.diffusion.sampling import SeededNoise
from sfumato.diffusion.spacing import spacing_named
from sfumato.engine import Engine, Evaluated, Failed, Finished, Job
from sfumato.errors import NumericsError

PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
CELLS = 8 * 8


class Network:
    """Stands in for the denoiser, smooth in latent, level and conditioning (a number); counts its batches."""

    dtype = torch.float32

    def __init__(self, spoil=None, room=None, sign=1.0):
        self.batches, self.spoil, self.room, self.sign = [], spoil, room, sign
        self.adapters = ()

    def group(self, row):
        return row[0].x.shape

    def select(self, adapters):
        self.adapters = adapters

    def __call__(self, rows):
        self.batches.append(len({id(point) for point, _ in rows}))
        if self.room is not None and self.batches[-1] > self.room:
            raise torch.OutOfMemoryError("no room")
        return [
            torch.full_like(point.x, math.nan)
            if term.conditioning == self.spoil and point.step == 1
            else torch.tanh(self.sign * point.x + term.conditioning + len(self.adapters)) * point.level.a
            for point, term in rows
        ]


def sampling(sampler="ddim", steps=4, seed=0, size=8):
    levels, noise = spacing_named("trailing").levels(PATH, steps), SeededNoise([seed])
    return sampler_named(sampler).sample(noise(torch.empty(1, 4, size, size)), levels, noise)


def guidance(number=1.0, scale=3.0):
    negatives = () if scale == 1 else (WeightedConditioning(0.0),)
    return ClassifierFreeGuidance((WeightedConditioning(number),), negatives, scale)


def job(key, number=1.0, scale=3.0, adapters=(), decode=None, **how):
    return Job(key, sampling(**how), guidance(number, scale), adapters, decode)


CROWD = [
    dict(key="a", sampler="ddim", steps=3, seed=1, scale=1.0),
    dict(key="b", sampler="dpmpp-2m", steps=7, seed=2, number=0.5),
    dict(key="c", sampler="euler-a", steps=5, seed=3, scale=7.0),
    dict(key="d", sampler="heun", steps=4, seed=4),
    dict(key="e", sampler="dpmpp-2m", steps=4, seed=5, size=16),
    dict(key="f", sampler="ddim", steps=4, seed=6, adapters=("lora",)),
]


def latents(events):
    return {event.key: event.latent for event in events if isinstance(event, Finished)}


def alone(arguments):
    network = Network()
    engine = Engine(network, select=network.select)
    return latents(engine.run([job(**arguments)]))[arguments["key"]]


def drive(engine):
    events = []
    while not engine.idle:
        events += engine.step()
    return events


@pytest.mark.parametrize("budget", [0, 2, 6, 10_000])
def test_jobs_in_a_crowd_equal_themselves_alone(budget):
    network = Network()
    engine = Engine(network, budget * CELLS, network.select)
    drawn = latents(engine.run(job(**arguments) for arguments in CROWD))
    assert set(drawn) == set("abcdef")
    for arguments in CROWD:
        assert torch.equal(drawn[arguments["key"]], alone(arguments)), arguments


def test_jobs_of_other_sizes_or_adapters_never_share_a_batch():
    network = Network()
    list(Engine(network, math.inf, network.select).run(job(**arguments) for arguments in CROWD))
    assert max(network.batches) == 4


def test_a_batch_holds_as_many_rows_and_cells_as_the_budget_allows():
    for rows, guided, alone in ((1, 1, 1), (4, 2, 4), (7, 3, 7)):
        for scale, most in ((3.0, guided), (1.0, alone)):
            network = Network()
            engine = Engine(network, rows * CELLS)
            for key in range(8):
                engine.submit(job(key, scale=scale))
            drive(engine)
            assert max(network.batches) == most


def test_every_evaluation_is_reported_once_and_in_order():
    network = Network()
    events = list(Engine(network, math.inf, network.select).run(job(**each) for each in CROWD))
    for arguments in CROWD:
        own = [event for event in events if event.key == arguments["key"]]
        assert isinstance(own.pop(), Finished)
        levels = spacing_named("trailing").levels(PATH, arguments["steps"])
        total = evaluations(arguments["sampler"], levels)
        assert [event.index for event in own] == list(range(1, total + 1))
        assert [event.last for event in own] == [False] * (total - 1) + [True]


def test_a_job_that_leaves_the_finite_numbers_fails_alone_and_names_its_evaluation():
    crowd = [dict(key="good", seed=1), dict(key="bad", number=9.0), dict(key="fine", sampler="heun")]
    events = list(Engine(Network(spoil=9.0), math.inf).run(job(**arguments) for arguments in crowd))
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.key for event in failed] == ["bad"]
    assert isinstance(failed[0].error, NumericsError)
    assert "evaluation 2" in str(failed[0].error)
    assert set(latents(events)) == {"good", "fine"}


def broken_after(count):
    """A sampling whose code fails after `count` evaluations."""
    points = sampling()
    x0 = None
    for _ in range(count):
        x0 = yield points.send(x0) if x0 is not None else next(points)
    raise RuntimeError("this sampler is broken")


class BrokenGuidance:
    def terms(self, point):
        raise LookupError("this guidance is broken")

    def combine(self, point, estimates):
        raise AssertionError("without terms there is nothing to combine")


class BrokenNetwork(Network):
    def __call__(self, rows):
        if any(term.conditioning == self.spoil for _, term in rows):
            raise ValueError("this row cannot be evaluated")
        return super().__call__(rows)


@pytest.mark.parametrize("budget", [0, math.inf])
def test_a_job_whose_code_raises_ends_alone(budget):
    network = BrokenNetwork(spoil=9.0)
    jobs = [
        Job("at once", broken_after(0), guidance()),
        job("first"),
        Job("later", broken_after(2), guidance()),
        Job("guidance", sampling(), BrokenGuidance()),
        job("row", number=9.0),
        job("second", sampler="heun"),
    ]
    events = list(Engine(network, budget).run(jobs))
    failed = {event.key: type(event.error) for event in events if isinstance(event, Failed)}
    assert failed == {
        "at once": RuntimeError,
        "later": RuntimeError,
        "guidance": LookupError,
        "row": ValueError,
    }
    assert set(latents(events)) == {"first", "second"}
    assert torch.equal(latents(events)["first"], alone(dict(key="first")))


def test_a_batch_that_does_not_fit_is_split_and_nothing_changes():
    network = Network(room=2)
    engine = Engine(network, math.inf)
    crowd = [dict(key=k, seed=k, steps=3) for k in range(5)]
    drawn = latents(engine.run(job(**arguments) for arguments in crowd))
    assert engine.budget <= 2 * 2 * CELLS
    for arguments in crowd:
        assert torch.equal(drawn[arguments["key"]], alone(arguments))


def test_one_point_that_does_not_fit_fails_its_job():
    (event,) = Engine(Network(room=0)).run([job("a")])
    assert isinstance(event, Failed)
    assert isinstance(event.error, torch.OutOfMemoryError)


class Decoder:
    """From latents to something like pixels; refuses `most` of them and more, and what `spoil` says."""

    def __init__(self, most=100, spoil=None):
        self.most, self.spoil, self.batches = most, spoil, []

    def __call__(self, latents):
        self.batches.append(len(latents))
        if len(latents) >= self.most:
            raise torch.OutOfMemoryError("no room")
        if self.spoil is not None and any(torch.equal(latent, self.spoil[0]) for latent in latents):
            raise NumericsError("the decoded picture is not finite")
        return latents[:, :3] + 1


@pytest.mark.parametrize(
    ("budget", "most", "batches"),
    [(0, 100, [1] * 4), (math.inf, 100, [4]), (3 * CELLS, 100, [3, 1]), (math.inf, 3, [4, 2, 2])],
)
def test_latents_are_decoded_in_batches_of_one_shape(budget, most, batches):
    decoder = Decoder(most)
    crowd = [dict(key=k, seed=k, steps=3) for k in range(4)]
    engine = Engine(Network(), math.inf, decode_budget=budget)
    events = list(engine.run(job(**each, decode=decoder) for each in crowd))
    assert engine.budget == math.inf
    finished = {event.key: event for event in events if isinstance(event, Finished)}
    assert decoder.batches == batches
    for arguments in crowd:
        latent = alone(arguments)
        assert torch.equal(finished[arguments["key"]].latent, latent)
        assert torch.equal(finished[arguments["key"]].pixels, latent[:, :3] + 1)


def test_latents_of_other_shapes_or_decoders_are_decoded_apart():
    one, other = Decoder(), Decoder()
    jobs = [job("a", decode=one), job("b", decode=other), job("c", decode=one, size=16), job("d", decode=one)]
    events = list(Engine(Network(), math.inf, decode_budget=math.inf).run(jobs))
    assert sorted(one.batches) == [1, 2]
    assert other.batches == [1]
    assert set(latents(events)) == set("abcd")


def test_a_latent_that_cannot_be_decoded_fails_its_own_job():
    spoil = alone(dict(key="bad", seed=1))
    decoder = Decoder(spoil=spoil)
    events = list(
        Engine(Network(), math.inf, decode_budget=math.inf).run(
            job(key, seed=seed, decode=decoder) for seed, key in enumerate(("good", "bad", "fine"))
        )
    )
    assert [event.key for event in events if isinstance(event, Failed)] == ["bad"]
    assert set(latents(events)) == {"good", "fine"}


def test_a_job_that_asks_nothing_is_finished_with_what_it_returns():
    def given(latent):
        return latent
        yield

    latent = torch.ones(1, 4, 8, 8)
    (event,) = Engine(Network()).run([Job("a", given(latent), guidance(), decode=Decoder())])
    assert torch.equal(event.latent, latent)
    assert torch.equal(event.pixels, latent[:, :3] + 1)


class Autoguidance:
    """x0 + (scale − 1)·(x0 − x0 of a weaker network) (Karras et al. 2024, eq. 2)."""

    def __init__(self, number, scale):
        self.number, self.scale = number, scale

    def terms(self, point):
        weak = Term(self.number, 1 - self.scale, network="weak", conditional=False)
        return [Term(self.number, self.scale), weak]

    def combine(self, point, estimates):
        return weighted_sum(estimates)


@pytest.mark.parametrize("budget", [0, math.inf])
def test_terms_of_two_networks_are_mixed(budget):
    networks = {"main": Network(), "weak": Network(sign=-1.0)}
    jobs = [Job(k, sampling(seed=k), Autoguidance(1.0, 2.0)) for k in range(3)]
    drawn = latents(Engine(networks, budget).run(jobs))
    for k in range(3):
        points = sampling(seed=k)
        point = next(points)
        try:
            while True:
                strong, weak = (torch.tanh(sign * point.x + 1.0) * point.level.a for sign in (1, -1))
                point = points.send(2 * strong - weak)
        except StopIteration as done:
            torch.testing.assert_close(drawn[k], done.value)
    assert len(networks["main"].batches) == len(networks["weak"].batches) == (12 if not budget else 4)


def test_a_cancelled_job_is_not_evaluated_again_and_the_others_go_on():
    engine = Engine(Network(), math.inf)
    for arguments in CROWD[:3]:
        engine.submit(job(**arguments))
    engine.step()
    assert engine.cancel("b")
    assert not engine.cancel("b")
    assert {event.key for event in drive(engine)} == {"a", "c"}


def test_a_job_cancelled_before_it_is_decoded_says_nothing_more():
    decoder = Decoder()
    engine = Engine(Network())
    engine.submit(job("a", steps=1, decode=decoder))
    engine.step()
    assert engine.cancel("a")
    assert engine.idle
    assert decoder.batches == []


def test_no_waiting_job_starves_behind_a_crowd():
    engine = Engine(Network(), 4 * CELLS)
    for k in range(6):
        engine.submit(job(k, seed=k, steps=5, size=8 if k else 16))
    seen = []
    for _ in range(6):
        seen += [event.key for event in engine.step()]
    assert set(seen) == set(range(6))


def test_closing_the_run_cancels_what_is_left():
    engine = Engine(Network(), math.inf)
    events = engine.run(job(**arguments) for arguments in CROWD)
    next(events)
    events.close()
    assert engine.idle


def test_a_key_in_use_is_refused():
    engine = Engine(Network())
    engine.submit(job("a"))
    with pytest.raises(ValueError, match="'a'"):
        engine.submit(job("a"))


def test_a_job_at_fault_is_found_at_once_and_the_others_stay_together():
    network = BrokenNetwork(spoil=9.0)
    engine = Engine(network, math.inf)
    for key, number in (("a", 1.0), ("bad", 9.0), ("b", 2.0)):
        engine.submit(job(key, number=number, steps=3))
    assert [type(event) for event in engine.step()] == [Evaluated, Failed, Evaluated]
    network.batches.clear()
    drive(engine)
    assert network.batches == [2, 2]


def test_after_a_batch_that_did_not_fit_those_who_were_left_out_come_first():
    engine = Engine(Network(room=2), math.inf)
    for key in "abcd":
        engine.submit(job(key))
    seen = [[event.key for event in engine.step()] for _ in range(3)]
    assert seen == [["a", "b"], ["c", "d"], ["a", "b"]]


def test_a_coroutine_that_raises_when_it_is_closed_disturbs_nobody():
    def stubborn():
        points = sampling()
        try:
            yield next(points)
        finally:
            raise RuntimeError("closing is refused")

    engine = Engine(Network(spoil=9.0), math.inf)
    engine.submit(Job("stubborn", stubborn(), guidance()))
    engine.submit(job("fine"))
    assert engine.cancel("stubborn")
    assert {event.key for event in drive(engine)} == {"fine"}
    events = engine.run([Job("stubborn", stubborn(), guidance()), job("other")])
    next(events)
    events.close()
    assert engine.idle


def test_a_run_that_is_closed_leaves_the_jobs_of_others():
    engine = Engine(Network(), math.inf)
    events = engine.run([job("a", steps=1), job("b", steps=9)])
    while not isinstance(next(events), Finished):
        pass
    engine.submit(job("a"))
    events.close()
    assert {event.key for event in drive(engine)} == {"a"}
