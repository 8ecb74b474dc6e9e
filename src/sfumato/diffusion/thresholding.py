"""Clean estimates kept within bounds at every step, as models of pixels were drawn."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import ancestral, noise_in
from sfumato.diffusion.sampling import Noise, Point, Sampler, Sampling, mapped

Bound = Callable[[Tensor], Tensor]
"""From clean estimates (B, …) to ones within bounds."""


def dynamic_threshold(x0: Tensor, ratio: float, most: float) -> Tensor:
    """`x0` (B, …) within ±s and divided by s, s the quantile `ratio` of |x0| of each row, 1 to `most`.

    Saharia et al. 2022, §2.3.
    """
    s = torch.quantile(x0.abs().flatten(1), ratio, dim=1).clamp(min=1, max=most)
    s = s.view(-1, *(1,) * (x0.ndim - 1))
    return x0.clamp(-s, s) / s


def bounded(sampler: Sampler, bound: Bound) -> Sampler:
    """`sampler` with its clean estimates within bounds."""

    def sample(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        return mapped(sampler(x, levels, noise), x0=bound)

    return sample


def bounded_ddim(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, bound: Bound, eta: float = 0.0
) -> Sampling:
    """DDIM whose estimates lie within bounds; the noise estimate is not changed."""
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        kept, fresh = ancestral(here, there, eta)
        x = there.a * bound(x0) + kept * noise_in(x, x0, here)
        if fresh:
            x = x + fresh * noise(x)
    return x
