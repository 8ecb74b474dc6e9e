"""Orders of convergence, on a Gaussian mixture whose clean estimate and ODE are exact."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.diffusion.level import CLEAN, Level, VariancePreserving
from sfumato.diffusion.mixture import mixture
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.diffusion.spacing import balanced, karras

SMOOTH = mixture(6, dim=4, components=4, stds=(0.6, 0.6))
START = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
# as Stable Diffusion's two schedules, but with levels down to hardly any noise
ORDINARY = VariancePreserving([1 - 1e-14, 0.5, 0.00466])
FROM_PURE_NOISE = VariancePreserving([1 - 1e-14, 0.5, 0.0])
DETERMINISTIC = [name for name, info in SAMPLERS.items() if not info.random]
SAMPLED = pytest.mark.parametrize("name", DETERMINISTIC)


def at_angle(angle):
    return Level(a=math.cos(angle), s=math.sin(angle), t=0.0, path=ORDINARY)


def order_seen(name, levels_of, steps=(96, 192)):
    """The slope of the error between two step counts, in powers of the step width."""
    ends = levels_of(1)
    exact = SMOOTH.flow(START, ends[0], ends[-1])
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
    exact = SMOOTH.flow(START, at_angle(1.2), at_angle(0.3))

    def error(n, **options):
        levels = [at_angle(1.2 - 0.9 * i / n) for i in range(n + 1)]
        sampling = SAMPLERS[name].sample(START, levels, SeededNoise([0]), **options)
        return (run(sampling, SMOOTH.denoise) - exact).square().mean().sqrt().item()

    assert math.log2(error(96, settle=False) / error(192, settle=False)) < 2.3
    assert error(96) < error(96, settle=False) / 5


def test_karras_levels_stop_converging_because_their_last_step_never_shrinks():
    """Why the balanced spacing exists."""
    path = VariancePreserving([1 - 0.0292**2 / (1 + 0.0292**2), 0.5, 0.00466])
    assert order_seen("dpmpp-2m", lambda n: karras(path, n)) < 1


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
