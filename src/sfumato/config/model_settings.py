"""`sfumato.json`: what a model says of itself that no library's file has a place for."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import Config
from sfumato.names import SAMPLERS, SPACINGS, UPSCALERS
from sfumato.validation import one_of

SETTINGS_FILE = "sfumato.json"
"""Its name in a model's folder, and that of the entry in the header of a LoRA."""

DEFAULT_UPSCALER = "lanczos"
"""Of a model that does not say."""

Side = Annotated[int, Field(ge=8, le=8192)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class ModelSettings(Config):
    """The size that it was trained at (width, height), and how to draw with it; `None`: it does not say."""

    native_size: tuple[Side, Side] | None = None
    sampler: Annotated[str, one_of(SAMPLERS)] | None = None
    spacing: Annotated[str, one_of(SPACINGS)] | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    image_guidance: Guidance | None = None
    """Of a model that edits by instruction."""
    upscaler: Annotated[str, one_of(UPSCALERS)] | None = None
    """What enlarges its pictures."""
    upscale_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much of an enlarged picture is drawn anew."""
    plain_background: bool | None = None
    """Whether it draws objects on plain white."""
    steps_range: tuple[Steps, Steps] | None = None
    """Fewest and most that a distilled model has learned."""
    guidance_range: tuple[Guidance, Guidance] | None = None
    """Lowest and highest that a distilled model has learned."""

    def check(self) -> None:
        for key in ("steps_range", "guidance_range"):
            low, high = getattr(self, key) or (0, 0)
            if low > high:
                raise ValueError(f"{key} = [{low:g}, {high:g}] must be the lower end, then the higher")


def checked_settings(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `content` says, if `sfumato.json` may say it; `where` names it in the `CheckpointError`."""
    ModelSettings.from_dict(content, where)
    return {key: value for key, value in content.items() if value is not None}
