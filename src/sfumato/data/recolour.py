"""Pictures on white, changed as an edit would: another colour, another background, something put on top.

Colours are changed in Oklab (Ottosson 2020), where hue and lightness can be moved apart.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

NEARLY_WHITE = 0.04
"""How far from white, of 1, a pixel of a white background may be."""
BAND = 2
"""Pixels of an edge that are part object, part background."""
LEAST_CHROMA = 0.04
"""Of Oklab, beyond which a pixel has a hue."""
_HUES = 36
_NEAR, _FAR = math.radians(40), math.radians(65)
"""Hues nearer than the one to the object's own are changed with it, beyond the other they stay."""

_TO_CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def coverage(picture: Tensor) -> Tensor:
    """How much of each pixel (S, S) in [0, 1] is the object of `picture` (3, S, S) in [−1, 1], on white.

    The background is what is nearly white and reached from the picture's edges.
    """
    depth = (1 - picture).amax(0) / 2
    outside = torch.from_numpy(_reached((depth < NEARLY_WHITE).numpy()))
    near = F.max_pool2d(outside[None].float(), 2 * BAND + 1, 1, BAND)[0] > 0
    strongest = F.max_pool2d(depth[None], 2 * BAND + 1, 1, BAND)[0].clamp(min=1e-3)
    cover = torch.where(near, (depth / strongest).clamp(0, 1), torch.ones_like(depth))
    return torch.where(outside, torch.zeros_like(cover), cover)


def on_ground(picture: Tensor, cover: Tensor, ground: Tensor) -> Tensor:
    """`picture` (3, S, S), which is on white, on `ground` (3,) instead, all in [−1, 1]."""
    return (picture + (1 - cover) * (ground[:, None, None] - 1)).clamp(-1, 1)


def with_small(picture: Tensor, small: Tensor, corner: tuple[float, float], scale: float) -> Tensor:
    """`picture` (3, S, S) with `small` (3, S, S), on white, over it at `scale` of its size.

    `corner`: left and top of what is put on, as fractions of what is left beside it.
    """
    side = picture.shape[-1]
    length = round(side * scale)
    both = torch.cat([small, coverage(small)[None]])
    put = F.interpolate(both[None], (length, length), mode="bilinear", antialias=True)[0]
    left, top = (round(share * (side - length)) for share in corner)
    result = picture.clone()
    there = result[:, top : top + length, left : left + length]
    cover = put[3:]
    there.copy_((there * (1 - cover) + put[:3] - (1 - cover)).clamp(-1, 1))
    return result


def recoloured(picture: Tensor, cover: Tensor, colour: Tensor) -> Tensor:
    """`picture` (3, S, S) with the object's own hue changed for `colour` (3,), all in [−1, 1].

    Shading, outlines, glints and hues far from the object's own stay; one that has no hue is tinted. `cover`
    (S, S): how much of each pixel is the object.
    """
    lab, target = oklab(picture), oklab(colour[:, None, None])
    lightness, chroma = lab[0], torch.linalg.vector_norm(lab[1:], dim=0)
    hued = cover * chroma * (chroma > LEAST_CHROMA)
    if float((hued > 0).sum()) > 0.15 * float(cover.sum()):
        share = _own_hue(lab, hued)
        own = share * hued
        light, strength = (float((own * each).sum() / own.sum()) for each in (lightness, chroma))
        full = (chroma / strength).clamp(max=1)
    else:
        dark = lightness[cover > 0.9]
        light = float(dark.median()) if len(dark) else 1.0
        share = cover * ((0.45 - (lightness - light).abs()) / 0.2).clamp(0, 1)
        strength = 1.0
        chroma, full = torch.ones_like(chroma), torch.ones_like(chroma)
    moved = lightness + share * full * (target[0] - light)
    ab = lab[1:] * (1 - share) + share * (chroma / strength).clamp(max=1.3) * target[1:]
    return torch.where(share > 0, rgb(torch.cat([moved[None], ab])), picture)


def oklab(picture: Tensor) -> Tensor:
    """sRGB (3, …) in [−1, 1] as L, a, b (3, …) of Oklab, L in [0, 1]."""
    x = (picture + 1) / 2
    linear = torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,j...->i...", _TO_CONES, linear).clamp(min=0) ** (1 / 3)
    return torch.einsum("ij,j...->i...", _TO_LAB, cones)


def rgb(lab: Tensor) -> Tensor:
    """L, a, b (3, …) of Oklab as sRGB (3, …), cut off to [−1, 1]."""
    cones = torch.einsum("ij,j...->i...", torch.linalg.inv(_TO_LAB), lab) ** 3
    linear = torch.einsum("ij,j...->i...", torch.linalg.inv(_TO_CONES), cones).clamp(0, 1)
    x = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return x * 2 - 1


def _own_hue(lab: Tensor, weight: Tensor) -> Tensor:
    """How much each pixel (S, S) has the hue that most of `weight` (S, S) has; all hues, if none prevails."""
    hue = torch.atan2(lab[2], lab[1])
    bins = ((hue + math.pi) / (2 * math.pi) * _HUES).long().clamp(0, _HUES - 1)
    histogram = torch.bincount(bins.flatten(), weight.flatten(), _HUES)
    smooth = sum(histogram.roll(shift) for shift in (-1, 0, 1))
    assert isinstance(smooth, Tensor)
    centre = (float(smooth.argmax()) + 0.5) / _HUES * 2 * math.pi - math.pi
    apart = (torch.remainder(hue - centre + math.pi, 2 * math.pi) - math.pi).abs()
    share = ((_FAR - apart) / (_FAR - _NEAR)).clamp(0, 1)
    if float((share * weight).sum()) < 0.5 * float(weight.sum()):
        share = torch.ones_like(share)
    return share * (weight > 0)


def _reached(open_: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which pixels (H, W) can be reached from the edges over those that are open."""
    reached = np.zeros_like(open_)
    reached[[0, -1]], reached[:, [0, -1]] = open_[[0, -1]], open_[:, [0, -1]]
    while True:
        before = int(reached.sum())
        for _ in range(4):
            reached, open_ = np.rot90(_swept(reached, open_)), np.rot90(open_)
        if int(reached.sum()) == before:
            return np.ascontiguousarray(reached)


def _swept(reached: NDArray[np.bool_], open_: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is reached to the right of what was, without leaving what is open."""
    places = np.arange(1, open_.shape[1] + 1)
    last_reached = np.maximum.accumulate(np.where(reached, places, 0), axis=1)
    last_closed = np.maximum.accumulate(np.where(open_, 0, places), axis=1)
    swept: NDArray[np.bool_] = open_ & (last_reached > last_closed)
    return swept
