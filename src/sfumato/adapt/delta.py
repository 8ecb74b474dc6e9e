"""What an adapter adds to the weight of one layer: the published ways of writing it with few numbers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.nets.circular import padded

MAGNITUDES = ("magnitude", "dora_scale")
SHIFTS = ("up_bias", "diff_b")


class Delta(nn.Module, ABC):
    """ΔW of one layer, s·P(parts), or where magnitudes m are among the parts m·V / ‖V‖ − W with V = W + s·P.

    The latter is DoRA (Liu et al. 2024, eq. 5). `parts` are its tensors by role, `scale` is s.
    """

    NEEDS: ClassVar[frozenset[str]]
    MAY: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, parts: Mapping[str, Tensor], scale: float = 1.0, trainable: bool = False) -> None:
        super().__init__()
        self.parts = nn.ParameterDict(
            {role: nn.Parameter(part, requires_grad=trainable) for role, part in parts.items()}
        )
        self.scale = scale

    @abstractmethod
    def product(self, device: torch.device) -> Tensor:
        """P in float32, (out, in) or in a convolution's shape, computed on `device`."""

    @property
    @abstractmethod
    def rank(self) -> int | None:
        """What alpha is divided by, where there is something."""

    def part(self, role: str, device: torch.device) -> Tensor:
        """One part in float32, on `device`."""
        return self._tensor(role).to(device).float()

    def _tensor(self, role: str) -> Tensor:
        found: Tensor = self.parts[role]
        return found

    def joined(self, a: str, b: str, core: str, *, device: torch.device) -> Tensor:
        """A B, or in Tucker's form where there is a core: parts a (r, out), b (r, in), core (r, r, h, w)."""
        one, two = self.part(a, device), self.part(b, device)
        return _tucker(self.part(core, device), one, two) if self.has(core) else one @ two

    def has(self, *roles: str) -> bool:
        """Whether any of the roles has a part."""
        return any(role in self.parts for role in roles)

    def change(self, weight: Tensor) -> Tensor:
        """ΔW in float32, for a layer whose weight is `weight` (out, in, …), in that shape and on its device.

        Raises `ValueError` where the parts do not make such a shape.
        """
        product = self.product(weight.device)
        if product.shape[0] != weight.shape[0] or product.numel() != weight.numel():
            raise ValueError(f"shape {list(product.shape)} where {list(weight.shape)} is due")
        change = self.scale * product.reshape(weight.shape)
        if not self.has(*MAGNITUDES):
            return change
        weight = weight.float()
        whole = weight + change
        magnitude, axis = self.magnitude(weight.shape)
        magnitude = magnitude.to(weight.device).float()
        others = [dim for dim in range(weight.ndim) if dim != axis]
        norm: Tensor = torch.linalg.vector_norm(whole.detach(), dim=others, keepdim=True)
        return magnitude / norm.clamp_min(torch.finfo(torch.float32).eps) * whole - weight

    def plainly_fits(self, shape: Sequence[int]) -> bool:
        """Whether `change` surely makes this shape, as far as that is told by sizes alone."""
        return False

    def magnitude(self, shape: Sequence[int]) -> tuple[Tensor, int]:
        """m, ready to be multiplied with a weight of this `shape`, and the dimension that it runs along.

        PEFT keeps one number for each output, of a convolution as (1, out, 1, 1). LyCORIS keeps either that
        as (out, 1, …), or one for each input as (1, in, …). Others write those flat, or turned over. Where a
        weight has as many outputs as inputs, the shape decides: a row is of inputs.
        Raises `ValueError` where it fits neither.
        """
        role = next(role for role in MAGNITUDES if self.has(role))
        magnitude, sizes = self._tensor(role), list(shape[:2])
        if magnitude.numel() not in sizes:
            raise ValueError(f"magnitudes of shape {list(magnitude.shape)} for a weight of {list(shape)}")
        of_convolution = role == "magnitude" and magnitude.ndim > 2
        is_row = magnitude.ndim > 1 and len(magnitude) == 1 and not of_convolution
        axis = int(is_row) if len(set(sizes)) == 1 else sizes.index(magnitude.numel())
        return magnitude.reshape([-1 if dim == axis else 1 for dim in range(len(shape))]), axis

    def shift(self, device: torch.device) -> Tensor | None:
        """What is added to the bias (out,), in float32 on `device`; mostly nothing."""
        if self.has("diff_b"):
            return self.part("diff_b", device)
        return self.scale * self.part("up_bias", device) if self.has("up_bias") else None


