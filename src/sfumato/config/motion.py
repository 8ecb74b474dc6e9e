"""A motion adapter's `config.json`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Config, Layers, Levels, divides, same_length

T = TypeVar("T")


@dataclass(frozen=True)
class MotionAdapterConfig(Config):
    """diffusers' `MotionAdapter`: AnimateDiff's motion modules for SD 1.x and SDXL, and PIA's."""

    CLASS = "MotionAdapter"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "motion_mid_block_layers_per_block": (1,),
        "motion_transformer_layers_per_mid_block": (1,),
    }

    block_out_channels: Annotated[tuple[Channels, ...], Levels] = (320, 640, 1280, 1280)
    motion_layers_per_block: Layers | tuple[Layers, ...] = 2
    motion_transformer_layers_per_block: Layers | tuple[Layers, ...] = 1
    motion_num_attention_heads: Channels | tuple[Channels, ...] = 8
    motion_norm_num_groups: Channels = 32
    motion_max_seq_length: Channels = 32
    """How many frames the motion modules know at most."""
    use_motion_mid_block: bool = True
    conv_in_channels: Channels | None = None
    """PIA's: channels of the UNet's first convolution, which the file brings."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Motion modules of each level on the way down; a way up has one more."""
        return self._each(self.motion_layers_per_block)

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks of the modules of each level."""
        return self._each(self.motion_transformer_layers_per_block)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        return self._each(self.motion_num_attention_heads)

    def _each(self, value: T | tuple[T, ...]) -> tuple[T, ...]:
        return value if isinstance(value, tuple) else (value,) * len(self.block_out_channels)

    def check(self) -> None:
        for key in (
            "motion_layers_per_block",
            "motion_transformer_layers_per_block",
            "motion_num_attention_heads",
        ):
            same_length(key, self._each(getattr(self, key)), len(self.block_out_channels))
        for channels, heads in zip(self.block_out_channels, self.heads, strict=True):
            divides("motion_norm_num_groups", self.motion_norm_num_groups, "block_out_channels", channels)
            divides("motion_num_attention_heads", heads, "block_out_channels", channels)
