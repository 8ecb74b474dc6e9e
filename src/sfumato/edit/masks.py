"""Masks: float32 (H, W) in [0, 1], 1 where the picture is drawn anew and 0 where it is kept."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Mask = NDArray[np.float32]
Flags = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""


def feathered(mask: Mask, radius: int) -> Mask:
    """`mask` fading out over `radius` pixels: 1 wherever it was 1, and still 0 farther away than that."""
    if radius == 0:
        return mask
    grown = torch.from_numpy(mask)[None, None]
    half = max(radius // 2, 1)
    for _ in range(radius - half):
        grown = F.max_pool2d(grown, 3, stride=1, padding=1)
    soft = box_blur(grown, half)
    return torch.maximum(soft[0, 0], torch.from_numpy(mask)).numpy()


def box_blur(x: Tensor, radius: int) -> Tensor:
    """`x` (B, C, H, W), each value the mean of (2·radius + 1)² around it; beyond the edge nothing counts."""
    across = F.avg_pool2d(x, (1, 2 * radius + 1), stride=1, padding=(0, radius), count_include_pad=False)
    return F.avg_pool2d(across, (2 * radius + 1, 1), stride=1, padding=(radius, 0), count_include_pad=False)


def bounds(mask: Mask | Flags) -> Box | None:
    """The smallest box around what is to be drawn, or `None` where nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cells(mask: Mask, size: tuple[int, int], factor: int) -> Tensor:
    """The latent cells (1, 1, h, w) that are drawn, 1 or 0, for a picture of (width, height) `size`.

    A cell of which any part is drawn is drawn.
    """
    width, height = size
    whole = torch.from_numpy(np.ascontiguousarray(mask > 0)).float()[None, None]
    return F.adaptive_max_pool2d(whole, (height // factor, width // factor))


def distances(flags: Flags, most: float) -> NDArray[np.float32]:
    """How many pixels each of `flags` (H, W) is from the nearest that is set, `most` where it is farther."""
    squared = np.where(flags, np.float32(0), np.float32(most**2))
    for axis in (0, 1):
        lines = np.moveaxis(squared, axis, 0)
        found = lines.copy()
        for step in range(1, math.ceil(most)):
            np.minimum(found[step:], lines[:-step] + step**2, out=found[step:])
            np.minimum(found[:-step], lines[step:] + step**2, out=found[:-step])
        squared = np.moveaxis(found, 0, axis)
    return np.sqrt(squared)


def spread(values: NDArray[np.float32], weight: Mask, least: int, most: int) -> NDArray[np.float32]:
    """`values` (H, W, C), already times their `weight` (H, W), spread to where that is 0.

    Each is the mean over the smallest square with any weight: to `least` pixels on every side, or twice as
    many and so on, up to `most`; 0 where there is none.
    """
    known = torch.from_numpy(values).permute(2, 0, 1)[None]
    there = torch.from_numpy(weight)[None, None]
    result, radius = torch.zeros_like(known), most
    while radius >= least:
        total = box_blur(there, radius)
        result = torch.where(total > 1e-4, box_blur(known, radius) / total.clamp(min=1e-6), result)
        radius //= 2
    found: NDArray[np.float32] = result[0].permute(1, 2, 0).numpy()
    return found
