"""Samplers equal the published formulas, written out where no peer does so (or none rightly)."""

import math
from itertools import pairwise

import pytest
import torch
from peer import PATH, Drawn, error, network, ours

from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.predict import clean_estimate, prediction_named
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import run
from sfumato.diffusion.spacing import karras, trailing

EXACT = 1e-9
V = prediction_named("v")


def denoised(x, sigma):
    """The clean estimate for x in the a = 1 scaling."""
    level = PATH.at(sigma)
    return clean_estimate(V, x * level.a, network(x * level.a, level.t), [level] * len(x))


def start(levels):
    generator = torch.Generator().manual_seed(11)
    return torch.randn(2, 3, 4, 4, generator=generator).double() / levels[0].a


def mine(name, levels, **options):
    return ours(name, levels, "v", dtype=torch.float64, **options)


@pytest.mark.parametrize("s_churn", [3.0, 6.0], ids=["not clamped", "clamped"])
@pytest.mark.parametrize("second_order", [False, True])
def test_churn_is_algorithm_2_of_karras_et_al(second_order, s_churn):
    options = {"s_churn": s_churn, "s_tmin": 0.1, "s_tmax": 20.0, "s_noise": 1.003}
    levels, noise = trailing(PATH, 10), Drawn()
    x, sigmas = start(levels), [level.sigma for level in levels]
    for t, t_next in pairwise(sigmas):
        gamma = min(s_churn / 10, math.sqrt(2) - 1) if 0.1 <= t <= 20 else 0.0
        t_hat = t + gamma * t
        if gamma:
            x = x + math.sqrt(t_hat**2 - t**2) * 1.003 * noise(x)
        d = (x - denoised(x, t_hat)) / t_hat
        x_next = x + (t_next - t_hat) * d
        if second_order and t_next:
            d_next = (x_next - denoised(x_next, t_next)) / t_next
            x_next = x + (t_next - t_hat) * (d + d_next) / 2
        x = x_next
    assert error(mine("heun" if second_order else "euler", levels, **options), x) < EXACT


@pytest.mark.parametrize("name", ["dpm2-a", "dpmpp-2s-a"])
def test_ancestral_samplers_are_their_inner_solver_to_sigma_down_then_noise(name):
    levels, noise = karras(PATH, 8), Drawn()
    x, sigmas = start(levels), [level.sigma for level in levels]
    for sigma, sigma_next in pairwise(sigmas):
        up = min(sigma_next, 0.7 * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
        down = math.sqrt(sigma_next**2 - up**2)
        x0 = denoised(x, sigma)
        if down == 0:
            x = x0
            continue
        middle = math.exp((math.log(sigma) + math.log(down)) / 2)
        if name == "dpm2-a":
            trial = x + (x - x0) / sigma * (middle - sigma)
            x = x + (trial - denoised(trial, middle)) / middle * (down - sigma)
        else:
            h = math.log(sigma) - math.log(down)
            trial = middle / sigma * x - math.expm1(-h / 2) * x0
            x = down / sigma * x - math.expm1(-h) * denoised(trial, middle)
        x = x + up * noise(x)
    assert error(mine(name, levels, eta=0.7), x) < EXACT


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_published_dpmpp_3m_sde_is_crowsons_formula_whose_sign_diffusers_has_wrong(eta):
    levels, noise = karras(PATH, 8), Drawn()
    x, sigmas = start(levels), [level.sigma for level in levels]
    past, steps = [], []
    for sigma, sigma_next in pairwise(sigmas):
        d = denoised(x, sigma)
        if sigma_next == 0:
            x = d
            continue
        h = math.log(sigma / sigma_next)
        k = h * (eta + 1)
        x_next = math.exp(-k) * x - math.expm1(-k) * d
        phi_2 = math.expm1(-k) / k + 1
        phi_3 = phi_2 / k - 0.5
        if len(past) >= 2:
            r0, r1 = steps[-1] / h, steps[-2] / h
            d1_0, d1_1 = (d - past[-1]) / r0, (past[-1] - past[-2]) / r1
            d1, d2 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1), (d1_0 - d1_1) / (r0 + r1)
            x_next = x_next + phi_2 * d1 - phi_3 * d2
        elif past:
            x_next = x_next + -math.expm1(-k) / 2 * (d - past[-1]) / (steps[-1] / h)
        if eta:
            x_next = x_next + noise(x) * sigma_next * math.sqrt(-math.expm1(-2 * h * eta))
        x = x_next
        past, steps = [*past, d], [*steps, h]
    name = "dpmpp-3m-sde" if eta else "dpmpp-3m"
    assert error(mine(name, levels, eta=eta, solver="published", bootstrap=False), x) < EXACT


def test_dpmpp_3m_has_the_whole_second_difference():
    """On x0 quadratic in λ the exact formula makes no error; the published one, half of it left out, does."""
    levels = [PATH.at(sigma) for sigma in (8.0, 5.0, 3.0, 2.0)]

    def quadratic(level):
        return 0.3 + 0.5 * level.lam - 0.2 * level.lam**2

    def last(solver):
        sampling = SAMPLERS["dpmpp-3m"].sample(
            torch.zeros(1, 1, 1, 1).double(), levels, Drawn(), solver=solver
        )
        point = next(sampling)
        for _ in range(2):
            point = sampling.send(torch.full_like(point.x, quadratic(point.level)))
        here, x = point.level, point.x.item()
        with pytest.raises(StopIteration) as done:
            sampling.send(torch.full_like(point.x, quadratic(here)))
        return here, x, done.value.value.item()

    def truth(here, x):
        end, count = levels[-1], 2000
        h = (end.lam - here.lam) / count
        lams = [here.lam + (i + 0.5) * h for i in range(count)]
        total = sum(math.exp(lam) * (0.3 + 0.5 * lam - 0.2 * lam**2) for lam in lams) * h
        return end.s / here.s * x + end.s * total

    here, x, exact = last("heun")
    assert exact == pytest.approx(truth(here, x), abs=1e-6)
    here, x, published = last("published")
    assert published != pytest.approx(truth(here, x), abs=1e-4)


def test_lcm_near_the_picture_is_between_x_and_its_estimate():
    """At 10·t = 0.5 = σ_data both c_skip = ½ and c_out = 1/√2 show; at t = 0 it is x."""
    x, x0 = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 5.0)
    for t, expected in ((0.05, 0.5 * 3 + math.sqrt(0.5) * 5), (0.0, 3.0)):
        last = run(SAMPLERS["lcm"].sample(x, [Level(0.9, 0.4, t), CLEAN], Drawn()), lambda x, level: x0)
        assert last.item() == pytest.approx(expected)
