"""Convolutions whose picture goes on at the opposite edge, so that what they make can be laid edge to edge.

Which edges do so is said by the caller for the time of an evaluation, in its thread alone: weights and layers
stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

_axes: ContextVar[str] = ContextVar("axes", default="")


@contextmanager
def circular(axes: str) -> Iterator[None]:
    """Within it the convolutions of this thread pad circularly along `axes`: "x", "y", "xy" or ""."""
    token = _axes.set(axes)
    try:
        yield
    finally:
        _axes.reset(token)


def circular_axes() -> str:
    """The axes along which convolutions pad circularly here and now."""
    # what is compiled is compiled for plain padding: see `uncompiled`
    return "" if torch.compiler.is_compiling() else _axes.get()


def padded(x: Tensor, padding: str | tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
    """`x` (B, C, H, W) with that part of `padding` (rows, columns) which is circular, and the rest of it."""
    assert not isinstance(padding, str)
    axes, (rows, columns) = circular_axes(), padding
    down, across = rows * ("y" in axes), columns * ("x" in axes)
    if down or across:
        x = F.pad(x, (across, across, down, down), mode="circular")
    return x, (rows - down, columns - across)


def padded_behind(x: Tensor) -> Tensor:
    """`x` (B, C, H, W) with a row and a column more at its end: of its beginning where it is circular, else
    0.
    """
    axes = circular_axes()
    x = torch.cat([x, x[:, :, :1]], dim=2) if "y" in axes else F.pad(x, (0, 0, 0, 1))
    return torch.cat([x, x[..., :1]], dim=3) if "x" in axes else F.pad(x, (0, 1))


def continued(x: Tensor, margin: int, axes: str) -> Tensor:
    """`x` (…, H, W) with `margin` pixels more at both ends of `axes`, each those of the opposite edge."""
    for axis, dim in (("y", -2), ("x", -1)):
        if axis in axes:
            x = x.index_select(
                dim, torch.arange(-margin, x.shape[dim] + margin, device=x.device) % x.shape[dim]
            )
    return x
