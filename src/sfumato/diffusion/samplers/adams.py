"""Adams–Bashforth–Moulton along the angle between signal and noise, of the order that each image bears."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import Estimate, weighted
from sfumato.diffusion.sampling import Noise, Point, Sampling

FAR = 0.2
"""The angle φ from which a last step to the picture is too long for a polynomial."""


def adams(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, order: int = 4, caution: float = 2.0
) -> Sampling:
    """A multistep method for dy/dφ = cos φ·eps − sin φ·x0, with y = x/√(a² + s²) and tan φ = s/a.

    The right side is the v of Salimans & Ho (2022, appendix D). It has no singular point from pure noise
    (φ = π/2) to the picture (φ = 0), and is zero for normal data of unit variance, which latents nearly are:
    only what the data has to say is interpolated, by polynomials in φ through the latest slopes. When the
    next estimate is there, the step is taken again through that one too, at no cost; so is the first step,
    which makes the start third order.

    A polynomial of high degree is exact on a smooth way and wild on a rough one (few steps, strong guidance).
    Each row therefore asks, at each step, which polynomial would have foretold the slope just found best, and
    uses one more slope than that, at most `order` (as variable-order Adams codes do: Shampine & Gordon 1975).
    Every further slope has to lessen the miss by the factor `caution` to be trusted: 2 suits guided networks,
    1 an unguided one; with 0 every row uses all slopes there are, up to `order`. A last step still `FAR`
    from the picture would leave noise of about φ³/3 in it: there the clean estimate itself is the result.
    """
    history: list[Estimate] = []
    used = torch.ones(len(x), dtype=torch.long, device=x.device)
    y = origin = x / math.hypot(levels[0].a, levels[0].s)
    for step, (here, there) in enumerate(pairwise(levels)):
        radius, phi = math.hypot(here.a, here.s), math.atan2(here.s, here.a)
        x0 = yield Point(radius * y, here, step)
        slope = (math.cos(phi) * y - x0) / math.sin(phi)
        if step:
            before = history[0][0]
            y = origin + (phi - before) * _mean([(phi, slope), *history], before, phi, used + 1)
            if caution:
                used = (_missed(history, phi, slope, caution).argmin(1) + 1).clamp(1, order)
            else:
                used = torch.full_like(used, order)
        history = [(phi, slope), *history][:order]
        origin, ahead = y, math.atan2(there.s, there.a)
        if ahead == 0 and phi > FAR:
            return x0
        y = y + (ahead - phi) * _mean(history, phi, ahead, used)
    return math.hypot(levels[-1].a, levels[-1].s) * y


def _mean(history: Sequence[Estimate], start: float, end: float, used: Tensor) -> Tensor:
    """The mean from `start` to `end` of a polynomial through the newest `used` (B,) slopes; (B, …)."""
    places, slopes = zip(*history, strict=True)
    rules = torch.zeros(len(history), len(history), dtype=torch.float64)
    for count in range(1, len(history) + 1):
        moments = [1 / (k + 1) for k in range(count)]
        rules[count - 1, :count] = _rule(places[:count], start, end - start, moments)
    weights = rules.to(slopes[0].dtype).to(used.device)[used.clamp(max=len(history)) - 1]
    rows = (-1,) + (1,) * (slopes[0].ndim - 1)
    return sum((w.view(rows) * slope for w, slope in zip(weights.T, slopes, strict=True)), torch.zeros(()))


def _missed(history: Sequence[Estimate], phi: float, slope: Tensor, charge: float) -> Tensor:
    """How far polynomials through the newest 0, 1, 2, … slopes miss the new one, squared; (B, n + 1).

    Each distance is multiplied by one `charge` more than the one before.
    """
    guesses = [torch.zeros_like(slope)]
    for count in range(1, len(history) + 1):
        places, slopes = zip(*history[:count], strict=True)
        at_phi = _rule(places, phi, places[0] - phi, [1.0] + [0.0] * (count - 1))
        guesses.append(weighted(at_phi.tolist(), slopes))
    missed = [
        charge ** (2 * i) * (slope - guess).square().flatten(1).sum(1) for i, guess in enumerate(guesses)
    ]
    return torch.stack(missed, dim=1)


def _rule(places: Sequence[float], origin: float, width: float, moments: Sequence[float]) -> Tensor:
    """Weights of values at `places` exact for the powers of u = (place − `origin`)/`width`; (n,) float64."""
    powers = np.vander([(place - origin) / width for place in places], increasing=True).T
    return torch.from_numpy(np.linalg.solve(powers, moments))
