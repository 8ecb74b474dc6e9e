"""What students are asked for, against the papers' formulas and on mixtures whose flow map is known."""

import itertools
import math

import pytest
import torch
from mixture import mixture
from scipy.stats import lognorm

from sfumato.diffusion import distill
from sfumato.diffusion.distill import LATENT, Boundary, LevelTable
from sfumato.diffusion.level import (
    Level,
    VarianceExploding,
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
    zero_terminal_snr,
)

CPU = torch.device("cpu")
VP = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
ZERO = VariancePreserving(zero_terminal_snr(alphas_cumprod(scaled_linear_betas())))
VE = VarianceExploding()
BLOBS = mixture(3, dim=4, components=5, stds=(0.2, 0.4))


def rows_of(*levels):
    """Rows in float64, for data of two dimensions."""
    a, s, t = torch.tensor([(level.a, level.s, level.t) for level in levels], dtype=torch.float64).unbind(1)
    return Level(a[:, None], s[:, None], t)


def exact(x, rows):
    return BLOBS.denoise(x, level_of(rows))


def level_of(rows):
    return Level(float(rows.a[0]), float(rows.s[0]), float(rows.t[0]))


def ddim(teacher, x, here, there):
    return distill.ddim(teacher, x, here, here, there)


def at(path, t, count=64):
    return rows_of(*[path.level(t)] * count)


def noisy(path, t, count=64):
    """Noise and pictures of the mixture at time t, (x, x0, eps)."""
    generator = torch.Generator().manual_seed(1)
    which = torch.multinomial(BLOBS.weights, count, replacement=True, generator=generator)
    spread = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    x0 = BLOBS.means[which] + BLOBS.stds[which] * spread
    eps = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return at(path, t, count).noisy(x0, eps), x0, eps


@pytest.mark.parametrize("path", [VP, ZERO], ids=["vp", "zero-snr"])
def test_a_grid_holds_the_levels_it_was_given(path):
    grid = LevelTable([path.level(t) for t in range(1000)], CPU)
    rows = grid.rows(torch.tensor([0, 499, 999]))
    assert len(grid) == 1000
    assert rows.a.shape == (3, 1, 1, 1)
    assert rows.t.tolist() == [0, 499, 999]
    for index, t in enumerate((0, 499, 999)):
        assert float(rows.a[index]) == pytest.approx(path.level(t).a, abs=1e-7)
        assert float(rows.s[index]) == pytest.approx(path.level(t).s, abs=1e-7)


def test_the_boundary_is_the_input_itself_where_no_noise_is_left():
    x = torch.randn(1, 4, dtype=torch.float64)
    lost = lambda x, rows: torch.full_like(x, 1e3)  # noqa: E731
    torch.testing.assert_close(Boundary()(lost, x, rows_of(VE.at(0.002))), x)
    torch.testing.assert_close(LATENT(lost, x, at(VP, 0, 1)), x)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
def test_the_boundary_is_the_papers_of_the_network_behind_the_estimate(sigma):
    data, least = 0.5, 0.002
    x, raw = torch.randn(2, 1, 4, dtype=torch.float64)
    skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.hypot(sigma, data)
    estimate = skip * x + out * raw
    expected = data**2 / ((sigma - least) ** 2 + data**2) * x
    expected = expected + data * (sigma - least) / math.hypot(sigma, data) * raw
    found = Boundary(data, least)(lambda x, rows: estimate, x, rows_of(VE.at(sigma)))
    torch.testing.assert_close(found, expected)


def test_the_boundary_has_a_value_at_pure_noise_and_leaves_the_estimate_almost_alone():
    skip, out = Boundary().weights(rows_of(ZERO.level(999)))
    assert (float(skip), float(out)) == (0, 1)


def test_without_a_least_noise_the_boundary_is_the_estimate():
    for t in (10, 500, 999):
        skip, out = Boundary(sigma_min=0.0).weights(at(VP, t, 1))
        assert float(skip) == pytest.approx(0, abs=1e-12)
        assert float(out) == 1


def test_the_boundary_of_latents_is_that_of_the_lcm_sampler():
    tau = 10.0 * 19
    skip, out = LATENT.weights(at(VP, 19, 1))
    assert float(skip) == pytest.approx(0.25 / (tau**2 + 0.25))
    assert float(out) == pytest.approx(tau / math.sqrt(tau**2 + 0.25))


@pytest.mark.parametrize("solver", distill.SOLVERS.values(), ids=distill.SOLVERS)
def test_a_solver_that_is_told_the_picture_only_takes_noise_away(solver):
    x, x0, eps = noisy(VP, 800)
    landed = solver(lambda x, rows: x0, x, at(VP, 800), at(VP, 700), at(VP, 600))
    torch.testing.assert_close(landed, at(VP, 600).noisy(x0, eps))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp-2s", 2)])
def test_solvers_follow_the_flow_of_a_mixture_to_their_order(name, order):
    x, _, _ = noisy(VP, 700)

    def off(steps):
        lambdas = torch.linspace(VP.level(700).lam, VP.level(300).lam, steps + 1, dtype=torch.float64)
        levels = [VP.at(math.exp(-lam)) for lam in lambdas.tolist()]
        z = x
        for here, there in itertools.pairwise(levels):
            each = (here, distill.halfway(here, there), there)
            z = distill.SOLVERS[name](exact, z, *[rows_of(*[level] * len(x)) for level in each])
        return float((z - BLOBS.flow(x, levels[0], levels[-1], 200)).norm())

    assert math.log2(off(16) / off(32)) > order - 0.15


