"""Clamped clean estimates, for diffusers' `clip_sample`: meant for pixels, not for latents."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import ancestral, noise_in
from sfumato.diffusion.sampling import Noise, Point, Sampler, Sampling, mapped


def clamped(sampler: Sampler, bound: float) -> Sampler:
    """`sampler` with its clean estimates within ±`bound`."""

    def sample(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        return mapped(sampler(x, levels, noise), x0=lambda x0: x0.clamp(-bound, bound))

    return sample


def clamped_ddim(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, bound: float, eta: float = 0.0
) -> Sampling:
    """DDIM whose estimates lie within ±`bound`; the noise estimate is not clamped."""
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        kept, fresh = ancestral(here, there, eta)
        x = there.a * x0.clamp(-bound, bound) + kept * noise_in(x, x0, here)
        if fresh:
            x = x + fresh * noise(x)
    return x
