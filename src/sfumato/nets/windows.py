"""MultiDiffusion (Bar-Tal et al. 2023): a latent larger than the network knows is evaluated in overlapping
windows.

At every step each window is a row of its own, and the windows' clean estimates are averaged where they
overlap (eq. 5; an average of clean estimates of one noisy latent is that of the noise estimates). Memory is
that of the windows that are evaluated at once. Clips longer than the network knows have windows of frames.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any

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
    networks that are told where in a picture they are. Of clips: `frames` in one window, all if `None`, of
    which neighbours have `frame_overlap` in common at least. `loop`: after the last frame comes the first.
    `first`: whether the clip's first frame leads every window, as cross-frame attention needs it.
    """

    size: tuple[int, int]
    overlap: float = 0.5
    around: str = ""
    at_once: int = 1
    factor: int = 8
    frames: int | None = None
    frame_overlap: int = 0
    loop: bool = False
    first: bool = False

    def split(self, shape: Sequence[int]) -> bool:
        """Whether a latent (B, C, …, H, W) is not evaluated as it is."""
        if any(side > own for side, own in zip(shape[-2:], self.size, strict=True)):
            return True
        return len(shape) == 5 and (self.loop or shape[2] > (self.frames or shape[2]))

    def whole(self, shape: Sequence[int], axes: str) -> str:
        """Those of `axes` along which one window is all of a latent (…, H, W)."""
        sides = zip("yx", shape[-2:], self.size, strict=True)
        return "".join(axis for axis, side, own in sides if axis in axes and side <= own)

    def of(self, shape: Sequence[int], step: int = 0) -> "list[Window]":
        """The windows of a latent (B, C, …, H, W) in one `step`, from the top left; their
        weights are 1 in all.

        Those of a loop begin at another frame in every step, so that no place of it is always a seam.
        """
        along = []
        for axis, side, own in zip("yx", shape[-2:], self.size, strict=True):
            around = axis in self.around and side > own
            along.append(_along(side, own, int(own * self.overlap), around=around))
        if len(shape) == 5:
            count = shape[2]
            own = min(self.frames or count, count)
            first = int(count * _van_der_corput(step)) if self.loop else 0
            around = self.loop and count > own
            parts = _along(count, own - self.first, self.frame_overlap, around=around, first=first)
            along.insert(0, [_led(*part) for part in parts] if self.first else parts)
        windows = []
        for sides in product(*along):
            weight = sides[0][1]
            for _, other in sides[1:]:
                weight = weight[..., None] * other
            windows.append(Window(tuple(places for places, _ in sides), weight, tuple(shape[-len(sides) :])))
        return windows


def _along(side: int, own: int, overlap: int, *, around: bool, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Windows of `own` places along a side, the first beginning at `first`: their places and weights."""
    found = spans(side, own, overlap, around=around)
    places = [(torch.arange(*span) + first) % side for span in found]
    return list(zip(places, weights(found, 1, around=side if around else None), strict=True))


def _led(places: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A window of frames with the first of all before it, which counts for nothing if it is not its own."""
    if int(places[0]) == 0:
        return places, weight
    return torch.cat([places.new_zeros(1), places]), torch.cat([weight.new_zeros(1), weight])


def _van_der_corput(index: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, …: fractions of which every few are spread evenly (van der Corput 1935)."""
    return int(f"{index:b}"[::-1], 2) / 2 ** index.bit_length()


@dataclass(frozen=True, eq=False)
class Window:
    """One window of a latent of `shape` ((F,) H, W): the numbers of its `places` along each side, and
    its `weight` there.
    """

    places: tuple[Tensor, ...]
    weight: Tensor
    shape: tuple[int, ...]

    @property
    def rows(self) -> Tensor:
        """The numbers of its rows, (h,)."""
        return self.places[-2]

    @property
    def columns(self) -> Tensor:
        """The numbers of its columns, (w,)."""
        return self.places[-1]

    def cut(self, x: Tensor) -> Tensor:
        """Its part of what lies over the latent, `x` (B, C, …, H, W), or of features some times coarser."""
        for dim, places, side in zip(range(-1, -4, -1), self.places[::-1], self.shape[::-1], strict=False):
            if dim < -2 and x.ndim < 5:  # one picture for all frames
                continue
            coarser = side // x.shape[dim]
            x = x.index_select(dim, (places[::coarser] // coarser).to(x.device))
        return x

    def add(self, total: Tensor, part: Tensor) -> None:
        """Add its weight times `part` (B, C, …, h, w) to its place in `total` (B, C, …, H, W)."""
        count = len(self.places)
        index = [
            places.to(total.device).view(-1, *[1] * (count - 1 - i)) for i, places in enumerate(self.places)
        ]
        where: Any = (slice(None), slice(None), *index)
        total[where] += self.weight.to(total) * part

    def of(self, conditioning: "Conditioning", factor: int) -> "Conditioning":
        """What the network is given for it: channels cut out, the crop's place and size in a picture told."""
        channels, size = conditioning.channels, conditioning.size
        if channels is not None:
            channels = self.cut(channels)
        if size is not None and (len(self.rows), len(self.columns)) != self.shape[-2:]:
            size = SizeConditioning(size.pooled, self._ids(size.ids, factor))
        shares = conditioning.frame_shares
        if shares is not None and len(self.places) > 2:
            shares = shares[self.places[0].to(shares.device)]
        controls = tuple(control.within(self.cut) for control in conditioning.controls)
        return replace(
            conditioning, channels=channels, size=size, controls=controls, windows=None, frame_shares=shares
        )

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
    """What `evaluate` answers for `rows` of one shape, (1, C, …) each, put together from windows."""
    totals = [torch.zeros_like(point.x) for point, _ in rows]
    every = iter(windows.of(rows[0][0].x.shape, max(rows[0][0].step, 0)))
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
