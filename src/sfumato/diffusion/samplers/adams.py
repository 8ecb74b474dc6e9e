"""Adams–Bashforth–Moulton in the angle between signal and noise, with an order chosen for each image."""

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
"""The angle φ above which a last step to the picture is too long for a polynomial."""


def adams(
    x: Tensor, levels: Sequence[Level], noise: Noise, *, order: int = 4, caution: float = 2.0
) -> Sampling:
    """A variable-order multistep method for dy/dφ = cos φ·eps − sin φ·x0, y = x/√(a² + s²), tan φ = s/a.

    The right side is the v of Salimans & Ho (2022, appendix D). It is regular from pure noise (φ = π/2) to
    the picture (φ = 0), and zero for normal data of unit variance, which latents nearly are: only the
    deviation from that is interpolated, by polynomials in φ through the latest slopes. Every step is
    predicted (Adams–Bashforth) and then, at no cost, corrected with the next estimate (Adams–Moulton);
    correcting the first step makes the start third order.

    A polynomial of high degree is exact on a smooth trajectory and unstable on a rough one (few steps, strong
    guidance). So each row chooses its order at each step: the number of slopes whose polynomial predicts the
    newest slope best, plus one, at most `order` (as in variable-order Adams codes: Shampine & Gordon 1975).
    One more slope has to reduce the error of that prediction by the factor `caution`: 2 suits guided
    networks, 1 an unguided one; with 0 every row uses all slopes there are, up to `order`. A last step from
    φ > `FAR` would leave noise of about φ³/3 in the picture: there the clean estimate itself is the result.
    """
    history: list[Estimate] = []
    orders = torch.ones(len(x), dtype=torch.long, device=x.device)
    y = origin = x / math.hypot(levels[0].a, levels[0].s)
    for step, (here, there) in enumerate(pairwise(levels)):
        radius, phi = math.hypot(here.a, here.s), math.atan2(here.s, here.a)
        x0 = yield Point(radius * y, here, step)
        slope = (math.cos(phi) * y - x0) / math.sin(phi)
        if step:
            before = history[0][0]
            # the step that led here, again with the slope at its end, which is kept as evaluated (PEC)
            y = origin + (phi - before) * _mean_slope([(phi, slope), *history], before, phi, orders + 1)
            if caution:
                errors = _prediction_errors(history, phi, slope, caution)
                orders = (errors.argmin(1) + 1).clamp(1, order)
            else:
                orders = torch.full_like(orders, order)
        history = [(phi, slope), *history][:order]
        origin, ahead = y, math.atan2(there.s, there.a)
        if ahead == 0 and phi > FAR:
            return x0
        y = y + (ahead - phi) * _mean_slope(history, phi, ahead, orders)
    return math.hypot(levels[-1].a, levels[-1].s) * y


def _mean_slope(history: Sequence[Estimate], start: float, end: float, orders: Tensor) -> Tensor:
    """The mean over [`start`, `end`] of a polynomial through each row's newest `orders` slopes; (B, …)."""
    places, slopes = zip(*history, strict=True)
    # row n − 1 holds the weights of order n, zero for the slopes that it leaves out; each image takes its row
    rules = torch.zeros(len(history), len(history), dtype=torch.float64)
    for count in range(1, len(history) + 1):
        moments = [1 / (k + 1) for k in range(count)]
        rules[count - 1, :count] = _rule(places[:count], start, end - start, moments)
    weights = rules.to(slopes[0].dtype).to(orders.device)[orders.clamp(max=len(history)) - 1]
    rows = (-1,) + (1,) * (slopes[0].ndim - 1)
    return sum((w.view(rows) * slope for w, slope in zip(weights.T, slopes, strict=True)), torch.zeros(()))


def _prediction_errors(history: Sequence[Estimate], phi: float, slope: Tensor, caution: float) -> Tensor:
    """How far polynomials through the newest 0, 1, 2, … slopes miss the new one, squared; (B, n + 1).

    Each distance counts `caution` times as much as that of one slope less.
    """
    guesses = [torch.zeros_like(slope)]  # no slope at all: that of normal data
    for count in range(1, len(history) + 1):
        places, slopes = zip(*history[:count], strict=True)
        # the moments 1, 0, 0, … are those of the value at `phi`: extrapolation
        at_phi = _rule(places, phi, places[0] - phi, [1.0] + [0.0] * (count - 1))
        guesses.append(weighted(at_phi.tolist(), slopes))
    errors = [
        caution ** (2 * i) * (slope - guess).square().flatten(1).sum(1) for i, guess in enumerate(guesses)
    ]
    return torch.stack(errors, dim=1)


def _rule(places: Sequence[float], origin: float, width: float, moments: Sequence[float]) -> Tensor:
    """Weights w at `places` with Σ w·uᵏ = moments[k], u = (place − `origin`)/`width`; (n,) float64."""
    powers = np.vander([(place - origin) / width for place in places], increasing=True).T
    return torch.from_numpy(np.linalg.solve(powers, moments))
