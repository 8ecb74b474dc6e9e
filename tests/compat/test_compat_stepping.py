"""A program's own loop around a network gives the latents of diffusers at every step."""

import inspect

import diffusers
import pytest
import torch
from peer import latents, network
from test_compat_scheduler_steps import of

from sfumato import compat
from sfumato.compat.schedulers import SCHEDULERS
from sfumato.errors import UsageError

OWN_NOISE = "DPMSolverSDEScheduler"  # of diffusers, which is not drawn from a generator
SETTINGS = {"skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False}


def loop(scheduler, steps, first=0, **options):
    """The latents after every step, the last number of the generator; callers change latents in between."""
    generator, found = torch.Generator().manual_seed(3), []
    options = {"generator": generator, **options}
    known = inspect.signature(getattr(diffusers, type(scheduler).__name__).step).parameters
    options = {key: value for key, value in options.items() if key in known}
    scheduler.set_timesteps(steps)
    x = latents() * scheduler.init_noise_sigma
    for t in scheduler.timesteps[first:]:
        out = network(scheduler.scale_model_input(x, t), t.item())
        x = 1.001 * scheduler.step(out, t, x, **options).prev_sample
        found.append(x)
    return found, torch.rand(1, generator=generator)


def both(name, **settings):
    settings = of(name, **SETTINGS | settings)
    return getattr(diffusers, name)(**settings), getattr(compat, name)(**settings)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != OWN_NOISE])
def test_a_loop_of_ones_own_takes_the_steps_of_diffusers(name):
    for clean, options in ((False, {"eta": 0.5}), (True, {})):
        schedulers = both(name, set_alpha_to_one=clean)
        (theirs, drawn), (ours, mine) = (loop(scheduler, 6, **options) for scheduler in schedulers)
        for step, other in zip(ours, theirs, strict=True):
            assert (step - other).abs().max() < 1e-3 * other.abs().max().clamp(min=1)
        assert mine == drawn


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_a_loop_may_begin_at_any_time_and_be_run_again(name):
    theirs, ours = both(name)
    (others, drawn) = loop(theirs, 8, first=3)
    for _ in range(2):
        steps, mine = loop(ours, 8, first=3)
        assert (steps[-1] - others[-1]).abs().max() < 1e-3 * others[-1].abs().max()
        assert mine == drawn


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_is_added_as_in_diffusers(name):
    theirs, ours = both(name)
    x, noise = latents(), latents().flip(0)
    assert ours.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-3)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(8)
    if hasattr(theirs, "add_noise"):  # not in that of inversion
        times = theirs.timesteps[[0, 4]]
        mine, other = (scheduler.add_noise(x, noise, times) for scheduler in (ours, theirs))
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-3)
    if hasattr(theirs, "betas"):  # not in those of EDM
        assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-3)
        assert torch.allclose(ours.betas, theirs.betas, rtol=1e-3)
    assert len(ours) == len(theirs) == 1000


def test_the_velocity_is_that_of_diffusers():
    theirs, ours = both("DDPMScheduler")
    x, noise, times = latents(), latents().flip(0), torch.tensor([7, 600])
    assert torch.allclose(ours.get_velocity(x, noise, times), theirs.get_velocity(x, noise, times), atol=1e-4)


def test_half_precision_latents_stay_half_precision():
    scheduler = compat.EulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    x = latents(torch.float16) * scheduler.init_noise_sigma
    made = scheduler.step(x, scheduler.timesteps[0], x)
    assert made.prev_sample.dtype == torch.float16
    assert made["prev_sample"] is made[0]
    assert scheduler.num_inference_steps == 3


def test_a_step_out_of_order_says_which_one_is_due():
    scheduler, x = compat.DDIMScheduler(**of("DDIMScheduler")), latents()
    with pytest.raises(UsageError, match="DDIMScheduler: call set_timesteps first"):
        scheduler.step(x, 951, x)
    scheduler.set_timesteps(20)
    with pytest.raises(UsageError, match=r"time 950 is not due; next is 951, 901, 851, …"):
        scheduler.step(x, 950, x)
    scheduler.step(x, 951, x)
    with pytest.raises(UsageError, match="time 951 is not due; next is 901"):
        scheduler.step(x, 951, x)


def test_set_timesteps_takes_one_way_to_say_them():
    scheduler = compat.EulerDiscreteScheduler()
    with pytest.raises(UsageError, match="one of num_inference_steps, timesteps and sigmas"):
        scheduler.set_timesteps(3, timesteps=[9, 1])
    with pytest.raises(UsageError, match="num_inference_steps is 0"):
        scheduler.set_timesteps(0)
    karras = compat.UniPCMultistepScheduler(use_karras_sigmas=True)
    with pytest.raises(UsageError, match="num_inference_steps is 1000000000: must be at most 1000"):
        karras.set_timesteps(10**9)
    scheduler.set_timesteps(sigmas=[10.0, 1.0, 0.0])
    assert scheduler.sigmas.tolist() == [10.0, 1.0, 0.0]
