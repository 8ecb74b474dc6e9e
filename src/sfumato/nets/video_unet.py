"""UNets of clips: Stable Video Diffusion's (Blattmann et al. 2023) and ModelScope's (Wang et al. 2023)."""

from typing import Any, ClassVar

from torch import Tensor, nn

from sfumato.config import UNet3DConfig
from sfumato.config.unet import EncoderConfig
from sfumato.nets.inputs import BlockInputs
from sfumato.nets.temporal import (
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    TemporalBlock,
    TemporalConvs,
    TemporalTransformer,
)
from sfumato.nets.unet import Block, DownBlock, MidBlock, UNet, UpBlock


class SpatioTemporalUNetBlock(Block):
    """What is the same on all ways of Stable Video Diffusion's."""

    RESIDUAL = SpatioTemporalResBlock
    TRANSFORMER = SpatioTemporalTransformer


class SpatioTemporalDownBlock(SpatioTemporalUNetBlock, DownBlock):
    """One level on the way down."""

    @staticmethod
    def norm_eps(config: EncoderConfig, attends: bool) -> float:
        return 1e-6 if attends else config.norm_eps


class SpatioTemporalMidBlock(SpatioTemporalUNetBlock, MidBlock):
    """The deepest part."""


class SpatioTemporalUpBlock(SpatioTemporalUNetBlock, UpBlock):
    """One level on the way up."""

    @staticmethod
    def norm_eps(config: EncoderConfig, attends: bool) -> float:
        return 1e-6


class UNetSpatioTemporal(UNet):
    """Stable Video Diffusion's: moves a picture, which comes as channels beside the noisy clip and as one
    token of CLIP in the text's place.

    `SizeConditioning.ids` are frames per second less 1, motion bucket and the noise in the picture.
    """

    DOWN: ClassVar[type[DownBlock]] = SpatioTemporalDownBlock
    MIDDLE: ClassVar[type[MidBlock]] = SpatioTemporalMidBlock
    UP: ClassVar[type[UpBlock]] = SpatioTemporalUpBlock


class UNet3DBlock(Block):
    """A level of ModelScope's: convolutions over frames behind each residual block, attention over frames
    behind each transformer.
    """

    def __init__(self, config: UNet3DConfig, *level: Any) -> None:
        super().__init__(config, *level)  # the deepest part has no level
        at, groups = level[0] if level else -1, config.norm_num_groups
        channels, heads = config.block_out_channels[at], config.heads[at]
        self.temp_convs = nn.ModuleList(TemporalConvs(channels, groups) for _ in self.resnets)
        self.temp_attentions = nn.ModuleList(
            TemporalTransformer(channels, groups, channels, [TemporalBlock(channels, heads)])
            for _ in self.attentions
        )

    @property
    def stages(self) -> tuple[nn.ModuleList, ...]:
        return self.resnets, self.temp_convs, self.attentions, self.temp_attentions


class UNet3DDownBlock(UNet3DBlock, DownBlock):
    """One level on the way down."""


class UNet3DMidBlock(UNet3DBlock, MidBlock):
    """The deepest part."""


class UNet3DUpBlock(UNet3DBlock, UpBlock):
    """One level on the way up."""


class UNet3D(UNet):
    """ModelScope's: draws clips from text."""

    DOWN: ClassVar[type[DownBlock]] = UNet3DDownBlock
    MIDDLE: ClassVar[type[MidBlock]] = UNet3DMidBlock
    UP: ClassVar[type[UpBlock]] = UNet3DUpBlock
    config: UNet3DConfig

    def __init__(self, config: UNet3DConfig) -> None:
        super().__init__(config)
        width = config.FIRST_HEADS * config.attention_head_dim
        blocks = [TemporalBlock(width, config.FIRST_HEADS)]
        channels, groups = config.block_out_channels[0], config.norm_num_groups
        self.transformer_in = TemporalTransformer(channels, groups, width, blocks)

    def enter(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        h: Tensor = self.transformer_in(super().enter(x, inputs), inputs)
        return h
