"""Masks: float32 (H, W) in [0, 1], 1 where the picture is drawn anew and 0 where it is kept."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Mask = NDArray[np.float32]
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


def bounds(mask: Mask) -> Box | None:
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
