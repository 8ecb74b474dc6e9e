"""Pictures that are drawn in several passes, each an ordinary request over what the ones before it gave."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.request import Request

Pixels = NDArray[np.uint8]
"""(H, W, 3), or (H, W, 4) with alpha, in 0..255, sRGB."""


@dataclass(frozen=True)
class Pass:
    """One request of a drawing in passes; a `layer` has a name, and can be kept for another drawing."""

    request: Request
    layer: str = ""


Passes = Generator[Sequence[Pass], Sequence[Pixels], Pixels]
"""Yields passes that can be drawn together, is sent their pixels, and returns those of the whole.

What it yields must not depend on the pixels but for the pictures that its requests begin from.
"""
