"""Orders of convergence, on a Gaussian mixture whose clean estimate and ODE are exact."""

import math
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from fitting import fitted
from mixture import Mixture, mixture
from scipy.integrate import solve_ivp

from sfumato.diffusion.level import (
    CLEAN,
    Level,
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
)
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.diffusion.spacing import balanced, karras

SMOOTH = mixture(6, dim=4, components=4, stds=(0.6, 0.6))
START = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
# as Stable Diffusion's two schedules, but with levels down to hardly any noise
ORDINARY = VariancePreserving([1 - 1e-14, 0.5, 0.00466])
SD = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
FROM_PURE_NOISE = VariancePreserving([1 - 1e-14, 0.5, 0.0])
DETERMINISTIC = [name for name, info in SAMPLERS.items() if not info.random]
SAMPLED = pytest.mark.parametrize("name", DETERMINISTIC)


def at_angle(angle):
    return Level(a=math.cos(angle), s=math.sin(angle), t=0.0, path=ORDINARY)


@cache
def exact_end(first, last):
    """Where the exact ODE takes `START` from one level to another."""
    return SMOOTH.flow(START, first, last)


def order_seen(name, levels_of, steps=(96, 192)):
    """The slope of the error between two step counts, in powers of the step width."""
    ends = levels_of(1)
    exact = exact_end(ends[0], ends[-1])
    errors = []
    for n in steps:
        sampling = SAMPLERS[name].sample(START, levels_of(n), SeededNoise([0]))
        errors.append((run(sampling, SMOOTH.denoise) - exact).square().mean().sqrt().item())
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


@SAMPLED
def test_away_from_the_ends_a_sampler_has_its_order(name):
    def levels_of(n):
        return [at_angle(1.2 - 0.9 * i / n) for i in range(n + 1)]

    assert order_seen(name, levels_of) > 0.9 * SAMPLERS[name].order


@SAMPLED
@pytest.mark.parametrize("path", [ORDINARY, FROM_PURE_NOISE], ids=["ordinary", "from-pure-noise"])
def test_on_balanced_levels_a_sampler_keeps_its_order_down_to_no_noise(name, path):
    """The levels shrink fast enough at both ends for order p where alpha is less than 1/p."""
    order = SAMPLERS[name].order

    def levels_of(n):
        return balanced(path, n, alpha=0.6 / order)

    assert order_seen(name, levels_of) > 0.9 * order


@pytest.mark.parametrize("name", ["dpmpp-3m", "dpm-solver-3m", "deis", "lms"])
def test_a_start_that_is_not_settled_costs_the_order(name):
    exact = exact_end(at_angle(1.2), at_angle(0.3))

    def error(n, **options):
        levels = [at_angle(1.2 - 0.9 * i / n) for i in range(n + 1)]
        sampling = SAMPLERS[name].sample(START, levels, SeededNoise([0]), **options)
        return (run(sampling, SMOOTH.denoise) - exact).square().mean().sqrt().item()

    assert math.log2(error(96, bootstrap=False) / error(192, bootstrap=False)) < 2.3
    assert error(96) < error(96, bootstrap=False) / 5


def test_karras_levels_stop_converging_because_their_last_step_never_shrinks():
    """Why the balanced spacing exists."""
    path = VariancePreserving([1 - 0.0292**2 / (1 + 0.0292**2), 0.5, 0.00466])
    assert order_seen("dpmpp-2m", lambda n: karras(path, n)) < 1


