"""First-order samplers: DDPM, DDIM, Euler and ancestral Euler.

In (a, s) coordinates they are one rule and differ in how much of the noise is fresh.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import ancestral, between, noise_in, step_to, with_noise
from sfumato.diffusion.sampling import Noise, Point, Sampling


def ddim(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, eta: float = 0.0, s_noise: float = 1.0
) -> Sampling:
    """x' = a'·x0 + s_down·eps + s_up·z (Song et al. 2021, eq. 12); `eta` 0 is deterministic, 1 is DDPM's.

    On the a = 1 path this is Euler's method for eps, and with `eta` 1 k-diffusion's ancestral Euler.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        s_down, s_up = ancestral(here, there, eta)
        x = step_to(x, x0, here, there, s_down)
        x = with_noise(x, s_up, noise, s_noise)
    return x


NEARLY_CLEAN = 1e-3
"""The σ at which a clean latent is evaluated: its noise cannot be read from its clean estimate at σ = 0."""


def ddim_inverse(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, bound: Callable[[Tensor], Tensor] | None = None
) -> Sampling:
    """DDIM from the picture towards noise, over rising levels (Song et al. 2021, §4.3).

    The result is the noise from which `ddim` over the same levels, falling, returns nearly to `x`. `bound`
    changes the clean estimates, not the noise in them.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        at = here if here.s else Level(1 / math.hypot(1, NEARLY_CLEAN), NEARLY_CLEAN, here.t, here.path)
        x0 = yield Point(x, at, step)
        eps = noise_in(x, x0, at)
        x0 = x0 if here.s else x
        x = there.a * (bound(x0) if bound else x0) + there.s * eps
    return x


def euler_a(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """Ancestral Euler (Crowson 2022): each step adds the posterior's fresh noise."""
    return ddim(x, levels, noise, eta=eta, s_noise=s_noise)


def ddpm(x: Tensor, levels: Sequence[Level], noise: Noise, *, large: bool = False) -> Sampling:
    """The posterior q(x'|x, x0) (Ho et al. 2020, eq. 7), its noise of variance β̃, or of the `large` β.

    β is 1 − (a/a')²; the last step draws no noise.
    """
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        s_down, s_up = ancestral(here, there, 1.0)
        x = step_to(x, x0, here, there, s_down)
        x = with_noise(x, s_up * here.s / there.s if large and s_up else s_up, noise)
    return x


def euler(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Sampling:
    """Euler's method with churn (Karras et al. 2022, algorithm 2 without its correction)."""
    for step, (here, there) in enumerate(pairwise(levels)):
        gamma = churn_of(here, len(levels) - 1, s_churn, s_tmin, s_tmax)
        x, at = churned(x, here, gamma, s_noise, noise)
        x0 = yield Point(x, at, step)
        x = step_to(x, x0, at, there)
    return x


def churn_of(level: Level, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> float:
    """γ, the relative rise of σ before a step (Karras et al. 2022, algorithm 2); none at pure noise."""
    if level.a == 0 or not s_tmin <= level.sigma <= s_tmax:
        return 0.0
    return min(s_churn / steps, math.sqrt(2) - 1)


def churned(x: Tensor, level: Level, gamma: float, s_noise: float, noise: Noise) -> tuple[Tensor, Level]:
    """x and its level after the noise is raised to (1 + γ)σ."""
    if gamma == 0:
        return x, level
    raised = between(level, level.sigma * (1 + gamma))
    added = raised.a * math.sqrt(raised.sigma**2 - level.sigma**2)
    return raised.a / level.a * x + s_noise * added * noise(x), raised
