"""What a scheduler's configuration says about the network: what it predicts, and along which path."""

import torch

from sfumato.config import ScheduleConfig
from sfumato.diffusion import level
from sfumato.diffusion.predict import SIGMA_DATA
from sfumato.errors import CheckpointError

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
"""What schedulers call the network's answer, and what it is called here."""
_EDM_PREDICTIONS = {"epsilon": "edm", "v_prediction": "edm-v"}


def prediction_of(schedule: ScheduleConfig) -> str:
    """What the network predicts, a name of `sfumato.diffusion.predict`."""
    if not schedule.is_edm:
        return PREDICTIONS[schedule.prediction_type]
    name = _EDM_PREDICTIONS[schedule.prediction_type]
    data = 1.0 if schedule.is_continuous else schedule.sigma_data
    return name if data == SIGMA_DATA else f"{name}:{data:g}"


def path_of(schedule: ScheduleConfig) -> tuple[level.Path | level.DynamicFlow, str, str]:
    """The path a network was trained on, what it is called, and which settings say so.

    Raises `CheckpointError` where the betas make none.
    """
    count = schedule.num_train_timesteps
    if schedule.is_edm:
        low, high = schedule.sigma_min or 0.0, schedule.sigma_max or 0.0
        kind = ", timestep_type = 'continuous'" if schedule.is_continuous else ""
        reason = f"the scheduler is {schedule.class_name}{kind}"
        return level.VarianceExploding(low, high), f"variance exploding, σ {low:g} to {high:g}", reason
    shift, reason = None, f"the scheduler is {schedule.class_name}"
    if schedule.class_name.startswith("FlowMatch"):
        shift = schedule.shift
    elif schedule.prediction_type == "flow_prediction":
        shift, reason = schedule.flow_shift or 1.0, "prediction_type = 'flow_prediction'"
    if shift is not None and schedule.use_dynamic_shifting:
        dynamic = level.DynamicFlow(
            scale=float(count),
            base_shift=schedule.base_shift,
            max_shift=schedule.max_shift,
            base_positions=schedule.base_image_seq_len,
            max_positions=schedule.max_image_seq_len,
            exponential=schedule.time_shift_type == "exponential",
        )
        return dynamic, "flow, shifted by the picture's size", f"{reason}, use_dynamic_shifting"
    if shift is not None:
        return level.Flow(scale=float(count), shift=shift), f"flow, shift {shift:g}", reason
    start, end = schedule.beta_start, schedule.beta_end
    if schedule.trained_betas is not None:
        betas, reason = torch.tensor(schedule.trained_betas, dtype=torch.float64), f"{count} trained_betas"
    elif schedule.beta_schedule == "squaredcos_cap_v2":
        betas, reason = level.cosine_betas(count), "squared cosine betas"
    elif schedule.beta_schedule == "exp":
        betas, reason = level.exponential_betas(count), "exponential betas"
    elif schedule.beta_schedule == "linear":
        betas, reason = level.linear_betas(start, end, count), f"linear betas, {start:g} to {end:g}"
    else:
        betas = level.scaled_linear_betas(start, end, count)
        reason = f"betas linear in their root, {start:g} to {end:g}"
    table = level.alphas_cumprod(betas)
    if schedule.rescale_betas_zero_snr:
        table = level.zero_terminal_snr(table)
        reason += ", rescaled to zero terminal signal"
    try:
        path = level.VariancePreserving(table)
    except ValueError as error:
        raise CheckpointError(f"scheduler: the betas make no path from picture to noise: {error}") from error
    return path, f"variance preserving, {count} times", reason