class LoRA(Delta):
    """B A, or with a convolution M between them in Tucker's form (LoRA: Hu et al. 2022, eq. 3)."""

    NEEDS = frozenset({"down", "up"})
    MAY = frozenset({"mid"})

    @property
    def rank(self) -> int:
        return len(self._tensor("down"))

    def product(self, device: torch.device) -> Tensor:
        down, up = (self.part(role, device).flatten(1) for role in ("down", "up"))
        if self.has("mid"):
            return _tucker(self.part("mid", device), up.mT, down)
        return up @ down

    def without_core(self) -> "LoRA":
        """The same of two factors alone: M is folded into A, in float32."""
        if not self.has("mid"):
            return self
        core, down = self._tensor("mid").float(), self._tensor("down").float().flatten(1)
        parts = {role: tensor for role, tensor in self.parts.items() if role != "mid"}
        return LoRA({**parts, "down": torch.einsum("ijhw,jc->ichw", core, down)}, self.scale)

    def plainly_fits(self, shape: Sequence[int]) -> bool:
        down, up = self._tensor("down").shape, self._tensor("up").shape
        if self.has("mid", *MAGNITUDES) or min(len(down), len(up)) < 2:
            return False
        return (
            up[0] == shape[0] and math.prod(up[1:]) == down[0] and math.prod(down[1:]) == math.prod(shape[1:])
        )

    def answer(
        self, layer: nn.Module, x: Tensor, factor: float = 1.0, padding: tuple[int, int] | None = None
    ) -> Tensor:
        """`factor`·s·B(A x), what a linear layer or convolution of x gains from it.

        `padding`: that of a convolution, with zeros; as the layer pads unless given.
        """
        dtype = torch.promote_types(x.dtype, self.parts["down"].dtype)
        down, up, *mid = (
            self.parts[role].to(x.device, dtype) for role in ("down", "up", "mid") if self.has(role)
        )
        x, up, factor = x.to(dtype), up.flatten(1), factor * self.scale
        up = up if factor == 1 else factor * up
        if not isinstance(layer, nn.Conv2d):
            return F.linear(F.linear(x, down.flatten(1)), up)
        if padding is None:
            x, padding = padded(x, layer.padding)
        if mid:
            # zeros beside x are zeros beside A x
            h = F.conv2d(x, down.flatten(1)[:, :, None, None])
            h = F.conv2d(h, mid[0], None, layer.stride, padding)
        else:
            kernel = down.reshape(len(down), layer.in_channels, *layer.kernel_size)
            h = F.conv2d(x, kernel, None, layer.stride, padding)
        return F.conv2d(h, up[:, :, None, None])


class LoHa(Delta):
    """(A₁ B₁) ∘ (A₂ B₂), each in Tucker's form where it has a core (LoHa: Hyeon-Woo et al. 2022, prop. 1)."""

    NEEDS = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
    MAY = frozenset({"hada_t1", "hada_t2"})

    @property
    def rank(self) -> int:
        return len(self._tensor("hada_w1_b"))

    def product(self, device: torch.device) -> Tensor:
        one, two = (self.joined(f"hada_w{i}_a", f"hada_w{i}_b", f"hada_t{i}", device=device) for i in (1, 2))
        if one.shape != two.shape:
            raise ValueError(f"factors of shapes {list(one.shape)} and {list(two.shape)}")
        return one * two


class LoKr(Delta):
    """C ⊗ D, either of which may be a product itself (LoKr: Yeh et al. 2024, §3.2)."""

    NEEDS = frozenset()
    MAY = frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"})

    @property
    def rank(self) -> int | None:
        found = (len(self._tensor(role)) for role in ("lokr_w1_b", "lokr_w2_b") if self.has(role))
        return next(found, None)

    def product(self, device: torch.device) -> Tensor:
        one, two = self._factor(1, device), self._factor(2, device)
        return torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two.contiguous())

    def _factor(self, i: int, device: torch.device) -> Tensor:
        whole, a, b = f"lokr_w{i}", f"lokr_w{i}_a", f"lokr_w{i}_b"
        if self.has(whole):
            return self.part(whole, device)
        if not (self.has(a) and self.has(b)):
            raise ValueError(f"{whole}, or both {a} and {b}, are missing")
        return self.joined(a, b, f"lokr_t{i}", device=device)


class Diff(Delta):
    """The change itself."""

    NEEDS = frozenset({"diff"})
    rank = None

    def product(self, device: torch.device) -> Tensor:
        return self.part("diff", device)


def merged(
    weight: Tensor, bias: Tensor | None, deltas: Iterable[tuple[float, Delta]]
) -> tuple[Tensor, Tensor | None]:
    """W + Σ wᵢ ΔWᵢ, computed in float32 and rounded once to the weight's dtype, and the bias likewise."""
    whole, moved = weight.float(), None if bias is None else bias.float()
    for factor, delta in deltas:
        whole = whole + factor * delta.change(weight)
        if moved is not None and (shift := delta.shift(weight.device)) is not None:
            moved = moved + factor * shift
    return whole.to(weight.dtype), moved if bias is None or moved is None else moved.to(bias.dtype)


KINDS: tuple[type[Delta], ...] = (LoRA, LoHa, LoKr, Diff)


def kind_of(roles: frozenset[str]) -> type[Delta]:
    """The kind of change that parts of these roles write. Raises `ValueError` where they do not make one."""
    if roles >= set(MAGNITUDES):
        raise ValueError(f"it has both {' and '.join(MAGNITUDES)}")
    roles -= {*MAGNITUDES, *SHIFTS}
    for kind in KINDS:
        if roles and kind.NEEDS <= roles <= kind.NEEDS | kind.MAY:
            return kind
    begun = [kind for kind in KINDS if roles & kind.NEEDS and roles <= kind.NEEDS | kind.MAY]
    if begun:
        raise ValueError(f"{', '.join(sorted(begun[0].NEEDS - roles))} is missing")
    raise ValueError(f"{', '.join(sorted(roles)) or 'no change of the weight'} is not a known form")


def scale_of(alpha: float | None, rank: int | None, rank_stabilised: bool = False) -> float:
    """alpha / rank (Hu et al. 2022, §4.1), or alpha / √rank (Kalajdzievski 2023); 1 where either is missing.

    Raises `ValueError` for a rank of 0.
    """
    if rank == 0:
        raise ValueError("its rank is 0")
    if alpha is None or rank is None:
        return 1.0
    return alpha / (math.sqrt(rank) if rank_stabilised else rank)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ core_ijhw·a_io·b_jc: (r, r, h, w), (r, out) and (r, in) to (out, in, h, w)."""
    if core.shape[:2] != (len(a), len(b)):
        raise ValueError(f"a core of shape {list(core.shape)} between ranks {len(a)} and {len(b)}")
    return torch.einsum("ijhw,io,jc->ochw", core, a, b)
