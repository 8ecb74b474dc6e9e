"""`image_encoder/config.json`: CLIP's vision encoders, through which IP-Adapters and Shap-E see pictures."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Config, Layers, divides
from sfumato.config.text import IGNORED_BY_TRANSFORMERS
from sfumato.validation import one_of


@dataclass(frozen=True)
class VisionConfig(Config):
    """transformers' `CLIPVisionModelWithProjection`, or `CLIPVisionModel` unless `with_projection`."""

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attention_dropout": (0.0,),
        "dropout": (0.0,),
        "model_type": ("clip_vision_model",),
        "num_channels": (3,),
    }
    IGNORED = IGNORED_BY_TRANSFORMERS
    DERIVED = frozenset({"with_projection"})

    hidden_size: Channels = 768
    intermediate_size: Channels = 3072
    projection_dim: Channels = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Channels = 12
    image_size: Channels = 224
    patch_size: Channels = 32
    hidden_act: Annotated[str, one_of(("quick_gelu", "gelu"))] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    with_projection: bool = True

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"with_projection": mapping.get("architectures") != ["CLIPVisionModel"]}

    def check(self) -> None:
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        divides("patch_size", self.patch_size, "image_size", self.image_size)

    def to_dict(self) -> dict[str, Any]:
        name = "CLIPVisionModelWithProjection" if self.with_projection else "CLIPVisionModel"
        return {"architectures": [name], "model_type": "clip_vision_model"} | super().to_dict()
