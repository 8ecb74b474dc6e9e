"""Autoencoding in tiles, for pictures that do not fit in memory at once."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, shrink: int = 1, grow: int = 1
) -> Tensor:
    """`network(x)` from overlapping tiles whose seams are blended; itself where one tile covers all.

    `x` (B, C, h·shrink, w·shrink) to (B, C', h·grow, w·grow), where the network makes sizes `shrink` times
    smaller or `grow` times larger. `tile` and `overlap` are in the units of h and w. Not the whole network's
    numbers: statistics and attention that span the picture only see a tile.
    Raises `ValueError` unless 0 ≤ overlap < tile, and for sizes that `shrink` does not divide.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} must be at least 0 and less than the tile's {tile}")
    if x.shape[2] % shrink or x.shape[3] % shrink:
        raise ValueError(f"{x.shape[3]}×{x.shape[2]} must be multiples of {shrink}")
    height, width = x.shape[2] // shrink, x.shape[3] // shrink
    if height <= tile and width <= tile:
        return network(x)
    total: Tensor | None = None
    weights = x.new_zeros(height * grow, width * grow, dtype=torch.float32)
    for top, bottom in spans(height, tile, overlap):
        for left, right in spans(width, tile, overlap):
            piece = network(x[:, :, top * shrink : bottom * shrink, left * shrink : right * shrink])
            if total is None:
                total = piece.new_zeros(*piece.shape[:2], *weights.shape, dtype=torch.float32)
            fade = max(overlap * grow, 1)
            weight = torch.outer(ramp((bottom - top) * grow, fade), ramp((right - left) * grow, fade)).to(
                total
            )
            window = (..., slice(top * grow, bottom * grow), slice(left * grow, right * grow))
            total[window] += piece * weight
            weights[window] += weight
    assert total is not None
    return (total / weights).to(x.dtype)


def spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along one side: evenly spread, overlapping by `overlap` or more."""
    if size <= tile:
        return [(0, size)]
    count = math.ceil((size - overlap) / (tile - overlap))
    starts = [round(i * (size - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def ramp(size: int, fade: int) -> Tensor:
    """Weights (size,) that rise over `fade` places from either end, so that a seam belongs half to each."""
    distance = torch.arange(size) + 0.5
    return torch.minimum(distance, size - distance).clamp(max=fade) / fade
