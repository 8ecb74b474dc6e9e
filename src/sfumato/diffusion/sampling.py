"""What a sampler is: a coroutine that asks for clean estimates and returns the picture's latent."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.level import Level


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A question to the network: the latent `x` (B, C, H, W) or (B, C, F, H, W) at `level`.

    `step` counts the intervals between levels from 0; a step may ask more than once.
    """

    x: Tensor
    level: Level
    step: int


Sampling = Generator[Point, Tensor, Tensor]
"""Yields points, is sent the clean estimate x0 of each (same shape), and returns the last latent."""


Wrapper = Callable[[Sampling], Sampling]
"""A coroutine around a coroutine: it passes points on and may change them, or the estimates that come
back.
"""


class Noise(Protocol):
    """Standard normal noise for the random samplers."""

    def __call__(self, like: Tensor, /) -> Tensor:
        """Fresh noise of `like`'s shape, dtype and device."""
        ...


class Sampler(Protocol):
    """A way from noise to picture over `levels` (N + 1 of them, noisiest first, the clean one last)."""

    def __call__(self, x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling: ...


class SeededNoise:
    """One generator for each image, on the CPU, so that neither device nor batch changes an image's noise.

    A clip's noise is drawn frame by frame: how many follow changes nothing of the first ones.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        """`seeds`: one for each row of the latents, each in [0, 2⁶³)."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        if len(like) != len(self._generators):
            raise ValueError(f"noise for {len(self._generators)} images was asked for {len(like)}")
        frames = like.shape[2] if like.ndim == 5 else None
        shape = (like.shape[1], *like.shape[-2:]) if frames else tuple(like.shape[1:])
        rows = []
        for generator in self._generators:
            drawn = [torch.randn(shape, generator=generator) for _ in range(frames or 1)]
            rows.append(drawn[0] if frames is None else torch.stack(drawn, dim=1))
        return torch.stack(rows).to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where a drawing begins in place of pure noise: the clean latent `x0` (1, …), at level number `step`."""

    x0: Tensor
    step: int

    def noisy(self, levels: Sequence[Level], eps: Tensor) -> Tensor:
        """a·x0 + s·eps at the level at which the drawing begins.

        Raises `ValueError` beyond the levels, and for a latent of another shape than `eps`.
        """
        if self.x0.shape != eps.shape:
            raise ValueError(
                f"the start has the shape {tuple(self.x0.shape)}; the drawing's is {tuple(eps.shape)}"
            )
        if not 0 <= self.step < len(levels):
            raise ValueError(f"a drawing of {len(levels) - 1} steps cannot start at level {self.step}")
        level = levels[self.step]
        return level.noisy(self.x0.to(eps), eps)


def mapped(
    sampling: Sampling,
    *,
    point: Callable[[Point], Point] = lambda asked: asked,
    x0: Callable[[Tensor], Tensor] = lambda estimate: estimate,
) -> Sampling:
    """`sampling` with every `point` that it asks for, and every estimate `x0` that it is sent, changed so."""
    try:
        asked = next(sampling)
        while True:
            asked = sampling.send(x0((yield point(asked))))
    except StopIteration as done:
        result: Tensor = done.value
        return result


def resumed(sampling: Sampling, first: int) -> Sampling:
    """`sampling` over the levels from number `first` on, its steps counted from the first of all levels."""
    return mapped(sampling, point=lambda asked: Point(asked.x, asked.level, asked.step + first))


class SecondPass(NamedTuple):
    """A pass that follows another: its latent becomes `change` of it, and the drawing goes on over `levels`
    from number `step`.
    """

    change: Callable[[Tensor], Tensor]
    levels: Sequence[Level]
    step: int


def second_pass(
    first: Sampling,
    enlarge: Callable[[Tensor], Tensor],
    sampler: Sampler,
    levels: Sequence[Level],
    noise: Noise,
    step: int,
) -> Sampling:
    """`first`, its latent made larger, fresh noise on it as at level number `step`, and `sampler` from there
    on.
    """
    start = Start(enlarge((yield from first)), step)
    x = start.noisy(levels, noise(start.x0))
    return (yield from resumed(sampler(x, levels[step:], noise), step))


def run(sampling: Sampling, denoise: Callable[[Tensor, Level], Tensor]) -> Tensor:
    """Drive a sampler to its end with `denoise(x, level) -> x0`, one point after another."""
    try:
        point = next(sampling)
        while True:
            point = sampling.send(denoise(point.x, point.level))
    except StopIteration as done:
        result: Tensor = done.value
        return result


def visited(sample: Sampler, levels: Sequence[Level]) -> list[Level]:
    """The levels at which a sampler evaluates the network on its way over `levels`, one for each evaluation.

    Found by a dry run on a latent of one number, so that no sampler has to state its own.
    """
    found: list[Level] = []

    def answer(x: Tensor, level: Level) -> Tensor:
        found.append(level)
        return x

    run(sample(torch.zeros(1, 1, 1, 1), levels, torch.zeros_like), answer)
    return found
