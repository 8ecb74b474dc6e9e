"""Small random pipelines in single files, written by rules of their own, not by the tables under test.

Widths are multiples of what files leave unsaid: 32 groups, 8 heads or heads of 64.
"""

import re

import diffusers
import safetensors.torch
import torch
from checkpoint_families import BETAS
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sfumato.checkpoint.vocabulary import clip_tokenizer

FAMILIES = ("sd1", "sd2-epsilon", "sd2-v", "sdxl", "inpaint", "instruct", "lcm")


def text_encoder(width=64, *, projection=None, act="quick_gelu", layers=3, pad=49407):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=projection or width,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=pad,
        hidden_act=act,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def autoencoder(scaling=0.18215):
    return diffusers.AutoencoderKL(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=2,
        scaling_factor=scaling,
    ).eval()


def unet(**changes):
    linear = changes.get("use_linear_projection", False)
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 64,
            "block_out_channels": [64, 128] if linear else [32, 64],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 2,
            "attention_head_dim": [1, 2] if linear else 8,
            "cross_attention_dim": 64,
            **changes,
        }
    ).eval()


def tokenizer(folder, pad):
    folder.mkdir()
    clip_tokenizer(pad).save(folder)
    return CLIPTokenizer.from_pretrained(folder)


def pipeline(family, folder):
    """One family's pipeline, the same at every call; `folder` is for its vocabulary."""
    torch.manual_seed(FAMILIES.index(family))
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **BETAS)
    parts = {"vae": autoencoder(), "scheduler": scheduler}
    parts["tokenizer"] = tokenizer(folder / "clip", "!" if family.startswith("sd2") else "<|endoftext|>")
    if family == "sdxl":
        parts |= {"vae": autoencoder(0.13025), "text_encoder": text_encoder()}
        parts["text_encoder_2"] = text_encoder(128, projection=96, act="gelu", layers=2, pad=0)
        parts["tokenizer_2"] = tokenizer(folder / "clip_2", "!")
        parts["unet"] = unet(
            sample_size=128,
            cross_attention_dim=64 + 128,
            block_out_channels=[64, 64, 128],
            layers_per_block=1,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=[1, 1, 2],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=96 + 6 * 16,
        )
        return diffusers.StableDiffusionXLPipeline(add_watermarker=False, **parts)
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if family.startswith("sd2"):
        v = family == "sd2-v"
        parts["text_encoder"] = text_encoder(act="gelu", pad=0)
        parts["scheduler"] = diffusers.DDIMScheduler(
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction" if v else "epsilon",
            **BETAS,
        )
        net = unet(use_linear_projection=True, sample_size=96 if v else 64, upcast_attention=True)
        return diffusers.StableDiffusionPipeline(unet=net, **parts, **none)
    parts["text_encoder"] = text_encoder()
    match family:
        case "sd1":
            return diffusers.StableDiffusionPipeline(unet=unet(), **parts, **none)
        case "inpaint":
            return diffusers.StableDiffusionInpaintPipeline(unet=unet(in_channels=9), **parts, **none)
        case "instruct":
            net = unet(in_channels=8)
            return diffusers.StableDiffusionInstructPix2PixPipeline(unet=net, **parts, **none)
        case "lcm":
            parts["scheduler"] = diffusers.LCMScheduler()
            return diffusers.LatentConsistencyModelPipeline(unet=unet(time_cond_proj_dim=32), **parts, **none)


def original(pipe):
    """The pipeline's tensors under the original names, renamed one after another as strings."""
    net, deep = pipe.unet.state_dict(), len(pipe.unet.config.block_out_channels)
    layers = pipe.unet.config.layers_per_block
    tensors = {f"model.diffusion_model.{_unet(name, layers, deep)}": net[name] for name in net}
    tensors |= original_vae(pipe.vae)
    second = getattr(pipe, "text_encoder_2", None)
    first = "conditioner.embedders.0." if second else "cond_stage_model."
    if pipe.text_encoder.config.hidden_act == "gelu":
        tensors |= open_clip(pipe.text_encoder, f"{first}model.")
    else:
        tensors |= openai(pipe.text_encoder, f"{first}transformer.text_model.")
    if second:
        tensors |= open_clip(second, "conditioner.embedders.1.model.")
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def original_vae(vae, prefix="first_stage_model."):
    tensors = {}
    for name, tensor in vae.state_dict().items():
        renamed = _vae(name, len(vae.config.block_out_channels))
        matrix = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", renamed)
        tensors[f"{prefix}{renamed}"] = tensor[..., None, None] if matrix else tensor
    return tensors


