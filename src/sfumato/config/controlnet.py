"""`config.json` of a ControlNet."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels
from sfumato.config.unet import EncoderConfig
from sfumato.validation import one_of


@dataclass(frozen=True)
class ControlNetConfig(EncoderConfig):
    """diffusers' `ControlNetModel` (Zhang et al. 2023), of SD 1.x, SD 2.x and SDXL."""

    CLASS = "ControlNetModel"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **EncoderConfig.FIXED,
        "global_pool_conditions": (False,),
    }

    conditioning_channels: Channels = 3
    """Of the picture that it reads."""
    controlnet_conditioning_channel_order: Annotated[str, one_of(("rgb", "bgr"))] = "rgb"
    conditioning_embedding_out_channels: Annotated[
        tuple[Channels, ...], Field(min_length=1, max_length=8)
    ] = (*(16, 32, 96, 256),)
    """Channels of the convolutions that bring the picture to the latent's size, each half as large."""

    @property
    def condition_factor(self) -> int:
        """How much larger than the latent the picture is, along each side."""
        return int(2 ** (len(self.conditioning_embedding_out_channels) - 1))

    def check(self) -> None:
        super().check()
        if self.mid_block_type is None:
            raise ValueError("mid_block_type must be given for a ControlNet")
