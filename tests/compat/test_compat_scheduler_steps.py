"""Every scheduler, with settings drawn at random, takes the steps of diffusers: same times, same latents."""

import inspect
import math
import random
import warnings

import diffusers
import numpy as np
import pytest
import torch
from peer import Drawn, latents, network, theirs

from sfumato.compat.plan import SampleArgs
from sfumato.compat.schedulers import SCHEDULERS
from sfumato.diffusion.predict import clean_estimate, network_input, prediction_named
from sfumato.diffusion.sampling import run
from sfumato.errors import UsageError

CASES = 15
CHOICES = {
    "num_train_timesteps": [1000, 1000, 1000, 500],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "prediction_type": ["epsilon", "sample", "v_prediction"],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [0, 1, 1, 5],
    "rescale_betas_zero_snr": [False, False, True],
    "final_sigmas_type": ["zero", "sigma_min"],
    "set_alpha_to_one": [False, True],
    "solver_order": [1, 2, 3],
    "predictor_order": [1, 2, 3],
    "corrector_order": [1, 2, 3, 4],
    "lower_order_final": [False, True],
    "euler_at_final": [False, True],
    "lambda_min_clipped": [-math.inf, -5.1],
    "predict_x0": [True, False],
    "disable_corrector": [[], [0, 2]],
    "thresholding": [False, False, True],
    "dynamic_thresholding_ratio": [0.995, 0.7],
    "sample_max_value": [1.0, 2.0],
    "clip_sample": [False, True],
    "clip_sample_range": [1.0, 0.5],
    "sigma_min": [None, 0.1],
    "sigma_max": [None, 10.0],
    "interpolation_type": ["linear", "linear", "log_linear"],
    "timestep_type": ["discrete", "continuous"],
    "skip_prk_steps": [True, False],
    "flow_shift": [1.0, 3.0],
    "shift_terminal": [None, 0.1],
    "sigma_schedule": ["karras", "exponential"],
    "sigma_data": [0.5, 1.0],
    "rho": [7.0, 5.0],
}
SPACINGS = [
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
]
OWN_CHOICES = {
    "EDMEulerScheduler": {
        "prediction_type": ["epsilon", "v_prediction"],
        "sigma_min": [0.002, 0.01],
        "sigma_max": [80.0, 120.0],
    },
    "EDMDPMSolverMultistepScheduler": {
        "prediction_type": ["epsilon", "v_prediction"],
        "sigma_min": [0.002, 0.01],
        "sigma_max": [80.0, 120.0],
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
        "solver_type": ["midpoint", "heun"],
    },
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"],
        "solver_type": ["midpoint", "heun"],
    },
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++"],
        "solver_type": ["midpoint", "heun"],
    },
    "UniPCMultistepScheduler": {"solver_type": ["bh1", "bh2"]},
    "SASolverScheduler": {"algorithm_type": ["data_prediction", "noise_prediction"]},
    "DDPMScheduler": {"variance_type": ["fixed_small", "fixed_small_log"]},
}
STEPS = [1, 2, 3, 4, 7, 10, 15, 20, 33, 50]


def drawn(name, rng):
    """Settings that the class has, and the arguments of a call."""
    known = SCHEDULERS[name].defaults()
    choices = CHOICES | OWN_CHOICES.get(name, {})
    settings = {key: rng.choice(values) for key, values in choices.items() if key in known}
    chosen = rng.choice([None, None, *(spacing for spacing in SPACINGS if spacing in known)])
    if chosen:
        settings[chosen] = True
    if chosen == "use_flow_sigmas":
        settings["prediction_type"] = "flow_prediction"
    elif "shift_terminal" in settings:
        settings["shift_terminal"] = None
    takes = SCHEDULERS[name].TAKES
    call = {
        "num_inference_steps": rng.choice([1, 2, 4, 8] if name in ("LCMScheduler", "TCDScheduler") else STEPS)
    }
    if "timesteps" in takes and not chosen and rng.random() < 0.15:
        call = {"timesteps": [499, 350, 100, 1]}
    elif "sigmas" in takes and rng.random() < 0.15:
        call = {"sigmas": [14.6, 3.0, 0.3, 0.0]}
    return settings, call


def differs(name, settings, call):
    """Whether docs/compat.md says that Sfumato differs here."""
    get, steps = settings.get, call.get("num_inference_steps")
    count, prediction = get("num_train_timesteps", 1000), get("prediction_type")
    trailing = get("timestep_spacing") == "trailing" and steps
    return (
        (get("rescale_betas_zero_snr") and (prediction == "epsilon" or get("beta_schedule") == "linear"))
        or (
            name == "DPMSolverSinglestepScheduler"
            and (get("algorithm_type"), get("solver_order"), get("solver_type"))
            == ("sde-dpmsolver++", 3, "heun")
        )
        or (name.startswith("EDM") and steps == 1)
        or (trailing and len(np.arange(count, 0, -count / steps)) != steps)
        or (
            name == "PNDMScheduler"
            and (
                prediction != "epsilon"
                or get("timestep_spacing") == "linspace"
                or (trailing and count % steps)
            )
        )
    )


