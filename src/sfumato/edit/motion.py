"""Still pictures moved by known transforms.

Every clip begins and ends where its transform does: all motions but those in `ONE_WAY` are loops, whose frame
F would be frame 0 again.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.errors import UsageError

MOTIONS: dict[str, tuple[str, ...]] = {
    "spin": ("spinning", "rotating", "spinning around"),
    "bounce": ("bouncing", "bouncing up and down", "jumping"),
    "shake": ("shaking", "shaking from side to side", "trembling"),
    "pulse": ("pulsing", "beating", "growing and shrinking"),
    "zoom": ("zooming in", "coming closer", "camera zoom in"),
    "pan": ("moving across", "passing by", "camera pan"),
    "swing": ("swinging", "swaying", "swinging like a pendulum"),
    "fade": ("fading in and out", "fading", "appearing and disappearing"),
    "grow": ("growing", "growing larger", "getting bigger"),
}
"""Every motion, and what captions call it, the commonest first."""
ONE_WAY = frozenset({"zoom", "grow"})
"""Motions that do not lead back to their first frame."""


@dataclass(frozen=True)
class Transforms:
    """How a picture is placed in each of F frames: float tensors (F,).

    `x` and `y`: of its centre, from the middle to the right and down, in widths of the frame. `scale`: of its
    size. `angle`: in radians, clockwise. `opacity`: 1 for what is seen whole, 0 for nothing but white.
    `wraps`: whether what leaves the frame on the right comes in on the left, and the other way round.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    angle: Tensor
    opacity: Tensor
    wraps: bool = False

    def split(self, frames: int) -> "list[Transforms]":
        """Of so many frames at a time."""
        each = (self.x, self.y, self.scale, self.angle, self.opacity)
        parts = zip(*(one.split(frames) for one in each), strict=True)
        return [
            replace(self, x=x, y=y, scale=scale, angle=angle, opacity=opacity)
            for x, y, scale, angle, opacity in parts
        ]


def transforms(motion: str, frames: int, random: Random) -> Transforms:
    """How `motion`, one of `MOTIONS`, places a picture in `frames` frames; its parameters come from `random`.

    Raises `UsageError` for another motion and for less than two frames.
    """
    if motion not in MOTIONS:
        raise UsageError(f"unknown motion {motion!r}: one of {', '.join(MOTIONS)}")
    if frames < 2:
        raise UsageError(f"{frames} frames cannot move: at least 2")
    phase = torch.arange(frames) / frames
    still = Transforms(
        x=torch.zeros(frames),
        y=torch.zeros(frames),
        scale=torch.ones(frames),
        angle=torch.zeros(frames),
        opacity=torch.ones(frames),
    )
    return _MAKERS[motion](still, phase, random)


def moved(picture: Tensor, motion: str, frames: int, random: Random) -> Tensor:
    """`picture` (3, H, W) in [−1, 1], on white, as a clip (F, 3, H, W) of `motion`; see `transforms`."""
    return placed(picture, transforms(motion, frames, random))


