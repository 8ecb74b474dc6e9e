"""MultiDiffusion (Bar-Tal et al. 2023): a latent larger than the network knows is evaluated in overlapping
windows.

At every step each window is a row of its own, and the windows' clean estimates are averaged where they
overlap (eq. 5; an average of clean estimates of one noisy latent is that of the noise estimates). Memory is
that of the windows that are evaluated at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion.guidance import Term
from sfumato.diffusion.sampling import Point
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.tiling import spans, weights

if TYPE_CHECKING:
    from sfumato.nets.denoiser import Conditioning

Row = tuple[Point, Term]


@dataclass(frozen=True)
class Windows:
    """Which windows a latent is evaluated in.

    `size`: (h, w) of one, in cells. `overlap`: the share of a window that neighbours have in common at least.
    `around`: the axes at whose end the latent goes on at its beginning, "x", "y" or "xy". `at_once`: how many
    rows are evaluated together at most; those of one window always are. `factor`: pixels to a cell, for
    networks that are told where in a picture they are.
    """

    size: tuple[int, int]
    overlap: float = 0.5
    around: str = ""
    at_once: int = 1
    factor: int = 8

    def split(self, shape: Sequence[int]) -> bool:
        """Whether a latent (…, H, W) has more than one window."""
        return any(side > own for side, own in zip(shape[-2:], self.size, strict=True))

    def whole(self, shape: Sequence[int], axes: str) -> str:
        """Those of `axes` along which one window is all of a latent (…, H, W)."""
        sides = zip("yx", shape[-2:], self.size, strict=True)
        return "".join(axis for axis, side, own in sides if axis in axes and side <= own)

    def of(self, shape: Sequence[int]) -> "list[Window]":
        """The windows of a latent (…, H, W), from the top left to the bottom right; their weights are 1 in
        all.
        """
        along = []
        for axis, side, own in zip("yx", shape[-2:], self.size, strict=True):
            around = axis in self.around and side > own
            found = spans(side, own, int(own * self.overlap), around=around)
            places = [torch.arange(*span) % side for span in found]
            along.append(list(zip(places, weights(found, 1, around=side if around else None), strict=True)))
        return [
            Window(rows, columns, torch.outer(down, across), (shape[-2], shape[-1]))
            for (rows, down), (columns, across) in product(*along)
        ]


@dataclass(frozen=True, eq=False)
class Window:
    """One window of a latent of `shape` (H, W): the numbers of its `rows` (h,) and `columns` (w,), and its
    `weight` (h, w) there.
    """

    rows: Tensor
    columns: Tensor
    weight: Tensor
    shape: tuple[int, int]

    def cut(self, x: Tensor) -> Tensor:
        """Its part of what lies over the latent, `x` (B, C, …, H, W), or of features some times coarser."""
        for dim, places, side in ((-2, self.rows, self.shape[0]), (-1, self.columns, self.shape[1])):
            coarser = side // x.shape[dim]
            x = x.index_select(dim, (places[::coarser] // coarser).to(x.device))
        return x

    def add(self, total: Tensor, part: Tensor) -> None:
        """Add its weight times `part` (B, C, …, h, w) to its place in `total` (B, C, …, H, W)."""
        rows, columns = self.rows.to(total.device), self.columns.to(total.device)
        total[..., rows[:, None], columns] += self.weight.to(total) * part

    def of(self, conditioning: "Conditioning", factor: int) -> "Conditioning":
        """What the network is given for it: channels cut out, the crop's place and size in a picture told."""
        channels, size = conditioning.channels, conditioning.size
        if channels is not None:
            channels = self.cut(channels)
        if size is not None:
            size = SizeConditioning(size.pooled, self._ids(size.ids, factor))
        controls = tuple(control.within(self.cut) for control in conditioning.controls)
        return replace(conditioning, channels=channels, size=size, controls=controls, windows=None)

    def _ids(self, ids: Tensor, factor: int) -> Tensor:
        """SDXL's numbers (R, 6) for a crop of the picture (Podell et al. 2023, §2.2)."""
        ids = ids.clone()
        ids[:, 2] += int(self.rows[0]) * factor
        ids[:, 3] += int(self.columns[0]) * factor
        if ids.shape[1] == 6:
            ids[:, 4], ids[:, 5] = len(self.rows) * factor, len(self.columns) * factor
        return ids


def in_windows(
    evaluate: Callable[[Sequence[Row]], list[Tensor]], rows: Sequence[Row], windows: Windows
) -> list[Tensor]:
    """What `evaluate` answers for `rows` of one shape, (1, C, H, W) each, put together from windows."""
    totals = [torch.zeros_like(point.x) for point, _ in rows]
    every = iter(windows.of(rows[0][0].x.shape))
    while some := list(islice(every, max(windows.at_once // len(rows), 1))):
        answers = iter(evaluate([row for window in some for row in _cut(window, rows, windows.factor)]))
        for window in some:
            for total in totals:
                window.add(total, next(answers))
    return totals


def _cut(window: Window, rows: Sequence[Row], factor: int) -> Iterator[Row]:
    """`rows` within one window; those of one point still have one."""
    points = {point: replace(point, x=window.cut(point.x)) for point, _ in rows}
    for point, term in rows:
        yield points[point], replace(term, conditioning=window.of(term.conditioning, factor))
