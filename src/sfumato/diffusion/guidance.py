"""Guidance: a guided estimate is Σ w_k·x0_k, one term for each conditioning.

Weights that sum to 1 mix clean estimates exactly as they would mix noise estimates, on every path and for
every prediction. A term whose weight is zero at a point is not evaluated there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from sfumato.diffusion.sampling import Point

Weight = float | Tensor
"""A number, or a mask that broadcasts over the latent (B, C, H, W)."""
MAIN = "main"
"""The network that a term asks unless it names another."""


@dataclass(frozen=True, eq=False)
class Term:
    """One term of the sum: `weight` times the estimate of `network` under `conditioning`.

    `conditioning` is what that network reads, such as a `sfumato.nets.denoiser.Conditioning`. `conditional`:
    whether it stands for the prompt, not for what guidance leads away from.
    """

    conditioning: Any
    weight: Weight = 1.0
    network: str = MAIN
    conditional: bool = True

    @property
    def is_zero(self) -> bool:
        """Whether it adds nothing anywhere, so that it need not be evaluated."""
        return not isinstance(self.weight, Tensor) and self.weight == 0


Estimate = tuple[Term, Tensor]
"""A term, and the clean estimate (B, C, H, W) that its network gave."""


class Guidance(Protocol):
    """How the estimates of several conditionings become one."""

    def terms(self, point: Point) -> Sequence[Term]:
        """The terms at `point`; those of weight zero are not evaluated."""
        ...

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        """One clean estimate (B, C, H, W) at `point` from those of the terms that were evaluated."""
        ...


def active_terms(guidance: Guidance, point: Point) -> list[Term]:
    """The terms at `point` that are to be evaluated."""
    return [term for term in guidance.terms(point) if not term.is_zero]


def weighted_sum(estimates: Sequence[Estimate]) -> Tensor:
    """Σ w_k·x0_k over the terms that were evaluated. Raises `ValueError` without any."""
    parts = [
        x0 if not isinstance(term.weight, Tensor) and term.weight == 1 else term.weight * x0
        for term, x0 in estimates
    ]
    if not parts:
        raise ValueError("every term of the guidance has weight zero")
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False)
class WeightedConditioning:
    """One conditioning and how much it counts: `weight`, in the steps that `steps` names or in all."""

    conditioning: Any
    weight: Weight = 1.0
    steps: frozenset[int] | None = None

    def at(self, step: int) -> Weight:
        """The weight in one step."""
        return self.weight if self.steps is None or step in self.steps else 0.0


@dataclass(frozen=True, eq=False)
class ClassifierFreeGuidance:
    """ε̂ = ε(∅) + γ·Σ w_k (ε(c_k) − ε(∅)), of one prompt (Ho & Salimans 2022, eq. 6) or several (Liu et al.
    2022, eq. 11), each w_k a number or a mask.

    The weights of `negatives` are made to sum to 1; together they stand for ∅. `scale`: γ; 1 is the prompts
    alone. It may be a tensor that broadcasts over the latent, as one number for each frame does. `interval`:
    guide only where low ≤ σ = s/a ≤ high (Kynkäänniemi et al. 2024), elsewhere as with scale 1. `rescale`: φ
    in [0, 1], how far the guided estimate's spread is pulled back to that of the prompts' own, Σ w_k·x0_k /
    Σ w_k (Lin et al. 2023, eq. 14–16, here on x0).
    """

    prompts: tuple[WeightedConditioning, ...]
    negatives: tuple[WeightedConditioning, ...] = ()
    scale: Weight = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    @classmethod
    def of(cls, prompt: Any, negative: Any = None, scale: Weight = 1.0, **more: Any) -> Self:
        """Of one prompt's conditioning and, unless `scale` is 1, that of a negative or an empty prompt."""
        negatives = () if negative is None else (WeightedConditioning(negative),)
        return cls((WeightedConditioning(prompt),), negatives, scale, **more)

    def terms(self, point: Point) -> list[Term]:
        low, high = self.interval
        scale = self.scale if low <= point.level.sigma <= high else 1.0
        weights = [each.at(point.step) for each in self.prompts]
        opposite = [each.at(point.step) for each in self.negatives]
        rest, whole = 1 - scale * _total(weights), _total(opposite)
        return [
            *(Term(each.conditioning, scale * w) for each, w in zip(self.prompts, weights, strict=True)),
            *(
                Term(each.conditioning, rest * (w / whole), conditional=False)
                for each, w in zip(self.negatives, opposite, strict=True)
            ),
        ]

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        guided = weighted_sum(estimates)
        prompts = [(term, x0) for term, x0 in estimates if term.conditional]
        if not self.rescale or len(prompts) == len(estimates) == 1:
            return guided
        if len(prompts) == 1 and not isinstance(prompts[0][0].weight, Tensor):
            return _rescaled(guided, prompts[0][1], self.rescale)
        whole = _total([term.weight for term, _ in prompts])
        if not bool(torch.as_tensor(whole != 0).all()):
            return guided
        return _rescaled(guided, weighted_sum(prompts) / whole, self.rescale)


