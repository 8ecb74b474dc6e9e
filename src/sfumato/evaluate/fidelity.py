"""What an autoencoder loses of a picture: peak signal-to-noise ratio and structural similarity.

Both are taken of pictures rounded to the 256 values that a file holds, and averaged over pictures.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

LEAST_ERROR = 1 / 12
"""Mean square of rounding: a ratio from a smaller error would be infinite for a flat picture."""


@dataclass(frozen=True)
class Fidelity:
    """`psnr` in dB; `ssim` at most 1 (Wang et al. 2004: Gaussian windows of σ 1.5 on every channel)."""

    psnr: float
    ssim: float


def fidelity(pairs: Iterable[tuple[Tensor, Tensor]]) -> Fidelity:
    """How like themselves pictures come back, from batches (B, 3, H, W) in [−1, 1] before and after."""
    ratios, similarities = [], []
    for pair in pairs:
        real, back = (((each.float().clamp(-1, 1) + 1) * 127.5).round() for each in pair)
        ratio = peak_signal_noise_ratio(back, real, data_range=255.0, dim=(1, 2, 3), reduction="none")
        ratios.append(ratio.clamp(max=10 * math.log10(255**2 / LEAST_ERROR)))
        similarity = structural_similarity_index_measure(back, real, data_range=255.0, reduction="none")
        similarities.append(cast(Tensor, similarity).view(-1))
    return Fidelity(float(torch.cat(ratios).mean()), float(torch.cat(similarities).mean()))
