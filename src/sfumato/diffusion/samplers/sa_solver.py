"""SA-Solver: a stochastic multistep predictor, each step corrected with the next estimate at no cost."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import (
    Estimate,
    interpolate,
    noise_in,
    sde_split,
    sde_split_of_noise,
    step_along,
    step_to,
)
from sfumato.diffusion.sampling import Noise, Point, Sampling

Tau = Callable[[Level], float]
"""τ at a level: how much of the reverse SDE's noise a step adds; 0 is the ODE, 1 the reverse SDE."""


def in_the_middle(level: Level) -> float:
    """1 for the times from a fifth to four fifths of the path, else 0, as in the authors' code."""
    if level.path is None:
        return 0.0
    first, last = level.path.first, level.path.last
    return float(0.2 <= (level.path.time(level.sigma) - first) / (last - first) <= 0.8)


def sa_solver(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    tau: Tau = in_the_middle,
    predictor_order: int = 2,
    corrector_order: int = 2,
    of_noise: bool = False,
    lower_order_final: bool = True,
) -> Sampling:
    """Stochastic Adams–Bashforth and Adams–Moulton steps (Xue et al. 2023, algorithm 1).

    They solve the reverse SDE whose noise is scaled by τ, read at the start of each step. A step and its
    correction share their noise. `corrector_order` 1 corrects by the newest estimate alone. `of_noise`
    interpolates eps instead of x0; its levels end above the picture.
    """
    history: deque[Estimate] = deque(maxlen=max(predictor_order, corrector_order - 1))
    origin, fresh = x, x

    def stepped(nodes: Sequence[Estimate], before: Level, after: Level) -> Tensor:
        eta = tau(before) ** 2
        if of_noise:
            s_down, s_up = sde_split_of_noise(before, after, eta)
            mean = interpolate(nodes, before.lam, after.lam, 1.0, "heun")
            return step_along(origin, mean, before, after, s_down) + s_up * fresh
        s_down, s_up = sde_split(before, after, eta)
        # the authors' code weights two estimates as UniPC does with B₁
        mean = interpolate(nodes, before.lam, after.lam, -(1 + eta), "bh1")
        return step_to(origin, mean, before, after, s_down) + s_up * fresh

    for step, (here, there) in enumerate(pairwise(levels)):
        estimate = yield Point(x, here, step)
        if of_noise:
            estimate = noise_in(x, estimate, here)
        left = len(levels) - 1 - step if lower_order_final else math.inf
        if step:
            count = int(min(corrector_order, left + 2)) - 1
            nodes = [*list(history)[:count], (here.lam, estimate)]
            x = stepped(nodes, levels[step - 1], here)
        history.appendleft((here.lam, estimate))
        origin, fresh = x, noise(x) if there.s else torch.zeros_like(x)
        x = stepped(list(history)[: int(min(predictor_order, left))], here, there)
    return x
