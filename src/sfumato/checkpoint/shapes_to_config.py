"""What a network is, worked out from the names and shapes of its tensors, where no configuration says it.

Names and shapes tell nearly everything; what they leave open has one answer in all published models, which is
given here with its reason. Each function raises `CheckpointError` where even that does not settle it; whether
all tensors are there is checked later, against the network that the configuration makes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import count, takewhile
from math import isqrt
from typing import Any

from sfumato.config import (
    ControlNetConfig,
    TemporalVAEConfig,
    TextConfig,
    TinyVAEConfig,
    UNetConfig,
    UNetSpatioTemporalConfig,
    VAEConfig,
    VisionConfig,
)
from sfumato.config.base import MOST_LEVELS
from sfumato.config.unet import EncoderConfig
from sfumato.errors import CheckpointError
from sfumato.weights import TensorInfo

Tensors = Mapping[str, TensorInfo]
Infer = Callable[[str, object, str], None]
"""Takes down one conclusion: about what, which, and why."""

HEAD_WIDTH = 64
OLD_HEADS = 8
VISION_HEADS = 16
"""Of OpenCLIP's image encoders from ViT-L on."""
SIZE_WIDTH = 256
_TRANSFORMER = re.compile(r"(.+)\.transformer_blocks\.(\d{1,4})\..+")


@dataclass(frozen=True)
class _Level:
    """One resolution: its width, and the transformer depth after each of its residual blocks."""

    width: int
    depths: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """A UNet as far as names tell; `middle` is the transformer depth there, `None` without a middle."""

    down: list[_Level]
    middle: int | None
    up: list[tuple[int, ...]]


def unet(
    tensors: Tensors,
    original: bool,
    *,
    pooled: int | None,
    numbers: int,
    fixed: Mapping[str, Any],
    where: str,
    infer: Infer,
) -> UNetConfig:
    """The configuration of a UNet by its `tensors`, named in the original layout or in diffusers'.

    `pooled` is the width of the pooled text, `None` where there is none; `numbers` how many it is told about
    the size, if any; `fixed` what is known otherwise.
    """
    plan = (_original_plan if original else _diffusers_plan)(tensors, where)
    names = _ORIGINAL_ENDS if original else _DIFFUSERS_ENDS
    first, last = _shape(tensors, names["in"], 4, where), _shape(tensors, names["out"], 4, where)
    context, linear = _contexts(tensors), _linear(tensors)
    widths = tuple(level.width for level in plan.down)
    content: dict[str, Any] = {
        "in_channels": first[1],
        "out_channels": last[0],
        "block_out_channels": widths,
        "layers_per_block": _same([len(level.depths) for level in plan.down]),
        "down_block_types": _down_types(plan),
        "up_block_types": _up_types(plan),
        "mid_block_type": None if plan.middle is None else _MIDDLES[plan.middle > 0],
        "use_linear_projection": linear,
        "attention_head_dim": _heads(widths, linear, where, infer),
        **_depths(plan),
        **fixed,
    }
    if context:
        content["cross_attention_dim"] = max(context)
    infer(
        "unet",
        f"{len(widths)} levels of {', '.join(map(str, widths))} channels, "
        f"{content['layers_per_block']} residual blocks each",
        "the numbering and the shapes of its blocks",
    )
    if names["added"] in tensors:
        width = _shape(tensors, names["added"], 2, where)[1]
        content |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": width,
            "addition_time_embed_dim": _size_width(width, pooled, numbers, where),
        }
    if names["guidance"] in tensors:
        content["time_cond_proj_dim"] = _shape(tensors, names["guidance"], 2, where)[1]
    return UNetConfig.from_dict(content, where)


