"""Score distillation on a mixture of Gaussians whose clean estimate is known exactly: the modes are found."""

import math

import pytest
import torch

from sfumato.diffusion.level import Flow, VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.score_distillation import (
    WEIGHTS,
    annealed_level,
    as_loss,
    distillation_gradient,
    student_loss,
)
from sfumato.errors import UsageError

MEANS = torch.tensor([[2.0, -1.0], [-3.0, 1.5]], dtype=torch.float64)
SPREAD = 0.1
PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))


def clean_estimate(x, level):
    """E[x0 | x] under the mixture."""
    variance = (level.a * SPREAD) ** 2 + level.s**2
    away = x[:, None] - level.a * MEANS
    shares = torch.softmax(-away.square().sum(2) / (2 * variance), dim=1)
    each = MEANS + level.a * SPREAD**2 / variance * away
    return (shares[..., None] * each).sum(1)


def score(x, level):
    """∇ log p of the noised mixture, by autograd."""
    x = x.clone().requires_grad_()
    variance = (level.a * SPREAD) ** 2 + level.s**2
    away = x[:, None] - level.a * MEANS
    torch.logsumexp(-away.square().sum(2) / (2 * variance), dim=1).sum().backward()
    return x.grad


@pytest.fixture
def sample():
    """A picture, its noise, a level, and the picture with that noise."""
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    level = PATH.level(400)
    return x, noise, level, level.a * x + level.s * noise


def test_sds_is_the_weighted_difference_of_the_noises(sample):
    x, noise, level, noised = sample
    predicted = -level.s * score(noised, level)
    found = distillation_gradient("sds", x, clean_estimate(noised, level), level)
    assert torch.allclose(found, level.s**2 * (predicted - noise))


def test_sjc_is_the_score_at_the_noised_picture_less_its_own_noise(sample):
    """Of y = x + σn the score of the denoiser D is (D − y)/σ², and (D − x)/σ² averages it over n."""
    x, noise, level, noised = sample
    sigma = level.s / level.a
    of_y = level.a * score(noised, level)
    found = distillation_gradient("sjc", x, clean_estimate(noised, level), level)
    assert torch.allclose(found, -(of_y + noise / sigma))


def test_reconstruction_is_the_gradient_of_half_the_squared_error(sample):
    x, _, level, noised = sample
    x0 = clean_estimate(noised, level)
    seen = x.clone().requires_grad_()
    (0.5 * (seen - x0).square().sum()).backward()
    assert torch.allclose(distillation_gradient("reconstruction", x, x0, level), seen.grad)


def test_vsd_is_the_weighted_difference_of_the_networks_noises(sample):
    x, _, level, noised = sample
    student = clean_estimate(noised, level) + 0.1 * noised
    predicted, learned = (
        (noised - level.a * x0) / level.s for x0 in (clean_estimate(noised, level), student)
    )
    found = distillation_gradient("vsd", x, clean_estimate(noised, level), level, student)
    assert torch.allclose(found, level.s**2 * (predicted - learned))
    with pytest.raises(UsageError, match="vsd needs the clean estimates of a student"):
        distillation_gradient("vsd", x, student, level)


def test_a_student_learns_by_the_error_of_its_noise(sample):
    x, noise, level, noised = sample
    x0 = clean_estimate(noised, level)
    predicted = (noised - level.a * x0) / level.s
    assert torch.allclose(student_loss(x, x0, level), (predicted - noise).square().mean())


def test_vsd_with_a_student_that_has_learned_the_particles_gives_them_the_spread_of_the_mode():
    """SDS would draw all particles to the mean; the score of what they are keeps them apart.

    The student is the Gaussian of the particles, which lie around one mode of known spread.
    """
    generator = torch.Generator().manual_seed(2)
    mean, spread = (
        torch.tensor([2.0, -1.0], dtype=torch.float64),
        torch.tensor([0.5, 1.5], dtype=torch.float64),
    )

    def gaussian(x, level, mean, spread):
        variance = (level.a * spread) ** 2 + level.s**2
        return mean + level.a * spread**2 / variance * (x - level.a * mean)

    x = torch.randn(400, 2, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer, steps = torch.optim.Adam([x], lr=0.03), 500
    for step in range(steps):
        level = annealed_level(PATH, step / steps, generator)
        noised = level.noisy(x.detach(), torch.randn(x.shape, generator=generator, dtype=x.dtype))
        student = gaussian(noised, level, x.detach().mean(0), x.detach().std(0))
        gradient = distillation_gradient("vsd", x, gaussian(noised, level, mean, spread), level, student)
        optimizer.zero_grad()
        as_loss(x, gradient).backward()
        optimizer.step()
    assert (x.detach().mean(0) - mean).abs().max() < 0.1
    assert (x.detach().std(0) / spread - 1).abs().max() < 0.15


@pytest.mark.parametrize("method", sorted(WEIGHTS.keys() - {"vsd"}))
def test_the_optimum_is_a_mode(method):
    generator = torch.Generator().manual_seed(1)
    x = (4 * torch.rand(40, 2, generator=generator, dtype=torch.float64) - 2).requires_grad_()
    optimizer, steps = torch.optim.Adam([x], lr=0.05), 400
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(steps):
        level = annealed_level(PATH, step / steps, generator, most=(0.7, 0.1))
        noised = level.a * x + level.s * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        gradient = distillation_gradient(method, x, clean_estimate(noised, level), level)
        optimizer.zero_grad()
        as_loss(x, gradient).backward()
        optimizer.step()
        schedule.step()
    nearest = torch.cdist(x.detach(), MEANS).min(dim=1)
    assert nearest.values.max() < 0.2
    assert nearest.indices.unique().tolist() == [0, 1]


def test_the_loss_has_the_gradient_for_whatever_made_the_picture():
    angle = torch.tensor(0.3, requires_grad=True)
    x = torch.stack([angle.cos(), angle.sin()])
    as_loss(x, torch.tensor([1.0, 2.0])).backward()
    assert math.isclose(angle.grad, -math.sin(0.3) + 2 * math.cos(0.3), rel_tol=1e-6)


@pytest.mark.parametrize("path", [PATH, Flow()])
def test_levels_are_uniform_in_time_below_a_bound_that_falls(path):
    generator = torch.Generator().manual_seed(0)
    early, late = (
        [annealed_level(path, progress, generator).t / path.last for _ in range(2000)] for progress in (0, 1)
    )
    assert min(early) >= 0.019
    assert 0.95 < max(early) <= 0.98
    assert 0.47 < max(late) <= 0.5
    assert math.isclose(sum(early) / 2000, 0.5, abs_tol=0.02)


def test_an_unknown_method_is_told(sample):
    x, _, level, _ = sample
    with pytest.raises(UsageError, match="unknown method of score distillation 'sdss'; did you mean 'sds'"):
        distillation_gradient("sdss", x, x, level)
