"""What a request draws over: the picture, the part of it that is drawn, and how the two are put together."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.edit.masks import Box, Mask, bounds, box_blur, cells, feathered
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.request import Request

LANCZOS = PIL.Image.Resampling.LANCZOS
HIDDEN = 0.5
"""From which value of the mask on an inpainting model is not shown a pixel (as diffusers has it)."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture ready to be drawn over.

    `pixels` (H, W, 3): all of it. `mask`: what is drawn anew, all of it if `None`. `box`: the part that the
    network sees, in pixels of the picture, at (width, height) `size`. `fill`: what stands where it is drawn
    before it is, see `Request.fill`.
    """

    pixels: NDArray[np.uint8]
    mask: Mask | None
    box: Box
    size: tuple[int, int]
    fill: str = "keep"

    @property
    def shown(self) -> Tensor:
        """The part as the drawing begins with it, (1, 3, height, width) in [−1, 1]."""
        part = PIL.Image.fromarray(self.pixels).crop(self.box)
        if self.mask is not None:
            part = filled(part, self._part, self.fill)
        return self._tensor(part)

    @property
    def kept(self) -> Tensor:
        """The part (1, 3, height, width), 0 (grey) where it is drawn: what inpainting models are shown."""
        pixels = self._tensor(PIL.Image.fromarray(self.pixels).crop(self.box))
        return pixels * torch.from_numpy(self._part_at_size < HIDDEN)

    def cells(self, factor: int) -> Tensor | None:
        """The latent cells (1, 1, h, w) that are drawn, 1 or 0; `None` for all."""
        return None if self.mask is None else cells(self._part_at_size, self.size, factor)

    def put_back(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture with `drawn` (height, width, 3) in its part; as it was where the mask is 0."""
        if self.mask is None:
            return drawn
        left, top, right, bottom = self.box
        part = PIL.Image.fromarray(drawn)
        if part.size != (right - left, bottom - top):
            part = part.resize((right - left, bottom - top), LANCZOS)
        before = self.pixels[top:bottom, left:right].astype(np.float32)
        mixed = before + self._part[..., None] * (np.asarray(part, dtype=np.float32) - before)
        whole = self.pixels.copy()
        whole[top:bottom, left:right] = mixed.round().clip(0, 255).astype(np.uint8)
        return whole

    def _tensor(self, part: PIL.Image.Image) -> Tensor:
        """Of the part, at the size at which it is drawn."""
        at_size = part.resize(self.size, LANCZOS) if part.size != self.size else part
        pixels = np.asarray(at_size, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()

    @property
    def _part(self) -> Mask:
        """The mask within the box."""
        assert self.mask is not None
        left, top, right, bottom = self.box
        return self.mask[top:bottom, left:right]

    @property
    def _part_at_size(self) -> Mask:
        """The same at the size at which it is drawn; nowhere 0 where any pixel of the part is drawn."""
        part = self._part
        if part.shape[::-1] == self.size:
            return part
        picture = PIL.Image.fromarray(part).resize(self.size, PIL.Image.Resampling.BOX)
        return np.asarray(picture)


def canvas_of(request: Request, native: tuple[int, int], factor: int) -> Canvas | None:
    """What `request` draws over, `None` if it draws from noise alone.

    `native`: (width, height) that the model was trained at; `factor`: what sizes are multiples of. Raises
    `PictureError` and `UsageError`.
    """
    if request.image is None:
        return None
    rgba = request.image.rgba
    mask: Mask | None = None
    if isinstance(request.mask, InputImage):
        mask = _mask(request.mask, rgba.shape[:2])
    elif request.mask is not None:
        mask = (255 - rgba[..., 3]).astype(np.float32) / np.float32(255)
    height, width = rgba.shape[:2]
    box: Box = (0, 0, width, height)
    if mask is not None:
        mask = feathered(mask, request.feather)
        around = bounds(mask)
        if around is None:
            raise UsageError(
                "nothing of the picture is transparent, so that there is nothing to draw"
                if request.mask == "alpha"
                else "the mask is black: white is what is drawn anew, black what is kept"
            )
        if request.crop is not None:
            box = _cropped(around, request.crop, (width, height), native)
    given = request.width, request.height
    size = drawn_size((box[2] - box[0], box[3] - box[1]), given, native, factor)
    return Canvas(on_white(rgba), mask, box, size, request.fill)


def drawn_size(
    size: tuple[int, int],
    given: tuple[int | None, int | None],
    native: tuple[int, int],
    factor: int,
) -> tuple[int, int]:
    """(width, height) at which a picture of `size` is drawn: as `given`, or in its own proportions.

    A side that is not given follows from the other; with none given the area is the native one. Multiples of
    `factor`.
    """
    width, height = size
    if given[0] and given[1]:
        return given[0], given[1]
    if given[0]:
        scale = given[0] / width
    elif given[1]:
        scale = given[1] / height
    else:
        scale = (native[0] * native[1] / (width * height)) ** 0.5
    rounded = [max(round(side * scale / factor), 1) * factor for side in size]
    return given[0] or rounded[0], given[1] or rounded[1]


def _mask(given: InputImage, shape: tuple[int, ...]) -> Mask:
    """The mask as numbers: how light it is; transparent parts count as black."""
    rgba = given.rgba.astype(np.float32) / 255
    if rgba.shape[:2] != shape:
        raise UsageError(
            f"the mask has {rgba.shape[1]}×{rgba.shape[0]} pixels and the picture {shape[1]}×{shape[0]}: "
            "they must be of one size"
        )
    grey = rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) * rgba[..., 3]
    # greys of three equal bytes come out as these bytes
    mask: Mask = (grey * 255).round().astype(np.float32) / np.float32(255)
    return mask


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (H, W, 4) as (H, W, 3), transparency laid on white."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _cropped(around: Box, padding: int, size: tuple[int, int], native: tuple[int, int]) -> Box:
    """`around` with `padding` pixels on each side, widened to the native proportions where there is room."""
    left, top, right, bottom = around
    low, high = (left - padding, top - padding), (right + padding, bottom + padding)
    scale = max((b - a) / side for a, b, side in zip(low, high, native, strict=True))
    (left, right), (top, bottom) = [
        _span(a, b, round(scale * side), most)
        for a, b, side, most in zip(low, high, native, size, strict=True)
    ]
    return left, top, right, bottom