def spatio_temporal_unet(
    tensors: Tensors, frames: int, side: int, where: str, infer: Infer
) -> UNetSpatioTemporalConfig:
    """The configuration of Stable Video Diffusion's UNet by its `tensors`, named in the original layout.

    `frames` that it was trained to draw, and the `side` of its latents, no shape tells.
    """
    plan, names = _original_plan(tensors, where), _ORIGINAL_ENDS
    widths = tuple(level.width for level in plan.down)
    told = _shape(tensors, names["added"], 2, where)[1]
    if told % 3:
        raise CheckpointError(
            f"{where}: it is told {told} channels, which are not three numbers about the clip: of such "
            "models only Stable Video Diffusion is supported"
        )
    heads = _heads(widths, True, where, infer)
    depths = _depths(plan)["transformer_layers_per_block"]
    content = {
        "in_channels": _shape(tensors, names["in"], 4, where)[1],
        "out_channels": _shape(tensors, names["out"], 4, where)[0],
        "block_out_channels": widths,
        "layers_per_block": _same([len(level.depths) for level in plan.down]),
        "down_block_types": tuple(_temporal(kind) for kind in _down_types(plan)),
        "up_block_types": tuple(_temporal(kind) for kind in _up_types(plan)),
        "transformer_layers_per_block": _same(list(depths)),
        "cross_attention_dim": max(_contexts(tensors), default=0),
        "num_attention_heads": heads,
        "addition_time_embed_dim": told // 3,
        "projection_class_embeddings_input_dim": told,
        "num_frames": frames,
        "sample_size": side,
    }
    return UNetSpatioTemporalConfig.from_dict(content, where)


def _temporal(kind: str) -> str:
    return kind.removesuffix("2D") + "SpatioTemporal"


def controlnet(
    tensors: Tensors, original: bool, unet: UNetConfig, embedding: tuple[int, ...], where: str
) -> ControlNetConfig:
    """The configuration of a ControlNet by its `tensors`; what they leave open is as in `unet`.

    `embedding`: the channels that the picture is brought to, in turn.
    """
    plan = (_original_plan if original else _diffusers_plan)(tensors, where)
    names = _ORIGINAL_ENDS if original else _DIFFUSERS_ENDS
    widths = tuple(level.width for level in plan.down)
    content = {each.name: getattr(unet, each.name) for each in fields(EncoderConfig)} | {
        "in_channels": _shape(tensors, names["in"], 4, where)[1],
        "block_out_channels": widths,
        "layers_per_block": _same([len(level.depths) for level in plan.down]),
        "down_block_types": _down_types(plan),
        "mid_block_type": None if plan.middle is None else _MIDDLES[plan.middle > 0],
        "use_linear_projection": _linear(tensors),
        "transformer_layers_per_block": _depths(plan)["transformer_layers_per_block"],
        "conditioning_embedding_out_channels": embedding,
    }
    if context := _contexts(tensors):
        content["cross_attention_dim"] = max(context)
    if widths != unet.block_out_channels:
        content["attention_head_dim"] = 1  # it fits no model that is here, as will be said
    if names["added"] in tensors:
        width = _shape(tensors, names["added"], 2, where)[1]
        content |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": width,
            "addition_time_embed_dim": unet.addition_time_embed_dim or SIZE_WIDTH,
        }
    else:
        content |= {"addition_embed_type": None, "projection_class_embeddings_input_dim": None}
    return ControlNetConfig.from_dict(content, where)


def _down_types(plan: _Plan) -> tuple[str, ...]:
    return tuple("CrossAttnDownBlock2D" if any(level.depths) else "DownBlock2D" for level in plan.down)


def _up_types(plan: _Plan) -> tuple[str, ...]:
    return tuple("CrossAttnUpBlock2D" if any(depths) else "UpBlock2D" for depths in plan.up)


def _contexts(tensors: Tensors) -> set[int]:
    """The widths of the text states that cross-attentions read."""
    return {
        info.shape[1]
        for name, info in tensors.items()
        if name.endswith(".attn2.to_k.weight") and len(info.shape) == 2
    }


def _linear(tensors: Tensors) -> bool:
    """Whether transformers' projections are matrices, not convolutions."""
    return any(name.endswith(".proj_in.weight") and len(info.shape) == 2 for name, info in tensors.items())


