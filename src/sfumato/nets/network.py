"""What a denoising network is to everything outside `nets`: three functions, whatever it is built of.

What depends on the prompt alone is computed once a prompt, what depends on the level once a level, and the
rest at every step. A UNet, a transformer (MMDiT) and a video UNet are three networks behind this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from sfumato.nets.feature_cache import DeepFeatures
from sfumato.nets.inputs import SizeConditioning


class Context(Protocol):
    """What a network keeps of the prompts of R rows, such as keys and values."""

    @property
    def group(self) -> Any:
        """Contexts of equal groups can be joined by `cat`."""
        ...

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """All rows of all `parts`, in their order."""
        ...

    def mixed(self, shares: Tensor) -> Self:
        """A row for each of F frames of a clip: its R rows by their `shares` (F, R)."""
        ...

    def with_images(self, images: Sequence[Any]) -> Self:
        """The same with image prompts, where the network takes them."""
        ...


@dataclass(frozen=True, eq=False)
class Residuals:
    """What networks beside the denoiser add to it.

    A ControlNet (Zhang et al. 2023) adds to what the way down hands to the way up, a T2I-Adapter (Mou et al.
    2023) within the way down.
    """

    skips: tuple[Tensor, ...] = ()
    """(R, C, H, W) each, in the order of the way down: one for each skip, or none at all."""
    mid: Tensor | None = None
    """(R, C, H, W): for the deepest part."""
    features: tuple[Tensor, ...] = ()
    """(R, C, H, W) each: one for each level of the way down, and where there is one more the deepest part."""

    @classmethod
    def total(cls, parts: Sequence["Residuals"]) -> "Residuals":
        """The sum of what several networks add to the same rows."""
        mids = [part.mid for part in parts if part.mid is not None]
        return cls(
            _sums([part.skips for part in parts if part.skips]),
            sum(mids[1:], mids[0]) if mids else None,
            _sums([part.features for part in parts if part.features]),
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> "Residuals":
        """Every tensor changed so."""
        mid = None if self.mid is None else change(self.mid)
        return Residuals(tuple(map(change, self.skips)), mid, tuple(map(change, self.features)))


def _sums(parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Their sum, tensor by tensor."""
    return tuple(sum(each[1:], each[0]) for each in zip(*parts, strict=True))


class ControlNetwork(Protocol):
    """A network beside the denoiser, such as a ControlNet."""

    def residuals(self, x: Tensor, t: Tensor, inputs: Sequence[Any]) -> Residuals:
        """What it adds to the denoiser's answers to `x` (R, C, …), as the denoiser reads them, at times `t`
        (R,): each row under its own of `inputs`, a picture and a text made ready for it.
        """
        ...


@dataclass(frozen=True, eq=False)
class AppliedControl:
    """A network beside the denoiser and what it is given for one row; how much it counts, and in which steps.

    `steps`: the intervals between levels in which it is asked; all if `None`.
    """

    network: ControlNetwork
    inputs: Any
    weight: float = 1.0
    steps: range | None = None

    def counts_in(self, step: int) -> bool:
        """Whether it is asked in this step."""
        return bool(self.weight) and (self.steps is None or step in self.steps)

    def within(self, cut: Callable[[Tensor], Tensor]) -> "AppliedControl":
        """It for a part of the latent, which `cut` takes out of what lies over the latent (…, H, W)."""
        inputs = self.inputs
        own = tuple(map(cut, inputs)) if isinstance(inputs, tuple) else inputs.within(cut)
        return replace(self, inputs=own)


@dataclass(frozen=True, eq=False)
class AppliedImage:
    """An image prompt as the network's context takes it, of one row, and in which steps it counts.

    `steps`: the intervals between levels in which it does; all if `None`.
    """

    prompt: Any
    steps: range | None = None

    def counts_in(self, step: int) -> bool:
        """Whether it counts in this step."""
        return self.steps is None or step in self.steps


class Network(Protocol):
    """A denoising network, in three functions."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        ...

    @property
    def reads_guidance(self) -> bool:
        """Whether it is told the guidance scale, which it has learned (guidance distillation)."""
        ...

    def context(self, states: Tensor) -> Any:
        """The `Context` of text `states` (R, T, D)."""
        ...

    def embed_time(
        self, t: Tensor, size: SizeConditioning | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """The time embedding (R, E) of times `t` (R,), and of all else that enters with the time.

        `guidance` (R,): the scale itself, for networks that read it.
        """
        ...

    def denoise(
        self,
        x: Tensor,
        time: Tensor,
        context: Any,
        rows: Tensor | None = None,
        *,
        slices: int | None = None,
        residuals: Residuals | None = None,
        deep: DeepFeatures | None = None,
        token_merging: float = 0.0,
    ) -> Tensor:
        """The network's answer for R rows of `context`, (R, C_out, …), to P noisy latents `x` (P, C, …).

        `time` (P, E), from `embed_time`. `rows` (R,) says which of the P latents each row belongs to; without
        it R = P. `slices` bounds the memory of attention. `residuals` of R rows need R = P. `deep` is given
        the deeper layers' features, or has them. `token_merging`: the share of places that self-attention
        merges.
        """
        ...
