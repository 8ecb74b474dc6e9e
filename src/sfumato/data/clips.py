"""Clips to learn motion from: icons moved by known transforms, made when they are asked for."""

import hashlib
import json
from bisect import bisect
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from sfumato.data.crops import Captioned
from sfumato.data.icons import Icons, to_signal
from sfumato.data.motion import caption
from sfumato.data.sets import SETS
from sfumato.edit.motion import MOTIONS, moved
from sfumato.errors import DataError

FULL = frozenset({"circle-flags", "streamline-stickies-color", "streamline-kameleon-color"})
"""Sets that fill the picture with a badge of their own, which moves as one."""
_VERSION = "1"
"""Of the transforms, in the digest."""


class Clips(Captioned, Protocol):
    """Captioned clips of one size and length."""

    def load(self, row: int) -> Tensor:
        """The clip (F, 3, S, S) in [−1, 1]. Raises `DataError` where it cannot be read any more."""
        ...


@dataclass(frozen=True)
class MovedPicture:
    """A picture of the icons, and how it moves: a name of `MOTIONS`, its parameters by `seed`."""

    row: int
    motion: str
    seed: int


@dataclass(frozen=True, eq=False)
class MovedIcons:
    """Clips (F, 3, S, S) of icons that move as their captions say."""

    icons: Icons
    clips: tuple[MovedPicture, ...]
    captions: tuple[tuple[str, ...], ...]
    frames: int
    side: int

    @property
    def weights(self) -> tuple[float, ...]:
        return (1.0,) * len(self.clips)

    @cached_property
    def digest(self) -> str:
        own = [_VERSION, self.icons.digest, self.frames, self.side, [astuple(each) for each in self.clips]]
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()

    def load(self, row: int) -> Tensor:
        clip = self.clips[row]
        picture = to_signal(self.icons.pictures[[clip.row]].cpu())
        if picture.shape[-1] != self.side:
            picture = F.interpolate(picture, (self.side, self.side), mode="bicubic", antialias=True)
        return moved(picture[0].clamp(-1, 1), clip.motion, self.frames, Random(clip.seed))


@dataclass(frozen=True, eq=False)
class JoinedClips:
    """The clips of several sources, the rows of each after those of the one before."""

    sources: tuple[Clips, ...]
    shares: tuple[float, ...]
    """How often clips of each source are shown, of 1."""

    @cached_property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        return tuple(own for source in self.sources for own in source.captions)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple(
            share * weight / sum(source.weights)
            for source, share in zip(self.sources, self.shares, strict=True)
            for weight in source.weights
        )

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(source.digest for source in self.sources).encode()).hexdigest()

    def load(self, row: int) -> Tensor:
        for source in self.sources:
            if row < len(source.captions):
                return source.load(row)
            row -= len(source.captions)
        raise IndexError("there are fewer clips")


def moved_icons(
    icons: Icons,
    *,
    seed: int,
    count: int,
    frames: int,
    side: int,
    motions: Sequence[str] = tuple(MOTIONS),
    captions: int = 4,
) -> MovedIcons:
    """`count` clips of `frames` frames of `side` pixels: each of the `motions` equally often.

    Every clip is of a coloured picture drawn by its weight, no skin tones and flags among them, and has
    `captions` captions. Raises `DataError` where there are no such pictures.
    """
    random = Random(seed)
    fit = [
        number
        for number, row in enumerate(icons.rows)
        if row.set not in FULL and ":" not in row.label and not row.label.startswith("flag")
    ]
    if not fit:
        raise DataError("there are no coloured icons to move; `sfumato data icons` makes them")
    cumulative = list(accumulate(icons.rows[number].weight for number in fit))
    clips, texts = [], []
    for number in range(count):
        drawn = random.random() * cumulative[-1]
        row = fit[min(bisect(cumulative, drawn), len(fit) - 1)]
        clips.append(MovedPicture(row, motions[number % len(motions)], random.getrandbits(32)))
        shown = icons.rows[row]
        ways = (
            caption(shown.label, clips[-1].motion, random.choice(SETS[shown.set].styles), random)
            for _ in range(captions)
        )
        texts.append(tuple(ways))
    return MovedIcons(icons, tuple(clips), tuple(texts), frames, side)
