"""Low-rank mathematics: products of two factors added up exactly, and the nearest of a smaller rank.

By Eckart and Young (1936) the nearest matrix of rank r, in the Frobenius norm, keeps the r largest singular
values; what is lost is the root of the sum of squares of the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.adapt.delta import LoRA
from sfumato.errors import UsageError, nearest
from sfumato.names import RANK_METHODS

_NEGLIGIBLE = 1e-6
"""Singular values below this share of the first are rounding errors."""


@dataclass(frozen=True)
class RankChoice:
    """Which rank a layer gets: at most `rank`, of 3 × 3 convolutions `conv_rank` (`rank` if `None`).

    `dynamic`, with `value` v: "sv_ratio" keeps singular values above σ₁ / v (v ≥ 1), "sv_fro" as many as have
    the share v of the Frobenius norm, "sv_cumulative" as many as have the share v of the sum (0 < v ≤ 1).
    Raises `UsageError` for a rank below 1, an unknown method, and a value out of range.
    """

    rank: int | None = None
    conv_rank: int | None = None
    dynamic: str | None = None
    value: float = 1.0

    def __post_init__(self) -> None:
        for name, rank in (("rank", self.rank), ("the rank of convolutions", self.conv_rank)):
            if rank is not None and rank < 1:
                raise UsageError(f"{name} is {rank}: must be 1 or more")
        if self.rank is None and self.conv_rank is not None:
            raise UsageError("the rank of convolutions is given, and no rank of the other layers")
        if self.dynamic is None:
            return
        if self.dynamic not in RANK_METHODS:
            raise UsageError(
                f"unknown way to choose a rank {self.dynamic!r}; {nearest(self.dynamic, RANK_METHODS)}"
            )
        low, high = (1.0, math.inf) if self.dynamic == "sv_ratio" else (0.0, 1.0)
        if not math.isfinite(self.value) or not low <= self.value <= high or self.value == 0:
            limits = "a number from 1" if self.dynamic == "sv_ratio" else "above 0 and at most 1"
            raise UsageError(f"{self.dynamic} is {self.value:g}: must be {limits}")

    def most(self, shape: Sequence[int]) -> int | None:
        """The largest rank of a layer whose weight has this `shape`; `None` where nothing limits it."""
        is_convolution = math.prod(shape[2:]) > 1
        return self.conv_rank if is_convolution and self.conv_rank is not None else self.rank

    def of(self, singular_values: Tensor, shape: Sequence[int]) -> int:
        """The rank of a layer with these singular values (n,), the largest first: 1 or more."""
        if not singular_values.any():
            return 1
        kept = total = int((singular_values > _NEGLIGIBLE * singular_values[0]).sum())
        if self.dynamic == "sv_ratio":
            kept = int((singular_values > singular_values[0] / self.value).sum())
        elif self.dynamic is not None:
            power = 2 if self.dynamic == "sv_fro" else 1
            sums = singular_values.double().pow(power).cumsum(0)
            kept = 1 + int(torch.searchsorted(sums, self.value**power * sums[-1] * (1 - 1e-12)))
        return max(1, min(kept, self.most(shape) or total, total))


@dataclass(frozen=True)
class Truncated:
    """A matrix of rank r as `up` (out, r) and `down` (r, in), and how much of the original norm that is.

    `norm` and `lost` are Frobenius norms: of the original, and of the difference.
    """

    up: Tensor
    down: Tensor
    norm: float
    lost: float

    @property
    def rank(self) -> int:
        """r."""
        return len(self.down)

    def delta(self, shape: Sequence[int], dtype: torch.dtype) -> LoRA:
        """The same as the change of a layer with a weight of this `shape`, with alpha = rank."""
        up = self.up.reshape(shape[0], -1, *[1] * (len(shape) - 2))
        return LoRA({"up": up.to(dtype), "down": self.down.reshape(-1, *shape[1:]).to(dtype)})


def truncated(matrix: Tensor | tuple[Tensor, Tensor], choice: RankChoice, shape: Sequence[int]) -> Truncated:
    """The nearest to `matrix` (out, in), or to the product of its factors (out, R) and (R, in), by `choice`.

    Both factors of the result have the same norm, which half precision needs. `shape`: of the layer's weight.
    """
    left = right = None
    if isinstance(matrix, tuple):
        up, down = matrix
        if up.shape[1] < min(up.shape[0], down.shape[1]):
            # U Σ Vᵀ of R_b R_aᵀ, for B = Q_b R_b and Aᵀ = Q_a R_a, is the one of B A between Q_b and Q_aᵀ
            left, core_left = torch.linalg.qr(up)
            right, core_right = torch.linalg.qr(down.mT)
            matrix = core_left @ core_right.mT
        else:
            matrix = up @ down
    u, singular_values, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = choice.of(singular_values, shape)
    roots = singular_values[:rank].sqrt()
    u, vh = u[:, :rank] * roots, roots[:, None] * vh[:rank]
    return Truncated(
        up=u if left is None else left @ u,
        down=vh if right is None else vh @ right.mT,
        norm=float(torch.linalg.vector_norm(singular_values)),
        lost=float(torch.linalg.vector_norm(singular_values[rank:])),
    )


def factors(delta: LoRA, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """weight·ΔW as B (out, R) and A (R, in) in float32, its scale divided evenly between them."""
    plain = delta.without_core()
    scale = weight * delta.scale
    root = math.sqrt(abs(scale))
    up, down = (plain.part(role, torch.device("cpu")).flatten(1) for role in ("up", "down"))
    return math.copysign(root, scale) * up, root * down


def summed(terms: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The sum of some products as one product, exactly: the factors side by side."""
    return torch.cat([up for up, _ in terms], dim=1), torch.cat([down for _, down in terms])
