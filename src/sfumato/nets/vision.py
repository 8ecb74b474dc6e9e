"""CLIP's vision encoder (Radford et al. 2021), through which IP-Adapters see a picture."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.config import VisionConfig
from sfumato.nets.attention import to_tokens
from sfumato.nets.clip import START, CLIPEncoder

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the red, green and blue of the pictures that CLIP was trained on, in [0, 1]."""
CLIP_PICTURES: dict[str, Any] = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(MEAN),
    "image_std": list(DEVIATION),
    "resample": 3,
}
"""How CLIP has pictures made ready, as `preprocessor_config.json` says it."""


@dataclass(frozen=True, eq=False)
class PictureStates:
    """A picture as an encoder sees it."""

    pooled: Tensor
    """(B, P): one vector for the whole, projected to where CLIP's texts are; P = D without projection."""
    states: Tensor
    """(B, 1 + N, D): of the class and of each of N patches, before the last layer."""
    last: Tensor
    """(B, 1 + N, D): the same after it."""


class VisionEmbeddings(nn.Module):
    """The class, then what each patch is, plus where it stands."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(START * torch.randn(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2 + 1, width)
        nn.init.normal_(self.position_embedding.weight, std=START)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, 1 + N, D)."""
        first = self.class_embedding.expand(len(pixels), 1, -1)
        h = torch.cat([first, to_tokens(self.patch_embedding(pixels))], dim=1)
        return h + self.position_embedding(torch.arange(h.shape[1], device=h.device))


class VisionTransformer(nn.Module):
    """The layers, under the published names; the first norm's is misspelt there."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = CLIPEncoder(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class CLIPVision(nn.Module):
    """Pixels to states and one pooled vector."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)
        self.visual_projection = (
            nn.Linear(config.hidden_size, config.projection_dim, bias=False)
            if config.with_projection
            else None
        )

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.vision_model.embeddings.class_embedding.dtype

    def forward(self, pixels: Tensor) -> PictureStates:
        """`pixels` (B, 3, S, S), S being the configuration's `image_size`, normalised as CLIP's are.

        Raises `ValueError` for another size.
        """
        side = self.config.image_size
        if pixels.shape[1:] != (3, side, side):
            raise ValueError(
                f"a picture of shape {tuple(pixels.shape[1:])} was given; {(3, side, side)} is due"
            )
        model = self.vision_model
        h = states = model.pre_layrnorm(model.embeddings(pixels))
        for layer in model.encoder.layers:
            states, h = h, layer(h)
        pooled = model.post_layernorm(h[:, 0])
        return PictureStates(
            pooled if self.visual_projection is None else self.visual_projection(pooled), states, h
        )
