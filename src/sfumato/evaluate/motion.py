"""Which motion a clip shows, from the moments of its shape in every frame.

Mass, place, size and contrast of what is not background are its moments of order 0, 1 and 2; its turn from
frame to frame is read from angular moments about the centroid, for which a turn by θ is a factor e^{inθ}.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_INK = 0.06
"""Of the range from white to black, from which a pixel counts as part of the shape."""
FADES = 0.45
"""The fall of contrast, as a share of its highest, from which a clip fades."""
SCALES = 0.1
"""The logarithm of the largest over the smallest size from which it grows or pulses."""
TRAVELS = 0.5
"""The way to one side, in widths of the frame, from which it is a pan."""
MOVES = 0.012
"""The range of the centroid, in widths, from which something moves at all."""
TURNS = math.radians(200)
"""The whole turn to one side from which it spins."""
TILTS = math.radians(9)
"""The range of its angle from which it swings."""
BACK = 0.75
"""The share of the range of sizes that lies between the first and the last frame where it only grows."""
_HARMONICS = 6
_ANGLES = 1440


@dataclass(frozen=True)
class Moments:
    """What moves in a clip of F frames: float tensors (F,).

    `mass`: of the ink. `contrast`: of the pixels that are part of the shape. `size`: the root mean square
    distance of the ink from its centroid. `x` and `y`: the centroid. Lengths are in widths of the frame.
    `angle`: in radians, clockwise, since the first frame. `edge`: the share of the frame's outermost pixels
    that are part of the shape. `way`: how far it went to the right since the first frame, out on one side and
    in on the other included.
    """

    mass: Tensor
    contrast: Tensor
    size: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor
    edge: Tensor
    way: Tensor


def moments(frames: Tensor) -> Moments:
    """The moments of a clip `frames` (F, 3, H, W) in [−1, 1] on white. A blank frame has those before it."""
    height, width = frames.shape[2:]
    colour = ((1 - frames) / 2).clamp(0, 1)
    ink = colour.amax(1)
    ink = torch.where(ink < LEAST_INK, 0, ink).double()
    mass = ink.sum((1, 2)) / (height * width)
    y, x = torch.meshgrid(
        (torch.arange(height, dtype=torch.float64) + 0.5 - height / 2) / width,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5,
        indexing="ij",
    )
    seen = (mass > 0.02 * mass.max()) & (mass > 0)
    total = mass.clamp(min=1e-9) * height * width
    cx, cy = (ink * x).sum((1, 2)) / total, (ink * y).sum((1, 2)) / total
    # a place on a circle, so that a shape that is cut by the frame's side has one place too
    turned = torch.polar(torch.ones_like(x), 2 * math.pi * x)
    around = torch.angle((ink * turned).sum((1, 2))) / (2 * math.pi)
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    size = ((ink * (dx * dx + dy * dy)).sum((1, 2)) / total).sqrt()
    contrast = ink.amax((1, 2))
    border = torch.cat([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], dim=1)
    angular = _angular(colour.double(), dx, dy)
    kept = _last_seen(seen)
    steps = around[kept].diff()
    return Moments(
        mass=mass,
        contrast=contrast,
        size=size[kept],
        x=cx[kept],
        y=cy[kept],
        angle=_turns(angular[kept]),
        edge=(border > 0).double().mean(1),
        way=torch.cat([torch.zeros(1), (steps - steps.round()).cumsum(0)]),
    )


def motion_of(frames: Tensor) -> str:
    """The motion of a clip `frames` (F, 3, H, W) in [−1, 1] on white, one of `edit.motion.MOTIONS`.

    "still" where nothing moves. A loop is seen as one whose last frame leads to its first.
    """
    found = moments(frames)
    if not bool(found.mass.max() > 0):
        return "still"
    if abs(float(found.way[-1])) > TRAVELS and float(found.way.diff().sign().sum().abs()) > len(frames) / 2:
        return "pan"
    if float(found.contrast.min()) < (1 - FADES) * float(found.contrast.max()):
        return "fade"
    if (rise := float((found.size.max() / found.size.min()).log())) > SCALES:
        whole = float((found.size[-1] / found.size[0]).log())
        if whole < BACK * rise:
            return "pulse"
        return "zoom" if float(found.edge[-1]) > 0.1 else "grow"
    if abs(float(found.angle[-1])) > TURNS:
        return "spin"
    across, down = (float(each.max() - each.min()) for each in (found.x, found.y))
    if float(found.angle.max() - found.angle.min()) > TILTS and across > MOVES:
        return "swing"
    if max(across, down) < MOVES:
        return "still"
    return "bounce" if down > across else "shake"


def _angular(colour: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Angular moments (F, 3·N) of `colour` (F, 3, H, W) about the centroid, of orders 1 to N."""
    distance, direction = torch.hypot(dx, dy), torch.atan2(dy, dx)
    own = []
    for order in range(1, _HARMONICS + 1):
        wave = torch.polar(distance, order * direction)
        own.append((colour * wave[:, None]).sum((2, 3)))
    return torch.stack(own, dim=2).flatten(1)


def _turns(angular: Tensor) -> Tensor:
    """The angle (F,) since the first frame: from each to the next that at which their moments agree best."""
    orders = torch.arange(1, _HARMONICS + 1).repeat(angular.shape[1] // _HARMONICS)
    angles = torch.arange(_ANGLES, dtype=torch.float64) * (2 * math.pi / _ANGLES) - math.pi
    waves = torch.polar(torch.ones(()).double(), -orders[None] * angles[:, None])
    agreement = ((angular[1:] * angular[:-1].conj())[:, None] * waves).real.sum(2)
    return torch.cat([torch.zeros(1).double(), angles[agreement.argmax(1)].cumsum(0)])


def _last_seen(seen: Tensor) -> Tensor:
    """For each frame the index of the last one up to it that is `seen` (F,), or of the first of all."""
    first = int(seen.double().argmax())
    indices, last = [], first
    for index, there in enumerate(seen.tolist()):
        last = index if there else last
        indices.append(last)
    return torch.tensor(indices)