def _unet(name, layers, deep):
    ends = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "time_embedding.cond_proj": "time_embedding.cond_proj",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    module, kind = name.rsplit(".", 1)
    if module in ends:
        return f"{ends[module]}.{kind}"
    for ours, theirs in (
        ("norm1.", "in_layers.0."), ("conv1.", "in_layers.2."), ("time_emb_proj.", "emb_layers.1."),
        ("norm2.", "out_layers.0."), ("conv2.", "out_layers.3."), ("conv_shortcut.", "skip_connection."),
    ):  # fmt: skip
        if ".resnets." in name:
            name = name.replace(ours, theirs)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, place, rest = match.groups()
        return f"middle_block.{2 * int(place) if kind == 'resnets' else 1}.{rest}"
    way, level, kind, layer, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    level, layer = int(level), int(layer)
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        attends = 1 + _UP_ATTENDS[deep][level]
        return f"output_blocks.{(layers + 1) * level + layers}.{attends}.{rest}"
    column = 0 if kind == "resnets" else 1
    if way == "down":
        return f"input_blocks.{1 + (layers + 1) * level + layer}.{column}.{rest}"
    return f"output_blocks.{(layers + 1) * level + layer}.{column}.{rest}"


_UP_ATTENDS = {2: [False, True], 3: [True, True, False], 4: [False, True, True, True]}


def _vae(name, deep):
    for ours, theirs in (
        ("conv_shortcut", "nin_shortcut"), ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"),
        ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
        ("to_v", "v"), ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out"), (".resnets.", ".block."),
        ("down_blocks", "down"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return re.sub(r"up_blocks\.(\d)", lambda match: f"up.{deep - 1 - int(match[1])}", name)


def openai(encoder, prefix):
    return {f"{prefix}{name.removeprefix('text_model.')}": t for name, t in encoder.state_dict().items()}


def open_clip(encoder, prefix):
    """OpenCLIP's names, and as in published files its scale; a last layer more where nothing is projected."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    tensors = {"logit_scale": torch.tensor(4.6)}
    for name, tensor in state.items():
        for ours, theirs in (
            ("embeddings.token_embedding", "token_embedding"), ("final_layer_norm", "ln_final"),
            ("embeddings.position_embedding.weight", "positional_embedding"), ("layer_norm", "ln_"),
            ("encoder.layers", "transformer.resblocks"), ("self_attn.out", "attn.out"), ("fc1", "c_fc"),
            ("fc2", "c_proj"), ("text_projection.weight", "text_projection"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        if "self_attn" not in name:
            tensors[name] = tensor.T if name == "text_projection" else tensor
    for layer in range(encoder.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            three = [state[f"encoder.layers.{layer}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            tensors[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(three)
    if "text_projection" not in tensors:
        layers = encoder.config.num_hidden_layers
        last = f"transformer.resblocks.{layers - 1}."
        unread = {name: t for name, t in tensors.items() if name.startswith(last)}
        tensors |= {name.replace(last, f"transformer.resblocks.{layers}."): -t for name, t in unread.items()}
        tensors["text_projection"] = torch.eye(encoder.config.hidden_size)
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def diffusers_keys(pipe):
    """The pipeline's tensors under diffusers' names, each with its component's before it."""
    return {
        f"{part}.{name}": tensor.contiguous()
        for part in ("unet", "vae", "text_encoder", "text_encoder_2")
        if getattr(pipe, part, None) is not None
        for name, tensor in getattr(pipe, part).state_dict().items()
    }


def write(tensors, path, **metadata):
    safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata or None)
    return path
