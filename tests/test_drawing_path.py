"""One drawing path: what travels down it, what jobs share, and the ways to enter it besides `generate`."""

import math
import threading
import warnings

import pytest
import torch

import sfumato
from sfumato import expansion
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Point, SeededNoise, Start, run
from sfumato.engine import Engine, Evaluated, Failed, Finished
from sfumato.errors import UsageError
from sfumato.prompt.meaning import AdapterWeight
from sfumato.request import Request

SMALL = {"steps": 3, "width": 64, "height": 64, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    studio = sfumato.load(device="cpu", dtype="float32")
    studio.load_adapter(studio.model.fast, "half")
    return studio


def latents(events):
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.key: event.latent for event in events if isinstance(event, Finished)}


def engine(studio, budget):
    return Engine(studio.networks, budget, studio.adapt)


@pytest.mark.parametrize("budget", [0, math.inf])
def test_jobs_with_and_without_adapters_in_one_engine_are_what_they_are_alone(studio, budget):
    asked = {
        "plain": dict(prompt="a red apple", **SMALL),
        "fast": dict(prompt="a red apple", fast=True, **SMALL),
        "lora": dict(prompt="a red apple <lora:half:0.5>", **SMALL),
        "again": dict(prompt="a lemon", **SMALL),
        "stronger": dict(prompt="a red apple <lora:half:0.7>", **SMALL),
    }
    pictures = {key: studio.prepare(Request(**fields))[0] for key, fields in asked.items()}
    together = latents(
        list(engine(studio, budget).run(studio.job(picture, key) for key, picture in pictures.items()))
    )
    assert set(together) == set(asked)
    for key, picture in pictures.items():
        (alone,) = latents(list(engine(studio, 0).run([studio.job(picture, key)]))).values()
        if budget:
            torch.testing.assert_close(together[key], alone, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(together[key], alone)


def test_two_threads_that_draw_with_one_studio_get_right_pictures(studio):
    asked = [
        dict(prompt="a red apple", **SMALL),
        dict(prompt="a blue cat", fast=True, **SMALL),
        dict(prompt="a lemon <lora:half:0.6>", **SMALL),
        dict(prompt="a star", decoder="tiny", **SMALL),
    ]
    alone = [studio.generate(Request(**fields)) for fields in asked]
    drawn, failed = {}, []

    def draw(number):
        try:
            for turn in range(3):
                drawn[number, turn] = studio.generate(Request(**asked[number]))
        except Exception as error:  # told by the assertion below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(drawn) == 3 * len(asked)
    for (number, _), image in drawn.items():
        assert alone[number].differs(image) is None


def test_a_text_is_parsed_once_for_each_picture_and_a_request_validated_once(studio, monkeypatch):
    parsed, built = [], []
    parse, build = expansion.parse, Request.build
    monkeypatch.setattr(
        expansion, "parse", lambda text, *rest, **more: parsed.append(text) or parse(text, *rest, **more)
    )
    monkeypatch.setattr(
        Request, "build", classmethod(lambda cls, **fields: built.append(1) or build(**fields))
    )
    list(studio.stream("a (red:1.2) apple", negative="blue", **SMALL))
    assert sorted(parsed) == ["a (red:1.2) apple", "blue"]
    assert len(built) == 1


def test_several_requests_are_drawn_in_one_stream(studio):
    requests = [
        Request(prompt=prompt, **SMALL) for prompt in ("a red apple", "a lemon <lora:half:0.5>", "a star")
    ]
    drawn = studio.generate_batch(requests)
    for request, image in zip(requests, drawn, strict=True):
        assert image.differs(studio.generate(request)) is None


def test_the_denoiser_of_a_request_draws_what_generate_draws(studio):
    fields = dict(negative="blue", guidance=5, sampler="dpmpp-2m", **SMALL)
    denoise = studio.denoiser("[a red apple:a lemon:2]", **fields)
    (picture,) = studio.prepare("[a red apple:a lemon:2]", **fields)
    levels = studio.model.levels(picture.request.spacing, 3)
    noise = SeededNoise([3])
    x = noise(torch.empty(1, 4, 8, 8)) * levels[0].s
    latent = run(sampler_named("dpmpp-2m").sample(x, levels, noise), denoise)
    (drawn,) = latents(list(engine(studio, 0).run([studio.job(picture, 0)]))).values()
    torch.testing.assert_close(latent, drawn, rtol=1e-5, atol=1e-5)


def test_a_denoiser_takes_batches_at_any_level(studio):
    denoise = studio.denoiser("a red apple", guidance=3, **SMALL)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    level = studio.model.path().level(431.5)
    many = denoise(x, level)
    for row in range(3):
        torch.testing.assert_close(
            many[row : row + 1], denoise(x[row : row + 1], level), rtol=1e-4, atol=1e-4
        )


def test_a_trainable_studio_is_differentiable_by_latent_and_weights():
    studio = sfumato.load(device="cpu", dtype="float32", trainable=True)
    denoise = studio.denoiser("a red apple", guidance=3, **SMALL)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    level = studio.model.path().level(500)
    denoise(x, level).square().mean().backward()
    assert x.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in studio.model.unet.parameters())
    x0 = x.detach()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = 1e-2
        loss = [float(denoise(x0 + sign * step * direction, level).square().mean()) for sign in (1, -1)]
    assert (loss[0] - loss[1]) / (2 * step) == pytest.approx(
        float((x.grad * direction).sum()), rel=2e-2, abs=1e-4
    )
    before = denoise(x0, level)
    with torch.no_grad():
        studio.model.unet.conv_out.weight.mul_(1.1)
    assert not torch.allclose(denoise(x0, level), before)
    assert studio.generate("a red apple", **SMALL).size == (64, 64)


