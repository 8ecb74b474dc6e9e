"""`unet/config.json` of networks that draw clips: Stable Video Diffusion's and ModelScope's."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Depth, Levels, divides
from sfumato.config.unet import UNetConfig
from sfumato.validation import one_of

_DERIVED = """addition_embed_type attention_head_dim flip_sin_to_cos freq_shift mid_block_type norm_eps
    norm_num_groups reverse_transformer_layers_per_block time_cond_proj_dim time_embedding_dim
    upcast_attention use_linear_projection"""
_DERIVED_3D = """addition_embed_type addition_time_embed_dim flip_sin_to_cos freq_shift mid_block_type
    projection_class_embeddings_input_dim reverse_transformer_layers_per_block time_embedding_dim
    transformer_layers_per_block upcast_attention use_linear_projection"""

SpatioTemporalDown = Annotated[str, one_of(("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"))]
SpatioTemporalUp = Annotated[str, one_of(("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"))]
Down3D = Annotated[str, one_of(("DownBlock3D", "CrossAttnDownBlock3D"))]
Up3D = Annotated[str, one_of(("UpBlock3D", "CrossAttnUpBlock3D"))]


@dataclass(frozen=True)
class UNetSpatioTemporalConfig(UNetConfig):
    """diffusers' `UNetSpatioTemporalConditionModel`: Stable Video Diffusion (Blattmann et al. 2023)."""

    CLASS = "UNetSpatioTemporalConditionModel"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    DERIVED = frozenset(_DERIVED.split())
    PER_LEVEL = (
        *("down_block_types", "up_block_types", "layers_per_block", "cross_attention_dim"),
        *("num_attention_heads", "transformer_layers_per_block"),
    )

    in_channels: Channels = 8
    down_block_types: tuple[SpatioTemporalDown, ...] = (
        *("CrossAttnDownBlockSpatioTemporal",) * 3,
        "DownBlockSpatioTemporal",
    )
    up_block_types: tuple[SpatioTemporalUp, ...] = (
        "UpBlockSpatioTemporal",
        *("CrossAttnUpBlockSpatioTemporal",) * 3,
    )
    addition_time_embed_dim: Channels = 256
    projection_class_embeddings_input_dim: Channels = 768
    cross_attention_dim: Channels | tuple[Channels, ...] = 1024
    transformer_layers_per_block: Depth | tuple[Depth, ...] = 1
    num_attention_heads: Channels | tuple[Channels, ...] = (5, 10, 20, 20)
    num_frames: Channels = 25
    """How many frames it was trained to draw."""
    addition_embed_type: str = "text_time"
    use_linear_projection: bool = True

    @property
    def heads(self) -> tuple[int, ...]:
        return self._each(self.num_attention_heads)

    def check(self) -> None:
        super().check()
        found, due = self.projection_class_embeddings_input_dim, 3 * self.addition_time_embed_dim
        if found != due:
            raise ValueError(
                f"projection_class_embeddings_input_dim is {found}, must be 3 times addition_time_embed_dim, "
                f"{due}: frames per second, motion and noise are embedded"
            )


@dataclass(frozen=True)
class UNet3DConfig(UNetConfig):
    """diffusers' `UNet3DConditionModel`: ModelScope's text-to-video (Wang et al. 2023)."""

    CLASS = "UNet3DConditionModel"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu", "swish"),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "num_attention_heads": (None,),
    }
    DERIVED = frozenset(_DERIVED_3D.split())
    FIRST_HEADS: ClassVar[int] = 8
    """Attention heads of the transformer behind the first convolution, each `attention_head_dim` wide."""

    down_block_types: Annotated[tuple[Down3D, ...], Levels] = (*("CrossAttnDownBlock3D",) * 3, "DownBlock3D")
    up_block_types: tuple[Up3D, ...] = ("UpBlock3D", *("CrossAttnUpBlock3D",) * 3)
    layers_per_block: Depth = 2
    cross_attention_dim: Channels = 1024
    attention_head_dim: Channels = 64
    """Here truly channels of one head."""
    use_linear_projection: bool = True

    @property
    def heads(self) -> tuple[int, ...]:
        return tuple(channels // self.attention_head_dim for channels in self.block_out_channels)

    def check(self) -> None:
        for channels in self.block_out_channels:
            divides("attention_head_dim", self.attention_head_dim, "block_out_channels", channels)
        super().check()
