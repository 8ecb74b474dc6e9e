"""Every spacing gives falling levels from noise to picture, and diffusers' own where it has the same one."""

from itertools import pairwise

import diffusers
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import PATHS

from sfumato.diffusion.level import CLEAN
from sfumato.diffusion.spacing import (
    SPACINGS,
    beta,
    beta_quantile,
    exponential,
    karras,
    leading,
    linspace,
    spacing_named,
    trailing,
)
from sfumato.errors import UsageError

SD = PATHS["scaled-linear"]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

every_spacing = pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS.keys())
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


@every_spacing
@every_path
@settings(max_examples=30)
@given(n=st.integers(1, 60) | st.sampled_from([999, 1000, 1001, 1300]))
def test_levels_fall_strictly_to_clean_and_stay_on_the_path(path, spacing, n):
    levels = spacing.levels(path, n)
    assert len(levels) == n + 1
    assert levels[-1] == CLEAN
    assert all(here.sigma > there.sigma for here, there in pairwise(levels))
    assert all(level.path is path for level in levels[:-1])
    assert levels[0].sigma <= path.level(path.last).sigma
    assert levels[-2].sigma > 0


@pytest.mark.parametrize("name", [name for name in SPACINGS if name != "leading"])
@every_path
@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_spacing_but_leading_starts_at_the_noisiest_level_exactly(path, name, n):
    assert SPACINGS[name].levels(path, n)[0] == path.level(path.last)


def test_the_documented_times_of_stable_diffusion():
    assert [level.t for level in leading(SD, 20, offset=1)][:2] == [951, 901]
    assert [level.t for level in leading(SD, 20, offset=1)][-2] == 1
    assert [level.t for level in linspace(SD, 20, dropped=1)][:2] == [999, 949]
    assert [level.t for level in trailing(SD, 4)][:-1] == [999, 749, 499, 249]


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 25, 30, 50, 999])
@pytest.mark.parametrize("name", ["leading", "linspace", "trailing"])
def test_times_equal_diffusers_ddim_and_dpm_solver(name, n):
    offset = {"steps_offset": 1} if name == "leading" and n < 999 else {}
    given = {"offset": 1} if offset else {}
    ddim = diffusers.DDIMScheduler(**BETAS, timestep_spacing=name, **offset)
    ddim.set_timesteps(n)
    assert [level.t for level in SPACINGS[name].levels(SD, n, **given)[:-1]] == ddim.timesteps.tolist()
    if name != "trailing":
        dpm = diffusers.DPMSolverMultistepScheduler(**BETAS, timestep_spacing=name, **offset)
        dpm.set_timesteps(n)
        levels = SPACINGS[name].levels(SD, n, dropped=1, **given)
        assert [level.t for level in levels[:-1]] == dpm.timesteps.tolist()
        np.testing.assert_allclose([level.sigma for level in levels], dpm.sigmas, rtol=1e-4)


@pytest.mark.parametrize("n", [2, 5, 10, 25])
@pytest.mark.parametrize("name", ["karras", "exponential"])
def test_bent_sigmas_equal_diffusers(name, n):
    peer = diffusers.EulerDiscreteScheduler(**BETAS, **{f"use_{name}_sigmas": True})
    peer.set_timesteps(n)
    levels = SPACINGS[name].levels(SD, n)
    np.testing.assert_allclose([level.sigma for level in levels], peer.sigmas, rtol=1e-4)
    np.testing.assert_allclose([level.t for level in levels[:-1]], peer.timesteps, atol=0.05)


def test_linspace_of_one_step_starts_at_the_noise_where_diffusers_ddim_starts_at_the_picture():
    peer = diffusers.DDIMScheduler(**BETAS, timestep_spacing="linspace")
    peer.set_timesteps(1)
    assert peer.timesteps.tolist() == [0]
    assert linspace(SD, 1)[0].t == 999


def test_an_offset_never_leaves_the_path():
    assert leading(SD, 1000, offset=1)[0].t == 999
    assert leading(SD, 1, offset=5000)[0].t == 999


@pytest.mark.parametrize("n", [999, 1000])
def test_an_offset_names_no_time_twice(n):
    times = [level.t for level in leading(SD, n, offset=1)[:-1]]
    assert len(times) == n
    assert len(set(times)) == n


@pytest.mark.parametrize("spacing", [karras, exponential])
def test_below_pure_noise_sigmas_are_laid_out_under_the_ceiling(spacing):
    levels = spacing(PATHS["zero-snr"], 5, ceiling=20.0)
    assert levels[0].a == 0
    below = spacing(PATHS["exploding"], 5)
    assert max(level.sigma for level in levels[1:]) < 20
    assert below[0].sigma == pytest.approx(80)


@pytest.mark.parametrize("spacing", [karras, exponential])
def test_sigma_min_and_sigma_max_are_where_the_levels_begin_and_end(spacing):
    sigmas = [level.sigma for level in spacing(SD, 5, sigma_min=0.1, sigma_max=10.0)]
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == pytest.approx((10, 0.1, 0))


def test_karras_times_are_not_rounded():
    assert any(level.t % 1 for level in karras(SD, 10)[1:-2])


@given(p=st.floats(1e-4, 1 - 1e-4), a=st.floats(0.2, 5), b=st.floats(0.2, 5))
def test_beta_quantiles_equal_scipy(p, a, b):
    assert beta_quantile(p, a, b) == pytest.approx(scipy.special.betaincinv(a, b, p), rel=1e-8, abs=1e-12)


def test_beta_of_one_and_one_is_even_in_time():
    assert [level.t for level in beta(SD, 4, alpha=1.0, beta=1.0)][:-1] == pytest.approx(
        [999, 749.25, 499.5, 249.75]
    )


@pytest.mark.parametrize(("alpha", "bad"), [(0.0, "0.0"), (-1.0, "-1.0")])
def test_beta_refuses_what_is_no_distribution(alpha, bad):
    with pytest.raises(UsageError, match=bad):
        beta(SD, 4, alpha=alpha)


@every_spacing
def test_no_steps_is_refused(spacing):
    with pytest.raises(UsageError, match="at least 1, not 0"):
        spacing.levels(SD, 0)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "trailing"),
        ("use_beta_sigmas", "beta"),
        ("Polyexponential", "exponential"),
        (" LINSPACE ", "linspace"),
    ],
)
def test_names_of_other_programs_are_understood(name, ours):
    assert spacing_named(name).name == ours


def test_an_unknown_spacing_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'karras'"):
        spacing_named("karas")


@pytest.mark.parametrize(
    ("n", "origin"), [*((n, 50) for n in (*range(1, 9), 25, 30, 50)), (4, 100), (3, 8), (4, 30), (7, 7)]
)
def test_lcm_times_equal_diffusers(n, origin):
    peer = diffusers.LCMScheduler(original_inference_steps=origin)
    peer.set_timesteps(n)
    found = spacing_named("lcm").levels(SD, n, origin=origin)
    assert [level.t for level in found[:-1]] == peer.timesteps.tolist()
