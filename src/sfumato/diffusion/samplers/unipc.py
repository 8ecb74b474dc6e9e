"""UniPC: a multistep predictor whose every step is corrected, at no cost, by the next estimate."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import Known, Solver, blend, step_to
from sfumato.diffusion.sampling import Noise, Point, Sampling


def unipc(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    solver: Solver = "midpoint",
    taper: bool = False,
) -> Sampling:
    """UniPC-p for x0 (Zhao et al. 2023, algorithms 1 and 2), p = `order`, of order p + 1 in accuracy.

    `solver` "midpoint" is the paper's B₂, "bh1" its B₁; they differ only where two estimates are known.
    `taper` lowers the order towards the last step, for levels that end above the picture.
    """
    known: deque[Known] = deque(maxlen=order)
    origin, used = x, 0
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        if used:
            before = levels[step - 1]
            nodes = [*list(known)[:used], (here.lam, x0)]
            x = step_to(origin, blend(nodes, before.lam, here.lam, -1.0, solver), before, here)
        known.appendleft((here.lam, x0))
        used = min(len(known), len(levels) - 1 - step) if taper else len(known)
        origin = x
        x = step_to(x, blend(list(known)[:used], here.lam, there.lam, -1.0, solver), here, there)
    return x