def test_a_job_can_start_from_a_picture_part_of_the_way(studio):
    (picture,) = studio.prepare("[a red apple:a lemon:2]", sampler="euler", **{**SMALL, "steps": 4})
    levels = studio.model.levels(picture.request.spacing, 4)
    x0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    job = studio.job(picture, 0, start=Start(x0, 2))
    events = list(engine(studio, 0).run([job]))
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert [event.step for event in evaluated] == [2, 3]
    eps = SeededNoise([3])(x0)
    denoise = studio.denoiser("a lemon", sampler="euler", **{**SMALL, "steps": 4})
    x = levels[2].a * x0 + levels[2].s * eps
    expected = run(sampler_named("euler").sample(x, levels[2:], SeededNoise([0])), denoise)
    torch.testing.assert_close(latents(events)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_start_at_the_last_level_is_the_picture_itself(studio):
    (picture,) = studio.prepare("a lemon", **SMALL)
    x0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    (event,) = engine(studio, 0).run([studio.job(picture, 0, start=Start(x0, 3))])
    assert torch.equal(event.latent, x0)
    with pytest.raises(ValueError, match="3 steps cannot start at level 4"):
        studio.job(picture, 0, start=Start(x0, 4))


def test_wrappers_go_around_the_sampler_the_first_innermost(studio):
    known = torch.zeros(1, 4, 8, 8)
    order = []

    def keep_left(sampling):
        """The left half as it is known, at every estimate."""
        try:
            point = next(sampling)
            while True:
                x0 = yield point
                order.append("keep")
                point = sampling.send(torch.cat([known[..., :4], x0[..., 4:]], -1))
        except StopIteration as done:
            return done.value

    def watch(sampling):
        try:
            point = next(sampling)
            while True:
                x0 = yield Point(point.x, point.level, point.step)
                order.append("watch")
                point = sampling.send(x0)
        except StopIteration as done:
            return done.value

    (picture,) = studio.prepare("a lemon", sampler="ddim", **SMALL)
    drawn = latents(list(engine(studio, 0).run([studio.job(picture, 0, wrappers=[keep_left, watch])])))[0]
    assert torch.equal(drawn[..., :4], known[..., :4])
    assert drawn[..., 4:].abs().max() > 0.1
    assert order == ["watch", "keep"] * 3


def test_a_model_that_edits_loads_and_says_what_it_lacks_when_it_is_to_draw(studio):
    model = sfumato.load(device="cpu", dtype="float32")
    model.model.info = model.model.info.__class__(**{**vars(model.model.info), "task": "inpaint"})
    with pytest.raises(UsageError, match="inpaint model: it edits pictures, and needs image"):
        model.generate("a red apple", **SMALL)


def test_names_of_diffusers_are_accepted_for_fields_of_a_request():
    same = Request.build(prompt="a", negative="b", guidance=3)
    assert Request.build(prompt="a", negative_prompt="b", guidance_scale=3) == same
    assert Request(prompt="a", negative_prompt="b", guidance_scale=3) == same
    assert Request(prompt="a").changed(negative_prompt="b", guidance_scale=3) == same
    with pytest.raises(UsageError, match="negative_prompt and negative are one field; give one of the two"):
        Request.build(prompt="a", negative="b", negative_prompt="c")


def test_an_adapter_weight_of_a_request_has_bounds_and_no_other_keys():
    assert Request.build(prompt="a", adapters=[{"name": "x"}]).adapters == (AdapterWeight("x"),)
    for wrong, said in (({"name": "x", "weight": 11}, "weight"), ({"name": "x", "strength": 1}, "strength")):
        with pytest.raises(UsageError, match=said):
            Request.build(prompt="a", adapters=[wrong])


def test_a_level_may_hold_a_number_for_each_row():
    rows = Level(
        torch.tensor([0.6, 0.0]).view(2, 1), torch.tensor([0.8, 1.0]).view(2, 1), torch.tensor([1.0, 2.0])
    )
    singles = [Level(0.6, 0.8, 1.0), Level(0.0, 1.0, 2.0)]
    assert rows.sigma.flatten().tolist() == pytest.approx([each.sigma for each in singles])
    assert rows.lam.flatten().tolist() == pytest.approx([each.lam for each in singles])
    x0, eps = torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert rows.noisy(x0, eps).tolist() == [pytest.approx([each.noisy(1.0, 2.0)] * 3) for each in singles]


def test_a_batch_comes_back_in_the_order_it_was_asked_for_whatever_is_done_first():
    studio = sfumato.load(device="cpu", dtype="float32")
    requests = [Request(prompt="a star", **{**SMALL, "steps": steps}) for steps in (4, 2, 1)]
    alone = studio.generate_batch(requests)
    studio.budget = studio.decode_budget = math.inf
    together = studio.generate_batch(requests)
    assert [image.request.steps for image in together] == [4, 2, 1]
    for one, other in zip(alone, together, strict=True):
        assert abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_a_trainable_denoiser_learns_step_after_step_and_encodes_its_texts_once(monkeypatch):
    studio = sfumato.load(device="cpu", dtype="float32", trainable=True)
    encode, encoded = type(studio.model).encode, []

    def counted(*given, **named):
        encoded.append(1)
        return encode(*given, **named)

    monkeypatch.setattr(type(studio.model), "encode", counted)
    denoise = studio.denoiser("a red apple", guidance=3, **SMALL)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(studio.model.unet.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = denoise(x, studio.model.path().level(500)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2] > losses[3]
    studio.generate("a red apple", guidance=3, **SMALL)
    assert len(encoded) == 2  # the prompt and the empty one


def test_a_trainable_studio_says_where_adapters_go():
    studio = sfumato.load(device="cpu", dtype="float32", trainable=True)
    with pytest.raises(UsageError, match="trainable studio draws without adapters"):
        studio.generate("a red apple", fast=True, **SMALL)


def test_an_interrupted_switch_of_adapters_leaves_the_next_picture_right(monkeypatch):
    studio = sfumato.load(device="cpu", dtype="float32")
    studio.load_adapter(studio.model.fast, "half")
    fields = dict(prompt="a red apple", **SMALL)
    plain = studio.generate(Request(**fields))
    studio.generate(Request(**{**fields, "prompt": "a red apple <lora:half:0.5>"}))
    with monkeypatch.context() as patched:
        patched.setattr(type(studio.adapters), "_merge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            studio.generate(Request(**{**fields, "prompt": "a red apple <lora:half:0.9>"}))
    assert plain.differs(studio.generate(Request(**fields))) is None


def interrupt(*given):
    raise KeyboardInterrupt


def test_an_adapter_that_is_loaded_anew_under_a_picture_is_named(studio):
    stream = studio.stream("a red apple <lora:half:0.5>", **SMALL)
    next(stream)
    studio.load_adapter(studio.model.fast, "half")
    with pytest.raises(UsageError, match="'half' was loaded anew while a picture was drawn with it"):
        list(stream)


def test_a_start_of_another_shape_is_refused(studio):
    (picture,) = studio.prepare("a lemon", **SMALL)
    with pytest.raises(
        ValueError, match=r"start has the shape \(1, 4, 1, 1\); the drawing's is \(1, 4, 8, 8\)"
    ):
        studio.job(picture, 0, start=Start(torch.zeros(1, 4, 1, 1), 1))


def test_what_is_not_one_picture_or_none_is_refused_in_a_line(studio):
    request = Request(prompt="a", **SMALL)
    for draw in (studio.generate, studio.denoiser):
        with pytest.raises(UsageError, match="the request is for 2 pictures"):
            draw("a", count=2, **SMALL)
    with pytest.raises(UsageError, match="the request is for 2 pictures"):
        studio.denoiser([request, request])
    with pytest.raises(UsageError, match="there is no request to draw"):
        studio.generate_batch([])


@pytest.mark.parametrize("draw", ["generate", "generate_batch"])
def test_a_list_of_texts_is_a_list_of_prompts(studio, draw):
    drawn = getattr(studio, draw)(["a star", "a moon"], **SMALL)
    assert [image.request.prompt for image in drawn] == ["a star", "a moon"]


@pytest.mark.parametrize("draw", ["generate", "generate_batch", "stream", "denoiser"])
@pytest.mark.filterwarnings("default")
def test_warnings_name_the_callers_line(studio, draw):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = getattr(studio, draw)("a star", **SMALL)
        if draw == "stream":
            next(result)
    assert any("far from" in str(warning.message) for warning in caught)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_picture_drawn_again_in_float32_leaves_the_callers_warning_filters_alone():
    half = sfumato.load(device="cpu", dtype="bfloat16")
    with torch.no_grad():
        half.model.unet.conv_in.bias[0] = math.inf
    before = list(warnings.filters)
    stream = half.stream("a moon", **SMALL)
    next(stream)
    assert list(warnings.filters) == before
    stream.close()
