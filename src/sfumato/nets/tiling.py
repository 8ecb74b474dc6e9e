"""Autoencoding in tiles, for pictures that do not fit in memory at once."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Span = tuple[int, int]
"""Where a tile begins and ends along one side."""


def tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, shrink: int = 1, grow: int = 1
) -> Tensor:
    """`network(x)` from overlapping tiles whose seams are blended; itself where one tile covers all.

    `x` (B, C, h·shrink, w·shrink) to (B, C', h·grow, w·grow), where the network makes sizes `shrink` times
    smaller or `grow` times larger. `tile` and `overlap` are in the units of h and w. Not the whole network's
    numbers: what spans the picture, as normalisation and attention do, sees one tile at a time.
    Raises `ValueError` unless 0 ≤ overlap < tile, and for sizes that `shrink` does not divide.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} must be at least 0 and less than the tile's {tile}")
    height, width = x.shape[2:]
    if height % shrink or width % shrink:
        raise ValueError(f"{width}×{height} must be multiples of {shrink}")
    if height <= tile * shrink and width <= tile * shrink:
        return network(x)
    rows, columns = (spans(side // shrink, tile, overlap) for side in (height, width))
    out: Tensor | None = None
    for row, down in zip(rows, weights(rows, grow), strict=True):
        for column, across in zip(columns, weights(columns, grow), strict=True):
            piece = network(x[:, :, _finer(row, shrink), _finer(column, shrink)])
            if out is None:
                size = (rows[-1][1] * grow, columns[-1][1] * grow)
                out = piece.new_zeros(*piece.shape[:2], *size, dtype=torch.float32)
            weight = torch.outer(down, across).to(piece.device)
            out[:, :, _finer(row, grow), _finer(column, grow)] += weight * piece
    assert out is not None
    return out.to(x.dtype)


def spans(size: int, tile: int, overlap: int, *, around: bool = False) -> list[Span]:
    """Tiles that cover a side of `size`, evenly spread, neighbours sharing `overlap` or more.

    `around`: the side goes on at its beginning; the last tiles may end beyond `size`, at that place less
    `size`.
    """
    if size <= tile:
        return [(0, size)]
    if around:
        count = math.ceil(size / (tile - overlap))
        starts = [round(i * size / count) for i in range(count)]
    else:
        count = math.ceil((size - overlap) / (tile - overlap))
        starts = [round(i * (size - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def weights(spans: Sequence[Span], factor: int, *, around: int | None = None) -> list[Tensor]:
    """How much each tile counts at each of its places, `factor` places to a unit; everywhere 1 in all.

    A tile fades out over the middle half of what it shares with a neighbour: in the outer quarter, where the
    network has seen a border that is not in the picture, it counts for nothing. `around`: the size of a side
    that goes on at its beginning.
    """
    found = []
    total = torch.zeros((around or spans[-1][1]) * factor)
    alone, last = len(spans) == 1, len(spans) - 1
    for i, (start, end) in enumerate(spans):
        place = torch.arange((end - start) * factor) + 0.5
        weight = torch.ones_like(place)
        if not alone and (i > 0 or around):
            before = spans[i - 1][1] - (around if i == 0 and around else 0)
            weight *= _rise(place, (before - start) * factor)
        if not alone and (i < last or around):
            after = spans[i + 1][0] if i < last else spans[0][0] + (around or 0)
            weight *= _rise(place.flip(0), (end - after) * factor)
        total.index_add_(0, _places((start, end), factor, len(total)), weight)
        found.append(weight)
    return [
        weight / total[_places(span, factor, len(total))] for span, weight in zip(spans, found, strict=True)
    ]


def _places(span: Span, factor: int, size: int) -> Tensor:
    return torch.arange(span[0] * factor, span[1] * factor) % size


def _rise(distance: Tensor, shared: int) -> Tensor:
    return ((distance - shared / 4) / (shared / 2)).clamp(0, 1) if shared else torch.ones_like(distance)


def _finer(span: Span, factor: int) -> slice:
    return slice(span[0] * factor, span[1] * factor)