_ORIGINAL_ENDS = {
    "in": "input_blocks.0.0.weight",
    "out": "out.2.weight",
    "added": "label_emb.0.0.weight",
    "guidance": "time_embedding.cond_proj.weight",
}
_DIFFUSERS_ENDS = {
    "in": "conv_in.weight",
    "out": "conv_out.weight",
    "added": "add_embedding.linear_1.weight",
    "guidance": "time_embedding.cond_proj.weight",
}
_MIDDLES = {False: "UNetMidBlock2D", True: "UNetMidBlock2DCrossAttn"}


def _original_plan(tensors: Tensors, where: str) -> _Plan:
    depth = _transformer_depths(tensors)
    levels: list[list[tuple[int, int]]] = [[]]
    for place in count(1):
        block = f"input_blocks.{place}"
        if f"{block}.0.op.weight" in tensors:
            levels.append([])
        elif (info := tensors.get(f"{block}.0.in_layers.2.weight")) and info.shape:
            levels[-1].append((info.shape[0], depth.get(f"{block}.1", 0)))
        else:
            break
    down = _levels(levels, where)
    middle = depth.get("middle_block.1", 0) if "middle_block.0.in_layers.2.weight" in tensors else None
    up, place = [], 0
    for level in reversed(down):
        blocks = range(place, place + len(level.depths) + 1)
        up.append(tuple(depth.get(f"output_blocks.{block}.1", 0) for block in blocks))
        place = blocks.stop
    return _Plan(down, middle, up)


def _diffusers_plan(tensors: Tensors, where: str) -> _Plan:
    depth = _transformer_depths(tensors)
    levels: list[list[tuple[int, int]]] = []
    for level in range(MOST_LEVELS + 1):
        block, blocks = f"down_blocks.{level}", []
        for layer in count():
            info = tensors.get(f"{block}.resnets.{layer}.conv1.weight")
            if info is None or not info.shape:
                break
            blocks.append((info.shape[0], depth.get(f"{block}.attentions.{layer}", 0)))
        if not blocks:
            break
        levels.append(blocks)
    down = _levels(levels, where)
    middle = depth.get("mid_block.attentions.0", 0) if "mid_block.resnets.0.conv1.weight" in tensors else None
    up = [
        tuple(depth.get(f"up_blocks.{place}.attentions.{layer}", 0) for layer in range(len(level.depths) + 1))
        for place, level in enumerate(reversed(down))
    ]
    return _Plan(down, middle, up)


def _transformer_depths(tensors: Tensors) -> dict[str, int]:
    """How many transformer blocks each place has."""
    found: dict[str, int] = {}
    for name in tensors:
        if match := _TRANSFORMER.fullmatch(name):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return found


def _levels(levels: list[list[tuple[int, int]]], where: str) -> list[_Level]:
    if not all(levels) or not levels:
        raise CheckpointError(f"{where}: its levels cannot be told, for a residual block is missing")
    return [_Level(blocks[0][0], tuple(depth for _, depth in blocks)) for blocks in levels]


def _depths(plan: _Plan) -> dict[str, Any]:
    """`transformer_layers_per_block`, and for the way up where it is not the way down's mirror."""
    deepest = plan.middle or 1
    down = [level.depths if any(level.depths) else (1,) * len(level.depths) for level in plan.down]
    if not any(plan.down[-1].depths):
        down[-1] = (deepest,) * len(down[-1])
    up = [depths if any(depths) else (1,) * len(depths) for depths in plan.up]
    even = [
        _same([*there, *(back if any(plan.up[-1 - level]) else ())])
        for level, (there, back) in enumerate(zip(down, reversed(up), strict=True))
    ]
    if all(isinstance(depth, int) for depth in even):
        return {"transformer_layers_per_block": tuple(even)}
    return {
        "transformer_layers_per_block": tuple(down),
        "reverse_transformer_layers_per_block": tuple(up),
    }