def rounded(scheduler):
    """Sigmas as diffusers rounds them, in float64, so that its formulas do not lose digits."""
    for name in ("sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down", "alphas_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def asked(inputs, answer=network):
    def record(x, t):
        inputs.append((t, x))
        return answer(x, t)

    return record


def peer_run(name, settings, call, eta, monkeypatch):
    """diffusers' inputs of the network, its last latent, and its draws; or `None` where it has no numbers."""
    kind, inputs = getattr(diffusers, name), []
    module = inspect.getmodule(kind)
    if hasattr(module, "BrownianTreeNoiseSampler"):
        monkeypatch.setattr(module, "BrownianTreeNoiseSampler", lambda *_: lambda *_: 0.0)
    options = {"eta": eta} if "eta" in inspect.signature(kind.step).parameters else {}
    try:
        scheduler = kind(**settings)
        scheduler.set_timesteps(**call)
        x = theirs(rounded(scheduler), monkeypatch, asked(inputs), dtype=torch.float64, **options)
    except (ValueError, IndexError, NotImplementedError, RuntimeError, UnboundLocalError, ZeroDivisionError):
        return None
    return (inputs, x) if x.isfinite().all() else None


def our_run(name, settings, call, eta):
    scheduler, inputs = SCHEDULERS[name](**settings), []
    steps = call.get("num_inference_steps") or len(call.get("timesteps") or call["sigmas"][1:])
    plan = scheduler.plan(
        SampleArgs(steps, eta=eta, timesteps=call.get("timesteps"), sigmas=call.get("sigmas"))
    )
    kind, record = prediction_named(scheduler.prediction), asked(inputs)

    def denoise(x, level):
        out = record(network_input(kind, x, [level] * len(x)), level.t)
        return clean_estimate(kind, x, out, [level] * len(x))

    def scale(level):  # 1 where a² + s² = 1, as `theirs` has it
        return math.hypot(level.sigma, 1) * plan.scale(level) if plan.exploding else 1.0

    noise = Drawn()
    noise.count = plan.unused
    if name == "DPMSolverSDEScheduler":
        noise = torch.zeros_like
    x = latents(torch.float64) * scale(plan.levels[0])
    return inputs, run(plan.sampler(x, plan.levels, noise), denoise) / scale(plan.levels[-1])


def apart(mine, peer):
    return ((mine - peer).abs().max() / peer.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_settings_drawn_at_random_give_the_times_and_the_latents_of_diffusers(name, monkeypatch):
    rng, compared = random.Random(name), 0
    for _ in range(CASES):
        settings, call = drawn(name, rng)
        eta = rng.choice([0.0, 0.5, 1.0])
        if differs(name, settings, call):
            continue
        case = (settings, call, eta)
        with warnings.catch_warnings(action="ignore"):
            peer = peer_run(name, settings, call, eta, monkeypatch)
        try:
            inputs, x = our_run(name, settings, call, eta)
        except UsageError:
            assert peer is None, case
            continue
        assert x.isfinite().all(), case
        if peer is None:
            continue
        whole = getattr(SCHEDULERS[name], "TRUNCATED", False)  # float32 may cut a time off at 998.99
        assert [t for t, _ in inputs] == pytest.approx([t for t, _ in peer[0]], abs=1.01 if whole else 0.1), (
            case
        )
        cosine = settings.get("beta_schedule") == "squaredcos_cap_v2"  # its betas are coarse in float32
        within = 0.02 if cosine else 0.002
        for (_, mine), (_, other) in zip(inputs, peer[0], strict=True):
            assert apart(mine, other) < within, case
        assert apart(x, peer[1]) < within, case
        compared += 1
    assert compared >= CASES // 5


SOLVERS = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
]
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def of(name, **settings):
    known = SCHEDULERS[name].defaults()
    return {key: value for key, value in {**STABLE, **settings}.items() if key in known}


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", SOLVERS)
def test_as_many_steps_as_training_times_give_numbers_or_a_reason(name, spacing):
    settings, most = of(name, timestep_spacing=spacing), 1000
    if spacing == "leading" and "timestep_spacing" in settings:
        with pytest.raises(UsageError, match="at most 999 steps"):
            our_run(name, settings, {"num_inference_steps": most}, 0.0)
        most = 999
    inputs, x = our_run(name, settings, {"num_inference_steps": most}, 0.0)
    assert len(inputs) == most
    assert x.isfinite().all()


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"])
def test_noise_that_diffusers_draws_for_a_step_of_no_length_is_drawn(name):
    plan = SCHEDULERS[name](**of(name, timestep_spacing="leading")).plan(SampleArgs(1000))
    assert plan.unused == 1
    assert [level.t for level in plan.levels[:3]] == [1000, 999, 998]
