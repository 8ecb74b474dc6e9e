"""Fidelity of an autoencoder: peak signal-to-noise ratio and structural similarity.

Both are computed on pictures rounded to 8 bits, and averaged over pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_ERROR = 1 / 12
"""Mean square of rounding: a ratio from a smaller error would be infinite for a flat picture."""
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True)
class Fidelity:
    """`psnr` in dB; `ssim` at most 1."""

    psnr: float
    ssim: float


def fidelity(pairs: Iterable[tuple[Tensor, Tensor]]) -> Fidelity:
    """Mean fidelity of pairs of batches (B, 3, H, W) in [−1, 1], pictures and their reconstructions."""
    ratios, similarities = [], []
    for pair in pairs:
        real, back = (((each.float().clamp(-1, 1) + 1) * 127.5).round() for each in pair)
        error = (back - real).square().mean((1, 2, 3)).clamp(min=LEAST_ERROR)
        ratios.append(10 * torch.log10(255**2 / error))
        similarities.append(similarity(real, back))
    return Fidelity(float(torch.cat(ratios).mean()), float(torch.cat(similarities).mean()))


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity (B,) of pictures (B, C, H, W) in [0, 255], H and W at least 6.

        (2 μx μy + C₁) (2 σxy + C₂) / ((μx² + μy² + C₁) (σx² + σy² + C₂))

    (Wang et al. 2004, eq. 13), with Gaussian windows of σ 1.5 on every channel, and mirrored at the edges.
    """
    offset = torch.arange(-_RADIUS, _RADIUS + 1).to(x)
    bell = (-(offset**2) / (2 * _SIGMA**2)).exp()
    bell = bell / bell.sum()
    window = torch.outer(bell, bell).expand(x.shape[1], 1, -1, -1)
    x, y = (F.pad(each, (_RADIUS,) * 4, mode="reflect") for each in (x, y))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        F.conv2d(each, window, groups=x.shape[1]) for each in (x, y, x * x, y * y, x * y)
    )
    spread = (mean_xx - mean_x**2).clamp(min=0) + (mean_yy - mean_y**2).clamp(min=0)
    shared = mean_xy - mean_x * mean_y
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (brightness * (2 * shared + _C2) / (spread + _C2)).mean((1, 2, 3))
