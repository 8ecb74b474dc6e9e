"""Levels and paths keep what their definitions promise."""

import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import PATHS, TABLE

from sfumato.diffusion.level import (
    CLEAN,
    DynamicFlow,
    Flow,
    Level,
    VarianceExploding,
    VariancePreserving,
    alphas_cumprod,
    cosine_betas,
    exponential_betas,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
share = st.floats(0, 1)


@every_path
@given(share=share)
def test_a_and_s_keep_the_relation_of_their_path(path, share):
    level = path.level(path.first + share * (path.last - path.first))
    if isinstance(path, VariancePreserving):
        assert level.a**2 + level.s**2 == pytest.approx(1, abs=1e-12)
    elif isinstance(path, Flow):
        assert level.a + level.s == pytest.approx(1, abs=1e-12)
    else:
        assert level.a == 1
    assert level.path is path


@every_path
@given(share=share)
def test_time_undoes_level(path, share):
    t = path.first + share * (path.last - path.first)
    assert path.time(path.level(t).sigma) == pytest.approx(t, abs=1e-6 * path.last)


@every_path
@given(shares=st.tuples(share, share))
def test_noise_rises_with_time(path, shares):
    low, high = sorted(path.first + s * (path.last - path.first) for s in shares)
    if high - low > 1e-6:
        assert path.level(low).sigma < path.level(high).sigma


@every_path
@given(log_sigma=st.floats(-6, 6))
def test_at_has_exactly_the_sigma_asked_for_even_beyond_the_path(path, log_sigma):
    sigma = math.exp(log_sigma)
    level = path.at(sigma)
    assert level.sigma == pytest.approx(sigma, rel=1e-9)
    assert level.lam == pytest.approx(-log_sigma, abs=1e-9)
    reached = path.level(path.first).sigma < sigma < path.level(path.last).sigma
    if reached:
        assert path.level(path.time(sigma)).t == pytest.approx(level.t, abs=1e-6)


@pytest.mark.parametrize(
    ("betas", "name"), [(scaled_linear_betas, "scaled_linear"), (linear_betas, "linear")]
)
def test_betas_equal_diffusers(betas, name):
    peer = diffusers.DDPMScheduler(beta_start=0.001, beta_end=0.02, beta_schedule=name)
    torch.testing.assert_close(betas(0.001, 0.02, 1000).float(), peer.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        alphas_cumprod(betas(0.001, 0.02, 1000)).float(), peer.alphas_cumprod, rtol=1e-4, atol=0
    )


def test_cosine_betas_equal_diffusers():
    peer = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(cosine_betas().float(), peer.betas, rtol=1e-4, atol=0)


def test_exponential_betas_equal_diffusers():
    peer = diffusers.HeunDiscreteScheduler(beta_schedule="exp", num_train_timesteps=1024)
    torch.testing.assert_close(exponential_betas(1024).float(), peer.betas, rtol=1e-5, atol=0)


def test_zero_terminal_snr_equals_diffusers_and_keeps_the_first_level():
    rescaled = zero_terminal_snr(TABLE)
    peer = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    torch.testing.assert_close(rescaled.float(), peer.alphas_cumprod, rtol=1e-3, atol=1e-7)
    assert rescaled[-1] == 0
    assert rescaled[0] == pytest.approx(TABLE[0].item())


def test_pure_noise_and_clean_are_ordinary_levels():
    path = PATHS["zero-snr"]
    noisiest = path.level(path.last)
    assert (noisiest.a, noisiest.s, noisiest.sigma, noisiest.lam) == (0, 1, math.inf, -math.inf)
    assert path.time(math.inf) == path.last
    assert (CLEAN.sigma, CLEAN.lam) == (0, math.inf)


def test_a_level_is_equal_whatever_path_it_lies_on():
    assert Level(0.6, 0.8, 1.0, PATHS["flow"]) == Level(0.6, 0.8, 1.0)


@pytest.mark.parametrize("table", [[0.9], [0.9, 0.9], [0.5, 0.9], [1.0, 0.5], [0.5, -0.1], [[0.9, 0.5]]])
def test_a_table_that_does_not_fall_inside_0_and_1_is_refused(table):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        VariancePreserving(torch.tensor(table))


def test_an_exploding_path_without_room_is_refused():
    with pytest.raises(ValueError, match="sigma_min"):
        VarianceExploding(1.0, 1.0)


@pytest.mark.parametrize(("positions", "mu"), [(256, 0.5), (2176, 0.825), (4096, 1.15)])
def test_a_dynamic_flow_shifts_by_the_number_of_latent_positions(positions, mu):
    path = DynamicFlow(scale=500.0).at(positions)
    assert path.last == 500
    assert path.shift == pytest.approx(math.exp(mu))
    assert DynamicFlow(exponential=False).at(positions).shift == pytest.approx(mu)


def test_the_shift_of_a_dynamic_flow_is_at_most_1000():
    assert DynamicFlow().at(10**6).shift == 1000
