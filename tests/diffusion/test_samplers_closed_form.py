"""What must hold of samplers whatever the network: checked where the answer is known in closed form."""

import inspect
from itertools import product

import diffusers
import pytest
import torch
from paths import PATHS

from sfumato import names
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import SAMPLERS, evaluations, sampler_named
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.diffusion.spacing import SPACINGS, karras, linspace, trailing
from sfumato.errors import UsageError
from sfumato.names import split_label

SD = PATHS["scaled-linear"]
SAMPLED = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
EVERY_PATH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
DETERMINISTIC = [info for info in SAMPLERS.values() if not info.random]
MEAN = 0.7


class Independent:
    """Noise whose every draw is a direction of its own, so that a result shows how much of each is in it."""

    def __init__(self):
        self.drawn = 0

    def __call__(self, like, /):
        self.drawn += 1
        return torch.zeros_like(like).index_fill_(1, torch.tensor([self.drawn]), 1.0)


def start(level):
    """The first latent: channel 0 holds its own noise, the last the mean, those between each draw to come."""
    x = torch.zeros(1, 200, 1, 1, dtype=torch.float64)
    x[:, 0], x[:, -1] = level.s, level.a * MEAN
    return x


def spread(x):
    return x[:, :-1].square().sum().sqrt().item()


def point_mass(x, level):
    x0 = torch.zeros_like(x)
    x0[:, -1] = MEAN
    return x0


@pytest.mark.parametrize(
    "sampler",  # adams interpolates v, which is exact for normal data of unit variance instead
    [info for info in SAMPLERS.values() if info.name != "adams"],
    ids=lambda info: info.name,
)
@EVERY_PATH
def test_on_one_known_picture_every_point_has_its_levels_noise_and_the_end_is_the_picture(path, sampler):
    spacings = [*SPACINGS.values()]
    if sampler.name == "lcm":  # its estimate is x itself at t = 0, and told ln σ it means nothing
        path, spacings = SD, [SPACINGS["trailing"]]
    # the cosine path begins at a = 5e-5, which in noise estimates multiplies a rounding error by 1/a
    close = 1e-5 if sampler.name == "lcm" or path is PATHS["cosine"] else 1e-9
    for spacing, n in product(spacings, (1, 2, 3, 7)):
        levels = spacing.levels(path, n)
        visited = []

        def denoise(x, level, visited=visited):
            visited.append(level)
            assert spread(x) == pytest.approx(level.s, abs=close * (1 + level.s))
            assert x[0, -1].item() == pytest.approx(level.a * MEAN, abs=close * (1 + level.s))
            return point_mass(x, level)

        x = run(sampler.sample(start(levels[0]), levels, Independent()), denoise)
        assert spread(x) == pytest.approx(0, abs=close)
        assert x[0, -1].item() == pytest.approx(MEAN, abs=close)
        assert len(visited) == evaluations(sampler.name, levels)


def gaussian(width):
    """The exact estimate for data N(0, width²)."""
    return lambda x, level: x * (width**2 * level.a / (width**2 * level.a**2 + level.s**2))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("lcm", "tcd", "consistency")])
@pytest.mark.parametrize("path", ["scaled-linear", "zero-snr", "flow"])
def test_on_a_gaussian_the_drawn_spread_approaches_the_datas(name, path):
    """At least as 1/n; the samplers left out jump by x0, which only a distilled network makes right."""
    width, off = 0.8, []
    for n in (40, 80):
        levels = karras(PATHS[path], n)
        x = start(Level(0.0, (width**2 * levels[0].a ** 2 + levels[0].s ** 2) ** 0.5, 0.0))
        x = run(SAMPLERS[name].sample(x, levels, Independent()), gaussian(width))
        off.append(abs(spread(x) / width - 1))
    assert off[1] < 0.07
    assert off[1] < 0.56 * off[0] or off[1] < 1e-3


