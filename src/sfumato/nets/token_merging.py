"""Token merging (Bolya & Hoffman 2023): self-attention over fewer places, the most alike made one."""

from typing import Self

import torch
from torch import Tensor

STRIDE = 2
"""Of each square of so many places a side the first is kept, and others are merged into those."""
ROWS_AT_ONCE = 2048
"""Places that are compared with all kept ones at once, to bound the memory."""


class Merging:
    """Which places of a picture are merged into which."""

    def __init__(self, kept: Tensor, alone: Tensor, merged: Tensor, into: Tensor) -> None:
        """`kept` (K,) and, for each of B rows, `alone` (B, N − K − r) and `merged` (B, r) are the numbers of
        all N places; those of `merged` become part of `kept[into]`, `into` (B, r).
        """
        self.kept, self.alone, self.merged, self.into = kept, alone, merged, into

    @classmethod
    def of(cls, h: Tensor, size: tuple[int, int], ratio: float) -> Self:
        """Of places `h` (B, N, C) of a picture of `size` (H, W), N = H·W: so that `ratio` of them go, at most
        all that are not the first of their square.

        Those go whose cosine similarity with a kept one is largest. The places are not chosen at random, so
        that a picture does not depend on what else is drawn.
        """
        height, width = size
        grid = torch.arange(height * width, device=h.device).view(height, width)
        first = torch.zeros_like(grid, dtype=torch.bool)
        first[: height // STRIDE * STRIDE : STRIDE, : width // STRIDE * STRIDE : STRIDE] = True
        kept, others = grid[first], grid[~first]
        count = min(int(len(grid.flatten()) * ratio), len(others))
        unit = h / h.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
        targets = unit[:, kept].transpose(1, 2)
        found = [(unit[:, part] @ targets).max(-1) for part in others.split(ROWS_AT_ONCE)]
        likeness, nearest = (torch.cat(each, 1) for each in zip(*found, strict=True))
        order = likeness.argsort(dim=1, descending=True, stable=True)
        gone, stay = order[:, :count], order[:, count:]
        return cls(kept, others[stay], others[gone], nearest.gather(1, gone))

    def merge(self, h: Tensor) -> Tensor:
        """(B, N, C) to (B, N − r, C): each kept place is the mean of itself and those merged into it."""
        kept = h[:, self.kept]
        means = kept.scatter_reduce(1, _wide(self.into, h), h.gather(1, _wide(self.merged, h)), "mean")
        return torch.cat([h.gather(1, _wide(self.alone, h)), means], dim=1)

    def unmerge(self, h: Tensor) -> Tensor:
        """(B, N − r, C) to (B, N, C): places that were merged all have the value of the one they became."""
        alone, kept = h.split([self.alone.shape[1], len(self.kept)], dim=1)
        whole = h.new_empty(len(h), h.shape[1] + self.merged.shape[1], h.shape[2])
        whole[:, self.kept] = kept
        whole.scatter_(1, _wide(self.alone, h), alone)
        return whole.scatter_(1, _wide(self.merged, h), kept.gather(1, _wide(self.into, h)))


def _wide(index: Tensor, h: Tensor) -> Tensor:
    """(B, M) as (B, M, C)."""
    return index[..., None].expand(-1, -1, h.shape[2])
