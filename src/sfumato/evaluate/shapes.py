"""Coloured shapes, drawn here: data for an evaluation that only shows that everything works."""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sfumato.data.captions import TINTS, article
from sfumato.data.icons import to_signal
from sfumato.evaluate import colours
from sfumato.evaluate.examples import Coloured, Examples

SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, int, str], None]] = {
    "circle": lambda pen, side, ink: pen.ellipse(_box(side), fill=ink),
    "ring": lambda pen, side, ink: pen.ellipse(_box(side), outline=ink, width=side // 8),
    "square": lambda pen, side, ink: pen.rectangle(_box(side), fill=ink),
    "frame": lambda pen, side, ink: pen.rectangle(_box(side), outline=ink, width=side // 8),
    "triangle": lambda pen, side, ink: pen.regular_polygon(_circle(side), 3, fill=ink),
    "diamond": lambda pen, side, ink: pen.regular_polygon(_circle(side), 4, rotation=45, fill=ink),
    "hexagon": lambda pen, side, ink: pen.regular_polygon(_circle(side), 6, fill=ink),
    "half circle": lambda pen, side, ink: pen.pieslice(_box(side), 180, 360, fill=ink),
}
"""What draws each on a square of `side` pixels."""
STYLE = "solid icon"


class Shapes:
    """Every shape in every colour on white, at `size` pixels a side; every second one is held out."""

    styles: tuple[str, ...] = (STYLE,)

    def __init__(self, size: int) -> None:
        self.size = size

    def examples(self, *, held_out: bool, seed: int, most: int) -> Examples:
        known = [(ink, shape) for ink in colours.NAMES for shape in SHAPES][int(held_out) :: 2]
        chosen = Random(seed).sample(known, len(known))[:most]
        prompts = tuple(f"{article(ink)} {shape}, {STYLE}" for ink, shape in chosen)

        def pictures(wanted: Sequence[int]) -> Tensor:
            return torch.cat([self._picture(*chosen[place]) for place in wanted])

        return Examples(prompts, prompts, (STYLE,) * len(prompts), pictures)

    def coloured(self, seed: int, most: int) -> dict[str, Coloured]:
        drawn = [(ink, self._picture(ink, "square")[0]) for ink in colours.NAMES]
        return {"tinted": drawn[:most]}

    def _picture(self, ink: str, shape: str) -> Tensor:
        """(1, 3, S, S) in [−1, 1]."""
        picture = Image.new("RGB", (self.size, self.size), "white")
        SHAPES[shape](ImageDraw.Draw(picture), self.size, "#{:02x}{:02x}{:02x}".format(*TINTS[ink]))
        return to_signal(torch.from_numpy(np.array(picture))[None])


def _box(side: int) -> tuple[int, int, int, int]:
    return side // 6, side // 6, side - side // 6, side - side // 6


def _circle(side: int) -> tuple[float, float, float]:
    """Centre and radius of the circle around a polygon."""
    return side / 2, side / 2, side * 0.4
