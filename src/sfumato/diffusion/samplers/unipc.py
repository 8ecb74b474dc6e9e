"""UniPC: a multistep predictor, each step corrected with the next estimate at no cost."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import Estimate, Solver, interpolate, step_to
from sfumato.diffusion.sampling import Noise, Point, Sampling


def unipc(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    solver: Solver = "midpoint",
    lower_order_final: bool = False,
) -> Sampling:
    """UniPC-p for x0 (Zhao et al. 2023, algorithms 1 and 2), p = `order`, of order p + 1 in accuracy.

    `solver` "midpoint" is the paper's B₂, "bh1" its B₁; they differ only where two estimates are known.
    `lower_order_final` lowers the order towards the last step, for levels that end above the picture.
    """
    history: deque[Estimate] = deque(maxlen=order)
    origin, used = x, 0
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        if used:
            before = levels[step - 1]
            nodes = [*list(history)[:used], (here.lam, x0)]
            x = step_to(origin, interpolate(nodes, before.lam, here.lam, -1.0, solver), before, here)
        history.appendleft((here.lam, x0))
        used = min(len(history), len(levels) - 1 - step) if lower_order_final else len(history)
        origin = x
        x = step_to(x, interpolate(list(history)[:used], here.lam, there.lam, -1.0, solver), here, there)
    return x
