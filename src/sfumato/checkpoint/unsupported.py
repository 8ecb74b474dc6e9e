"""What a file is that is no checkpoint, by the names of its tensors, and where it belongs."""

import re
from collections.abc import Collection, Mapping

from sfumato.folders import folder
from sfumato.weights import TensorInfo

_ADAPTER = re.compile(r".*(?:\.lora_(?:up|down|A|B)\b|_lora\.(?:up|down)\.|\.lora\.|\.hada_w|\.lokr_w).*")
_SIGNS: tuple[tuple[str, str], ...] = (
    (r"control_model\..*|controlnet_cond_embedding\..*|input_hint_block\..*", "a ControlNet"),
    (r".*motion_modules\..*", "a motion module, which makes films of a model's pictures"),
    (
        r"(?:model\.diffusion_model\.)?(?:joint_blocks|double_blocks|single_blocks|transformer_blocks)\..*",
        "a diffusion transformer (Stable Diffusion 3, Flux and later)",
    ),
    (r"edm_mean|edm_std", "a model of the EDM family (Playground 2.5)"),
)
_VAE = (
    *("encoder.conv_in.", "decoder.conv_in.", "encoder.layers.0.", "decoder.layers.0."),
    *("taesd_encoder.", "taesd_decoder.", "0.weight", "1.weight"),
)
_EMBEDDING = {"emb_params", "clip_l", "clip_g"}
_WIDTHS = (768, 1024, 1280)


def described(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What holds these `tensors`, with what to do with it; `None` for what is not known either."""
    names = list(tensors)
    if any(_ADAPTER.fullmatch(name) for name in names):
        return f"a LoRA: use it with --lora, or put it into the adapters folder ({folder('adapters')})"
    if names and all(_embeds(name, info) for name, info in tensors.items()):
        return (
            "a textual inversion embedding: put it into the embeddings folder "
            f"({folder('embeddings')}) and write its name in the prompt"
        )
    for pattern, what in _SIGNS:
        if any(re.fullmatch(pattern, name) for name in names):
            return f"{what}, which is not supported"
    if is_vae(names):
        return "a VAE alone: give it beside a model, with --vae"
    if any(name.startswith(("text_model.encoder.", "transformer.resblocks.")) for name in names):
        return "a text encoder alone, a part of a model"
    return None


def _embeds(name: str, info: TensorInfo) -> bool:
    """Whether this is a vector or a few, as wide as a published text encoder."""
    return name in _EMBEDDING or (1 <= len(info.shape) <= 2 and info.shape[-1] in _WIDTHS and "." not in name)


def is_vae(names: Collection[str]) -> bool:
    """Whether these are an autoencoder's tensors, a tiny one's included."""
    return any(name.startswith(_VAE) for name in names)
