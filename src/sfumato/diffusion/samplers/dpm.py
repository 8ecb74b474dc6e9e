"""DPM-Solver and DPM-Solver++: exact in the linear part of the equation, polynomial in λ for what is learned.

DPM-Solver interpolates eps (Lu et al. 2022), DPM-Solver++ x0 (Lu et al. 2022b). Multistep ones remember
earlier estimates, singlestep ones start afresh in every group of steps. Steps from pure noise and to the
picture, where h is infinite, are first order.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import (
    Estimate,
    Solver,
    can_bootstrap,
    interpolate,
    noise_in,
    sde_split,
    sde_split_of_noise,
    step_along,
    step_to,
    with_noise,
)
from sfumato.diffusion.sampling import Noise, Point, Sampling


def dpmpp_multistep(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    eta: float = 0.0,
    s_noise: float = 1.0,
    solver: Solver = "midpoint",
    bootstrap: bool = True,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Sampling:
    """DPM-Solver++(2M), (3M) and, with `eta` > 0, their SDE forms (Lu et al. 2022b, algorithm 2, eq. 18).

    `solver` "published" gives the third order of other programs (see `rules.phi_weights`). `bootstrap`: a
    third-order one without fresh noise takes its first step again, at no cost, through the second estimate.
    `lower_order_final` lowers the order towards the last step, as other programs do with few steps;
    `euler_at_final` takes the last step by the first order, for levels that end above the picture.
    """
    history: deque[Estimate] = deque(maxlen=order)
    origin, first = x, levels[0]
    bootstrap = bootstrap and not eta and can_bootstrap(levels)
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        history.appendleft((here.lam, x0))
        if bootstrap and 0 < step < order - 1:
            x = step_to(origin, interpolate(history, first.lam, here.lam, -1.0, "heun"), first, here)
        s_down, s_up = sde_split(here, there, eta)
        used = _of_final_order(history, len(levels) - 1 - step, lower_order_final, euler_at_final)
        mean = interpolate(used, here.lam, there.lam, -(1 + eta), solver)
        x = step_to(x, mean, here, there, s_down)
        x = with_noise(x, s_up, noise, s_noise)
    return x


def dpm_solver_multistep(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    eta: float = 0.0,
    s_noise: float = 1.0,
    solver: Solver = "midpoint",
    bootstrap: bool = True,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Sampling:
    """DPM-Solver, multistep, and with `eta` 1 its SDE form (Lu et al. 2022, appendix B.5; 2022b, appendix C).

    `bootstrap`, `lower_order_final` and `euler_at_final` as in `dpmpp_multistep`.
    """
    history: deque[Estimate] = deque(maxlen=order)
    origin, first = x, levels[0]
    bootstrap = bootstrap and not eta and can_bootstrap(levels)
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        history.appendleft((here.lam, noise_in(x, x0, here)))
        if bootstrap and 0 < step < order - 1:
            x = step_along(origin, interpolate(history, first.lam, here.lam, 1.0, "heun"), first, here)
        if here.a:
            used = _of_final_order(history, len(levels) - 1 - step, lower_order_final, euler_at_final)
            s_down, s_up = sde_split_of_noise(here, there, eta)
            x = step_along(x, interpolate(used, here.lam, there.lam, 1.0, solver), here, there, s_down)
            x = with_noise(x, s_up, noise, s_noise)
        else:
            x = step_to(x, x0, here, there)
    return x


def _of_final_order(
    history: Iterable[Estimate], left: int, lower_order_final: bool, euler_at_final: bool
) -> list[Estimate]:
    """The estimates of `history` that a step uses when `left` steps are left, itself included."""
    used = list(history)
    if left == 1 and euler_at_final:
        return used[:1]
    return used[:left] if lower_order_final else used


def singlestep(
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    *,
    order: int = 2,
    of_noise: bool = False,
    eta: float = 0.0,
    s_noise: float = 1.0,
    solver: Solver = "midpoint",
    lower_order_final: bool = False,
    before: Sequence[Level] = (),
) -> Sampling:
    """DPM-Solver(++)-2S and -3S (Lu et al. 2022, algorithms 1 and 2; Lu et al. 2022b, algorithm 1).

    A group of `order` intervals is one step, its inner stops the levels in between: one evaluation for each
    interval. `of_noise` interpolates eps, as DPM-Solver does, instead of x0. With three estimates the
    published "midpoint" looks at the outer two and is third order only where the stops are even; "heun" is so
    everywhere. With `eta` > 0, for x0 only, each stop is reached from the start of its group with noise of
    its own. `lower_order_final`: a whole group at the end gives its last interval to a step of first order.
    `before`: levels that groups are counted from, where a drawing begins in the middle; one that would have
    begun there is shorter.
    """
    for first, group in _groups([*before, *levels], order, lower_order_final, len(before)):
        origin, start = x, group[0]
        history: list[Estimate] = []
        for step, (here, there) in enumerate(pairwise(group), first):
            x0 = yield Point(x, here, step)
            history.append((here.lam, noise_in(x, x0, here) if of_noise else x0))
            seen, rule = history, solver
            if len(history) == 3 and solver == "midpoint":
                seen, rule = [history[0], history[2]], "heun"
            if of_noise and start.a:
                x = step_along(origin, interpolate(seen, start.lam, there.lam, 1.0, rule), start, there)
            else:
                mean = x0 if of_noise else interpolate(seen, start.lam, there.lam, -(1 + eta), rule)
                s_down, s_up = sde_split(start, there, eta)
                x = with_noise(step_to(origin, mean, start, there, s_down), s_up, noise, s_noise)
    return x


def _groups(
    levels: Sequence[Level], order: int, lower_order_final: bool, begin: int = 0
) -> Iterator[tuple[int, Sequence[Level]]]:
    """Runs of up to `order` intervals, and the number of the first; an infinite one is a run of its own.

    With `lower_order_final` the last of all is so too where it would end a run of `order`. Only what lies
    behind the level number `begin`, from which intervals are then counted.
    """
    first, last = 0, len(levels) - 1
    while first < last:
        end = first + 1
        while levels[first].a and end < min(first + order, last) and levels[end + 1].s:
            end += 1
        if lower_order_final and end == last and end - first == order > 1:
            end -= 1
        if end > begin:
            start = max(first, begin)
            yield start - begin, levels[start : end + 1]
        first = end
