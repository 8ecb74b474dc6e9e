"""PIA (Zhang et al. 2023): a motion adapter whose clips show a picture, which every frame reads beside its
noise.

How near each frame stays to it is a number that it is told in a channel of its own.
"""

import torch
from torch import Tensor

SCALES = (
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    (1.0, 0.8, *[0.7] * 8, 0.6, 0.5, 0.5),
    (1.0, 0.9, 0.85, 0.85, 0.85, *[0.8] * 7, 0.85, 0.85, 0.9, 1.0),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, *[0.75] * 5, 0.78, 0.79, 0.8, 0.8, 1.0),
    (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1.0),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.3),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.35, 0.3, 0.25, 0.2),
    (0.5, 0.2),
)
"""How near frames 0, 1, 2, … stay to the picture, by the motion scale: little, more and much motion, the same
in a loop, and the same in the style of the model; later frames as the last one.
"""
LOOPS = 3
"""What is added to a motion scale for a loop."""


def picture_channels(latent: Tensor, frames: int, scale: int) -> Tensor:
    """What the first convolution reads besides the noisy clip, (B, 1 + C, F, h, w), of a picture's `latent`
    (B, C, h, w): how near each frame stays to it, and the latent itself.
    """
    near = (SCALES[scale] + SCALES[scale][-1:] * frames)[:frames]
    mask = torch.tensor(near, device=latent.device, dtype=latent.dtype).view(1, 1, -1, 1, 1)
    shown = latent.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    return torch.cat([mask.expand(len(shown), 1, frames, *shown.shape[3:]), shown], dim=1)
