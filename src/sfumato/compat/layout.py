"""Where diffusers' schedulers stop: the same noise levels, laid out from the same settings.

Every scheduler there has times of its own for one number of steps; these are their few rules. Sigmas are s/a.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sfumato.diffusion import level as levels
from sfumato.diffusion.level import CLEAN, Level, VariancePreserving
from sfumato.diffusion.spacing import beta_quantile
from sfumato.errors import UsageError, nearest

Settings = Mapping[str, Any]

BENDS = ("karras", "lu", "exponential", "beta")
"""The layouts in σ that settings such as `use_karras_sigmas` ask for."""
NEARLY_PURE = 2.0**-24
"""What stands for ᾱ = 0 in schedulers that divide by it."""


def path(settings: Settings, *, nearly_pure: bool = False) -> VariancePreserving:
    """The path of a scheduler's betas. Raises `UsageError` for betas that are none.

    `nearly_pure`: a rescaled path ends just short of pure noise.
    """
    count, schedule = settings["num_train_timesteps"], settings["beta_schedule"]
    ends = settings["beta_start"], settings["beta_end"], count
    if settings["trained_betas"] is not None:
        betas = torch.tensor(settings["trained_betas"], dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = levels.scaled_linear_betas(*ends)
    elif schedule == "linear":
        betas = levels.linear_betas(*ends)
    elif schedule == "squaredcos_cap_v2":
        betas = levels.cosine_betas(count)
    else:
        known = ("linear", "scaled_linear", "squaredcos_cap_v2")
        raise UsageError(f"beta_schedule = {schedule!r} is not supported; {nearest(str(schedule), known)}")
    table = levels.alphas_cumprod(betas)
    if settings.get("rescale_betas_zero_snr"):
        table = levels.zero_terminal_snr(table)
        if nearly_pure:
            table[-1] = NEARLY_PURE
    try:
        return VariancePreserving(table)
    except ValueError as error:
        raise UsageError(f"the scheduler's betas make no path from picture to noise: {error}") from None


def even_times(settings: Settings, n: int, *, dropped: int = 0, rounded: bool = True) -> list[float]:
    """`n` training times, the noisiest first, as `timestep_spacing` and `steps_offset` say.

    `dropped` more are laid out, and left away at the least noisy end, except for "trailing". Those of
    "linspace" need not be whole unless `rounded`.
    """
    count, spacing = settings["num_train_timesteps"], settings.get("timestep_spacing", "linspace")
    if n > count:
        raise UsageError(f"num_inference_steps is {n}: the scheduler has {count} training times")
    points = n + dropped
    if spacing == "leading":
        stride, offset = count // points, settings["steps_offset"]
        return [float(min((points - 1 - i) * stride + offset, count - 1)) for i in range(n)]
    if spacing == "linspace":
        stride = (count - 1) / max(points - 1, 1)
        times = [(points - 1 - i) * stride for i in range(n)]
        return [float(round(t)) for t in times] if rounded else times
    if spacing == "trailing":
        return [float(round(count - i * count / n) - 1) for i in range(n)]
    known = ("leading", "linspace", "trailing")
    raise UsageError(f"timestep_spacing = {spacing!r} is not supported; {nearest(str(spacing), known)}")


def distilled_times(settings: Settings, n: int, origin: int | None) -> list[float]:
    """`n` of the `origin` times that a consistency model was trained at, the noisiest first."""
    count = settings["num_train_timesteps"]
    origin = settings["original_inference_steps"] if origin is None else origin
    if not 1 <= origin <= count:
        raise UsageError(f"original_inference_steps is {origin}: must be 1 to {count}")
    if n > origin:
        raise UsageError(f"num_inference_steps is {n}: must be at most original_inference_steps = {origin}")
    stride = count // origin
    return [float((origin - origin * i // n) * stride - 1) for i in range(n)]


def sigma_schedule(settings: Settings) -> str | None:
    """Which layout in σ the settings ask for, if any. Raises `UsageError` for two."""
    wanted = [name for name in BENDS if settings.get(_setting(name))]
    if len(wanted) > 1:
        raise UsageError(f"only one of {' and '.join(map(_setting, wanted))} can be used")
    return wanted[0] if wanted else None


def _setting(name: str) -> str:
    return "use_lu_lambdas" if name == "lu" else f"use_{name}_sigmas"


def bent_sigmas(kind: str, top: float, low: float, n: int) -> list[float]:
    """`n` sigmas from `top` to `low`, evenly as `kind` of `BENDS` sees them."""
    parts = [i / max(n - 1, 1) for i in range(n)]
    if kind == "beta":
        return [low + beta_quantile(1 - part, 0.6, 0.6) * (top - low) for part in parts]
    power: Callable[[float], float] = math.log
    back: Callable[[float], float] = math.exp
    if kind == "karras":
        power, back = (lambda sigma: sigma ** (1 / 7)), (lambda y: y**7)
    return [back(power(top) + part * (power(low) - power(top))) for part in parts]


def sigma_at(way: VariancePreserving, t: float) -> float:
    """σ at a time that need not be whole, on the straight line between those beside it."""
    below = min(math.floor(t), math.ceil(way.last) - 1)
    share = t - below
    return (1 - share) * way.level(below).sigma + share * way.level(below + 1).sigma


def at_sigmas(way: VariancePreserving, sigmas: Sequence[float], times: Sequence[float]) -> list[Level]:
    """A level for each sigma, the network told the time beside it."""
    found = (way.at(sigma) for sigma in sigmas)
    return [Level(each.a, each.s, t, path=way) for each, t in zip(found, times, strict=True)]


def ended(stops: Sequence[Level], way: VariancePreserving, *, clean: bool) -> list[Level]:
    """`stops` and the level to end at: the picture, or the least noisy level of training."""
    if clean:
        return [*stops, CLEAN]
    least = way.level(0)
    above = [stop for stop in stops if stop.sigma > least.sigma * (1 + 1e-6)]
    if not above:
        raise UsageError(
            "these settings begin where they end, at the least noisy training time: take more steps"
        )
    return [*above, least]
