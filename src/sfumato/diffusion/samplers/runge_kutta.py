"""Runge–Kutta samplers: two evaluations a step, at both of its ends or at its start and middle."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.ddim import churn_of, churned
from sfumato.diffusion.samplers.rules import (
    ancestral,
    between,
    noise_in,
    ratio,
    sde_split,
    step_along,
    step_to,
    with_noise,
)
from sfumato.diffusion.sampling import Noise, Point, Sampling


def heun(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Sampling:
    """The trapezoidal rule for eps in σ, with churn (Karras et al. 2022, algorithm 2).

    The steps from pure noise and to the picture are Euler's.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        gamma = churn_of(here, len(levels) - 1, s_churn, s_tmin, s_tmax)
        x, at = churned(x, here, gamma, s_noise, noise)
        x0 = yield Point(x, at, step)
        trial = step_to(x, x0, at, there)
        if at.a and there.s:
            x0_trial = yield Point(trial, there, step)
            eps = (noise_in(x, x0, at) + noise_in(trial, x0_trial, there)) / 2
            trial = step_along(x, eps, at, there)
        x = trial
    return x


def dpm2(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
    """The midpoint rule for eps in σ, the middle taken in λ (Lu et al. 2022, DPM-Solver-2; Crowson 2022)."""
    return dpm2_a(x, levels, noise, eta=0.0)


def dpm2_a(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """Ancestral `dpm2`: down to s_down, then fresh noise of s_up (Crowson 2022)."""
    return _ancestral_midpoint(x, levels, noise, eta, s_noise, of_noise=True)


def dpmpp_2s_a(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """DPM-Solver++(2S) with r = ½ (Lu et al. 2022b, algorithm 1) down to s_down, then fresh noise of s_up."""
    return _ancestral_midpoint(x, levels, noise, eta, s_noise, of_noise=False)


def _ancestral_midpoint(
    x: Tensor, levels: Sequence[Level], noise: Noise, eta: float, s_noise: float, *, of_noise: bool
) -> Sampling:
    """The midpoint rule for x0 or, with `of_noise`, for eps; the middle lies halfway in λ.

    The steps from pure noise and to the picture are first order.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        estimate = yield Point(x, here, step)
        s_down, s_up = ancestral(here, there, eta)
        move: Callable[..., Tensor] = step_to
        if here.a and s_down:
            middle = between(here, math.sqrt(here.sigma * s_down / there.a))
            trial = step_to(x, estimate, here, middle)
            estimate = yield Point(trial, middle, step)
            if of_noise:
                estimate, move = noise_in(trial, estimate, middle), step_along
        x = with_noise(move(x, estimate, here, there, s_down), s_up, noise, s_noise)
    return x


def dpmpp_sde(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Sampling:
    """DPM-Solver++ for the reverse SDE (Crowson 2022), its middle at the fraction `r` of the step in λ.

    Both parts see one Brownian path: the noise of the whole step contains that of the first part.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        s_down, s_up = sde_split(here, there, eta)
        added = None
        if here.a and there.s:
            middle = between(here, here.sigma * ratio(here, there) ** r)
            s_down_1, s_up_1 = sde_split(here, middle, eta)
            s_down_2, s_up_2 = sde_split(middle, there, eta)
            trial = step_to(x, x0, here, middle, s_down_1)
            if s_up_1:
                added = s_noise * s_up_1 * noise(x)
                trial = trial + added
                added = s_down_2 / middle.s * added + s_noise * s_up_2 * noise(x)
            x0_middle = yield Point(trial, middle, step)
            x0 = x0 + (x0_middle - x0) / (2 * r)
        elif s_up:
            added = s_noise * s_up * noise(x)
        x = step_to(x, x0, here, there, s_down)
        if added is not None:
            x = x + added
    return x