@pytest.mark.parametrize(
    "name", ["euler-a", "dpm2-a", "dpmpp-2s-a", "dpmpp-2m-sde", "dpmpp-3m-sde", "dpmpp-sde"]
)
def test_a_random_sampler_without_fresh_noise_is_deterministic(name):
    noise = Independent()
    run(SAMPLERS[name].sample(start(SD.level(999)), trailing(SD, 5), noise, eta=0.0), gaussian(0.8))
    assert noise.drawn == 0


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=lambda info: info.name)
def test_a_sampler_that_is_not_random_draws_no_noise(sampler):
    noise = Independent()
    run(sampler.sample(start(SD.level(999)), trailing(SD, 5), noise), gaussian(0.8))
    assert noise.drawn == 0


@pytest.mark.parametrize(
    "sampler", [info for info in SAMPLERS.values() if info.random], ids=lambda info: info.name
)
def test_a_random_sampler_draws_noise_on_every_step_but_the_last(sampler):
    noise = Independent()
    run(sampler.sample(start(SD.level(999)), trailing(SD, 5), noise), gaussian(0.8))
    assert noise.drawn == (8 if sampler.name == "dpmpp-sde" else 4)


def options_of(sampler):
    return inspect.signature(sampler.sample).parameters


@pytest.mark.parametrize("name", [name for name, info in SAMPLERS.items() if "s_noise" in options_of(info)])
def test_s_noise_scales_every_noise_that_is_drawn_and_nothing_else(name):
    """Of one known picture a latent holds each draw's share by itself: see `Independent`."""
    sampler, levels = SAMPLERS[name], karras(SD, 6)
    churn = {"s_churn": 2.0} if "s_churn" in options_of(sampler) else {}

    def asked(s_noise):
        found = []
        x, noise = start(levels[0]), Independent()
        run(
            sampler.sample(x, levels, noise, s_noise=s_noise, **churn),
            lambda x, level: found.append(x) or point_mass(x, level),
        )
        return torch.cat(found), noise.drawn

    (plain, drawn), (scaled, _) = asked(1.0), asked(0.5)
    assert (plain[:, 1 : drawn + 1] != 0).any(0).all()
    torch.testing.assert_close(scaled[:, 1:-1], 0.5 * plain[:, 1:-1])
    torch.testing.assert_close(scaled[:, [0, -1]], plain[:, [0, -1]])


def test_pndm_begins_anew_after_pure_noise():
    levels = trailing(PATHS["zero-snr"], 6)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = []
    whole = run(
        SAMPLERS["pndm"].sample(x, levels, Independent()),
        lambda x, level: points.append(x) or bend(x, level),
    )
    rest = run(SAMPLERS["pndm"].sample(points[1], levels[1:], Independent()), bend)
    assert levels[0].a == 0
    torch.testing.assert_close(whole, rest)


def bend(x, level):
    return torch.tanh(x + level.s)


@SAMPLED
def test_any_dtype_and_video_latents_go_from_pure_noise_without_a_nan(sampler):
    levels = trailing(PATHS["zero-snr"], 5)
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    for dtype, shape in product(dtypes, [(2, 3, 4, 4), (2, 3, 5, 4, 4)]):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        y = run(sampler.sample(x, levels, SeededNoise([1, 2])), bend)
        assert y.dtype == dtype
        assert y.shape == shape
        assert torch.isfinite(y).all()


@SAMPLED
def test_a_second_drawing_in_between_changes_nothing(sampler):
    def begin(seed, steps):
        x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return sampler.sample(x, linspace(SD, steps), SeededNoise([seed]))

    alone = [run(begin(seed, steps), bend) for seed, steps in ((1, 6), (2, 9))]
    running = {0: begin(1, 6), 1: begin(2, 9)}
    points, done = {i: next(sampling) for i, sampling in running.items()}, {}
    while points:
        for i in list(points):
            try:
                points[i] = running[i].send(bend(points[i].x, points[i].level))
            except StopIteration as end:
                done[i] = end.value
                del points[i]
    assert all(torch.equal(done[i], alone[i]) for i in (0, 1))


