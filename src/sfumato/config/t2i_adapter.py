"""A T2I-Adapter's `config.json`."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Config, Layers, Levels
from sfumato.validation import one_of

FULL, FULL_XL, LIGHT = "full_adapter", "full_adapter_xl", "light_adapter"


@dataclass(frozen=True)
class T2IAdapterConfig(Config):
    """diffusers' `T2IAdapter`: of SD 1.x full or light, of SDXL full."""

    CLASS = "T2IAdapter"

    in_channels: Channels = 3
    channels: Annotated[tuple[Channels, ...], Levels] = (320, 640, 1280, 1280)
    num_res_blocks: Layers = 2
    downscale_factor: Channels = 8
    adapter_type: Annotated[str, one_of((FULL, FULL_XL, LIGHT))] = FULL

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features, in their order."""
        return (*self.channels, self.channels[-1]) if self.adapter_type == LIGHT else self.channels

    @property
    def factors(self) -> tuple[int, ...]:
        """How many pixels of the picture a cell of each of the features is wide."""
        halvings = [int(halved) for halved in self.halved]
        return tuple(self.downscale_factor << sum(halvings[: i + 1]) for i in range(len(halvings)))

    @property
    def halved(self) -> tuple[bool, ...]:
        """Of which features height and width are half of those before: of SDXL's only the third."""
        xl = self.adapter_type == FULL_XL
        return tuple(i == 2 if xl else i > 0 for i in range(len(self.widths)))

    def check(self) -> None:
        if self.adapter_type == LIGHT and min(self.channels) < 4:
            raise ValueError(f"channels {self.channels} of a light_adapter must be at least 4 each")
