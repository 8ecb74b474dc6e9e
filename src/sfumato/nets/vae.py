"""The autoencoder between pictures and latents (Rombach et al. 2022, §3.1; Kingma & Welling 2014)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sfumato.config import VAEConfig
from sfumato.nets.attention import ImageAttention
from sfumato.nets.inference import Conv, NormSiLU
from sfumato.nets.layers import Checkpointed, Downsample, ResnetBlock, Upsample
from sfumato.nets.tiling import tiled

EPS = 1e-6
"""Of every normalisation here; no configuration names it."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """What an encoder answers: an independent normal distribution for every number of the latent."""

    mean: Tensor
    """(B, C, h, w), and the most likely latent."""
    logvar: Tensor
    """(B, C, h, w), the logarithm of the variance."""

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std·noise, with standard normal `noise` (B, C, h, w)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def float(self) -> "Gaussian":
        """The same in float32."""
        return Gaussian(self.mean.float(), self.logvar.float())


class ResolutionBlock(Checkpointed):
    """The residual blocks of one resolution, then half or twice the size."""

    RESIDUAL: ClassVar[type[nn.Module]] = ResnetBlock

    def __init__(
        self,
        channels: int,
        out_channels: int,
        layers: int,
        groups: int,
        *,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList(self.RESIDUAL(width, out_channels, groups, EPS) for width in widths)
        self.downsamplers = nn.ModuleList([Downsample(out_channels, padding=0)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if up else [])

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        """(B, C, H, W), and what else the residual blocks are given, to (B, C_out, H', W')."""
        for resnet in self.resnets:
            x = self.checkpoint(resnet, x, *given)
        for layer in (*self.downsamplers, *self.upsamplers):
            x = self.checkpoint(layer, x)
        return x


class Middle(Checkpointed):
    """Two residual blocks, with attention between them where `attends`."""

    RESIDUAL: ClassVar[type[nn.Module]] = ResnetBlock

    def __init__(self, channels: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([ImageAttention(channels, groups, EPS)] if attends else [])
        self.resnets = nn.ModuleList(self.RESIDUAL(channels, channels, groups, EPS) for _ in range(2))

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        """(B, C, H, W), and what else the residual blocks are given, to the same shape."""
        before, after = self.resnets
        x = self.checkpoint(before, x, *given)
        for attention in self.attentions:
            x = self.checkpoint(attention, x)
        return self.checkpoint(after, x, *given)


class VAEEncoder(nn.Module):
    """A picture to the mean and log-variance of its latent."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        self.conv_in = Conv(config.in_channels, channels[0], 3, padding=1)
        widths = list(pairwise((channels[0], *channels)))
        self.down_blocks = nn.ModuleList(
            ResolutionBlock(before, here, layers, groups, down=level < len(widths) - 1)
            for level, (before, here) in enumerate(widths)
        )
        self.mid_block = Middle(channels[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = NormSiLU(groups, channels[-1], EPS)
        self.conv_out = Conv(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2C, h, w)."""
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x)))


class Decoder(nn.Module):
    """A latent to a picture."""

    RESOLUTION: ClassVar[type[ResolutionBlock]] = ResolutionBlock
    MIDDLE: ClassVar[type[Middle]] = Middle

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv(config.latent_channels, channels[-1], 3, padding=1)
        self.mid_block = self.MIDDLE(channels[-1], groups, config.mid_block_add_attention)
        widths = list(pairwise((channels[-1], *reversed(channels))))
        self.up_blocks = nn.ModuleList(
            self.RESOLUTION(before, here, config.layers_per_block + 1, groups, up=level < len(widths) - 1)
            for level, (before, here) in enumerate(widths)
        )
        self.conv_norm_out = NormSiLU(groups, channels[0], EPS)
        self.conv_out = Conv(channels[0], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor, *given: Any) -> Tensor:
        """(B, C, h, w), and what else the residual blocks are given, to (B, 3, H, W)."""
        x = self.mid_block(self.conv_in(z), *given)
        for stage in self.up_blocks:
            x = stage(x, *given)
        return self.conv_out(self.conv_norm_out(x))


class AutoencoderKL(nn.Module):
    """Pictures in [−1, 1] to latents and back.

    `config.force_upcast` says that the weights need float32: whoever loads them decides.
    """

    DECODER: ClassVar[type[Decoder]] = Decoder

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        latents = config.latent_channels
        self.encoder = VAEEncoder(config)
        self.decoder = self.DECODER(config)
        self.quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latents, latents, 1) if config.use_post_quant_conv else None

    def encode(self, x: Tensor) -> Gaussian:
        """`x` (B, 3, H, W) in [−1, 1] to raw latents (B, C, H/factor, W/factor), sizes rounded down."""
        return _gaussian(self._moments(x))

    def decode(self, z: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) to (B, 3, h·factor, w·factor), about [−1, 1]."""
        picture: Tensor = self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))
        return picture

    def encode_tiled(self, x: Tensor, tile: int = 64, overlap: int = 16) -> Gaussian:
        """`encode` in less memory, see `tiled`; `tile` and `overlap` count latents."""
        return _gaussian(tiled(self._moments, x, tile, overlap, shrink=self.config.factor))

    def decode_tiled(self, z: Tensor, tile: int = 64, overlap: int = 16) -> Tensor:
        """`decode` in less memory, see `tiled`; `tile` and `overlap` count latents."""
        return tiled(self.decode, z, tile, overlap, grow=self.config.factor)

    def scale(self, z: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) to those that the UNet knows, of about unit variance."""
        mean, std = self._statistics(z)
        return (z - mean) / std

    def unscale(self, z: Tensor) -> Tensor:
        """The UNet's latents (B, C, h, w) to raw ones, the inverse of `scale`."""
        mean, std = self._statistics(z)
        return z * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        mean = config.latents_mean or (config.shift_factor or 0.0,)
        std = config.latents_std or (1.0,)
        shape = (1, -1, *[1] * (like.ndim - 2))
        return like.new_tensor(mean).view(shape), like.new_tensor(std).view(shape) / config.scaling_factor

    def _moments(self, x: Tensor) -> Tensor:
        moments: Tensor = self.encoder(x)
        return moments if self.quant_conv is None else self.quant_conv(moments)


def _gaussian(moments: Tensor) -> Gaussian:
    mean, logvar = moments.chunk(2, dim=1)
    return Gaussian(mean, logvar.clamp(-30, 20))
