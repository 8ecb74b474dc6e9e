"""Adams–Bashforth–Moulton along the angle between signal and noise, where no point of the way is singular."""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import Known, blend
from sfumato.diffusion.sampling import Noise, Point, Sampling


def adams(x: Tensor, levels: Sequence[Level], noise: Noise, *, order: int | None = None) -> Sampling:
    """A linear multistep method for dy/dφ = cos φ·eps − sin φ·x0, with y = x/√(a² + s²) and tan φ = s/a.

    The right side is the v of Salimans & Ho (2022, appendix D). It is regular from pure noise (φ = π/2) to the
    picture (φ = 0), and zero for normal data of unit variance, which latents nearly are: what is interpolated
    is only what the data has to say. Polynomials in φ run through the last `order` slopes (Adams–Bashforth);
    when the next estimate is there, the step is taken again through that one too (Adams–Moulton), at no cost
    and also in the first step, so that the start is of third order. Without `order` it is 2 on fewer than 8
    steps and 4 otherwise.
    """
    if order is None:
        order = 2 if len(levels) <= 8 else 4
    known: deque[Known] = deque(maxlen=order)
    y = origin = x / math.hypot(levels[0].a, levels[0].s)
    for step, (here, there) in enumerate(pairwise(levels)):
        radius, phi = math.hypot(here.a, here.s), math.atan2(here.s, here.a)
        x0 = yield Point(radius * y, here, step)
        slope = (math.cos(phi) * y - x0) / math.sin(phi)
        if step:
            before = known[0][0]
            y = origin + (phi - before) * blend([(phi, slope), *known], before, phi, 0.0, "heun")
        known.appendleft((phi, slope))
        origin, ahead = y, math.atan2(there.s, there.a)
        y = y + (ahead - phi) * blend(known, phi, ahead, 0.0, "heun")
    return math.hypot(levels[-1].a, levels[-1].s) * y
