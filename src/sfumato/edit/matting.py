"""Objects cut out of a plain background: alpha and colour by un-mixing C = α·F + (1 − α)·B.

The background's colour B is that of the picture's border. What has this colour and is connected to the border
is background (α = 0); what is farther from it than a soft edge is object (α = 1). In between the object's
colour F is sampled near by, as in sampling-based matting (Gastal and Oliveira 2010, Shared Sampling).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.edit.masks import Flags, distances

Values = NDArray[np.float32]

OUTLINE = 255
"""The grey of an outline."""
PLAIN = 0.7
"""The share of the border that must have one colour."""
TOLERANCE = 10 / 255
"""How far a channel may be from the background's to be taken for it: a decoder's noise."""
FAINT = 48 / 255
"""The same of a glow around the object, which is transparent in part."""
EDGE = 3.0
"""How wide a soft edge is at most, in pixels of a picture with 256 a side."""
REACH = 3.0
"""How far from a pixel the object's colour is sampled, in widths of the edge."""
LINE, DEEP = 0.15, 1.3
"""How a sample's distance in pixels is weighed: against levels (of 255) that it is off, and its depth."""


@dataclass(frozen=True, eq=False)
class Matte:
    """An object, `pixels` (H, W, 4) in 0..255, sRGB, and the `background` colour that it was cut out of.

    `plainness`: the share of the border that has this colour.
    """

    pixels: NDArray[np.uint8]
    background: tuple[int, ...]
    plainness: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of it."""
        found = []
        if self.plainness < PLAIN:
            colour = "".join(f"{channel:02x}" for channel in self.background)
            found.append(
                f"the background is not plain: #{colour} is {self.plainness:.0%} of the border; "
                "more or less than the object may have been cut out"
            )
        if not self.pixels[..., 3].any():
            found.append("nothing stands out from the background: the picture is all transparent")
        return tuple(found)


def cut_out(pixels: NDArray[np.uint8]) -> Matte:
    """The object in front of the plain background of a picture `pixels` (H, W, 3).

    What has the background's colour and is enclosed by the object, such as the white of eyes, stays opaque.
    """
    picture: Values = pixels.astype(np.float32) / np.float32(255)
    background, plainness = _background(picture)
    mixed = picture - background
    apart = np.abs(mixed).max(axis=2)
    if min(apart.shape) > 2:  # the outermost pixels are the least sure of a decoder's
        apart = np.pad(apart[1:-1, 1:-1], 1, mode="edge")
    outside = connected_to_border(apart <= TOLERANCE)
    width = EDGE * max(min(outside.shape) / 256, 1)
    glow = _glow(outside, connected_to_border(apart <= FAINT), REACH * width)
    depth = distances(outside | glow, (1 + REACH) * width)
    alpha = (depth > 0).astype(np.float32)
    edge = np.nonzero(glow | (depth > 0) & (depth < width))
    alpha[edge] = _alpha(mixed, background, depth, edge, width)
    covered = alpha > 0
    colour = np.where(covered[..., None], background + mixed / np.maximum(alpha, 1e-3)[..., None], 0)
    rgba = np.concatenate([colour, alpha[..., None]], axis=2)
    return Matte(
        (rgba * 255).round().clip(0, 255).astype(np.uint8),
        tuple(int(channel) for channel in (background * 255).round()),
        plainness,
    )


def outlined(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """An object (H, W, 4) on a white shape that is `width` pixels wider on every side, with a soft edge."""
    rgba = pixels.astype(np.float32) / 255
    alpha = rgba[..., 3:]
    near = distances(alpha[..., 0] >= 0.5, width + 2)
    shape = (width + 0.5 - near).clip(0, 1)[..., None]
    whole = alpha + (1 - alpha) * shape
    colour = (alpha * rgba[..., :3] + (1 - alpha) * shape * OUTLINE / 255) / np.maximum(whole, 1e-6)
    found: NDArray[np.uint8] = (np.concatenate([colour, whole], axis=2) * 255).round().astype(np.uint8)
    return found


def _background(picture: Values) -> tuple[Values, float]:
    """The colour (3,) that most of the border has, and the share of it that does."""
    ring = np.concatenate([picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]], axis=None)
    ring = ring.reshape(-1, 3)
    samples = ring[:: max(len(ring) // 512, 1)]
    near = np.abs(samples[:, None] - samples).max(axis=2) <= TOLERANCE
    most = samples[near[near.sum(axis=1).argmax()]]
    colour: Values = np.median(most, axis=0).astype(np.float32)
    return colour, float((np.abs(ring - colour).max(axis=1) <= TOLERANCE).mean())


def _alpha(
    mixed: Values, background: Values, depth: Values, edge: tuple[NDArray[np.intp], ...], width: float
) -> Values:
    """α of the pixels at `edge`, from C − B of all pixels, `mixed` (H, W, 3).

    α = (C − B)·(F − B) / |F − B|². F is that of a pixel near by that is deeper in the object, and from whose
    mixtures with B the colour C is least `off`.
    """
    rows, columns = edge
    own, own_depth = mixed[edge], depth[edge]
    best = np.full(len(rows), np.inf, np.float32)
    alpha = np.ones(len(rows), np.float32)
    step = round(width / EDGE)
    offsets = range(-round(REACH * EDGE) * step, round(REACH * EDGE) * step + 1, step)
    for dy in offsets:
        for dx in offsets:
            y = (rows + dy).clip(0, depth.shape[0] - 1)
            x = (columns + dx).clip(0, depth.shape[1] - 1)
            sample, deeper = mixed[y, x], np.minimum(depth[y, x], width)
            along = (own * sample).sum(1) / np.maximum((sample**2).sum(1), 1e-6)
            share = along.clip(0, 1)
            off = np.linalg.norm(own - share[:, None] * sample, axis=1)
            cost = 255 * LINE * off + (math.hypot(dx, dy) + DEEP * (width - deeper)) / step
            better = (cost < best) & (deeper > own_depth)
            best[better], alpha[better] = cost[better], share[better]
    return np.maximum(alpha, _least(own, background))


def _least(mixed: Values, background: Values) -> Values:
    """The least α (N,) for which F is a colour, within [0, 1], where C − B is `mixed` (N, 3)."""
    room = np.where(mixed > 0, 1 - background, background)
    least: Values = np.abs(mixed / np.maximum(room, 1 / 255)).max(axis=1).clip(0, 1)
    return least


def _glow(outside: Flags, faint: Flags, most: float) -> Flags:
    """What is `faint` beside the `outside`, at most `most` pixels wide: where more is, an object is pale."""
    pale = faint & (distances(outside, most + 1) > most)
    return faint & ~outside & (distances(pale, most + 2) > most + 1)


def connected_to_border(flags: Flags) -> Flags:
    """Those of `flags` (H, W) from which a way over others leads to the border, by four neighbours."""
    reached = np.zeros_like(flags)
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        reached[side] = flags[side]
    while True:
        further = _along_rows(flags.T, _along_rows(flags, reached).T).T
        if np.array_equal(further, reached):
            return reached
        reached = further


def _along_rows(flags: Flags, reached: Flags) -> Flags:
    """Every run of `flags` in a row of which any pixel is `reached`."""
    begins = flags.copy()
    begins[:, 1:] &= ~flags[:, :-1]
    runs = begins.ravel().cumsum().reshape(flags.shape)
    hit = np.bincount(runs[reached], minlength=int(runs.max(initial=0)) + 1) > 0
    whole: Flags = flags & hit[runs]
    return whole
