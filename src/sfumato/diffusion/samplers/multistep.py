"""Linear multistep samplers: polynomials through earlier noise estimates, in σ, in λ or in steps."""

import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.dpm import dpm_solver_multistep
from sfumato.diffusion.samplers.rules import (
    Estimate,
    between_times,
    can_bootstrap,
    interpolate,
    noise_in,
    step_along,
    step_to,
    weighted,
)
from sfumato.diffusion.sampling import Noise, Point, Sampling

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The weights of the last 1 to 4 slopes, newest first, for steps of one length."""


def lms(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, order: int = 4, bootstrap: bool = True
) -> Sampling:
    """Adams–Bashforth for eps in σ, on steps of any length (Katherine Crowson's LMS, 2022).

    `bootstrap`: the first steps are taken again through all estimates since; for the fourth order the second
    level is then asked about once more.
    """
    history: deque[Estimate] = deque(maxlen=order)
    origin, first = x, levels[0]
    bootstrap = bootstrap and can_bootstrap(levels)
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        history.appendleft((here.sigma, noise_in(x, x0, here)))
        if bootstrap and 0 < step < order - 1:
            x = step_along(origin, interpolate(history, first.sigma, here.sigma, 0.0, "heun"), first, here)
            if step < order - 2:
                x0 = yield Point(x, here, step)
                history[0] = (here.sigma, noise_in(x, x0, here))
        if here.a:
            x = step_along(x, interpolate(history, here.sigma, there.sigma, 0.0, "heun"), here, there)
        else:
            x = step_to(x, x0, here, there)
    return x


def deis(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 3,
    bootstrap: bool = True,
    lower_order_final: bool = False,
) -> Sampling:
    """DEIS, its polynomial in ln σ (Zhang & Chen 2023, tAB-DEIS with ρ = σ): exact multistep DPM-Solver."""
    return dpm_solver_multistep(
        x, levels, noise, order=order, solver="heun", bootstrap=bootstrap, lower_order_final=lower_order_final
    )


def _runge_kutta(
    x: Tensor, eps: Tensor, here: Level, there: Level, step: int, whole: bool
) -> Generator[Point, Tensor, Tensor]:
    """The noise estimate of a pseudo Runge–Kutta step (Liu et al. 2022, eq. 13) that begins with `eps`."""
    middle = between_times(here, there, 0.5)
    if whole:
        middle = replace(middle, t=float(math.floor(middle.t + 1e-6)))
    total, latest = eps, eps
    for weight, level in ((2, middle), (2, middle), (1, there)):
        trial = step_along(x, latest, here, level)
        x0 = yield Point(trial, level, step)
        latest = noise_in(trial, x0, level)
        total = total + weight * latest
    return total / 6


def pndm(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, warm_up: bool = False, whole: bool = False
) -> Sampling:
    """PNDM: DDIM's step with a noise estimate by Adams–Bashforth (Liu et al. 2022, eq. 11 and 12).

    The weights hold for levels evenly spaced in time. The `warm_up` of the paper takes three steps by pseudo
    Runge–Kutta, with four evaluations each (eq. 13); without it the first step is improved Euler (two).
    `whole`: the network is told the middle times of the warm-up rounded down.
    """
    history: deque[Tensor] = deque(maxlen=4)
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        history.appendleft(noise_in(x, x0, here))
        if here.a == 0:
            history.clear()
            x = step_to(x, x0, here, there)
        elif warm_up and len(history) < 4 and there.s:
            x = step_along(x, (yield from _runge_kutta(x, history[0], here, there, step, whole)), here, there)
        elif len(history) == 1 and there.s:
            trial = step_along(x, history[0], here, there)
            x0 = yield Point(trial, there, step)
            x = step_along(x, (history[0] + noise_in(trial, x0, there)) / 2, here, there)
        else:
            x = step_along(x, weighted(ADAMS_BASHFORTH[len(history) - 1], history), here, there)
    return x
