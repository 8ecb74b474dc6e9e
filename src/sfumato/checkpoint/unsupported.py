"""What a file or folder is that is no model which can be loaded, and where it belongs."""

import re
from collections.abc import Collection, Iterable, Mapping

from sfumato.folders import folder
from sfumato.weights import TensorInfo

SUPPORTED = (
    "supported are Stable Diffusion 1, 2 and XL and what was made from them, Stable Video Diffusion, "
    "ModelScope's text to video, and of shapes Shap-E"
)

_CLASSES: tuple[tuple[str, str], ...] = (
    (r"AnimateDiff|PIAPipeline|MotionAdapter|UNetMotion", "AnimateDiff (motion modules, which make films)"),
    (r"IPAdapter", "an IP-Adapter"),
    (r"StableDiffusion3|SD3", "Stable Diffusion 3"),
    (r"Flux2|Flux3|Flux", "Flux"),
    (r"StableCascade", "Stable Cascade"),
    (r"Wuerstchen", "Würstchen"),
    (r"HunyuanDiT", "HunyuanDiT"),
    (r"HunyuanImage", "HunyuanImage"),
    (r"Hunyuan", "HunyuanVideo"),
    (r"QwenImage", "Qwen-Image"),
    (r"ZImage", "Z-Image"),
    (r"Sana|AutoencoderDC", "Sana"),
    (r"ControlNet|ControlLora", "a ControlNet"),
    (r"T2IAdapter|MultiAdapter|StableDiffusion(XL)?AdapterP", "a T2I-Adapter"),
    (r"LatentUpscale", "the latent upscaler of Stable Diffusion 2"),
    (r"StableDiffusionUpscale", "the x4 upscaler of Stable Diffusion 2"),
    (r"Depth2Img", "Stable Diffusion 2 with a depth map"),
    (r"LDM3D", "LDM3D (colour and depth)"),
    (r"GLIGEN", "GLIGEN (boxes of a layout)"),
    (r"StableUnCLIP", "Stable unCLIP"),
    (r"ImageVariation", "image variations (no text encoder)"),
    (r"PaintByExample", "Paint by Example"),
    (r"Marigold", "Marigold (depth of a picture)"),
    (r"UnCLIP", "unCLIP (Karlo)"),
    (r"Kandinsky\d?", "Kandinsky"),
    (r"PixArt(Alpha|Sigma)?", "PixArt"),
    (r"Lumina2", "Lumina 2"),
    (r"Lumina", "Lumina"),
    (r"AuraFlow", "AuraFlow"),
    (r"^IF[A-Z]", "DeepFloyd IF"),
    (r"Kolors", "Kolors (the text encoder of ChatGLM)"),
    (r"AltDiffusion|Roberta", "AltDiffusion (the text encoder of XLM-RoBERTa)"),
    (r"LDMTextToImage|LDMBert", "latent diffusion with LDMBert"),
    (r"LDMSuperResolution", "latent diffusion's upscaler"),
    (r"CogVideoX", "CogVideoX"),
    (r"CogView", "CogView"),
    (r"^Wan[A-Z\d]", "Wan"),
    (r"^LTX", "LTX-Video"),
    (r"Mochi", "Mochi"),
    (r"Chroma", "Chroma"),
    (r"HiDream", "HiDream"),
    (r"OmniGen", "OmniGen"),
    (r"Cosmos", "Cosmos"),
    (r"I2VGenXL", "I2VGen-XL"),
    (r"Amused|UVit2D", "aMUSEd"),
    (r"AudioLDM|StableAudio|MusicLDM|AudioDiffusion", "a model of sound"),
    (r"^DiT[A-Z]", "DiT (classes in place of prompts)"),
    (r"^(DDPM|DDIM|PNDM|LDM|ScoreSdeVe|KarrasVe|ConsistencyModel|RePaint)Pipeline|UNet2DModel",
     "a model without prompts"),
    (r"^Onnx|^ORT", "an ONNX export"),
    (r"^Flax", "weights for Flax"),
    (r"^OV[A-Z]", "an OpenVINO export"),
)  # fmt: skip
"""Classes of diffusers' pipelines, networks and configurations, and what has them; the first that fits."""

