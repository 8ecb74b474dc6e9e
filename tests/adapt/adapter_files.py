"""Adapter files as other programs write them, under names that follow from rules of this file's own."""

import re

import torch
from safetensors.torch import save_file
from torch import nn

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out")
TIMES = ("time_emb_proj", "linear_1", "linear_2")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def layers(net, ends):
    """The layers of a network whose paths end so, by their paths without the prefix that some have."""
    return {
        path.removeprefix("text_model."): layer
        for path, layer in net.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(f".{path}".endswith(f".{end}") for end in ends)
    }


def low_rank(layer, rank, generator, tucker=False):
    """Random parts of a LoRA, of the size at which they show."""
    out, *inside = layer.weight.shape
    down_shape, up_shape = (rank, *inside), (out, rank, *[1] * (len(inside) - 1))
    parts = {}
    if tucker and len(inside) == 3:
        down_shape = (rank, inside[0], 1, 1)
        parts["mid"] = torch.randn(rank, rank, *inside[1:], generator=generator) / 2
    parts["down"] = torch.randn(down_shape, generator=generator) / 3
    parts["up"] = torch.randn(up_shape, generator=generator) / 3
    return parts


def original_name(path, layers_per_level=2, levels=3):
    """A UNet layer's name in Stable Diffusion's first program, worked out from where it stands."""
    inside = {
        "conv1": "in_layers.2",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
        "norm1": "in_layers.0",
        "norm2": "out_layers.0",
    }
    ends = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "conv_norm_out": "out.0"}
    times = {"time_embedding": "time_embed", "add_embedding": "label_emb.0"}
    if path in ends:
        return ends[path]
    first, *rest = path.split(".")
    if first in times:
        return f"{times[first]}.{ {'linear_1': 0, 'linear_2': 2}[rest[0]] }"
    if first == "mid_block":
        kind, number, *rest = rest
        place = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}"
        return ".".join([place, inside.get(rest[0], rest[0]) if kind == "resnets" else ".".join(rest)])
    level, kind, number, *rest = rest
    level, number = int(level), int(number)
    if first == "down_blocks":
        start = 1 + level * (layers_per_level + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + layers_per_level}.0.op"
        place = f"input_blocks.{start + number}"
    else:
        start = level * (layers_per_level + 1)
        if kind == "upsamplers":
            attends = level < levels - 1
            return f"output_blocks.{start + layers_per_level}.{2 if attends else 1}.conv"
        place = f"output_blocks.{start + number}"
    if kind == "resnets":
        return f"{place}.0.{inside[rest[0]]}"
    return f"{place}.1.{'.'.join(rest)}"


def kohya(path, networks, ends, *, original=False, rank=3, alpha=2.0, seed=0, tucker=False, alphas=True):
    """A file of kohya's, for the layers of `networks` that end so; its parts by place and layer."""
    generator = torch.Generator().manual_seed(seed)
    double = "text_encoder_2" in networks
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_text_model_" if double else "lora_te_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }
    names = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
    tensors, made = {}, {}
    for part, net in networks.items():
        for layer_path, layer in layers(net, ends).items():
            parts = low_rank(layer, rank, generator, tucker)
            spelled = original_name(layer_path) if original and part == "unet" else layer_path
            stem = prefixes[part] + spelled.replace(".", "_")
            tensors |= {f"{stem}.{names[role]}": tensor for role, tensor in parts.items()}
            if alphas:
                tensors[f"{stem}.alpha"] = torch.tensor(alpha)
            made[part, layer_path] = parts
    save_file(tensors, path)
    return made


def old_diffusers(path, networks, *, rank=3, seed=0):
    """A file as diffusers wrote it before it used PEFT: processors of attention, linear layers of text."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer_path, layer in layers(networks["unet"], ("to_q", "to_k", "to_v", "to_out.0")).items():
        stem = re.sub(r"(attn[12])\.(to_\w+)(\.0)?$", r"\1.processor.\2_lora", layer_path)
        for role, tensor in low_rank(layer, rank, generator).items():
            tensors[f"unet.{stem}.{role}.weight"] = tensor
    for layer_path, layer in layers(networks["text_encoder"], TEXT).items():
        for role, tensor in low_rank(layer, rank, generator).items():
            tensors[f"text_encoder.text_model.{layer_path}.lora_linear_layer.{role}.weight"] = tensor
    save_file(tensors, path)
    return tensors
