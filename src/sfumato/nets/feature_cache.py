"""DeepCache (Ma et al. 2024): what the deeper layers of a UNet compute changes little from step to step, so
that it is computed in some steps only and used in those between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(eq=False)
class DeepFeatures:
    """What the deeper layers computed for R rows.

    `h` (R, C, H, W) enters the last layer of the way up, which computes in every step; `None` until it is
    computed.
    """

    h: Tensor | None = None


@dataclass(eq=False)
class FeatureCache:
    """The deep features of one conditioning of one drawing, computed in one of `interval` steps.

    Steps are counted from the first that was evaluated.
    """

    interval: int
    h: Tensor | None = None
    first: int = 0
    computed: int = 0
    """The step that `h` is from."""

    def reused(self, step: int) -> bool:
        """Whether a step uses what another computed, or it itself before."""
        ours, other = (each - self.first for each in (step, self.computed))
        return self.h is not None and ours // self.interval == other // self.interval

    @classmethod
    def features(cls, caches: Sequence[tuple[Self, int]]) -> DeepFeatures | None:
        """What the caches of some rows hold for the step of each, or all have to be given; `None` without
        caches.
        """
        if not caches:
            return None
        held = [cache.h for cache, step in caches if cache.h is not None and cache.reused(step)]
        return DeepFeatures(torch.cat(held) if held else None)

    @classmethod
    def keep(cls, caches: Sequence[tuple[Self, int]], deep: DeepFeatures) -> None:
        """Give the caches what was computed, if it was."""
        assert deep.h is not None
        for (cache, step), h in zip(caches, deep.h.chunk(len(caches)), strict=True):
            if not cache.reused(step):
                cache.first = step if cache.h is None else cache.first
                cache.h, cache.computed = h, step
