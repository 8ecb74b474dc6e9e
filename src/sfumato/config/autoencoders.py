"""`vae/config.json`: autoencoders, which make pictures of latents and latents of pictures."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import (
    Channels,
    Config,
    Depth,
    Layers,
    Levels,
    PerLevel,
    Positive,
    divides,
    same_length,
)
from sfumato.validation import one_of

_DERIVED_TEMPORAL = """latents_mean latents_std mid_block_add_attention norm_num_groups shift_factor
    up_block_types use_post_quant_conv use_quant_conv"""


@dataclass(frozen=True)
class VAEConfig(Config):
    """diffusers' `AutoencoderKL`."""

    CLASS = "AutoencoderKL"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"act_fn": ("silu", "swish")}

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: tuple[Annotated[str, one_of(("DownEncoderBlock2D",))], ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Annotated[str, one_of(("UpDecoderBlock2D",))], ...] = ("UpDecoderBlock2D",)
    block_out_channels: Annotated[tuple[Channels, ...], Levels] = (64,)
    layers_per_block: Layers = 1
    latent_channels: Channels = 4
    norm_num_groups: Channels = 32
    sample_size: PerLevel = 32
    scaling_factor: Positive = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Pixels to one latent, along each side."""
        return 1 << (len(self.block_out_channels) - 1)

    def check(self) -> None:
        for key in {"down_block_types", "up_block_types"} - self.DERIVED:
            same_length(key, getattr(self, key), len(self.block_out_channels))
        for channels in self.block_out_channels:
            divides("norm_num_groups", self.norm_num_groups, "block_out_channels", channels)
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("latents_mean and latents_std must be given together")
        for key in ("latents_mean", "latents_std"):
            if (statistics := getattr(self, key)) is not None:
                same_length(key, statistics, self.latent_channels)


@dataclass(frozen=True)
class TemporalVAEConfig(VAEConfig):
    """diffusers' `AutoencoderKLTemporalDecoder`: Stable Video Diffusion's, whose decoder sees all frames."""

    CLASS = "AutoencoderKLTemporalDecoder"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    DERIVED = frozenset(_DERIVED_TEMPORAL.split())

    use_post_quant_conv: bool = False

    def check(self) -> None:
        super().check()
        if self.layers_per_block != 2:
            raise ValueError(f"layers_per_block is {self.layers_per_block}: not supported, only 2")


@dataclass(frozen=True)
class TinyVAEConfig(Config):
    """diffusers' `AutoencoderTiny` (TAESD)."""

    CLASS = "AutoencoderTiny"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("relu",),
        "upsample_fn": ("nearest",),
        "upsampling_scaling_factor": (2,),
    }
    IGNORED = frozenset({"block_out_channels", "force_upcast", "latent_magnitude", "latent_shift"})

    in_channels: Channels = 3
    out_channels: Channels = 3
    encoder_block_out_channels: Annotated[tuple[Channels, ...], Levels] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[Channels, ...] = (64, 64, 64, 64)
    latent_channels: Channels = 4
    num_encoder_blocks: tuple[Depth, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[Depth, ...] = (3, 3, 3, 1)
    scaling_factor: Positive = 1.0
    shift_factor: float = 0.0

    @property
    def factor(self) -> int:
        """Pixels to one latent, along each side."""
        return 1 << (len(self.decoder_block_out_channels) - 1)

    def check(self) -> None:
        for key in ("decoder_block_out_channels", "num_encoder_blocks", "num_decoder_blocks"):
            same_length(key, getattr(self, key), len(self.encoder_block_out_channels))
        if len(set(self.encoder_block_out_channels)) > 1 or len(set(self.decoder_block_out_channels)) > 1:
            raise ValueError("the levels of a tiny autoencoder must be equally wide")
