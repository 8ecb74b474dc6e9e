"""Guidance: a guided estimate is Σ w_k(level, step)·x0_k, one term for each conditioning.

Weights that sum to 1 mix clean estimates exactly as they would mix noise estimates, on every path and for
every prediction. A term whose weight is zero at a point need not be evaluated there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.level import Level

Weight = float | Tensor
"""A number, or a mask that broadcasts over the latent (B, C, H, W)."""


class Guidance(Protocol):
    """How the estimates of several conditionings become one."""

    def weights(self, level: Level, step: int) -> tuple[Weight, ...]:
        """One weight for each conditioning, in their order, at `level` in the drawing's step from 0."""
        ...

    def combine(self, estimates: Sequence[Tensor | None], weights: Sequence[Weight]) -> Tensor:
        """One clean estimate (B, C, H, W); `None` stands for a term that was not evaluated."""
        ...


def weighted_sum(estimates: Sequence[Tensor | None], weights: Sequence[Weight]) -> Tensor:
    """Σ w_k·x0_k over the terms that were evaluated."""
    terms = [
        estimate if isinstance(weight, float) and weight == 1 else weight * estimate
        for estimate, weight in zip(estimates, weights, strict=True)
        if estimate is not None
    ]
    if not terms:
        raise ValueError("every term of the guidance has weight zero")
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


@dataclass(frozen=True)
class Unguided:
    """The prompt alone: one conditioning of weight 1."""

    def weights(self, level: Level, step: int = 0) -> tuple[Weight, ...]:
        return (1.0,)

    def combine(self, estimates: Sequence[Tensor | None], weights: Sequence[Weight]) -> Tensor:
        return weighted_sum(estimates, weights)


@dataclass(frozen=True)
class ClassifierFree:
    """ε̂ = ε(∅) + γ·(ε(c) − ε(∅)) (Ho & Salimans 2022, eq. 6): weights (γ, 1 − γ) over prompt and negative.

    `interval`: guide only where low ≤ σ = s/a ≤ high (Kynkäänniemi et al. 2024), elsewhere the prompt alone.
    `rescale`: φ in [0, 1], how far the guided estimate's spread is pulled back to the prompt's own
    (Lin et al. 2023, eq. 14–16, here on x0).
    """

    scale: float
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def weights(self, level: Level, step: int = 0) -> tuple[Weight, ...]:
        low, high = self.interval
        return (self.scale, 1 - self.scale) if low <= level.sigma <= high else (1.0, 0.0)

    def combine(self, estimates: Sequence[Tensor | None], weights: Sequence[Weight]) -> Tensor:
        guided = weighted_sum(estimates, weights)
        prompt = estimates[0]
        if not self.rescale or prompt is None or guided is prompt:
            return guided
        return _rescaled(guided, prompt, self.rescale)


@dataclass(frozen=True)
class WeightedTerm:
    """How much one conditioning counts: `weight`, in the steps that `steps` names or in all."""

    weight: Weight = 1.0
    steps: frozenset[int] | None = None

    def at(self, step: int) -> Weight:
        """The weight in one step."""
        return self.weight if self.steps is None or step in self.steps else 0.0


@dataclass(frozen=True, eq=False)
class ComposableGuidance:
    """ε̂ = ε(∅) + γ·Σ w_k (ε(c_k) − ε(∅)) (Liu et al. 2022, eq. 11), each w_k a number or a mask.

    `prompts` come first among the conditionings, then `negatives`, whose shares are made to sum to 1 and
    together stand for ∅. `scale`, `interval` and `rescale` are those of `ClassifierFree`; the prompts' own
    spread, for `rescale`, is that of Σ w_k·x0_k / Σ w_k.
    """

    scale: float
    prompts: tuple[WeightedTerm, ...]
    negatives: tuple[WeightedTerm, ...]
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def weights(self, level: Level, step: int = 0) -> tuple[Weight, ...]:
        low, high = self.interval
        scale = self.scale if low <= level.sigma <= high else 1.0
        prompts = [share.at(step) for share in self.prompts]
        negatives = [share.at(step) for share in self.negatives]
        rest, whole = 1 - scale * _total(prompts), _total(negatives)
        return (*(scale * weight for weight in prompts), *(rest * (weight / whole) for weight in negatives))

    def combine(self, estimates: Sequence[Tensor | None], weights: Sequence[Weight]) -> Tensor:
        guided = weighted_sum(estimates, weights)
        count = len(self.prompts)
        whole = _total(weights[:count])
        if not self.rescale or not bool(torch.as_tensor(whole != 0).all()):
            return guided
        return _rescaled(guided, weighted_sum(estimates[:count], weights[:count]) / whole, self.rescale)


def _total(weights: Sequence[Weight]) -> Weight:
    """Their sum; a mask that is 1 everywhere counts as the number 1, so that a term of weight 0 is seen."""
    total: Weight = 0.0
    for weight in weights:
        total = total + weight
    if isinstance(total, Tensor) and bool(((total - 1).abs() < 1e-6).all()):
        return 1.0
    return total


def _rescaled(guided: Tensor, prompt: Tensor, share: float) -> Tensor:
    """`guided` with its spread brought towards that of `prompt`, `share` of the way."""
    axes = tuple(range(1, guided.ndim))
    ratio = prompt.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (share * ratio + 1 - share)
