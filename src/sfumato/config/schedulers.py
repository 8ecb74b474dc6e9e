"""diffusers' schedulers by their classes: every setting of each, with its default."""

from typing import Any

_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_LINSPACE: dict[str, Any] = _BETAS | {"timestep_spacing": "linspace", "steps_offset": 0}
_LEADING: dict[str, Any] = _BETAS | {"timestep_spacing": "leading", "steps_offset": 0}
_STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
"""Stable Diffusion's."""
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_CLIPS = {"clip_sample": True, "clip_sample_range": 1.0}
_CLIP = {**_CLIPS, **_THRESHOLD}
_SPACED = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_ENDS = {"sigma_min": None, "sigma_max": None, "final_sigmas_type": "zero"}
_MULTISTEP = {
    **_SPACED,
    **_THRESHOLD,
    "solver_order": 2,
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_SA_SOLVER: dict[str, Any] = {
    **_SPACED,
    **_THRESHOLD,
    "predictor_order": 2,
    "corrector_order": 2,
    "tau_func": None,
    "algorithm_type": "data_prediction",
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}
_DPM_SOLVER = {
    **_MULTISTEP,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}
_EDM = {
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
_CONSISTENCY = {
    **_LEADING,
    **_STABLE,
    **_CLIP,
    **_ZERO_SNR,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
    "set_alpha_to_one": True,
}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": _LEADING | _CLIP | _ZERO_SNR | {"set_alpha_to_one": True},
    "DDIMInverseScheduler": _LEADING | _CLIPS | _ZERO_SNR | {"set_alpha_to_one": True},
    "DDIMParallelScheduler": _LEADING | _CLIP | _ZERO_SNR | {"set_alpha_to_one": True},
    "DDPMParallelScheduler": _LEADING | _CLIP | _ZERO_SNR | {"variance_type": "fixed_small"},
    "DDPMScheduler": _LEADING | _CLIP | _ZERO_SNR | {"variance_type": "fixed_small"},
    "DEISMultistepScheduler": _LINSPACE | _MULTISTEP | {"algorithm_type": "deis", "solver_type": "logrho"},
    "DPMSolverMultistepScheduler": (
        _LINSPACE | _DPM_SOLVER | _ZERO_SNR | {"euler_at_final": False, "use_lu_lambdas": False}
    ),
    "DPMSolverSDEScheduler": _LINSPACE | _STABLE | _SPACED | {"noise_sampler_seed": None},
    "DPMSolverSinglestepScheduler": _BETAS | _DPM_SOLVER | {"lower_order_final": False},
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        **_THRESHOLD,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    "EDMEulerScheduler": _EDM,
    "EulerAncestralDiscreteScheduler": _LINSPACE | _ZERO_SNR,
    "EulerDiscreteScheduler": (
        _LINSPACE
        | _SPACED
        | _ENDS
        | _ZERO_SNR
        | {"interpolation_type": "linear", "timestep_type": "discrete"}
    ),
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        **_SPACED,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
    "HeunDiscreteScheduler": _LINSPACE | _STABLE | _SPACED | {"clip_sample": False, "clip_sample_range": 1.0},
    "KDPM2AncestralDiscreteScheduler": _LINSPACE | _STABLE | _SPACED,
    "KDPM2DiscreteScheduler": _LINSPACE | _STABLE | _SPACED,
    "LCMScheduler": _CONSISTENCY,
    "LMSDiscreteScheduler": _LINSPACE | _SPACED,
    "PNDMScheduler": _LEADING | {"skip_prk_steps": False, "set_alpha_to_one": False},
    "SASolverScheduler": _LINSPACE | _SA_SOLVER,
    "TCDScheduler": _CONSISTENCY,
    "UniPCMultistepScheduler": {
        **_LINSPACE,
        **_MULTISTEP,
        **_ENDS,
        **_ZERO_SNR,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": [],
        "solver_p": None,
        "shift_terminal": None,
    },
}
