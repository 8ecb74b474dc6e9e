"""Aspect-ratio buckets (Podell et al. 2023, §2.3), and which part of a picture a training example shows.

A picture is scaled until it covers the bucket whose shape is nearest its own, and what sticks out is cropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Protocol

from torch import Tensor

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Crop:
    """What is shown of a picture of size `original`: scaled to cover `size`, cropped, perhaps mirrored."""

    original: Size
    size: Size
    across: float = 0.5
    """How much of what sticks out is cropped on the left, in [0, 1]."""
    down: float = 0.5
    """And at the top."""
    mirrored: bool = False
    zoom: float = 1.0
    """How much larger than to cover the size, at least 1."""

    @cached_property
    def scaled(self) -> Size:
        """The whole picture's size at this scale."""
        (width, height), (w, h) = self.original, self.size
        scale = max(w / width, h / height) * self.zoom
        return max(w, round(width * scale)), max(h, round(height * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """What was cropped on the left and at the top, in pixels of the scaled picture, before mirroring."""
        (width, height), (w, h) = self.scaled, self.size
        return round((width - w) * self.across), round((height - h) * self.down)

    @property
    def visible_corner(self) -> tuple[int, int]:
        """The same after mirroring, as SDXL's size conditioning takes it: what was right is left then."""
        left, top = self.corner
        return (self.scaled[0] - self.size[0] - left if self.mirrored else left), top

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of the picture itself."""
        (left, top), (w, h) = self.corner, self.size
        x, y = self.original[0] / self.scaled[0], self.original[1] / self.scaled[1]
        return left * x, top * y, (left + w) * x, (top + h) * y


@dataclass(frozen=True)
class CropPolicy:
    """How a crop is drawn. With nothing random in it each picture has one crop, which can be encoded once."""

    random: bool = False
    """Whether a picture is cropped anywhere, else in its centre."""
    horizontal_flip: bool = False
    """Whether one in two is mirrored."""
    random_zoom: bool = False
    """Whether it is enlarged by chance, at most to one pixel for each of its own."""

    @property
    def is_fixed(self) -> bool:
        return self == CropPolicy()

    def crop(self, original: Size, size: Size, random: Random) -> Crop:
        """A crop of a picture of size `original` to `size`."""
        across, down, mirror, zoom = (random.random() for _ in range(4))
        if not self.random:
            across = down = 0.5
        most = min(original[0] / size[0], original[1] / size[1])
        larger = max(1.0, most) ** zoom if self.random_zoom else 1.0
        return Crop(original, size, across, down, self.horizontal_flip and mirror < 0.5, larger)


class Captioned(Protocol):
    """Captioned examples, wherever they are kept."""

    @property
    def captions(self) -> Sequence[tuple[str, ...]]:
        """The captions of each."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """How often each is shown: so many times in an epoch, or relative to the others."""
        ...

    @property
    def digest(self) -> str:
        """A digest of the examples: a cache of what was computed from them names it."""
        ...


class Dataset(Captioned, Protocol):
    """Captioned pictures."""

    @property
    def sizes(self) -> Sequence[Size]:
        """Of every picture, upright."""
        ...

    def load(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        """The pictures in `rows`, each as its crop, all of one size: (B, 3, h, w) in [−1, 1].

        Raises `DataError` for a picture that cannot be read any more.
        """
        ...


def bucket_sizes(side: int, step: int, ratio: float) -> tuple[Size, ...]:
    """The sizes of at most `side`² pixels whose sides are multiples of `step`, as large as can be, and no
    more than `ratio` times as long one way as the other; the square of `side` is always among them.
    """
    found = {(side, side)}
    for width in range(step, side, step):
        height = side * side // width // step * step
        if height <= ratio * width:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def nearest_bucket(original: Size, sizes: Sequence[Size]) -> Size:
    """The one of `sizes` that is nearest `original` in shape; of several, the largest."""

    def apart(size: Size) -> tuple[float, int]:
        ratios = original[0] / original[1], size[0] / size[1]
        return round(abs(math.log(ratios[0] / ratios[1])), 9), -size[0] * size[1]

    return min(sizes, key=apart)