def test_halfway_is_half_the_way_in_lambda_and_in_time_where_that_is_infinite():
    here, there = VP.level(700), VP.level(300)
    assert distill.halfway(here, there).lam == pytest.approx((here.lam + there.lam) / 2)
    assert distill.halfway(ZERO.level(999), ZERO.level(959)).t == 979


@pytest.mark.parametrize("path", [VP, ZERO], ids=["vp", "zero-snr"])
@pytest.mark.parametrize("times", [(999, 900, 800), (300, 200, 100)])
def test_one_step_with_the_halved_target_lands_where_two_of_the_teacher_do(path, times):
    here, middle, there = (at(path, t) for t in times)
    x, _, _ = noisy(path, times[0])
    target = distill.two_steps_as_one(exact, x, here, middle, there)
    twice = ddim(exact, ddim(exact, x, here, middle), middle, there)
    torch.testing.assert_close(ddim(lambda x, rows: target, x, here, there), twice)


def test_two_steps_to_the_picture_are_the_teachers_last_estimate():
    x, _, _ = noisy(VP, 40)
    clean = Level(torch.ones(64, 1).double(), torch.zeros(64, 1).double(), torch.zeros(64))
    middle = at(VP, 20)
    target = distill.two_steps_as_one(exact, x, at(VP, 40), middle, clean)
    expected = exact(ddim(exact, x, at(VP, 40), middle), middle)
    torch.testing.assert_close(target, expected)


def test_the_true_consistency_function_is_the_same_at_both_ends_of_a_short_step():
    x, _, _ = noisy(VP, 600)
    end = VP.level(0)

    def apart(gap):
        there = VP.level(600 - gap)
        stepped = ddim(exact, x, at(VP, 600), at(VP, 600 - gap))
        ends = (BLOBS.flow(x, VP.level(600), end, 200), BLOBS.flow(stepped, there, end, 200))
        return float((ends[0] - ends[1]).norm())

    assert apart(20) < 0.3 * apart(40)  # second order in one step
    assert apart(2) < 1e-3


def test_guided_answers_move_away_from_the_untold_one_by_the_scale_of_their_row():
    cond, uncond = (lambda x, rows: x + 1), (lambda x, rows: x)
    scale = torch.tensor([[0.0], [1.0], [7.5]])
    x = torch.zeros(3, 2)
    answer = distill.cfg(cond, uncond, scale)(x, rows_of(*[VP.level(5)] * 3))
    assert answer.tolist() == [[0, 0], [1, 1], [7.5, 7.5]]


def test_the_pseudo_huber_distance_is_quadratic_near_and_linear_far():
    x = torch.tensor([[3e-3, 4e-3], [300.0, 400.0]])
    near, far = distill.pseudo_huber(x, torch.zeros(2, 2), c=0.1).tolist()
    assert far == pytest.approx(500 - 0.1, rel=1e-4)
    assert near == pytest.approx((5e-3) ** 2 / 0.2, rel=2e-3)


def test_the_weights_of_progressive_distillation_are_the_papers():
    rows = rows_of(VP.level(100), VP.level(900))
    snr = (rows.a / rows.s).flatten() ** 2
    assert distill.truncated_snr(rows).tolist() == [pytest.approx(float(snr[0])), 1.0]
    torch.testing.assert_close(distill.snr_plus_one(rows), 1 / rows.s.flatten() ** 2)
    assert float(distill.truncated_snr(rows_of(ZERO.level(999)))) == 1


def test_the_curriculum_doubles_from_ten_to_1280():
    steps = 400_000
    found = [distill.discretization_steps(step, steps) for step in range(0, steps, 50_000)]
    assert found == [10, 20, 40, 80, 160, 320, 640, 1280]
    assert distill.discretization_steps(steps, steps) == 1280


def test_the_levels_of_karras_et_al_are_even_in_the_seventh_root():
    """σ_i = (σ_min^(1/ρ) + i/(N − 1)·(σ_max^(1/ρ) − σ_min^(1/ρ)))^ρ, in double precision."""
    sigmas = distill.karras_sigmas(9)
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    known = [(low + i / 8 * (high - low)) ** 7 for i in range(9)]
    torch.testing.assert_close(sigmas, torch.tensor(known, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(distill.karras_sigmas(3, 1.0, 9.0, 2.0), torch.tensor([1.0, 4, 9]).double())


def test_intervals_are_trained_as_often_as_a_lognormal_noise_falls_into_them():
    sigmas = distill.karras_sigmas(20)
    shares = distill.lognormal_probabilities(sigmas)
    mass = torch.from_numpy(lognorm(s=2.0, scale=math.exp(-1.1)).cdf(sigmas.numpy())).diff()
    torch.testing.assert_close(shares, mass / mass.sum())
    assert float(sigmas[0]) == pytest.approx(0.002)
    assert float(sigmas[-1]) == pytest.approx(80)


def test_close_intervals_weigh_more():
    sigmas = torch.tensor([1.0, 1.5, 3.5])
    assert distill.inverse_gaps(sigmas).tolist() == [2.0, 0.5]
