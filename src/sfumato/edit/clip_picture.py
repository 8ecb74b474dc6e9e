"""What CLIP's vision encoder is shown of a picture (Radford et al. 2021)."""

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.nets.vision import DEVIATION, MEAN


def clip_pixels(x: Tensor, side: int) -> Tensor:
    """All of a picture `x` (1, 3, H, W) in [−1, 1], squeezed to (1, 3, side, side), normalised as CLIP's.

    As Stable Video Diffusion was shown pictures: blurred by as much as it shrinks (σ half of what the factor
    is above 1), then resized bicubically between the middles of the outermost pixels.
    """
    for dim in (2, 3):
        sigma = max((x.shape[dim] / side - 1) / 2, 0.001)
        radius = max(int(max(4 * sigma, 3)) // 2, 1)
        place = torch.arange(-radius, radius + 1, dtype=x.dtype)
        kernel = torch.exp(-(place**2) / (2 * sigma**2))
        shape = (1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1)
        kernel = (kernel / kernel.sum()).view(shape).expand(3, 1, -1, -1)
        margin = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        x = F.conv2d(F.pad(x, margin, mode="reflect"), kernel, groups=3)
    small = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=True)
    mean, deviation = (torch.tensor(each, dtype=x.dtype).view(1, 3, 1, 1) for each in (MEAN, DEVIATION))
    return ((small + 1) / 2 - mean) / deviation


def clip_picture(picture: PIL.Image.Image, side: int) -> Tensor:
    """The middle square of an RGB `picture`, (1, 3, side, side) with mean 0 and deviation 1 over many.

    As transformers' `CLIPImageProcessor` makes it: the shorter side is resized to `side`, what the longer one
    has beyond it is cut off on both ends.
    """
    width, height = picture.size
    shorter = min(width, height)
    width, height = side * width // shorter, side * height // shorter
    resized = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    normal = (pixels - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)[None].contiguous()