@SAMPLED
def test_the_first_latent_is_left_as_it_was(sampler):
    x = torch.ones(1, 3, 4, 4)
    run(sampler.sample(x, trailing(SD, 4), SeededNoise([1])), bend)
    assert torch.equal(x, torch.ones(1, 3, 4, 4))


@SAMPLED
def test_no_step_left_returns_the_latent(sampler):
    x = torch.ones(1, 3, 4, 4)
    assert torch.equal(run(sampler.sample(x, [SD.level(5)], SeededNoise([1])), bend), x)


@SAMPLED
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_steps_are_counted_from_0_and_middle_steps_cost_what_is_said(sampler, n):
    levels = trailing(SD, n)
    steps = []
    sampling = sampler.sample(torch.zeros(1, 1, 1, 1), levels, lambda like: like)
    point = next(sampling)
    while True:
        steps.append(point.step)
        try:
            point = sampling.send(torch.zeros_like(point.x))
        except StopIteration:
            break
    assert sorted(set(steps)) == list(range(n))
    assert steps == sorted(steps)
    assert len(steps) == evaluations(sampler.name, levels)
    assert all(steps.count(step) == sampler.evaluations_per_step for step in range(2, n - 1))


@pytest.mark.parametrize("name", ["dpm2", "dpmpp-2s-a", "dpmpp-sde"])
def test_a_sampler_that_stops_in_between_says_so_of_levels_on_no_path(name):
    levels = [Level(0.1, 0.99, 900.0), Level(0.6, 0.8, 400.0), Level(1.0, 0.0, 0.0)]
    with pytest.raises(ValueError, match="on no path"):
        run(SAMPLERS[name].sample(torch.zeros(1, 1, 1, 1), levels, lambda like: like), bend)


@pytest.mark.parametrize(
    ("label", "ours"),
    [
        ("Euler a", "euler-a"),
        ("DPM++ 2M", "dpmpp-2m"),
        ("DPM++ 2M SDE", "dpmpp-2m-sde"),
        ("DPM++ 3M SDE", "dpmpp-3m-sde"),
        ("DPM++ SDE", "dpmpp-sde"),
        ("DPM++ 2S a", "dpmpp-2s-a"),
        ("DPM2 a", "dpm2-a"),
        ("LMS", "lms"),
        ("PLMS", "pndm"),
        ("UniPC", "unipc"),
        ("LCM", "lcm"),
        ("dpmpp_2m", "dpmpp-2m"),
    ],
)
def test_a1111_labels_are_understood(label, ours):
    assert sampler_named(label).name == ours


def test_a_label_with_a_schedule_gives_both():
    assert split_label("DPM++ 2M SDE Karras") == ("dpmpp-2m-sde", "karras")
    assert split_label("Euler a") == ("euler-a", None)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 16])
def test_adams_leaves_no_noise_where_its_last_step_is_long(n):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = trailing(PATHS["zero-snr"], n)
    end = run(
        SAMPLERS["adams"].sample(x, levels, SeededNoise([0])), lambda x, level: torch.full_like(x, MEAN)
    )
    assert (end - MEAN).abs().max() < 1e-9


def test_every_sampler_and_spacing_has_a_name_that_is_known_without_torch():
    assert set(names.SAMPLERS) == set(SAMPLERS)
    assert set(names.SPACINGS) == set(SPACINGS)


def test_every_scheduler_class_among_the_aliases_exists_in_diffusers():
    classes = [name for others in names.SAMPLERS.values() for name in others if name.endswith("Scheduler")]
    assert len(classes) == len(set(classes)) == 18
    assert all(hasattr(diffusers, name) for name in classes)
    assert all(sampler_named(name).name in SAMPLERS for name in classes)


def test_an_unknown_sampler_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'euler'"):
        sampler_named("eular")
