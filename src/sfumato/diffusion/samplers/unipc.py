"""UniPC: a multistep predictor, each step corrected with the next estimate at no cost."""

from collections import deque
from collections.abc import Collection, Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import Estimate, Solver, interpolate, noise_in, step_along, step_to
from sfumato.diffusion.sampling import Noise, Point, Sampling


def unipc(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    solver: Solver = "midpoint",
    of_noise: bool = False,
    lower_order_final: bool = False,
    uncorrected: Collection[int] = (),
) -> Sampling:
    """UniPC-p (Zhao et al. 2023, algorithms 1 and 2), p = `order`, of order p + 1 in accuracy.

    `solver` "midpoint" is the paper's B₂, "bh1" its B₁; they differ only where two estimates are known.
    `of_noise` interpolates eps instead of x0, for levels that do not begin with pure noise.
    `lower_order_final` lowers the order towards the last step, for levels that end above the picture.
    `uncorrected`: steps, counted from 0, whose result is kept as predicted.
    """
    history: deque[Estimate] = deque(maxlen=order)
    origin, used = x, 0

    def stepped(nodes: Sequence[Estimate], before: Level, after: Level) -> Tensor:
        mean = interpolate(nodes, before.lam, after.lam, 1.0 if of_noise else -1.0, solver)
        return (step_along if of_noise else step_to)(origin, mean, before, after)

    for step, (here, there) in enumerate(pairwise(levels)):
        estimate = yield Point(x, here, step)
        if of_noise:
            estimate = noise_in(x, estimate, here)
        if used and step - 1 not in uncorrected:
            x = stepped([*list(history)[:used], (here.lam, estimate)], levels[step - 1], here)
        history.appendleft((here.lam, estimate))
        used = min(len(history), len(levels) - 1 - step) if lower_order_final else len(history)
        origin = x
        x = stepped(list(history)[:used], here, there)
    return x
