"""Samplers of distilled networks: estimate x0, then add fresh noise up to the next lower level."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.samplers.rules import between_times, ratio, step_to, with_noise
from sfumato.diffusion.sampling import Noise, Point, Sampling


def consistency(x: Tensor, levels: Sequence[Level], noise: Noise, *, sigma_min: float = 0.0) -> Sampling:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1).

    `sigma_min` is the σ that the network's x0 still has, 0.002 for the models of that paper.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        s_up = math.sqrt(max(there.s**2 - (sigma_min * there.a) ** 2, 0.0))
        x = with_noise(there.a * x0, s_up, noise)
    return x


def lcm(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, sigma_data: float = 0.5, scaling: float = 10.0
) -> Sampling:
    """Latent consistency sampling (Luo et al. 2023, §4.3).

    The boundary condition f(x, 0) = x holds by c_skip·x + c_out·x0: c_skip = σ_d²/(τ² + σ_d²) and
    c_out = τ/√(τ² + σ_d²) with τ = `scaling`·t.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        tau = scaling * here.t
        skip, out = sigma_data**2 / (tau**2 + sigma_data**2), tau / math.hypot(tau, sigma_data)
        x = with_noise(there.a * (skip * x + out * x0), there.s, noise)
    return x


def tcd(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, eta: float = 0.3, whole: bool = False
) -> Sampling:
    """Trajectory consistency sampling (Zheng et al. 2024, algorithm 4), `eta` their γ.

    A step goes by DDIM to the time (1 − γ)·t', rounded down if `whole`, then with fresh noise up to t'. γ 0
    is DDIM, 1 is consistency sampling.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        s_down = there.s
        if there.s and eta:
            middle = between_times(there, CLEAN, eta)
            if whole and middle.path:
                middle = middle.path.level(math.floor(middle.t + 1e-6))
            s_down *= ratio(there, middle)
        s_up = math.sqrt(max(there.s**2 - s_down**2, 0.0))
        x = with_noise(step_to(x, x0, here, there, s_down), s_up, noise)
    return x
