"""Noise between noises: from one picture's to another's, on the sphere that noise lies on."""

import math
from collections.abc import Sequence

from torch import Tensor

from sfumato.diffusion.sampling import SeededNoise


def slerp(a: Tensor, b: Tensor, amount: float) -> Tensor:
    """Spherical interpolation from `a` to `b` (1, …) by `amount`, 0 to 1 (Shoemake 1985).

    Noise in between has the spread of noise. The ends are `a` and `b` to the bit. Of nearly parallel tensors
    it is linear.
    """
    if amount in (0, 1):
        return b if amount else a
    u, v = a.flatten().double(), b.flatten().double()
    cosine = float((u @ v) / (u.norm() * v.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-4:
        return (1 - amount) * a + amount * b
    return (
        math.sin((1 - amount) * angle) / math.sin(angle) * a + math.sin(amount * angle) / math.sin(angle) * b
    )


def varied(eps: Tensor, seeds: Sequence[int], amounts: Sequence[float]) -> Tensor:
    """Noise `eps` (1, …) with that of each of `seeds` mixed in by its amount, one after another."""
    for seed, amount in zip(seeds, amounts, strict=True):
        eps = slerp(eps, SeededNoise([seed])(eps), amount)
    return eps
