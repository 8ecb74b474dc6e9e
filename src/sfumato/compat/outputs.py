"""The results of a call, under diffusers' names and in its output types."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato.studio import Studio

FORMS = ("pil", "np", "pt", "latent")


@dataclass
class StableDiffusionXLPipelineOutput:
    """`images`: a list of PIL images, an array (B, H, W, 3) or tensor (B, 3, H, W) in [0, 1], or latents."""

    images: Any

    def to_tuple(self) -> tuple[Any, ...]:
        return (self.images,)

    def __getitem__(self, key: str | int | slice) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass
class StableDiffusionPipelineOutput(StableDiffusionXLPipelineOutput):
    """`images`; there is no safety checker, so `nsfw_content_detected` is `None`."""

    nsfw_content_detected: list[bool] | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return self.images, self.nsfw_content_detected


@torch.no_grad()
def in_form(studio: Studio, latents: Tensor, output_type: str) -> Any:
    """Latents (B, C, H, W) as one of `FORMS`."""
    if output_type == "latent":
        return latents.to(studio.dtype)
    pixels = torch.cat([studio.decoders.decode(row).float() for row in latents.split(1)])
    pixels = (pixels / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return pixels
    array = pixels.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    return [PIL.Image.fromarray(each) for each in (array * 255).round().astype(np.uint8)]
