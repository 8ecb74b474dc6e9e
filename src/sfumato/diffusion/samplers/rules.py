"""The update rules that all samplers are made of, in coordinates that hold on every path.

A step from a level (a, s) to (a', s') is `keep·x + (a' − keep·a)·x0`, where `keep` is s'/s without fresh
noise. Nothing in it is infinite, neither at pure noise (a = 0) nor at the picture (s' = 0). A method of
higher order replaces x0 or eps by a weighted mean of several estimates.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sfumato.diffusion.level import AnyLevel, Level, Path
from sfumato.diffusion.sampling import Noise

Solver = Literal[
    "heun", "midpoint", "published", "published-heun", "published-sde", "published-sde-heun", "bh1"
]
"""How estimates are weighted, by the names of the field: see `phi_weights`."""

Estimate = tuple[float, Tensor]
"""An estimate, and the coordinate (λ or σ) that it was made at."""


def step_to(x: Tensor, x0: Tensor, here: AnyLevel, there: AnyLevel, s: float | None = None) -> Tensor:
    """a'·x0 + s·eps, with the eps that x0 implies (Song et al. 2021, eq. 12); `s` is s' unless given."""
    keep = (there.s if s is None else s) / here.s
    return keep * x + (there.a - keep * here.a) * x0


def step_along(x: Tensor, eps: Tensor, here: Level, there: Level, s: float | None = None) -> Tensor:
    """x moved by the noise estimate alone, (a'/a)·x + (s − s·a'/a)·eps; `here` must not be pure noise."""
    keep = there.a / here.a
    return keep * x + ((there.s if s is None else s) - keep * here.s) * eps


def with_noise(x: Tensor, s: float, noise: Noise, s_noise: float = 1.0) -> Tensor:
    """x with fresh noise of standard deviation `s`, times `s_noise`; none is drawn where `s` is 0."""
    return x + s_noise * s * noise(x) if s else x


def noise_in(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """eps = (x − a·x0)/s, the noise that a clean estimate implies; `level` must not be clean."""
    return (x - level.a * x0) / level.s


def ratio(here: Level, there: Level) -> float:
    """ρ = σ'/σ = e^(−h), in [0, 1]: 0 from pure noise and to the picture, 1 where a step has no length."""
    return min(there.s * here.a / (there.a * here.s), 1.0)


def ancestral(here: Level, there: Level, eta: float) -> tuple[float, float]:
    """s' split into `s_down`, noise kept, and `s_up`, fresh noise; `eta` scales s_up, 1 is the posterior's.

    Song et al. 2021, eq. 16; on the a = 1 path this is k-diffusion's σ_down and σ_up.
    """
    s_up = min(eta * there.s * math.sqrt(1 - ratio(here, there) ** 2), there.s)
    return math.sqrt(there.s**2 - s_up**2), s_up


def sde_split(here: Level, there: Level, eta: float) -> tuple[float, float]:
    """s' split as the reverse SDE with noise scaled by `eta` splits it exactly (Lu et al. 2022b, eq. 12).

    Equals `ancestral` at `eta` 0 and 1.
    """
    rho = ratio(here, there)
    return there.s * rho**eta, there.s * math.sqrt(1 - rho ** (2 * eta))


def sde_split_of_noise(here: Level, there: Level, eta: float) -> tuple[float, float]:
    """`sde_split` for a solver that interpolates eps: the `s` of `step_along`, and the fresh noise.

    The reverse SDE with noise scaled by √`eta`, eps held constant over the step (Lu et al. 2022b, appendix C;
    Xue et al. 2023, §4). `there` must not be the picture, where its noise does not vanish.
    """
    all_kept = here.s * there.a / here.a
    return there.s - eta * (all_kept - there.s), math.sqrt(eta * max(all_kept**2 - there.s**2, 0.0))


