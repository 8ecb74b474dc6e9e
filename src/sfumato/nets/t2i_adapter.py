"""T2I-Adapter (Mou et al. 2023): features of a picture, which are added to those of the UNet's way down."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import T2IAdapterConfig
from sfumato.config.t2i_adapter import LIGHT
from sfumato.nets.inference import Conv
from sfumato.nets.network import Residuals


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))); the second convolution is of 1 × 1, and of 3 × 3 in a light adapter."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.block1 = Conv(channels, channels, 3, padding=1)
        self.block2 = Conv(channels, channels, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.block2(self.block1(x, relu=True), add=x)


class FullBlock(nn.Module):
    """The residual blocks of one feature, at its number of channels."""

    def __init__(self, channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        self.in_conv = Conv(channels, out_channels, 1) if channels != out_channels else None
        self.resnets = nn.ModuleList(ResidualBlock(out_channels, 1) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C_out, H, W)."""
        if self.in_conv is not None:
            x = self.in_conv(x)
        for resnet in self.resnets:
            x = resnet(x)
        return x


class LightBlock(nn.Module):
    """The same at a quarter of its number of channels."""

    def __init__(self, channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        narrow = out_channels // 4
        self.in_conv = Conv(channels, narrow, 1)
        self.resnets = nn.ModuleList(ResidualBlock(narrow, 3) for _ in range(count))
        self.out_conv = Conv(narrow, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C_out, H, W)."""
        x = self.in_conv(x)
        for resnet in self.resnets:
            x = resnet(x)
        return self.out_conv(x)


class Body(nn.Module):
    """The layers, under the published name."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        pixels = config.in_channels * config.downscale_factor**2
        light = config.adapter_type == LIGHT
        first = pixels if light else config.channels[0]
        self.conv_in = None if light else Conv(pixels, first, 3, padding=1)
        widths = zip((first, *config.widths), config.widths, strict=False)
        make = LightBlock if light else FullBlock
        self.body = nn.ModuleList(make(*pair, config.num_res_blocks) for pair in widths)


class T2IAdapter(nn.Module):
    """A picture's features, which do not depend on the time: computed once for a drawing."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = Body(config)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' own."""
        return next(self.parameters()).dtype

    def residuals(self, x: Tensor, t: Tensor, inputs: Sequence[tuple[Tensor, ...]]) -> Residuals:
        """What it adds to each row: its own of `inputs`, features (1, C, h, w) of its picture."""
        return Residuals(features=tuple(torch.cat(rows) for rows in zip(*inputs, strict=True)))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, H, W) in [0, 1] to features (B, C, h, w), one for each of `config.widths`.

        Height and width must be multiples of `config.downscale_factor`.
        """
        h = F.pixel_unshuffle(picture, self.config.downscale_factor)
        if self.adapter.conv_in is not None:
            h = self.adapter.conv_in(h)
        features = []
        for block, halved in zip(self.adapter.body, self.config.halved, strict=True):
            h = block(F.avg_pool2d(h, 2, ceil_mode=True) if halved else h)
            features.append(h)
        return tuple(features)
