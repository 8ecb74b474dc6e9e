"""Motion modules (AnimateDiff, Guo et al. 2023): attention over the frames of a clip between the layers of a
UNet that knows single pictures.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import MotionAdapterConfig, UNetConfig
from sfumato.nets.circular import padded
from sfumato.nets.inputs import BlockInputs
from sfumato.nets.temporal import TemporalBlock, TemporalTransformer
from sfumato.nets.unet import Block, UNet


class FramePositions(nn.Module):
    """Which frame of the clip it is, as sinusoids (Vaswani et al. 2017, §3.5), under the published name."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.register_buffer("pe", _positions(frames, width)[None])

    def forward(self, h: Tensor) -> Tensor:
        """(B, F, C) to the same shape. Raises `ValueError` for more frames than there are positions."""
        pe: Tensor = self.get_buffer("pe")
        if h.shape[1] > pe.shape[1]:
            raise ValueError(f"{h.shape[1]} frames at once: these motion modules know {pe.shape[1]}")
        return h + pe[:, : h.shape[1]].to(h)


class MotionBlock(TemporalBlock):
    """A temporal block whose attentions are told which frame is which."""

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__(width, heads)
        self.pos_embed = FramePositions(width, frames)

    def numbered(self, h: Tensor) -> Tensor:
        numbered: Tensor = self.pos_embed(h)
        return numbered


class MotionModule(TemporalTransformer):
    """Every place of the picture attends to itself in the other frames; single pictures stay as they are.

    Its output projection begins at zero, with which it changes nothing.
    """

    def __init__(self, channels: int, groups: int, heads: int, depth: int, frames: int) -> None:
        blocks = (MotionBlock(channels, heads, frames) for _ in range(depth))
        super().__init__(channels, groups, channels, blocks)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B·F, C, H, W), the frames of a clip in a row, to the same shape."""
        return x if inputs.frames is None else super().forward(x, inputs)


class MotionModules(nn.Module):
    """The motion modules of one block of the UNet, under the published name."""

    def __init__(self, config: MotionAdapterConfig, level: int, count: int, depth: int) -> None:
        super().__init__()
        channels, heads = config.block_out_channels[level], config.heads[level]
        groups, frames = config.motion_norm_num_groups, config.motion_max_seq_length
        self.motion_modules = nn.ModuleList(
            MotionModule(channels, groups, heads, depth, frames) for _ in range(count)
        )


class PictureConv(nn.Conv2d):
    """PIA's first convolution, of which only what reads the picture is used: the UNet keeps its own for the
    noisy latent.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The last channels that it reads, (B, C, H, W), to (B, C_out, H, W), without the bias."""
        x, padding = padded(x, self.padding)
        return F.conv2d(x, self.weight[:, -x.shape[1] :], None, self.stride, padding)


class MotionAdapter(nn.Module):
    """The motion modules of every block of a UNet; `attach` puts them into one."""

    def __init__(self, config: MotionAdapterConfig) -> None:
        super().__init__()
        self.config = config
        counts, depths = config.layers, config.depths
        levels = range(len(counts))
        first = config.conv_in_channels
        self.conv_in = PictureConv(first, config.block_out_channels[0]) if first else None
        self.down_blocks = nn.ModuleList(
            MotionModules(config, level, counts[level], depths[level]) for level in levels
        )
        self.mid_block = MotionModules(config, -1, 1, 1) if config.use_motion_mid_block else None
        self.up_blocks = nn.ModuleList(
            MotionModules(config, level, counts[level] + 1, depths[level]) for level in reversed(levels)
        )

    @property
    def frames(self) -> int:
        """How many frames it knows at most."""
        return self.config.motion_max_seq_length

    def misfit(self, config: UNetConfig) -> str:
        """Why it does not go into a UNet of this kind; nothing if it does."""
        own = self.config
        if own.block_out_channels != config.block_out_channels:
            made, found = (
                "-".join(map(str, each)) for each in (own.block_out_channels, config.block_out_channels)
            )
            return f"its blocks are {made} channels wide, those of the model {found}"
        if own.layers != config.layers:
            return f"its blocks have {own.layers} motion modules, those of the model {config.layers} layers"
        reads = 2 * config.in_channels + 1
        if own.conv_in_channels not in (None, reads):
            return f"it reads {own.conv_in_channels} channels, and the model with a picture {reads}"
        if own.use_motion_mid_block and config.mid_block_type is None:
            return "it has a module for the middle block, which the model lacks"
        return ""

    def attach(self, unet: UNet) -> None:
        """Put the modules between the layers of `unet`, in place of those that are there.

        Raises `ValueError` where they do not fit.
        """
        if reason := self.misfit(unet.config):
            raise ValueError(reason)
        detach_motion(unet)
        blocks = [*zip(unet.down_blocks, self.down_blocks, strict=True)]
        blocks += zip(unet.up_blocks, self.up_blocks, strict=True)
        if self.mid_block is not None and unet.mid_block is not None:
            blocks.append((unet.mid_block, self.mid_block))
        for block, own in blocks:
            block.motion_modules = own.motion_modules
        if self.conv_in is not None:
            unet.picture_convs = (self.conv_in,)


def detach_motion(unet: UNet) -> None:
    """Take the motion modules out of `unet`."""
    for block in unet.modules():
        if isinstance(block, Block):
            block.motion_modules = nn.ModuleList()
    unet.picture_convs = ()


def _positions(frames: int, width: int) -> Tensor:
    """(F, C): sines and cosines of the frame's number in turns, each pair at a lower frequency."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
