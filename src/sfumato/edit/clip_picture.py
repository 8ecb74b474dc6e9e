"""What CLIP's vision encoder is shown of a picture (Radford et al. 2021)."""

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato.nets.vision import DEVIATION, MEAN


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
