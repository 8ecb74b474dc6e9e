"""ControlNet (Zhang et al. 2023): a second way down, which reads a picture too and adds to a UNet's skips."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import ControlNetConfig
from sfumato.nets.inference import Conv
from sfumato.nets.inputs import BlockInputs, SizeConditioning, TextKV
from sfumato.nets.network import Residuals
from sfumato.nets.unet import Encoder

GAIN = 1.8
"""Of a convolution and SiLU, which about halves small numbers, that keep the size of their input."""


@dataclass(frozen=True, eq=False)
class ControlNetInputs:
    """What a ControlNet is given for one row besides the noisy latent and its time."""

    condition: Tensor
    """(1, C, h, w): its picture, as `ControlNet.embed` makes it."""
    context: TextKV
    size: SizeConditioning | None = None
    """SDXL's."""

    def within(self, cut: Callable[[Tensor], Tensor]) -> "ControlNetInputs":
        """The same for a part of the latent."""
        return replace(self, condition=cut(self.condition))


class ConditionEmbedding(nn.Module):
    """Convolutions that bring a picture to the size and width of the latent's first features."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        widths = config.conditioning_embedding_out_channels
        self.conv_in = Conv(config.conditioning_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for here, below in pairwise(widths):
            self.blocks.append(Conv(here, here, 3, padding=1))
            self.blocks.append(Conv(here, below, 3, padding=1, stride=2))
        self.conv_out = Conv(widths[-1], config.block_out_channels[0], 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """(R, 3, H, W) to (R, C, h, w), halved after each width but the last."""
        h = F.silu(self.conv_in(picture))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)

    def reset(self) -> None:
        """Random weights under which a picture of edges counts about as much as the noisy latent does.

        With torch's own, its features fade away from layer to layer.
        """
        for layer in (self.conv_in, *self.blocks, self.conv_out):
            nn.init.normal_(layer.weight, std=GAIN / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(layer.bias)


class ControlNet(Encoder):
    """Answers with residuals for a UNet of the same widths."""

    config: ControlNetConfig

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config)
        self.controlnet_cond_embedding = ConditionEmbedding(config)
        self.controlnet_down_blocks = nn.ModuleList(Conv(width, width, 1) for width in config.skip_channels)
        deepest = config.block_out_channels[-1]
        self.controlnet_mid_block = Conv(deepest, deepest, 1)
        self.count_blocks()

    def zero_outputs(self) -> None:
        """Have it add nothing, as before training: its last convolutions become zeros (§3.1)."""
        for last in (*self.controlnet_down_blocks, self.controlnet_mid_block):
            for weight in last.parameters():
                nn.init.zeros_(weight)

    def embed(self, picture: Tensor) -> Tensor:
        """Pictures (R, 3, H, W) in [0, 1] made ready once for all steps: (R, C, h, w)."""
        if self.config.controlnet_conditioning_channel_order == "bgr":
            picture = picture.flip(1)
        return self.controlnet_cond_embedding(picture)

    def encoded(self, x: Tensor, time: Tensor, context: TextKV, condition: Tensor) -> Residuals:
        """Residuals for noisy latents `x` (R, C, h, w), with `time` (R, E) of `embed_time`."""
        inputs = BlockInputs(time, time, context)
        skips, mid = self.encode(self.conv_in(x, add=condition), inputs)
        outputs = zip(self.controlnet_down_blocks, skips, strict=True)
        return Residuals(tuple(last(skip) for last, skip in outputs), self.controlnet_mid_block(mid))

    def residuals(self, x: Tensor, t: Tensor, inputs: Sequence[ControlNetInputs]) -> Residuals:
        """Residuals for latents `x` (R, C, h, w) at times `t` (R,), each row under its own of `inputs`."""
        sizes = [each.size for each in inputs if each.size is not None]
        size = None
        if sizes:
            size = SizeConditioning(
                torch.cat([each.pooled for each in sizes]), torch.cat([each.ids for each in sizes])
            )
        context = TextKV.cat([each.context for each in inputs])
        condition = torch.cat([each.condition for each in inputs])
        return self.encoded(x, self.embed_time(t, size), context, condition)

    def forward(
        self, x: Tensor, t: Tensor, states: Tensor, picture: Tensor, size: SizeConditioning | None = None
    ) -> Residuals:
        """Of `x` (R, C, h, w), times `t` (R,), text `states` (R, T, D), pictures (R, 3, H, W) in [0, 1]."""
        return self.encoded(x, self.embed_time(t, size), self.context(states), self.embed(picture))
