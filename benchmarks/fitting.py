"""Levels fitted to a network: where a sampler of few steps comes nearest to the ODE that it solves."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import CLEAN, Level, Path
from sfumato.diffusion.sampling import Noise, Sampler, run
from sfumato.diffusion.spacing import balanced


def fitted(
    path: Path,
    n: int,
    sample: Sampler,
    denoise: Callable[[Tensor, Level], Tensor],
    x: Tensor,
    end: Tensor,
    noise: Noise,
) -> list[Level]:
    """n + 1 levels, the noisiest first, that take pilot latents `x` (B, …) nearest to `end` (B, …).

    `end` is where the ODE takes them, found with many steps. Sabour et al. (2024, "Align Your Steps") fit
    levels to a network as well, to a bound on the error of a random walk; here it is the distance to the end
    itself, root mean square, that is lessened. The inner levels start out balanced, in three ways, and are
    moved one by one in ln σ by ever smaller strides: some 40·n drawings of the pilots, once for a network and
    an n.
    """

    def levels(logs: Sequence[float]) -> list[Level]:
        return [noisiest, *(path.at(math.exp(log)) for log in logs), CLEAN]

    def distance(logs: Sequence[float]) -> float:
        off = run(sample(x, levels(logs), noise), denoise) - end
        return off.square().mean().sqrt().item()

    noisiest, floor = path.level(path.last), math.log(path.level(path.first).sigma)
    ceiling = math.log(noisiest.sigma) if noisiest.a else math.inf
    best, least = [], math.inf
    for alpha in (0.2, 0.3, 0.45):
        logs = [math.log(level.sigma) for level in balanced(path, n, alpha=alpha)[1:-1]]
        found = distance(logs)
        for stride in (0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05):
            for i in range(n - 1):
                for move in (stride, -stride):
                    tried = [*logs[:i], logs[i] + move, *logs[i + 1 :]]
                    falling = all(above > below for above, below in pairwise([ceiling, *tried, floor]))
                    if falling and (closer := distance(tried)) < found:
                        logs, found = tried, closer
                        break
        if found < least:
            best, least = logs, found
    return levels(best)
