"""`unet/config.json`: the UNet of Stable Diffusion 1 and 2, SDXL, and of what was made from them.

`EncoderConfig` is the part of it that networks beside a UNet share.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import (
    MOST_BLOCKS,
    Channels,
    Config,
    Depth,
    Layers,
    Levels,
    PerLevel,
    divides,
    same_length,
)
from sfumato.validation import one_of

T = TypeVar("T")
DownBlocks = tuple[Annotated[str, one_of(("DownBlock2D", "CrossAttnDownBlock2D"))], ...]
MidBlock = Annotated[str, one_of(("UNetMidBlock2D", "UNetMidBlock2DCrossAttn"))]
UpBlocks = tuple[Annotated[str, one_of(("UpBlock2D", "CrossAttnUpBlock2D"))], ...]
Depths = tuple[Depth | tuple[Depth, ...], ...]
"""Transformer blocks of each level: of all its residual blocks, or of each."""

_NONE = """class_embed_type encoder_hid_dim encoder_hid_dim_type num_attention_heads num_class_embeds"""
_NONE_UNET = "cross_attention_norm time_embedding_act_fn timestep_post_act"
_FALSE = "center_input_sample class_embeddings_concat dual_cross_attention resnet_skip_time_act"
# All but the first describe the moving average of the training that the weights are from.
_IGNORED = """addition_embed_type_num_heads decay inv_gamma min_decay optimization_step power
    update_after_step use_ema_warmup"""


@dataclass(frozen=True)
class EncoderConfig(Config):
    """What a UNet and the networks beside it, such as a ControlNet, have in common: time and way down."""

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu", "swish"),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "only_cross_attention": (False,),
        "resnet_time_scale_shift": ("default",),
        **dict.fromkeys(_NONE.split(), (None,)),
    }
    IGNORED = frozenset(_IGNORED.split())
    PER_LEVEL: ClassVar[tuple[str, ...]] = (
        *("down_block_types", "layers_per_block", "cross_attention_dim"),
        *("attention_head_dim", "transformer_layers_per_block"),
    )
    """Keys with an entry for each level, or one for all."""

    in_channels: Channels = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    down_block_types: DownBlocks = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: MidBlock | None = "UNetMidBlock2DCrossAttn"
    block_out_channels: Annotated[tuple[Channels, ...], Levels] = (320, 640, 1280, 1280)
    layers_per_block: Layers | tuple[Layers, ...] = 2
    norm_num_groups: Channels = 32
    norm_eps: float = 1e-5
    cross_attention_dim: Channels | tuple[Channels, ...] = 1280
    transformer_layers_per_block: Depth | Depths = 1
    attention_head_dim: Channels | tuple[Channels, ...] = 8
    use_linear_projection: bool = False
    upcast_attention: bool | None = False
    """SDXL's own files say null, which means no."""
    addition_embed_type: Annotated[str, one_of(("text_time",))] | None = None
    addition_time_embed_dim: Channels | None = None
    projection_class_embeddings_input_dim: Channels | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level: the published name `attention_head_dim` is a misnomer."""
        return self._each(self.attention_head_dim)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each level on the way down; a way up has one more."""
        return self._each(self.layers_per_block)

    @property
    def context(self) -> tuple[int, ...]:
        """Width of the text states that each level attends to."""
        return self._each(self.cross_attention_dim)

    @property
    def down_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks after each residual block, on the way down."""
        return _depths(self._each(self.transformer_layers_per_block), self.layers)

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]

    @property
    def guidance_width(self) -> int | None:
        """Width of the sinusoids of the guidance scale, of networks that read it."""
        return None

    @property
    def skip_channels(self) -> tuple[int, ...]:
        """Channels of each skip, in the order of the way down."""
        channels, last = self.block_out_channels, len(self.block_out_channels) - 1
        skips = [channels[0]]
        for level, count in enumerate(self.layers):
            skips += [channels[level]] * (count + (level < last))
        return tuple(skips)

    @property
    def ways(self) -> tuple[tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...], int], ...]:
        """Of each way through the levels: the key of its transformers' depths, its blocks and these depths,
        widest level first, and how many more residual blocks a level has than `layers`.
        """
        return (("transformer_layers_per_block", self.down_block_types, self.down_depths, 0),)

    def _each(self, value: int | tuple[T, ...]) -> tuple[int | T, ...]:
        return value if isinstance(value, tuple) else (value,) * len(self.block_out_channels)

    def check(self) -> None:
        levels = len(self.block_out_channels)
        for key in self.PER_LEVEL:
            if (value := getattr(self, key)) is not None:
                same_length(key, self._each(value), levels)
        ways = self.ways
        for key, _, depths, extra in ways:
            for count, own in zip(self.layers, depths, strict=True):
                same_length(key, own, count + extra)
        for channels in self.block_out_channels:
            divides("norm_num_groups", self.norm_num_groups, "block_out_channels", channels)
        total = 0
        for level, channels in enumerate(self.block_out_channels):
            found: list[int] = []
            for _, blocks, depths, _ in ways:
                found += depths[level] if blocks[level].startswith("CrossAttn") else ()
            if level == levels - 1 and self.mid_block_type == "UNetMidBlock2DCrossAttn":
                found += self.down_depths[level][:1]
            if found:
                divides("attention_head_dim", self.heads[level], "block_out_channels", channels)
            if 0 in found:
                raise ValueError(
                    "transformer_layers_per_block must be at least 1 where there is cross-attention"
                )
            total += sum(found)
        if total > MOST_BLOCKS:
            raise ValueError(f"{total:,} transformer blocks are too many to build, at most {MOST_BLOCKS:,}")
        sizes = ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
        if self.addition_embed_type and None in (getattr(self, key) for key in sizes):
            raise ValueError(f"addition_embed_type 'text_time' needs {' and '.join(sizes)}")


@dataclass(frozen=True)
class UNetConfig(EncoderConfig):
    """diffusers' `UNet2DConditionModel`: SD 1.x, SD 2.x, SDXL, inpainting, instruction editing, LCM."""

    CLASS = "UNet2DConditionModel"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **EncoderConfig.FIXED,
        "attention_type": ("default",),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "dropout": (0.0,),
        "mid_block_only_cross_attention": (None, False),
        "resnet_out_scale_factor": (1.0,),
        "time_embedding_type": ("positional",),
        **dict.fromkeys(_NONE_UNET.split(), (None,)),
        **dict.fromkeys(_FALSE.split(), (False,)),
    }
    PER_LEVEL = (*EncoderConfig.PER_LEVEL, "up_block_types", "reverse_transformer_layers_per_block")

    sample_size: PerLevel | None = None
    out_channels: Channels = 4
    up_block_types: UpBlocks = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    reverse_transformer_layers_per_block: Depths | None = None
    time_embedding_dim: Channels | None = None
    time_cond_proj_dim: Annotated[Channels, Field(ge=4)] | None = None

    @property
    def up_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks after each residual block, on the way up, deepest level first."""
        depths = self.reverse_transformer_layers_per_block
        if depths is None:
            depths = self._each(self.transformer_layers_per_block)[::-1]
        return _depths(depths, tuple(count + 1 for count in self.layers[::-1]))

    @property
    def time_width(self) -> int:
        return self.time_embedding_dim or super().time_width

    @property
    def guidance_width(self) -> int | None:
        return self.time_cond_proj_dim

    @property
    def ways(self) -> tuple[tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...], int], ...]:
        key = "reverse_transformer_layers_per_block"
        return (*super().ways, (key, self.up_block_types[::-1], self.up_depths[::-1], 1))

    def check(self) -> None:
        nested = not all(isinstance(depth, int) for depth in self._each(self.transformer_layers_per_block))
        if nested and self.reverse_transformer_layers_per_block is None:
            raise ValueError("nested transformer_layers_per_block need reverse_transformer_layers_per_block")
        super().check()


def _depths(
    depths: tuple[int | tuple[int, ...], ...], counts: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Depths of each level, one for all or one for each of its `counts` residual blocks, as the latter."""
    return tuple(
        (depth,) * count if isinstance(depth, int) else depth
        for depth, count in zip(depths, counts, strict=True)
    )
