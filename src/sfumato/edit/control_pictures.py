"""What a control's network is shown of its picture: at the drawing's size, preprocessed."""

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.edit.canvas import LANCZOS, on_white
from sfumato.errors import UsageError
from sfumato.inputs import InputImage

LOW, HIGH = 100, 200
"""Thresholds of the gradient from which pixels belong to an edge: beside a strong one, and at all."""
NEEDS_OPENCV = "the preprocessor canny needs opencv: pip install 'sfumato[control]'"


def control_picture(image: InputImage, preprocessor: str, size: tuple[int, int]) -> Tensor:
    """`image` (1, 3, height, width) in [0, 1] for a drawing of (width, height) `size`.

    It is resized whatever its proportions, as diffusers does; transparency is laid on white. Then comes the
    `preprocessor`, a name of `sfumato.names.PREPROCESSORS`. Raises `UsageError` where that is not installed.
    """
    picture = PIL.Image.fromarray(on_white(image.rgba))
    if picture.size != size:
        picture = picture.resize(size, LANCZOS)
    pixels = np.asarray(picture)
    if preprocessor == "canny":
        pixels = np.repeat(canny(pixels)[..., None], 3, axis=2)
    elif preprocessor == "invert":
        pixels = 255 - pixels
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()


def canny(pixels: NDArray[np.uint8], low: float = LOW, high: float = HIGH) -> NDArray[np.uint8]:
    """The edges (H, W) of a picture (H, W, 3), 255 where there is one (Canny 1986).

    `low`, `high`: see `LOW`. Raises `UsageError` without opencv.
    """
    try:
        import cv2
    except ImportError:
        raise UsageError(NEEDS_OPENCV) from None
    edges: NDArray[np.uint8] = np.asarray(cv2.Canny(pixels, low, high), dtype=np.uint8)
    return edges


def thickened(lines: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """`lines` (H, W) of one pixel made `width` pixels wide, which must be odd."""
    if width == 1:
        return lines
    return np.asarray(PIL.Image.fromarray(lines).filter(PIL.ImageFilter.MaxFilter(width)))