def moments(z: float, count: int) -> list[float]:
    """The means of u^k, k < `count`, over u in [0, 1] weighted with e^(z(1−u)).

    They are k!·φ_(k+1)(z)/φ_1(z) of exponential integrators (Hochbruck & Ostermann 2010, eq. 2.11), for z = 0
    just 1/(k + 1). For small z the series is summed, as the recursion would cancel.
    """
    if abs(z) < 1:
        raw = [
            math.fsum(z**j * math.factorial(k) / math.factorial(j + k + 1) for j in range(20))
            for k in range(count)
        ]
    else:
        raw = [math.expm1(z) / z]
        for k in range(1, count):
            raw.append((k * raw[-1] - 1) / z)
    return [moment / raw[0] for moment in raw]


def phi_weights(z: float, count: int, solver: Solver) -> list[float]:
    """The `moments`, as a `solver` takes them.

    `heun` takes them as they are. `midpoint` puts ½ for the mean of u where two estimates are known (Lu et
    al. 2022b, eq. 15; B₂ of Zhao et al. 2023), `bh1` puts ½·z/(e^z − 1) (B₁ there). `published` is `midpoint`
    with the third-order multistep formula of the authors' code and its descendants: its second difference
    lacks the factor 2 of a second derivative, which leaves it second order. `published-sde` is theirs for the
    SDE (z = −2h), where a part of that difference has the wrong sign as well. Both go with `midpoint` where
    two estimates are known, or with `heun` if they say so.
    """
    exact = moments(z, count)
    if count == 2 and not solver.endswith("heun"):
        exact[1] = 0.5 * z / math.expm1(z) if solver == "bh1" else 0.5
    if count == 3 and solver.startswith("published"):
        exact[2] = exact[2] / 2 + (1 / math.expm1(z) if "sde" in solver else 0)
    return exact


SAME = 1e-7
"""Coordinates that are no further apart are one: a step between them has no length."""


def interpolate(history: Sequence[Estimate], start: float, end: float, rate: float, solver: Solver) -> Tensor:
    """The weighted mean that stands for the estimate over the whole step from `start` to `end`.

    The estimates in `history`, the first of them made at `start`, are joined by a polynomial in their own
    coordinate u, and its mean is taken with weight e^(rate·(end − u)): rate −1 for x0 in λ, +1 for eps in λ,
    0 for eps in σ. Over a step of infinite length, or of none, nothing is interpolated; estimates infinitely
    far away are left out, and so are those made where a newer one was.
    """
    h = end - start
    near: list[Estimate] = []
    for place, value in history:
        if math.isfinite(place) and all(abs(place - other) > SAME for other, _ in near):
            near.append((place, value))
    if not SAME < abs(h) < math.inf or len(near) < 2:
        return history[0][1]
    powers = np.vander([(place - start) / h for place, _ in near], increasing=True).T
    weights = np.linalg.solve(powers, phi_weights(rate * h, len(near), solver)).tolist()
    return weighted(weights, [value for _, value in near])


def can_bootstrap(levels: Sequence[Level]) -> bool:
    """Whether the first step, less than 1 long in λ, can be taken again through estimates made after it."""
    return len(levels) > 2 and levels[0].a > 0 and levels[1].lam - levels[0].lam < 1


def weighted(weights: Sequence[float], values: Iterable[Tensor]) -> Tensor:
    """The sum of `values`, each with its weight."""
    return reduce(torch.add, (weight * value for weight, value in zip(weights, values, strict=True)))


def between(here: Level, sigma: float) -> Level:
    """The level of `here`'s path with s/a = `sigma`."""
    return _path(here).at(sigma)


def between_times(here: Level, there: Level, share: float) -> Level:
    """The level at `share` of the time from `here` to `there` on their path."""
    path = _path(here)
    start, end = path.time(here.sigma), path.time(there.sigma)
    return path.level(start + share * (end - start))


def _path(level: Level) -> Path:
    if level.path is None:
        raise ValueError("this sampler stops between its levels, and these are on no path")
    return level.path
