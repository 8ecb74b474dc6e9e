"""The results of a call, under diffusers' names and in its output types."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato.studio import Studio

FORMS = ("pil", "np", "pt", "latent")


@dataclass
class Output:
    """A result: its fields are attributes, and items by name or in order, those not set left out."""

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value for each in fields(self) if (value := getattr(self, each.name)) is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass
class StableDiffusionXLPipelineOutput(Output):
    """`images`: a list of PIL images, an array (B, H, W, 3) or tensor (B, 3, H, W) in [0, 1], or latents."""

    images: Any


@dataclass
class StableDiffusionPipelineOutput(StableDiffusionXLPipelineOutput):
    """`images`; there is no safety checker, so `nsfw_content_detected` is `None`."""

    nsfw_content_detected: list[bool] | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return self.images, self.nsfw_content_detected


@dataclass
class TextToVideoSDPipelineOutput(Output):
    """`frames`: a list of PIL images for each clip, an array (B, F, H, W, 3) or tensor (B, F, 3, H, W) in
    [0, 1], or latents.
    """

    frames: Any


@dataclass
class StableVideoDiffusionPipelineOutput(TextToVideoSDPipelineOutput):
    """The same."""


@dataclass
class AnimateDiffPipelineOutput(TextToVideoSDPipelineOutput):
    """The same."""


@dataclass
class PIAPipelineOutput(TextToVideoSDPipelineOutput):
    """The same."""


@torch.no_grad()
def in_form(studio: Studio, latents: Tensor, output_type: str) -> Any:
    """Latents (B, C, H, W) as one of `FORMS`."""
    if output_type == "latent":
        return latents.to(studio.dtype)
    pixels = torch.cat([studio.decoders.decode(row).float() for row in latents.split(1)])
    return pixels_in_form((pixels / 2 + 0.5).clamp(0, 1), output_type)


def pixels_in_form(pixels: Tensor, output_type: str) -> Any:
    """Pixels (B, 3, H, W) in [0, 1] as one of `FORMS` but latents."""
    if output_type == "pt":
        return pixels
    array = pixels.permute(0, 2, 3, 1).float().cpu().numpy()
    return array if output_type == "np" else to_pil(array)


def to_pil(array: "np.ndarray[Any, Any]") -> list[PIL.Image.Image]:
    """Pictures (B, H, W, 3), or grey ones (B, H, W, 1), in [0, 1] as PIL images."""
    grey = array.shape[-1] == 1
    return [
        PIL.Image.fromarray(each[..., 0] if grey else each) for each in (array * 255).round().astype(np.uint8)
    ]
