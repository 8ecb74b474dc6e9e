"""The helpers of `diffusers.utils` that programs for pictures use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageOps
from torch import Tensor

from sfumato.compat.outputs import pixels_in_form, to_pil
from sfumato.errors import UsageError
from sfumato.pictures import opened

__all__ = ["load_image", "make_image_grid", "numpy_to_pil", "pt_to_pil"]


def make_image_grid(
    images: Sequence[PIL.Image.Image], rows: int, cols: int, resize: int | None = None
) -> PIL.Image.Image:
    """Pictures in a grid of cells of the first one's size, or squares of `resize` pixels.

    Raises `UsageError` unless there are rows × columns of them.
    """
    if len(images) != rows * cols or not images:
        raise UsageError(f"{len(images)} pictures do not fill a grid of {rows} × {cols}")
    if resize is not None:
        images = [image.resize((resize, resize)) for image in images]
    width, height = images[0].size
    grid = PIL.Image.new("RGB", size=(cols * width, rows * height))
    for index, image in enumerate(images):
        grid.paste(image, box=(index % cols * width, index // cols * height))
    return grid


def load_image(image: str | Path | PIL.Image.Image) -> PIL.Image.Image:
    """A picture in RGB and upright, from a file or from one in memory.

    Raises `PictureError`, and `UsageError` for an address: nothing is downloaded.
    """
    if str(image).startswith(("http://", "https://")):
        raise UsageError(f"load_image: nothing is downloaded: save {image} as a file first")
    if isinstance(image, PIL.Image.Image):
        return ImageOps.exif_transpose(image).convert("RGB")
    with opened(image) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def numpy_to_pil(images: "np.ndarray[Any, Any]") -> list[PIL.Image.Image]:
    """Pictures (B, H, W, 3) in [0, 1] as PIL images."""
    return to_pil(images if images.ndim == 4 else images[None])


def pt_to_pil(images: Tensor) -> list[PIL.Image.Image]:
    """Pixels (B, 3, H, W) in [−1, 1] as PIL images."""
    found: list[PIL.Image.Image] = pixels_in_form((images / 2 + 0.5).clamp(0, 1), "pil")
    return found