def placed(picture: Tensor, at: Transforms) -> Tensor:
    """`picture` (3, H, W) in [−1, 1] on white, as `at` places it in each frame: (F, 3, H, W).

    A picture may be one for each frame, (F, 3, H, W).
    """
    height, width = picture.shape[-2:]
    count = len(at.x)
    cos, sin = at.angle.cos() / at.scale, at.angle.sin() / at.scale
    # from places in the frame to places in the picture; grid_sample has its sides at −1 and 1
    rotation = torch.stack([cos, sin, -sin, cos], dim=1).view(count, 2, 2)
    # twice as fine, so that what becomes small is not jagged
    fine = (count, 3, 2 * height, 2 * width)
    places = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(fine), align_corners=False)
    aspect = torch.tensor([width / height, 1.0]) if width > height else torch.tensor([1.0, height / width])
    ink = (picture - 1).expand(count, -1, -1, -1)
    total = torch.zeros(fine)
    for around in (-1, 0, 1) if at.wraps else (0,):
        centre = 2 * torch.stack([at.x + around, at.y], dim=1)
        offset = (places - centre[:, None, None]) * aspect
        source = torch.einsum("fij,fhwj->fhwi", rotation, offset) / aspect
        total = torch.minimum(
            total, F.grid_sample(ink, source, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    return 1 + F.avg_pool2d(total, 2) * at.opacity.view(-1, 1, 1, 1)


def motion_in(text: str) -> str | None:
    """The motion that `text` names first, by its name or as captions do; nothing where it names none."""
    match = _WORDS.search(text)
    return None if match is None else _MOTION_OF[match[1].lower()]


def without_motion(text: str) -> str:
    """`text` without the words that name a motion: what it says of a still picture."""
    return re.sub(r"(?:\s*,)+", ",", _WORDS.sub("", text)).strip(" ,")


_MOTION_OF = {word: motion for motion, words in MOTIONS.items() for word in (motion, *words)}
_WORDS = re.compile(rf"\s*\b({'|'.join(sorted(_MOTION_OF, key=len, reverse=True))})s?\b", re.IGNORECASE)


def _spin(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    turn = random.choice((-1, 1)) * 2 * math.pi
    start = random.uniform(-0.2, 0.2)
    return replace(at, angle=turn * phase + start, scale=at.scale * random.uniform(0.7, 0.85))


def _bounce(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    """Free fall between two touches: a parabola, once or twice."""
    size, times = random.uniform(0.6, 0.75), random.choice((1, 2))
    height = random.uniform(0.6, 1) * (1 - size)
    flight = (times * phase + random.random()) % 1
    return replace(at, scale=at.scale * size, y=(1 - size) / 2 - height * 4 * flight * (1 - flight))


def _shake(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    """Quickly from side to side, two to four times."""
    size, times = random.uniform(0.8, 0.9), random.choice((2, 3, 4))
    reach = random.uniform(0.5, 1) * (1 - size) / 2
    wave = (2 * math.pi * (times * phase + random.random())).sin()
    return replace(at, scale=at.scale * size, x=reach * wave)


def _pulse(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    times, depth = random.choice((1, 2)), random.uniform(0.15, 0.35)
    wave = (1 + (2 * math.pi * (times * phase + random.random())).cos()) / 2
    return replace(at, scale=1 - depth * wave)


def _zoom(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    """From the whole to a part, at a constant rate of the logarithm, as a camera that comes closer."""
    last = phase / phase[-1]
    return replace(at, scale=0.9 * random.uniform(1.7, 2.4) ** last)


def _pan(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    x = random.choice((-1, 1)) * phase + random.random()
    return replace(at, scale=at.scale * random.uniform(0.6, 0.8), x=(x + 0.5) % 1 - 0.5, wraps=True)


def _swing(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    """About a point above, as a pendulum."""
    reach, length = math.radians(random.uniform(18, 32)), random.uniform(0.25, 0.4)
    angle = reach * (2 * math.pi * (phase + random.random())).sin()
    # clockwise: what hangs below the point goes to the left
    return replace(
        at,
        scale=at.scale * random.uniform(0.6, 0.7),
        angle=angle,
        x=-length * angle.sin(),
        y=length * (angle.cos() - 1),
    )


def _fade(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    depth = random.uniform(0.75, 1)
    wave = (1 + (2 * math.pi * (phase + random.random())).cos()) / 2
    return replace(at, opacity=1 - depth * wave)


def _grow(at: Transforms, phase: Tensor, random: Random) -> Transforms:
    """From small to whole, slower at the end."""
    first, last = random.uniform(0.15, 0.4), phase / phase[-1]
    return replace(at, scale=first + (1 - first) * (1 - (1 - last) ** 2))


_MAKERS: dict[str, Callable[[Transforms, Tensor, Random], Transforms]] = {
    "spin": _spin,
    "bounce": _bounce,
    "shake": _shake,
    "pulse": _pulse,
    "zoom": _zoom,
    "pan": _pan,
    "swing": _swing,
    "fade": _fade,
    "grow": _grow,
}
