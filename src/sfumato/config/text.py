"""`text_encoder/config.json`: the text encoders of CLIP."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Config, Layers, Tokens, divides
from sfumato.validation import one_of

_IGNORED = """architectures chunk_size_feed_forward dtype gradient_checkpointing id2label initializer_factor
    initializer_range is_encoder_decoder label2id output_attentions output_hidden_states problem_type
    return_dict tie_word_embeddings torch_dtype torchscript transformers_version use_bfloat16 use_cache"""
IGNORED_BY_TRANSFORMERS = frozenset(_IGNORED.split())
"""Keys of transformers' configurations that change nothing in its CLIP."""


@dataclass(frozen=True)
class TextConfig(Config):
    """transformers' `CLIPTextModel`, or `CLIPTextModelWithProjection` where `with_projection`."""

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attention_dropout": (0.0,),
        "dropout": (0.0,),
        "model_type": ("clip_text_model",),
    }
    IGNORED = IGNORED_BY_TRANSFORMERS
    DERIVED = frozenset({"with_projection"})

    vocab_size: Tokens = 49408
    hidden_size: Channels = 512
    intermediate_size: Channels = 2048
    projection_dim: Channels | None = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Channels = 8
    max_position_embeddings: Tokens = 77
    hidden_act: Annotated[str, one_of(("quick_gelu", "gelu"))] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    with_projection: bool = False

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"with_projection": mapping.get("architectures") == ["CLIPTextModelWithProjection"]}

    def check(self) -> None:
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        if self.with_projection and self.projection_dim is None:
            raise ValueError("CLIPTextModelWithProjection needs projection_dim")

    def to_dict(self) -> dict[str, Any]:
        name = "CLIPTextModelWithProjection" if self.with_projection else "CLIPTextModel"
        return {"architectures": [name], "model_type": "clip_text_model"} | super().to_dict()
