"""Drawing a part of a latent: what is known stays known, at every level, whatever the sampler.

A mask M is 1 where the network draws and 0 where the latent is known.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Noise, Point, Sampler, Sampling, mapped


def keep_known(sampling: Sampling, known: Tensor, eps: Tensor, mask: Tensor) -> Sampling:
    """`sampling` whose latent is a·known + s·eps outside the mask, at every level after the first.

    `known` and `eps` (1, C, H, W) are a clean latent and the noise that it is shown with, `mask` (1, 1, H, W)
    is M. The network sees M·x + (1 − M)·(a·known + s·eps) (Lugmayr et al. 2022, eq. 8), at the first level
    the x that the drawing begins with. The sampler is sent M·x0 + (1 − M)·known, so that it ends in `known`.
    """
    first = True

    def shown(asked: Point) -> Point:
        nonlocal first
        if first:
            first = False
            return asked
        return replace(asked, x=mask * asked.x + (1 - mask) * asked.level.noisy(known, eps))

    x = yield from mapped(sampling, point=shown, x0=lambda x0: mask * x0 + (1 - mask) * known)
    return mask * x + (1 - mask) * known


def resampled(sampler: Sampler, times: int) -> Sampler:
    """`sampler` that takes every step `times` times, with fresh noise in between, so that what is drawn comes
    to agree with what is known (RePaint: Lugmayr et al. 2022, Algorithm 1, with jumps of one step).

    Samplers of several steps begin anew at each, and are of first order there.
    """

    def sample(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        for step, (level, after) in enumerate(pairwise(levels)):
            for again in range(times if after.s > 0 else 1):
                if again:
                    x = forward(x, after, level, noise)
                x = yield from _counted(sampler(x, [level, after], noise), step)
        return x

    return sample


def forward(x: Tensor, level: Level, noisier: Level, noise: Noise) -> Tensor:
    """A latent `x` at `level` with the noise added that leads to a `noisier` one, (a', s'):
    (a'/a)·x + √(s'² − (a'/a)²·s²)·ε."""
    ratio = noisier.a / level.a
    added = math.sqrt(max(noisier.s**2 - (ratio * level.s) ** 2, 0.0))
    return ratio * x + added * noise(x)


def _counted(sampling: Sampling, step: int) -> Sampling:
    return mapped(sampling, point=lambda asked: replace(asked, step=step))