def _heads(widths: tuple[int, ...], linear: bool, where: str, infer: Infer) -> int | tuple[int, ...]:
    """Nothing in a file tells how many heads attention has; it goes with the form of the projections."""
    unit = HEAD_WIDTH if linear else OLD_HEADS
    if odd := [width for width in widths if width % unit]:
        raise CheckpointError(
            f"{where}: attention {odd[0]} channels wide cannot be split into heads as in published models, "
            f"whose widths are multiples of {unit}"
        )
    if linear:
        heads = tuple(width // HEAD_WIDTH for width in widths)
        infer("unet heads", ", ".join(map(str, heads)), f"its projections are linear: heads of {HEAD_WIDTH}")
        return heads
    infer(
        "unet heads", OLD_HEADS, f"its projections are convolutions: {OLD_HEADS} heads, as Stable Diffusion 1"
    )
    return OLD_HEADS


def _size_width(width: int, pooled: int | None, numbers: int, where: str) -> int:
    """Channels for each number about the size."""
    if pooled is None:
        return SIZE_WIDTH
    if width <= pooled or (width - pooled) % numbers:
        raise CheckpointError(
            f"{where}: it is told {width} channels about prompt and size, which is not the pooled text's "
            f"{pooled} and {numbers} numbers"
        )
    return (width - pooled) // numbers


def temporal_vae(tensors: Tensors, scaling: float, sample: int, where: str) -> TemporalVAEConfig:
    """The configuration of Stable Video Diffusion's autoencoder by its `tensors` in the original layout."""
    config = vae(tensors, True, scaling, sample, where)
    kept = {name: getattr(config, name) for name in config.to_dict().keys() & TemporalVAEConfig.names()}
    return TemporalVAEConfig.from_dict(kept, where)


def open_clip_vision(tensors: Tensors, where: str) -> VisionConfig:
    """The configuration of an OpenCLIP image encoder by its `tensors`."""
    width, _, patch, _ = _shape(tensors, "conv1.weight", 4, where)
    places = _shape(tensors, "positional_embedding", 2, where)[0]
    layers = takewhile(tensors.__contains__, _numbered("transformer.resblocks.{}.ln_1.weight"))
    content = {
        "hidden_size": width,
        "intermediate_size": _shape(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 2, where)[0],
        "projection_dim": _shape(tensors, "proj", 2, where)[1],
        "num_hidden_layers": sum(1 for _ in layers),
        "num_attention_heads": VISION_HEADS,
        "image_size": patch * isqrt(places - 1),
        "patch_size": patch,
        "hidden_act": "gelu",
    }
    return VisionConfig.from_dict(content, where)


def vae(tensors: Tensors, original: bool, scaling: float, sample: int, where: str) -> VAEConfig:
    """The configuration of an autoencoder; its family tells `scaling` and the picture's side `sample`."""
    down, block, middle = (
        ("encoder.down", "block", "encoder.mid.attn_1.norm.weight")
        if original
        else ("encoder.down_blocks", "resnets", "encoder.mid_block.attentions.0.group_norm.weight")
    )
    widths = []
    for level in range(MOST_LEVELS + 1):
        info = tensors.get(f"{down}.{level}.{block}.0.conv1.weight")
        if info is None or not info.shape:
            break
        widths.append(info.shape[0])
    layers = sum(1 for _ in takewhile(tensors.__contains__, _numbered(f"{down}.0.{block}.{{}}.conv1.weight")))
    if not widths:
        raise CheckpointError(f"{where}: an autoencoder's encoder is missing")
    content = {
        "in_channels": _shape(tensors, "encoder.conv_in.weight", 4, where)[1],
        "out_channels": _shape(tensors, "decoder.conv_out.weight", 4, where)[0],
        "latent_channels": _shape(tensors, "decoder.conv_in.weight", 4, where)[1],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": middle in tensors,
        "scaling_factor": scaling,
        "sample_size": sample,
    }
    return VAEConfig.from_dict(content, where)


def tiny_vae(tensors: Tensors, original: bool, where: str) -> TinyVAEConfig:
    """The configuration of a TAESD; in its own files (`original`) the decoder begins with a layer more."""
    halves = ("taesd_{}coder." if original else "{}coder.layers.").format
    encoder, decoder = halves("en"), halves("de")
    down, up = _blocks(tensors, encoder, where), _blocks(tensors, decoder, where)
    first = _shape(tensors, f"{encoder}0.weight", 4, where)
    last = _shape(tensors, f"{decoder}{int(original)}.weight", 4, where)
    ends = [_last(tensors, prefix, where) for prefix in (encoder, decoder)]
    content = {
        "in_channels": first[1],
        "latent_channels": ends[0],
        "out_channels": ends[1],
        "encoder_block_out_channels": (first[0],) * len(down),
        "decoder_block_out_channels": (last[0],) * len(up),
        "num_encoder_blocks": down,
        "num_decoder_blocks": up,
    }
    return TinyVAEConfig.from_dict(content, where)


_PLACE = re.compile(r"(\d{1,3})\.(weight|bias|conv\.0\.weight)")


def _blocks(tensors: Tensors, prefix: str, where: str) -> tuple[int, ...]:
    """Residual blocks of each level: a convolution without bias leads from one level to the next."""
    found = _places(tensors, prefix)
    counts = [0]
    for place in sorted(found):
        if "conv.0.weight" in found[place]:
            counts[-1] += 1
        elif found[place] == {"weight"}:
            counts.append(0)
    if not found:
        raise CheckpointError(f"{where}: a tiny autoencoder's {prefix.rstrip('.')} is missing")
    return tuple(counts)


def _last(tensors: Tensors, prefix: str, where: str) -> int:
    return _shape(tensors, f"{prefix}{max(_places(tensors, prefix))}.weight", 4, where)[0]


def _places(tensors: Tensors, prefix: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for name in tensors:
        if name.startswith(prefix) and (match := _PLACE.fullmatch(name[len(prefix) :])):
            found.setdefault(int(match[1]), set()).add(match[2])
    return found


_TEXT = {
    False: (
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.{}.mlp.fc1.weight",
        "text_projection.weight",
    ),
    True: (
        "token_embedding.weight",
        "positional_embedding",
        "transformer.resblocks.{}.mlp.c_fc.weight",
        "text_projection",
    ),
}
"""The names of a text encoder's tensors: transformers', and OpenCLIP's."""


def text_layers(tensors: Tensors, open_clip: bool) -> int:
    """How many layers a text encoder has, by transformers' names or OpenCLIP's."""
    return sum(1 for _ in takewhile(tensors.__contains__, _numbered(_TEXT[open_clip][2])))


def text(
    tensors: Tensors, open_clip: bool, *, layers: int, act: str, projected: bool, where: str
) -> TextConfig:
    """The configuration of a text encoder of which the first `layers` are read."""
    token, position, layer, projection = _TEXT[open_clip]
    vocabulary, width = _shape(tensors, token, 2, where)
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"{where}: attention {width} channels wide cannot be split into CLIP's heads of {HEAD_WIDTH}"
        )
    content = {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _shape(tensors, layer.format(0), 2, where)[0],
        "projection_dim": _shape(tensors, projection, 2, where)[int(open_clip)] if projected else width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": _shape(tensors, position, 2, where)[0],
        "hidden_act": act,
    }
    return TextConfig.from_dict(content, where)


def _shape(tensors: Tensors, name: str, dimensions: int, where: str) -> tuple[int, ...]:
    """The shape of a tensor that everything else depends on."""
    info = tensors.get(name)
    if info is None:
        raise CheckpointError(f"{where}: {name!r} is missing")
    if len(info.shape) != dimensions:
        raise CheckpointError(f"{where}: {name!r} has shape {list(info.shape)}, not {dimensions} dimensions")
    return info.shape


def _numbered(pattern: str) -> "map[str]":
    return map(pattern.format, count())


def _same(values: list[int]) -> int | tuple[int, ...]:
    """The one value of all, or all of them."""
    return values[0] if len(set(values)) == 1 else tuple(values)
