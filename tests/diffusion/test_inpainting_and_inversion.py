"""Drawing a part of a latent, and inverting one, where the clean estimate is exact."""

import math

import pytest
import torch
from mixture import mixture
from paths import PATHS

from sfumato.diffusion.guidance import ClassifierFreeGuidance, ImageGuidance, active_terms, weighted_sum
from sfumato.diffusion.inpainting import forward, keep_known, resampled
from sfumato.diffusion.inversion import ddim_inversion, ddpm_inversion, with_residuals
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Point, SeededNoise, mapped, run
from sfumato.diffusion.spacing import trailing
from sfumato.names import BUILT_IN

SHAPE = (1, 2, 3, 4)
MIXTURE = mixture(3, 24, 4, (0.2, 0.5))


def known_and_noise():
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))


def asked(sampling):
    """Every point that a coroutine yields."""
    points = []
    run(mapped(sampling, point=lambda point: points.append(point) or point), MIXTURE.denoise)
    return points


def left_half():
    mask = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    mask[..., :2] = 1
    return mask


def begun(path, steps):
    levels = trailing(path, steps)
    return levels, SeededNoise([1]), math.hypot(levels[0].a, levels[0].s)


@pytest.mark.parametrize("path", ["zero-snr", "scaled-linear", "flow"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_sampler_ends_in_what_is_known_outside_the_mask(name, path):
    levels, noise, scale = begun(PATHS[path], 6)
    known, eps = known_and_noise()
    mask = left_half()
    seen = []

    def denoise(x, level):
        seen.append((x, level))
        return MIXTURE.denoise(x, level)

    sampling = sampler_named(name).sample(scale * eps, levels, noise)
    drawn = run(keep_known(sampling, known, eps, mask), denoise)
    outside = (1 - mask).bool().expand(SHAPE)
    torch.testing.assert_close(drawn[outside], known[outside], rtol=0, atol=0)
    assert not torch.allclose(drawn[~outside], known[~outside], atol=0.1)
    for x, level in seen[1:]:
        torch.testing.assert_close(x[outside], level.noisy(known, eps)[outside], rtol=0, atol=1e-9)


def test_with_all_of_the_mask_drawn_nothing_is_kept():
    levels, _, scale = begun(PATHS["flow"], 6)
    known, eps = known_and_noise()
    plain = run(sampler_named("ddim").sample(scale * eps, levels, SeededNoise([1])), MIXTURE.denoise)
    sampling = sampler_named("ddim").sample(scale * eps, levels, SeededNoise([1]))
    drawn = run(keep_known(sampling, known, eps, torch.ones(1, 1, 3, 4)), MIXTURE.denoise)
    assert torch.equal(drawn, plain)


def test_noise_added_on_the_way_back_gives_the_level_that_it_goes_to():
    path = PATHS["scaled-linear"]
    here, noisier = path.level(200.0), path.level(600.0)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((1, 1, 400, 500), 0.7, dtype=torch.float64)
    x = here.noisy(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    moved = forward(x, here, noisier, SeededNoise([3]))
    assert float(moved.mean()) == pytest.approx(noisier.a * 0.7, abs=0.01)
    assert float(moved.std()) == pytest.approx(noisier.s, abs=0.01)


def test_resampling_takes_every_step_but_the_last_so_often():
    levels, noise, scale = begun(PATHS["zero-snr"], 4)
    _, eps = known_and_noise()
    sample = resampled(sampler_named("ddim").sample, 3)
    points = asked(sample(scale * eps, levels, noise))
    assert [point.step for point in points] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert all(point.level == levels[point.step] for point in points)


@pytest.mark.parametrize("path", ["zero-snr", "scaled-linear", "exploding"])
def test_ddim_leads_back_from_where_its_inversion_ends(path):
    levels, _, scale = begun(PATHS[path], 40)
    _, eps = known_and_noise()
    x0 = run(sampler_named("ddim").sample(scale * eps, levels, SeededNoise([0])), MIXTURE.denoise)
    latent = run(ddim_inversion(x0, levels, iterations=60), MIXTURE.denoise)
    again = run(sampler_named("ddim").sample(latent, levels, SeededNoise([0])), MIXTURE.denoise)
    torch.testing.assert_close(again, x0, rtol=0, atol=0.02)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("path", PATHS)
def test_the_noise_of_every_step_leads_exactly_back(path, first):
    levels = trailing(PATHS[path], 8)
    x0, _ = known_and_noise()

    def there_and_back():
        start, residuals = yield from ddpm_inversion(x0, levels, SeededNoise([2]), first=first)
        return (yield from with_residuals(start, levels[first:], residuals))

    again = run(there_and_back(), MIXTURE.denoise)
    torch.testing.assert_close(again, x0, rtol=0, atol=1e-9)


def test_the_points_of_an_inversion_have_the_negative_steps_of_their_intervals():
    levels = trailing(PATHS["flow"], 4)
    x0, _ = known_and_noise()
    for sampling, wanted in (
        (ddim_inversion(x0, levels, first=1, iterations=1), [-4, -3, -2]),
        (ddpm_inversion(x0, levels, SeededNoise([0]), first=1), [-2, -3, -4]),
    ):
        points = asked(sampling)
        assert [point.step for point in points] == wanted
        assert all(point.level == levels[-1 - point.step] for point in points)


def test_three_terms_are_those_of_the_paper():
    point = Point(torch.zeros(SHAPE), Level(0.5, 0.5, 3.0), 0)
    estimates = {name: torch.randn(SHAPE) for name in ("text and picture", "picture", "nothing")}
    text = ClassifierFreeGuidance.of("text and picture", "picture", 7.0)
    (without,) = ClassifierFreeGuidance.of("x", "nothing", 7.0).negatives
    guidance = ImageGuidance(text, (without,), 1.4)
    terms = active_terms(guidance, point)
    assert len(terms) == 3
    found = guidance.combine(point, [(term, estimates[term.conditioning]) for term in terms])
    both, picture, nothing = estimates.values()
    wanted = nothing + 1.4 * (picture - nothing) + 7.0 * (both - picture)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(weighted_sum([(t, torch.ones(SHAPE)) for t in terms]), torch.ones(SHAPE))
