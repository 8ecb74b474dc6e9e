"""The autoencoder of Stable Video Diffusion: its decoder sees the frames of a clip together.

Blattmann et al. 2023; the decoder after Blattmann et al. 2023 (Align your Latents), §3.1.1.
"""

from typing import ClassVar

from torch import Tensor, nn

from sfumato.config import TemporalVAEConfig
from sfumato.nets.layers import ResnetBlock
from sfumato.nets.temporal import FrameConv, TemporalResnetBlock, TimeMixer, to_clips, to_frames
from sfumato.nets.tiling import tiled
from sfumato.nets.vae import AutoencoderKL, Decoder, Middle, ResolutionBlock

TEMPORAL_EPS = 1e-5
"""Of the normalisations over frames; no configuration names it."""


class TemporalDecoderResBlock(nn.Module):
    """A residual block for each frame, one across frames behind it, and their mix."""

    def __init__(self, channels: int, out_channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = ResnetBlock(channels, out_channels, groups, eps)
        self.temporal_res_block = TemporalResnetBlock(out_channels, out_channels, groups, TEMPORAL_EPS)
        self.time_mixer = TimeMixer(start=0.0, switched=True)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B·F, C, H, W), F = `frames`, to (B·F, C_out, H, W)."""
        h = self.spatial_res_block(x)
        return self.time_mixer(h, to_frames(self.temporal_res_block(to_clips(h, frames)), h))


class TemporalResolutionBlock(ResolutionBlock):
    """One resolution of it."""

    RESIDUAL: ClassVar[type[nn.Module]] = TemporalDecoderResBlock


class TemporalMiddle(Middle):
    """Its smallest resolution."""

    RESIDUAL: ClassVar[type[nn.Module]] = TemporalDecoderResBlock


class TemporalDecoder(Decoder):
    """The latents of a clip to its frames."""

    RESOLUTION: ClassVar[type[ResolutionBlock]] = TemporalResolutionBlock
    MIDDLE: ClassVar[type[Middle]] = TemporalMiddle

    def __init__(self, config: TemporalVAEConfig) -> None:
        super().__init__(config)
        self.time_conv_out = FrameConv(config.out_channels, config.out_channels)

    def forward(self, z: Tensor, frames: int) -> Tensor:
        """(B·F, C, h, w), F = `frames`, to (B·F, 3, H, W)."""
        pictures = super().forward(z, frames)
        return to_frames(self.time_conv_out(to_clips(pictures, frames)), pictures)


class TemporalAutoencoderKL(AutoencoderKL):
    """Pictures in [−1, 1] to latents, and the latents of clips back to clips."""

    DECODER: ClassVar[type[Decoder]] = TemporalDecoder

    def decode(self, z: Tensor) -> Tensor:
        """Raw latents of clips (B, C, F, h, w) to (B, 3, F, h·factor, w·factor), about [−1, 1].

        Frames decoded together agree with each other. Pictures (B, C, h, w) are clips of one frame.
        """
        if z.ndim == 4:
            return self.decode(z[:, :, None])[:, :, 0]
        frames = z.shape[2]
        pictures: Tensor = self.decoder(z.transpose(1, 2).flatten(0, 1), frames)
        return pictures.unflatten(0, (-1, frames)).transpose(1, 2)

    def decode_tiled(self, z: Tensor, tile: int = 64, overlap: int = 16) -> Tensor:
        """`decode` in less memory, see `tiled`; every tile has all frames."""
        if z.ndim == 4:
            return super().decode_tiled(z, tile, overlap)
        frames = z.shape[2]

        def decoded(part: Tensor) -> Tensor:
            return self.decode(part.unflatten(1, (-1, frames))).flatten(1, 2)

        return tiled(decoded, z.flatten(1, 2), tile, overlap, grow=self.config.factor).unflatten(
            1, (-1, frames)
        )
