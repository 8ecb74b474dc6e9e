"""Clean estimates kept within bounds, for `clip_sample` and `thresholding`: meant for pixels, not latents."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import ancestral, noise_in
from sfumato.diffusion.sampling import Noise, Point, Sampler, Sampling, mapped
from sfumato.errors import UsageError

Bound = Callable[[Tensor], Tensor]


def bound_of(settings: Mapping[str, Any]) -> Bound | None:
    """How a scheduler bounds clean estimates (B, …); `thresholding` goes before `clip_sample`.

    Raises `UsageError` for settings out of range.
    """
    if settings.get("thresholding"):
        ratio, most = settings["dynamic_thresholding_ratio"], settings["sample_max_value"]
        if not 0 <= ratio <= 1:
            raise UsageError(f"dynamic_thresholding_ratio is {ratio}: must be 0 to 1")
        if not most > 0:
            raise UsageError(f"sample_max_value is {most}: must be positive")
        return lambda x0: dynamic_threshold(x0, ratio, most)
    if settings.get("clip_sample"):
        bound = settings["clip_sample_range"]
        if not bound > 0:
            raise UsageError(f"clip_sample_range is {bound}: must be positive")
        return lambda x0: x0.clamp(-bound, bound)
    return None


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
