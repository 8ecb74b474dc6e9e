"""From a picture back to noise: the latent, or the noise of every step, from which a sampler draws it again.

The points of an inversion have negative steps: −1 − i in the interval i between levels, counted from the
noisiest, so that a guidance can tell them from those of a drawing (`diffusion.guidance.InversionGuidance`).
"""

from collections.abc import Generator, Sequence

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import ancestral, noise_in, step_to
from sfumato.diffusion.sampling import Noise, Point, Sampling

ITERATIONS = 12
"""Estimates for each step of `ddim_inversion`."""


def ddim_inversion(
    x0: Tensor, levels: Sequence[Level], *, first: int = 0, iterations: int = ITERATIONS
) -> Sampling:
    """The latent at level number `first` from which DDIM leads to the clean latent `x0` (1, C, H, W).

    DDIM backwards (Song et al. 2021, §5.4), each step solved for the noisier latent by a fixed-point
    iteration of `iterations` estimates (Pan et al. 2023, AIDI), so that the way back ends where this began.
    """
    x = x0
    for step in range(len(levels) - 2, first - 1, -1):
        here, there = levels[step], levels[step + 1]
        # x is known there and wanted here; the clean latent says nothing of its noise, the network does
        wanted = x if there.s else here.a * x
        for _ in range(iterations):
            estimate = yield Point(wanted, here, -1 - step)
            if there.s:
                wanted = (x - (there.a - there.s / here.s * here.a) * estimate) * (here.s / there.s)
            else:
                wanted = here.a * x + here.s * noise_in(wanted, estimate, here)
        x = wanted
    return x


def ddpm_inversion(
    x0: Tensor, levels: Sequence[Level], noise: Noise, *, first: int = 0
) -> Generator[Point, Tensor, tuple[Tensor, list[Tensor]]]:
    """A latent at level number `first`, and what is to be added after each step from there, which together
    lead `with_residuals` exactly to the clean latent `x0` (1, C, H, W).

    Every level gets noise of its own (Huberman-Spiegelglas et al. 2024, the edit-friendly noise space).
    """
    begun = x = levels[first].noisy(x0, noise(x0))
    residuals = []
    for step in range(first, len(levels) - 1):
        here, there = levels[step], levels[step + 1]
        estimate = yield Point(x, here, -1 - step)
        after = there.noisy(x0, noise(x0)) if there.s else x0
        residuals.append(after - step_to(x, estimate, here, there, ancestral(here, there, 1.0)[0]))
        x = after
    return begun, residuals


def with_residuals(x: Tensor, levels: Sequence[Level], residuals: Sequence[Tensor]) -> Sampling:
    """DDPM over `levels` with `residuals`, one a step, in place of fresh noise."""
    for step, residual in enumerate(residuals):
        here, there = levels[step], levels[step + 1]
        x0 = yield Point(x, here, step)
        x = step_to(x, x0, here, there, ancestral(here, there, 1.0)[0]) + residual
    return x