def _span(low: int, high: int, length: int, most: int) -> tuple[int, int]:
    """A span of `length` around [low, high), moved and cut to lie within [0, most)."""
    length = min(max(length, high - low), most)
    start = min(max((low + high - length) // 2, 0), most - length)
    return start, start + length


def filled(picture: PIL.Image.Image, mask: Mask, fill: str) -> PIL.Image.Image:
    """`picture` filled where the mask is 1, by the `fill` "blur" of what is kept, or by a colour "#rrggbb".

    Itself for "keep", and for "noise" and "nothing", which are filled into the latent.
    """
    if fill in ("keep", "noise", "nothing"):
        return picture
    filling = _surroundings(picture, mask) if fill == "blur" else PIL.Image.new("RGB", picture.size, fill)
    return PIL.Image.composite(filling, picture, PIL.Image.fromarray((mask * 255).round().astype(np.uint8)))


def _surroundings(picture: PIL.Image.Image, mask: Mask) -> PIL.Image.Image:
    """What is kept spread into what is drawn: each pixel by the smallest blur that reaches what is kept."""
    weight = torch.from_numpy(1 - mask)[None, None]
    known = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1)[None] * weight
    result = known.sum((2, 3), keepdim=True) / weight.sum().clamp(min=1e-6) + torch.zeros_like(known)
    radius = max(picture.size)
    while radius >= 1:
        total = box_blur(weight, radius)
        result = torch.where(total > 0.05, box_blur(known, radius) / total.clamp(min=1e-6), result)
        radius //= 2
    pixels = result[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
    return PIL.Image.fromarray(pixels.numpy())