@dataclass(frozen=True, eq=False)
class ImageGuidance:
    """ε̂ = ε(∅, ∅) + γ_I·(ε(∅, I) − ε(∅, ∅)) + γ·(ε(c, I) − ε(∅, I)), of a text c and a picture I (Brooks et
    al. 2023, eq. 3).

    `text`: the guidance by the text, all of whose conditionings hold the picture. `without`: its negatives
    without the picture, (∅, ∅). `scale`: γ_I; 1 is `text` alone.
    """

    text: ClassifierFreeGuidance
    without: tuple[WeightedConditioning, ...]
    scale: float = 1.0

    def terms(self, point: Point) -> list[Term]:
        extra = self.scale - 1
        shares = [each.at(point.step) for each in self.text.negatives]
        whole = _total(shares)
        more = [
            Term(each.conditioning, sign * extra * (share / whole), conditional=False)
            for sign, each_of in ((1, self.text.negatives), (-1, self.without))
            for each, share in zip(each_of, shares, strict=True)
        ]
        return _merged([*self.text.terms(point), *more])

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        return self.text.combine(point, estimates)


@dataclass(frozen=True, eq=False)
class InversionGuidance:
    """`inversion` for the points of an inversion, whose steps are negative (`diffusion.inversion`), and
    `drawing` for all others.
    """

    drawing: Guidance
    inversion: Guidance

    def terms(self, point: Point) -> Sequence[Term]:
        return self._of(point).terms(_interval(point))

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        return self._of(point).combine(_interval(point), estimates)

    def _of(self, point: Point) -> Guidance:
        return self.inversion if point.step < 0 else self.drawing


@dataclass(frozen=True, eq=False)
class SizedGuidance:
    """Of a drawing in passes of different sizes: each point by the guidance for the size ((F,) H, W) of its
    latent.
    """

    sizes: Mapping[tuple[int, ...], Guidance]

    def terms(self, point: Point) -> Sequence[Term]:
        return self._of(point).terms(point)

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        return self._of(point).combine(point, estimates)

    def _of(self, point: Point) -> Guidance:
        return self.sizes[tuple(point.x.shape[2:])]


def _interval(point: Point) -> Point:
    """The point with the number of its interval between levels for a step."""
    return replace(point, step=-1 - point.step) if point.step < 0 else point


def _merged(terms: Sequence[Term]) -> list[Term]:
    """`terms`, those of one conditioning made one."""
    merged: dict[int, Term] = {}
    for term in terms:
        same = merged.get(id(term.conditioning))
        merged[id(term.conditioning)] = (
            term if same is None else replace(same, weight=same.weight + term.weight)
        )
    return list(merged.values())


def _total(weights: Sequence[Weight]) -> Weight:
    """Their sum; a mask that is 1 everywhere counts as the number 1, so that a term of weight 0 is seen."""
    total: Weight = 0.0
    for weight in weights:
        total = total + weight
    if isinstance(total, Tensor) and bool(((total - 1).abs() < 1e-6).all()):
        return 1.0
    return total


def _rescaled(guided: Tensor, prompt: Tensor, amount: float) -> Tensor:
    """`guided` with its spread brought towards that of `prompt`, `amount` of the way."""
    axes = tuple(range(1, guided.ndim))
    ratio = prompt.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (amount * ratio + 1 - amount)
