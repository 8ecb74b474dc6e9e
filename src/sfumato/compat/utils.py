"""The helpers of `diffusers.utils` that programs for pictures use."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageOps
from torch import Tensor

from sfumato import animation
from sfumato.compat.outputs import pixels_in_form, to_pil
from sfumato.errors import UsageError
from sfumato.files import replace_atomically
from sfumato.pictures import opened

__all__ = ["export_to_gif", "export_to_video", "load_image", "make_image_grid", "numpy_to_pil", "pt_to_pil"]


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


def export_to_gif(
    image: Sequence[PIL.Image.Image], output_gif_path: str | Path | None = None, fps: int = 10
) -> str:
    """Write frames as a GIF that plays for ever; its path, that of a temporary file unless given.

    Raises `UsageError` and `OutputError`.
    """
    return _exported(image, output_gif_path, ".gif", fps)


def export_to_video(
    video_frames: "Sequence[PIL.Image.Image | np.ndarray[Any, Any]]",
    output_video_path: str | Path | None = None,
    fps: int = 10,
    quality: float = 5.0,
    bitrate: int | None = None,
    macro_block_size: int | None = 16,
) -> str:
    """Write frames, PIL images or arrays (H, W, 3) in [0, 1], as MP4 or WebM; its path, as `export_to_gif`.

    `quality`, `bitrate` and `macro_block_size` change nothing: sizes stay as they are where they are even.
    Raises `UsageError`, also where PyAV is not installed, and `OutputError`.
    """
    return _exported(video_frames, output_video_path, ".mp4", fps)


def _exported(
    frames: "Sequence[PIL.Image.Image | np.ndarray[Any, Any]]",
    place: str | Path | None,
    suffix: str,
    fps: float,
) -> str:
    pictures = [each if isinstance(each, PIL.Image.Image) else to_pil(each[None])[0] for each in frames]
    path = Path(mkdtemp()) / f"frames{suffix}" if place is None else Path(place).expanduser()
    animation.check_fps(fps)
    kind = animation.animation_format(path)
    held: dict[str, Any] = {}
    content = animation.encoded([each.convert("RGB") for each in pictures], kind, fps, held)
    with replace_atomically(path) as file:
        file.write(content)
    return str(path)


def numpy_to_pil(images: "np.ndarray[Any, Any]") -> list[PIL.Image.Image]:
    """Pictures (B, H, W, 3) in [0, 1] as PIL images."""
    return to_pil(images if images.ndim == 4 else images[None])


def pt_to_pil(images: Tensor) -> list[PIL.Image.Image]:
    """Pixels (B, 3, H, W) in [−1, 1] as PIL images."""
    found: list[PIL.Image.Image] = pixels_in_form((images / 2 + 0.5).clamp(0, 1), "pil")
    return found