def test_adams_chooses_the_order_of_each_row_by_itself():
    bed = mixture(4, dim=8, components=8, stds=(0.05, 0.3))
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    levels = balanced(FROM_PURE_NOISE, 8)
    adams = SAMPLERS["adams"].sample
    together = run(adams(x, levels, SeededNoise([])), bed.denoise)
    alone = torch.cat([run(adams(row, levels, SeededNoise([])), bed.denoise) for row in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_caution_keeps_adams_from_running_wild_under_strong_guidance():
    """The guided estimate D(∅) + 4·(D(c) − D(∅)) is steeper than either of its parts."""
    whole = mixture(4, dim=8, components=8, stds=(0.05, 0.3))
    part = Mixture(torch.full((2,), 0.5).double(), whole.means[:2], whole.stds[:2])

    def guided(x, level):
        return whole.denoise(x, level) + 4 * (part.denoise(x, level) - whole.denoise(x, level))

    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact = run(SAMPLERS["adams"].sample(x, balanced(FROM_PURE_NOISE, 400), SeededNoise([])), guided)

    def error(**options):
        sampling = SAMPLERS["adams"].sample(x, balanced(FROM_PURE_NOISE, 10), SeededNoise([]), **options)
        return (run(sampling, guided) - exact).square().mean().sqrt().item()

    assert error() < 0.05
    assert error(caution=0.0) > 10 * error()


def test_fitted_levels_hold_for_latents_they_were_not_fitted_to():
    bed = mixture(2, dim=24, components=10, stds=(1.0, 1.0), fall=1.0)
    sample, noise = partial(SAMPLERS["adams"].sample, caution=1.0), SeededNoise([])

    def latents(seed):
        x = torch.randn(64, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return x, bed.flow(x, SD.level(SD.last), steps=400)

    levels = fitted(SD, 5, sample, bed.denoise, *latents(1), noise)
    assert len(levels) == 6
    assert levels[0] == SD.level(SD.last)
    assert levels[-1] == CLEAN
    assert all(above.sigma > below.sigma for above, below in pairwise(levels))
    x, end = latents(2)

    def error(levels):
        return (run(sample(x, levels, noise), bed.denoise) - end).square().mean().sqrt().item()

    assert error(levels) < 0.7 * error(balanced(SD, 5))


@pytest.mark.parametrize("level", [at_angle(1.5), at_angle(0.7), at_angle(0.01)])
def test_the_mixtures_estimates_are_tweedies_formula(level):
    """E[x0 | x] = (x + s²·∇ log p(x))/a, with the gradient by automatic differentiation."""
    bed = mixture(3, dim=5, components=3, stds=(0.1, 0.9), fall=0.5)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    spread = (level.a**2 * bed.stds**2 + level.s**2).sqrt()
    densities = torch.distributions.Normal(level.a * bed.means, spread).log_prob(x[:, None]).sum(2)
    (bed.weights.log() + densities).logsumexp(1).sum().backward()
    x0, eps = bed.estimates(x.detach(), level.a, level.s)
    torch.testing.assert_close(level.a * x0, x.detach() + level.s**2 * x.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(level.a * x0 + level.s * eps, x.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stds", [(0.05, 0.3), (0.6, 0.6)])
def test_the_mixtures_flow_is_what_scipy_integrates(stds):
    bed = mixture(4, dim=3, components=5, stds=stds)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def slope(angle, y):
        x0, eps = bed.estimates(torch.from_numpy(y).view(4, 3), math.cos(angle), math.sin(angle))
        return (math.cos(angle) * eps - math.sin(angle) * x0).flatten().numpy()

    solved = solve_ivp(slope, (math.pi / 2, 0), x.flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-12)
    found = bed.flow(x, Level(a=0.0, s=1.0, t=0.0), CLEAN)
    torch.testing.assert_close(found.flatten(), torch.from_numpy(solved.y[:, -1]), rtol=0, atol=1e-9)


def test_a_mixture_has_the_spread_it_was_asked_for_and_no_mean():
    for fall in (0.0, 1.0):
        bed = mixture(5, dim=6, components=9, stds=(0.2, 0.4), fall=fall)
        assert (bed.stds.square().mean() + bed.means.square().mean()).sqrt().item() == pytest.approx(0.85)
        assert bed.means.mean(0).abs().max() < 1e-12
