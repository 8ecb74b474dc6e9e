"""What a file is that is no adapter, or one for another kind of model: said in words."""

from collections.abc import Iterable, Mapping
from functools import cache

from torch import Tensor

from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.source import embedded
from sfumato.files import read_json

# Fragments of keys, and what has them; the first that fits is said.
NO_ADAPTERS = (
    (("control_model.", "input_hint_block.", "controlnet_cond_embedding."), "a ControlNet"),
    (("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders."), "a whole checkpoint"),
    (("emb_params", "string_to_param", "clip_l", "clip_g"), "a textual inversion embedding"),
    (("first_stage_model.", "decoder.up_blocks.", "decoder.up."), "an autoencoder (VAE)"),
    (("down_blocks.", "up_blocks.", "input_blocks.", "mid_block."), "a UNet's own weights"),
    (("encoder.layers.", "text_model.", "transformer.resblocks."), "a text encoder's own weights"),
    (("ip_adapter", "image_proj"), "an IP-Adapter"),
)
OTHER_MODELS = (
    (("temporal_transformer_blocks", "time_stack"), "Stable Video Diffusion"),
    (("double_stream_blocks", "single_stream_blocks"), "HiDream"),
    (("distilled_guidance_layer",), "Chroma"),
    (("double_blocks", "single_blocks"), "Flux or HunyuanVideo"),
    (("single_transformer_blocks",), "Flux"),
    (("joint_transformer_blocks", "double_layers"), "AuraFlow"),
    (("img_mod", "txt_mod", "img_mlp", "txt_mlp"), "Qwen-Image"),
    (("joint_blocks", "ff_context"), "Stable Diffusion 3"),
    ((".attn.add_q_proj", ".attn.add_k_proj"), "Stable Diffusion 3 or Qwen-Image"),
    (("lora_prior_", "channelwise"), "Stable Cascade"),
    (("noise_refiner", "context_refiner", ".attention.to_", ".attention.qkv", "_attention_to_"),
     "Z-Image or Lumina 2"),
    (("patchify_proj",), "LTX-Video"),
    (("cross_attn",), "Wan"),
    (("transformer.transformer_blocks.", "transformer.blocks.", "transformer.layers.", "lora_transformer_",
      "diffusion_model.transformer_blocks.", "diffusion_model.blocks.", "diffusion_model.layers.",
      "lora_unet_blocks_", "lora_unet_layers_"),
     "a diffusion transformer (Stable Diffusion 3, Flux and later)"),
)  # fmt: skip
OTHER_KINDS = (
    (("oft_blocks", "oft_diag", "oft_R"), "orthogonal adapters (OFT, BOFT)"),
    (("on_input", "ia3_l"), "IA³"),
    (("hada_", "lokr_"), "LyCORIS parts of an unknown kind"),
    (("vera_lambda",), "VeRA"),
    ((".a1.weight", ".b1.weight"), "GLoRA"),
    (("lora_embedding_",), "changes of token embeddings"),
)
TEXT_WIDTHS = {family.context: family.title for family in reversed(FAMILIES.values())}
"""Of families whose text is as wide the first, of pictures."""


def named(table: Iterable[tuple[tuple[str, ...], str]], keys: Iterable[str]) -> str | None:
    """What the first row of `table` that fits any of the keys says."""
    keys = list(keys)
    return next(
        (what for marks, what in table if any(mark in key for key in keys for mark in marks)),
        None,
    )


def described(tensors: Mapping[str, Tensor]) -> str:
    """What a file without a single key of an adapter seems to be."""
    if what := named(NO_ADAPTERS, tensors):
        return what
    if kind := named(OTHER_KINDS, tensors):
        return f"an adapter of a kind that is not supported: {kind}"
    if tensors and all(tensor.ndim <= 2 for tensor in tensors.values()) and len(tensors) <= 75:
        return "perhaps a textual inversion embedding"
    return "something else" if tensors else "empty"


def family(text_width: int) -> str:
    """A model by the width of the text that its cross-attention reads."""
    known = TEXT_WIDTHS.get(text_width)
    if known is None and text_width == _embedded_width():
        return "the embedded model"
    return f"{known} ({text_width} wide)" if known else f"a model whose text is {text_width} wide"


@cache
def _embedded_width() -> int | None:
    found = read_json(embedded() / "unet" / "config.json").get("cross_attention_dim")
    return found if isinstance(found, int) else None
