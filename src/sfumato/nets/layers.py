"""What the convolutional networks are made of: residual blocks, changes of size, embedded numbers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sfumato.nets.circular import padded_behind
from sfumato.nets.inference import Conv, NormSiLU, UpsampleConv
from sfumato.nets.inputs import BlockInputs


class Checkpointed(nn.Module):
    """A part of a network that supports gradient checkpointing: less memory, more computation.

    Its layers' activations are dropped in the forward pass and computed again in the backward pass (Chen et
    al. 2016, §3).
    """

    checkpointing = False

    def checkpoint(self, layer: Callable[..., Tensor], *args: Any) -> Tensor:
        """`layer(*args)`."""
        if self.checkpointing and torch.is_grad_enabled():
            # nothing here is random, so that no state of a generator needs to be kept
            return checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False)
        return layer(*args)


def enable_checkpointing(net: nn.Module) -> None:
    """Turn on gradient checkpointing in every part of `net` that supports it."""
    for part in net.modules():
        if isinstance(part, Checkpointed):
            part.checkpointing = True


class ResnetBlock(nn.Module):
    """x + conv(norm(conv(norm(x)) + time)) (Rombach et al. 2022, after Dhariwal & Nichol 2021).

    `time_width` is 0 in the autoencoders, which know no time.
    """

    columns = slice(0)
    """Which columns of the time's projections are this block's; the UNet counts."""
    convolution: Callable[[int, int], Conv] = staticmethod(partial(Conv, kernel_size=3, padding=1))
    """Makes both convolutions, from the channels that they read and write."""

    def __init__(
        self, channels: int, out_channels: int, groups: int, eps: float, time_width: int = 0
    ) -> None:
        super().__init__()
        self.norm1 = NormSiLU(groups, channels, eps)
        self.conv1 = self.convolution(channels, out_channels)
        self.time_emb_proj = nn.Linear(time_width, out_channels) if time_width else None
        self.norm2 = NormSiLU(groups, out_channels, eps)
        self.conv2 = self.convolution(out_channels, out_channels)
        self.conv_shortcut = Conv(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor, inputs: BlockInputs | None = None) -> Tensor:
        """(B, C, H, W) to (B, C_out, H, W); the time's projection comes with `inputs`."""
        shift = None if inputs is None else inputs.time_shift(x, self.columns)
        h = self.conv1(self.norm1(x), shift=shift)
        return self.conv2(self.norm2(h), add=x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halve height and width, odd ones rounded up; rounded down where `padding` is 0, as autoencoders do."""

    def __init__(self, channels: int, padding: int = 1) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, ⌈H/2⌉, ⌈W/2⌉)."""
        if self.conv.padding == (0, 0):
            x = padded_behind(x)
        return self.conv(x)


class Upsample(nn.Module):
    """Repeat each pixel, then smooth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = UpsampleConv(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, *size), twice as large if no size is asked for."""
        return self.conv(x, size)


class TimeMLP(nn.Module):
    """Two layers that turn sinusoids into an embedding; `w_width` adds LCM's guidance to the sinusoids.

    Between the layers it is `hidden` wide, as wide as the embedding unless given, with a SiLU, or a `gelu`.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        w_width: int | None = None,
        hidden: int | None = None,
        *,
        gelu: bool = False,
    ) -> None:
        super().__init__()
        self.activation = F.gelu if gelu else F.silu
        self.linear_1 = nn.Linear(width, hidden or out_width)
        self.cond_proj = nn.Linear(w_width, width, bias=False) if w_width else None
        self.linear_2 = nn.Linear(hidden or out_width, out_width)

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """(R, width), and the guidance's sinusoids (R, w_width), to (R, out_width)."""
        if self.cond_proj is not None and w is not None:
            x = x + self.cond_proj(w)
        return self.linear_2(self.activation(self.linear_1(x)))


def sinusoids(t: Tensor, width: int, cosine_first: bool = False, shift: float = 1) -> Tensor:
    """Sines and cosines of t·10000^(−i / (width/2 − shift)), i < width/2 (Vaswani et al. 2017, §3.5).

    `t` (R,) to (R, width), in float32 whatever t's dtype.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - shift)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * exponents)
    waves = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
    return F.pad(torch.cat(waves, dim=1), (0, width % 2))
