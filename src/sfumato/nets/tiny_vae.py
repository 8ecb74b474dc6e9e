"""The tiny autoencoder TAESD (Bohan 2023): pictures from latents at a fraction of the work, for previews."""

import torch
from torch import Tensor, nn

from sfumato.config import TinyVAEConfig
from sfumato.nets.inference import Conv, UpsampleConv
from sfumato.nets.tiling import tiled
from sfumato.nets.vae import Gaussian

LIMIT = 3
"""Latents are squeezed softly into ±3 before they are decoded."""


class TinyBlock(nn.Module):
    """max(0, x + three convolutions of x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # the numbers between are the published activations'
        self.conv = nn.ModuleDict({key: Conv(channels, channels, 3, padding=1) for key in ("0", "2", "4")})

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        first, second, third = self.conv.values()
        return third(second(first(x, relu=True), relu=True), add=x, relu=True)


class Stack(nn.Module):
    """Layers one after another, under the published name."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        return self.layers(x)


def encoder(config: TinyVAEConfig) -> Stack:
    """(B, 3, H, W) in [0, 1] to (B, C, h, w)."""
    width = config.encoder_block_out_channels[0]
    layers: list[nn.Module] = [Conv(config.in_channels, width, 3, padding=1)]
    for level, blocks in enumerate(config.num_encoder_blocks):
        if level:
            layers.append(Conv(width, width, 3, stride=2, padding=1, bias=False))
        layers += [TinyBlock(width) for _ in range(blocks)]
    return Stack([*layers, Conv(width, config.latent_channels, 3, padding=1)])


def decoder(config: TinyVAEConfig) -> Stack:
    """(B, C, h, w) to (B, 3, H, W) in about [0, 1]."""
    width = config.decoder_block_out_channels[0]
    layers: list[nn.Module] = [Conv(config.latent_channels, width, 3, padding=1), nn.ReLU()]
    for level, blocks in enumerate(config.num_decoder_blocks):
        if level:
            # the first stands where the published layout enlarges, which the second does on the way
            layers += [nn.Identity(), UpsampleConv(width, width, 3, padding=1, bias=False)]
        layers += [TinyBlock(width) for _ in range(blocks)]
    return Stack([*layers, Conv(width, config.out_channels, 3, padding=1)])


class AutoencoderTiny(nn.Module):
    """Stands in for an `AutoencoderKL`: the same methods; its raw latents are already the UNet's."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)
        self.decoder = decoder(config)

    def encode(self, x: Tensor) -> Gaussian:
        """`x` (B, 3, H, W) in [−1, 1] to latents (B, C, h, w), sizes rounded up, without spread."""
        z: Tensor = self.encoder((x + 1) / 2)
        return Gaussian(z, torch.full_like(z, -torch.inf))

    def decode(self, z: Tensor) -> Tensor:
        """`z` (B, C, h, w) to (B, 3, h·factor, w·factor), about [−1, 1]."""
        picture: Tensor = self.decoder(LIMIT * torch.tanh(z / LIMIT))
        return 2 * picture - 1

    def encode_tiled(self, x: Tensor, tile: int = 64, overlap: int = 16) -> Gaussian:
        """`encode` in less memory, see `tiled`; `tile` and `overlap` count latents."""
        z = tiled(lambda part: self.encode(part).mean, x, tile, overlap, shrink=self.config.factor)
        return Gaussian(z, torch.full_like(z, -torch.inf))

    def decode_tiled(self, z: Tensor, tile: int = 64, overlap: int = 16) -> Tensor:
        """`decode` in less memory, see `tiled`; `tile` and `overlap` count latents."""
        return tiled(self.decode, z, tile, overlap, grow=self.config.factor)

    def scale(self, z: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) to those that the UNet knows."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, z: Tensor) -> Tensor:
        """The UNet's latents (B, C, h, w) to raw ones, the inverse of `scale`."""
        return z / self.config.scaling_factor + self.config.shift_factor
