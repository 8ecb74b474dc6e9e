"""Pictures extended beyond their edges, window by window; what is known keeps every pixel.

A window has the size at which the model draws, and at least half of it lies over what is known, so that a
small model extends a large picture. Windows follow one another along an edge, and edge after edge.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from sfumato.edit.canvas import on_white
from sfumato.edit.masks import Box, Flags, distances, spread
from sfumato.edit.matting import PLAIN, cut_out
from sfumato.edit.passes import Pass, Passes, Pixels
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.request import Extend, Request

Size = tuple[int, int]

FADE = 24
"""Over how many pixels beyond a joint what was drawn is brought over to the colours that are known there."""
SHIFT = 24
"""The largest difference, of 255, that is taken for a shift of colours, and not for the edge of a shape."""
RESAMPLE = 3
"""How often each step is taken, so that no shape ends at the joint, by a model that is not shown the rest."""
WHITE = 240
"""From which value on, in every channel, a background is taken for white."""
ALONG = 6
"""How far along the joint, in pixels, the difference between the two is averaged."""


def resolved(request: Request, task: str) -> Request:
    """A `request` with `extend`, what it leaves open filled in for a model of the `task`."""
    resample = RESAMPLE if task == "text" else 1
    return request.filled(
        strength=1.0 if request.strength is None else request.strength,
        resample=request.resample or resample,
    )


def extended(request: Request, factor: int, most: int, *, on_plain: bool = False) -> Passes:
    """The passes of a resolved `request` with `extend`.

    `factor`: pixels for each latent cell. `most`: pixels that the picture may have; more is a `UsageError`.
    `on_plain`: whether the model knows objects on white, so that a picture with another plain background is
    laid on white to be drawn, and what is new is laid on its background.
    """
    extend, seed = request.extend, request.seed
    assert request.image is not None
    assert extend is not None
    assert seed is not None
    original = picture = on_white(request.image.rgba)
    height, width = picture.shape[:2]
    across, down = extend.left + width + extend.right, extend.top + height + extend.bottom
    if across * down > most:
        raise UsageError(f"extend makes a picture of {across}×{down} pixels; the most is {most:,} pixels")
    ground = None
    if on_plain and (matte := cut_out(original)).plainness >= PLAIN:
        ground, picture = matte.background, on_white(matte.pixels)
    boxes = [*windows((width, height), extend, request.size, factor)]
    # windows may reach beyond the picture
    left, top = (max(0, *(-box[side] for box in boxes)) for side in (0, 1))
    right, bottom = (max(size, *(box[side] for box in boxes)) for size, side in ((across, 2), (down, 3)))
    area = np.zeros((top + bottom, left + right, 3), np.uint8)
    known = np.zeros(area.shape[:2], np.bool_)
    y, x = top + extend.top, left + extend.left
    area[y : y + height, x : x + width], known[y : y + height, x : x + width] = picture, True
    own: dict[str, Any] = {"extend": None, "fill": "blur", "transparent": False, "sticker": 0}
    for number, box in enumerate(boxes):
        part = np.s_[top + box[1] : top + box[3], left + box[0] : left + box[2]]
        mask = np.where(known[part], np.uint8(0), np.uint8(255))
        image = InputImage.of(area[part])
        (drawn,) = yield [
            Pass(request.filled(image=image, mask=InputImage.of(mask), seed=seed + number, **own))
        ]
        area[part] = joined(drawn, area[part], known[part])
        known[part] = True
    whole = area[top : top + down, left : left + across]
    if ground is not None:
        whole = _on_background(whole, ground)
        whole[extend.top : extend.top + height, extend.left : extend.left + width] = original
    return whole


def _on_background(drawn: Pixels, colour: tuple[int, ...]) -> Pixels:
    """A picture (H, W, 3) drawn on white with its background in a `colour`; as it is if that is not white."""
    matte = cut_out(drawn)
    if matte.plainness < PLAIN or min(matte.background) < WHITE:
        return drawn.copy()
    alpha = matte.pixels[..., 3:].astype(np.float32) / 255
    mixed = alpha * matte.pixels[..., :3] + (1 - alpha) * np.array(colour, np.float32)
    on_colour: Pixels = mixed.round().astype(np.uint8)
    return on_colour


def windows(size: Size, extend: Extend, window: Size, factor: int) -> Iterator[Box]:
    """Where a `window` (width, height) is laid, one after another, to extend a picture of (width, height)
    `size`: in pixels of the extended picture, beyond which they may reach.

    Joints lie between latent cells of `factor` pixels.
    """
    edges = [extend.left, extend.top, extend.left + size[0], extend.top + size[1]]
    for side, name in ((2, "right"), (0, "left"), (3, "bottom"), (1, "top")):
        axis, left = side % 2, getattr(extend, name)
        length, other = window[axis], window[1 - axis]
        most = max(length // 2 // factor, 1) * factor
        while left:
            # even shares of whole cells
            part = min(math.ceil(left / math.ceil(left / most) / factor) * factor, left)
            taken = math.ceil(part / factor) * factor
            begin = edges[side] - (length - taken) if side > 1 else edges[side] - taken
            for start in _starts(edges[1 - axis], edges[3 - axis], other, factor):
                low, high = ((begin, start), (begin + length, start + other))
                yield (*low, *high) if axis == 0 else (low[1], low[0], high[1], high[0])
            edges[side] += part if side > 1 else -part
            left -= part


def _starts(low: int, high: int, length: int, factor: int) -> list[int]:
    """Where windows of `length` begin that cover [low, high), each half over the last at least."""
    beyond = math.ceil((high - low - length) / factor) * factor
    if beyond <= 0:
        return [low + beyond // 2 // factor * factor]
    count = math.ceil(beyond / max(length // 2, factor))
    return [low + round(number * beyond / count / factor) * factor for number in range(count + 1)]


def joined(drawn: Pixels, before: Pixels, known: Flags) -> Pixels:
    """`before` (H, W, 3) where it is `known`, else what was `drawn`, fitted to it at the joint.

    The shift of colours across the joint, averaged along it, is taken from what was drawn, less and less over
    `FADE` pixels.
    """
    difference = np.zeros(drawn.shape, np.float32)
    weight = np.zeros(known.shape, np.float32)
    for axis in (0, 1):
        for step in (1, -1):
            beside, values = np.roll(known, step, axis), np.roll(before, step, axis)
            edge = [slice(None)] * 2
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            beside[tuple(edge)] = False
            apart = values.astype(np.float32) - drawn
            at = beside & ~known
            difference[at] += np.where(np.abs(apart[at]).max(axis=1, keepdims=True) <= SHIFT, apart[at], 0)
            weight[at] += 1
    near = distances(known, FADE + 1)
    if weight.any():
        fade = (1 - (near - 1) / FADE).clip(0, 1)[..., None]
        drawn = (drawn + fade * spread(difference, weight, ALONG, FADE)).round().clip(0, 255).astype(np.uint8)
    return np.where(known[..., None], before, drawn)