_ADAPTER = re.compile(
    r"(?!ip_adapter\.|image_proj).*"
    r"(?:\.lora_(?:up|down|A|B)\b|_lora\.(?:up|down)\.|\.lora\.|\.hada_w|\.lokr_w).*"
)
_BEFORE = re.compile(r"^(?:(?:model\.)?diffusion_model\.|transformer\.|net\.|module\.)")
"""What programs put before the names of a network's tensors."""
_TENSORS: tuple[tuple[str, str], ...] = (
    (r"ip_adapter\.|image_proj(_model)?\.|.*to_[kv]_ip\.", "an IP-Adapter"),
    (r"control_model\.|controlnet_|input_hint_block\.|lllite_|control_layers\.|control_all_", "a ControlNet"),
    (r"(adapter\.)?body\.\d+\.(resnets\.\d+\.)?block1\.", "a T2I-Adapter"),
    (r".*motion_modules\.", "an AnimateDiff motion module, which makes films"),
    (r".*(time_stack|time_mix_conv|temporal_\w+)\.", "Stable Video Diffusion"),
    (r"double_layers\.|joint_transformer_blocks\.|cond_seq_linear\.", "AuraFlow"),
    (r"(double|single)_stream_blocks\.", "HiDream"),
    (r"distilled_guidance_layer\.", "Chroma"),
    (r"txt_in\.individual_token_refiner\.", "HunyuanVideo"),
    (r"txt_norm\.|transformer_blocks\.\d+\.img_mod\.", "Qwen-Image"),
    (r"(double|single)_blocks\.|single_transformer_blocks\.|(double|single)_stream_modulation", "Flux"),
    (r"joint_blocks\.|text_encoders\.clip_g\.|transformer_blocks\.\d+\.attn\.add_[qkv]_proj\.",
     "Stable Diffusion 3"),
    (r"mlp_t5\.|extra_embedder\.|text_embedding_padding|blocks\.\d+\.default_modulation\.", "HunyuanDiT"),
    (r"all_x_embedder\.|layers\.\d+\.adaLN_modulation\.0\.", "Z-Image"),
    (r"noise_refiner\.|context_refiner\.", "Lumina 2"),
    (r"layers\.\d+\.attention\.w[kv]_y\.|cap_embedder\.", "Lumina"),
    (r"attention_y_norm\.|blocks\.\d+\.mlp\.inverted_conv\.|transformer_blocks\.\d+\.ff\.conv_inverted\.",
     "Sana"),
    (r"patchify_proj\.", "LTX-Video"),
    (r"y_embedder\.y_|blocks\.\d+\.cross_attn\.q_linear\.|adaln_single\.", "PixArt"),
    (r"clip_(txt|img|txt_pooled)_mapper\.|effnet_mapper\.|.*\.channelwise\.\d", "Stable Cascade"),
    (r"cond_mapper\.\d", "Würstchen"),
    (r"add_embedding\.(image|text)_(norm|proj)|encoder_hid_proj\.(image|text|norm)|add_time_condition\."
     r"|visual_transformer_blocks\.", "Kandinsky"),
    (r"add_embedding\.(pool|norm1)\.|encoder_pooling\.|aug_proj\.", "DeepFloyd IF"),
    (r"low_scale_model\.|label_emb\.weight|class_embedding\.weight", "the x4 upscaler of Stable Diffusion 2"),
    (r"depth_model\.", "Stable Diffusion 2 with a depth map"),
    (r"noise_augmentor\.|embedder\.model\.visual\.|conditioner\.embedders\.\d\..*visual\.", "Stable unCLIP"),
    (r"position_net\.|.*\.fuser\.", "GLIGEN (boxes of a layout)"),
    (r"head\.modulation|vace_blocks\.", "Wan"),
    (r"blocks\.\d+\.attn\.qkv_x\.|t5_yproj\.", "Mochi"),
    (r"patch_embed\.text_proj\.", "CogVideoX"),
    (r"transformer_blocks\.", "a diffusion transformer (Stable Diffusion 3, Flux and later)"),
    (r"model\.\d+\.sub\.\d+\.|(body|RRDB_trunk)\.\d+\.(rdb|RDB)\d\.|conv_first\.", "an upscaler of pictures"),
    (r"(encoder\.)?encoder\.block\.\d+\.layer\.|shared\.weight", "a T5 text encoder, a part of other models"),
    (r"model\.layers\.\d+\.(self_attn|mlp)\.", "a language model"),
    (r"vision_model\.|visual\.", "an image encoder"),
)  # fmt: skip
"""How names of tensors begin, after `_BEFORE`, and what has them; the first that fits any."""
_ANY_TENSOR = re.compile("|".join(f"(?P<row{row}>{names})" for row, (names, _) in enumerate(_TENSORS)))

_VAE = (
    *("encoder.conv_in.", "decoder.conv_in.", "encoder.layers.0.", "decoder.layers.0."),
    *("taesd_encoder.", "taesd_decoder.", "0.weight", "1.weight"),
)
_EMBEDDING = {"emb_params", "clip_l", "clip_g"}
_WIDTHS = (768, 1024, 1280)


CONTROLS = ("a ControlNet", "a T2I-Adapter", "an IP-Adapter")
"""What is no model, but steers one."""


def family_of_classes(names: Iterable[object]) -> str | None:
    """The family that is not supported, by the classes that a folder's files name, the pipeline's first."""
    classes = [name for name in names if isinstance(name, str)]
    return next((what for name in classes for pattern, what in _CLASSES if re.search(pattern, name)), None)


def family_of_tensors(names: Collection[str]) -> str | None:
    """The family that is not supported, or the network that is no model, by the names of a file's tensors."""
    if any(_ADAPTER.fullmatch(name) for name in names):
        return None
    matches = (_ANY_TENSOR.match(_BEFORE.sub("", name)) for name in names)
    rows = {int(match.lastgroup.removeprefix("row")) for match in matches if match and match.lastgroup}
    return _TENSORS[min(rows)][1] if rows else None


def belonging(family: str) -> str:
    """A family with where it belongs, if it is one of controls, or else that it is not supported."""
    if family in CONTROLS:
        return f"{family}: give it beside a model, with --control"
    return f"{family}, which is not supported; {SUPPORTED}"


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
    if family := family_of_tensors(names):
        return belonging(family)
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
