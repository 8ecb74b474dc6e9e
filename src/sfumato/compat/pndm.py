"""PNDM begun in the middle, as diffusers' image-to-image pipelines begin it."""

from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.multistep import ADAMS_BASHFORTH
from sfumato.diffusion.samplers.rules import noise_in, step_along, weighted
from sfumato.diffusion.sampling import Noise, Point, Sampling


def repeated_second(levels: Sequence[Level]) -> list[Level]:
    """The levels at which PNDM evaluates the network, without the last of `levels`: the second one twice."""
    times = list(levels[:-1])
    return [*times[:2], *times[1:]]


def pndm_cut(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    before: Callable[[Level], Level],
    after: Callable[[Level], Level],
) -> Sampling:
    """Pseudo linear multistep steps (Liu et al. 2022, eq. 12) at `levels` that `repeated_second` was cut to.

    The second evaluation takes the first step again, by the mean of both. As diffusers cuts the list behind
    the level that it repeats, each later step begins one level below the latent that it is given. `before`
    and `after`: from a level to those one step above and below.
    """
    history: deque[Tensor] = deque(maxlen=4)
    origin = x
    for step, here in enumerate(levels[:-1]):
        x0 = yield Point(x, here, step)
        eps = noise_in(x, x0, here)
        if step == 1:
            x = step_along(origin, (history[0] + eps) / 2, before(here), here)
            continue
        history.appendleft(eps)
        origin = x
        x = step_along(x, weighted(ADAMS_BASHFORTH[len(history) - 1], history), here, after(here))
    return x
