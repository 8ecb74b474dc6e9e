"""The names that Stable Diffusion's first programs gave everything, as tables that read both ways.

Files that are passed around hold a whole model under those names: `input_blocks`, `middle_block` and
`output_blocks` number what diffusers calls `down_blocks`, `mid_block` and `up_blocks`, the decoder counts its
levels from the other end, OpenCLIP stacks three matrices in one. A table follows from a configuration alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.config import (
    Config,
    ControlNetConfig,
    TemporalVAEConfig,
    TextConfig,
    TinyVAEConfig,
    UNetConfig,
    UNetSpatioTemporalConfig,
    VAEConfig,
    VisionConfig,
)
from sfumato.config.unet import EncoderConfig

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model."
CONDITIONER = "conditioner.embedders."
OPENAI = "transformer.text_model."
OPEN_CLIP = "model."
VISION = "conditioner.embedders.0.open_clip.model.visual."
PICTURE_ENCODER = "conditioner.embedders.3.encoder."
"""Of Stable Video Diffusion: the autoencoder's half that encodes the picture which is moved."""

_ENCODER_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
_UNET_ENDS = {
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
# the first programs had no such layer; the scripts that wrote files in their layout left it its name
_GUIDANCE = {"time_embedding.cond_proj": "time_embedding.cond_proj"}
_ADDED = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_UNET_SHORTCUT = {"conv_shortcut": "skip_connection"}
_SPATIAL = ("norm", "proj_in", "proj_out")
_TRANSFORMER = (
    *(f"attn{number}.{linear}" for number in (1, 2) for linear in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)
_TEMPORAL_TRANSFORMER = (*_TRANSFORMER, "norm_in", "ff_in.net.0.proj", "ff_in.net.2")
_TEMPORAL_ENDS = {
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
    "time_mixer": "time_mixer",
}
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
_VAE_SHORTCUT = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VAE_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_STACKED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class SourceKey:
    """Where a file keeps one parameter, and in which form."""

    key: str
    qkv_index: int | None = None
    """Which third of the rows, where query, key and value are stacked."""
    transposed: bool = False
    convolution: bool = False
    """A matrix (C, C) kept as a convolution (C, C, 1, 1)."""


Table = dict[str, SourceKey]
"""By the name of a parameter here."""
_Resnet = Callable[[str, str, bool], dict[str, str]]
_Transformer = Callable[[str, str, int], dict[str, str]]


def _encoder_modules(config: EncoderConfig) -> dict[str, str]:
    """What `unet_modules` gives, for the layers that a ControlNet has as well."""
    names = dict(_ENCODER_ENDS)
    if config.addition_embed_type is not None:
        names |= _ADDED
    channels, count = config.block_out_channels, len(config.block_out_channels)
    resnet, transformer = _layers_of(config)
    place = 1
    for level, kind in enumerate(config.down_block_types):
        ours, attends = f"down_blocks.{level}", kind.startswith("CrossAttn")
        for layer in range(config.layers[level]):
            widens = layer == 0 and channels[max(level - 1, 0)] != channels[level]
            names |= resnet(f"{ours}.resnets.{layer}", f"input_blocks.{place}.0", widens)
            if attends:
                depth = config.down_depths[level][layer]
                names |= transformer(f"{ours}.attentions.{layer}", f"input_blocks.{place}.1", depth)
            place += 1
        if level < count - 1:
            names[f"{ours}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
            place += 1
    if config.mid_block_type is not None:
        names |= resnet("mid_block.resnets.0", "middle_block.0", False)
    if config.mid_block_type == "UNetMidBlock2DCrossAttn":
        names |= transformer("mid_block.attentions.0", "middle_block.1", config.down_depths[-1][0])
        names |= resnet("mid_block.resnets.1", "middle_block.2", False)
    return names


def unet_modules(config: UNetConfig) -> dict[str, str]:
    """The original path of every layer of a UNet that has parameters, by its path here."""
    names = _encoder_modules(config) | _UNET_ENDS
    if config.time_cond_proj_dim is not None:
        names |= _GUIDANCE
    count = len(config.block_out_channels)
    resnet, transformer = _layers_of(config)
    place = 0
    for level, kind in enumerate(config.up_block_types):
        ours, attends = f"up_blocks.{level}", kind.startswith("CrossAttn")
        layers = config.layers[count - 1 - level] + 1
        for layer in range(layers):
            names |= resnet(f"{ours}.resnets.{layer}", f"output_blocks.{place}.0", True)
            if attends:
                depth = config.up_depths[level][layer]
                names |= transformer(f"{ours}.attentions.{layer}", f"output_blocks.{place}.1", depth)
            place += 1
        if level < count - 1:
            after = 2 if attends else 1
            names[f"{ours}.upsamplers.0.conv"] = f"output_blocks.{place - 1}.{after}.conv"
    return names


def controlnet_modules(config: ControlNetConfig) -> dict[str, str]:
    """The original path of every layer of a ControlNet that has parameters, by its path here."""
    names = _encoder_modules(config)
    for place in range(len(config.skip_channels)):
        names[f"controlnet_down_blocks.{place}"] = f"zero_convs.{place}.0"
    names["controlnet_mid_block"] = "middle_block_out.0"
    last = 2 * len(config.conditioning_embedding_out_channels) - 1
    layers = ["conv_in", *(f"blocks.{number}" for number in range(last - 1)), "conv_out"]
    for place, layer in enumerate(layers):
        names[f"controlnet_cond_embedding.{layer}"] = f"input_hint_block.{2 * place}"
    return names


def vae_modules(config: VAEConfig) -> dict[str, str]:
    """The original path of every layer of an autoencoder that has parameters, by its path here."""
    names: dict[str, str] = {}
    channels, count = config.block_out_channels, len(config.block_out_channels)
    temporal = isinstance(config, TemporalVAEConfig)
    if temporal:
        names["decoder.time_conv_out"] = "decoder.conv_out.time_mix_conv"
    for half in ("encoder", "decoder"):
        names |= _joined(half, half, _VAE_ENDS)
        for number in (0, 1):
            ours, theirs = f"{half}.mid_block.resnets.{number}", f"{half}.mid.block_{number + 1}"
            if temporal and half == "decoder":
                names |= _temporal_vae_resnet(ours, theirs, False)
            else:
                names |= _joined(ours, theirs, _VAE_RESNET)
        if config.mid_block_add_attention:
            names |= _joined(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)
    for level in range(count):
        ours, theirs = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        widens = channels[level] != channels[max(level - 1, 0)]
        names |= _vae_resnets(ours, theirs, config.layers_per_block, widens)
        if level < count - 1:
            names[f"{ours}.downsamplers.0.conv"] = f"{theirs}.downsample.conv"
        ours, theirs = f"decoder.up_blocks.{count - 1 - level}", f"decoder.up.{level}"
        widens = channels[level] != channels[min(level + 1, count - 1)]
        names |= _vae_resnets(ours, theirs, config.layers_per_block + 1, widens, temporal)
        if level:
            names[f"{ours}.upsamplers.0.conv"] = f"{theirs}.upsample.conv"
    if config.use_quant_conv:
        names["quant_conv"] = "quant_conv"
    if config.use_post_quant_conv:
        names["post_quant_conv"] = "post_quant_conv"
    return names


def unet_table(config: UNetConfig, parameters: Iterable[str], prefix: str = UNET) -> Table:
    """Where the original layout keeps each of a UNet's `parameters`."""
    return _by_module(unet_modules(config), parameters, prefix)


def vae_table(config: VAEConfig, parameters: Iterable[str], prefix: str = VAE) -> Table:
    """Where the original layout keeps each of an autoencoder's `parameters`."""
    if isinstance(config, TemporalVAEConfig):
        names = list(parameters)
        decoder = [name for name in names if name.startswith("decoder.")]
        rest = [name for name in names if not name.startswith("decoder.")]
        modules = vae_modules(config)
        table = _by_module(modules, decoder, VAE) | _by_module(modules, rest, PICTURE_ENCODER)
        table = {name: table[name] for name in names}
    else:
        table = _by_module(vae_modules(config), parameters, prefix)
    matrices = tuple(f".{name}.weight" for name in _VAE_ATTENTION if name != "group_norm")
    return {
        name: SourceKey(origin.key, convolution=".attentions." in name and name.endswith(matrices))
        for name, origin in table.items()
    }


def openai_table(config: TextConfig, parameters: Iterable[str], prefix: str) -> Table:
    """Where files keep OpenAI's text encoder; `prefix` such as "cond_stage_model.transformer.text_model."."""
    return {name: SourceKey(f"{prefix}{name}") for name in parameters}


def open_clip_table(config: TextConfig, parameters: Iterable[str], prefix: str) -> Table:
    """Where files keep an OpenCLIP text encoder; `prefix` such as "conditioner.embedders.1.model."."""
    modules = {"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final"}
    table = {
        "embeddings.position_embedding.weight": SourceKey(f"{prefix}positional_embedding"),
        "text_projection.weight": SourceKey(f"{prefix}text_projection", transposed=True),
    }
    return _open_clip(config.num_hidden_layers, "encoder", modules, table, parameters, prefix)


def open_clip_vision_table(config: VisionConfig, parameters: Iterable[str], prefix: str = VISION) -> Table:
    """Where files keep an OpenCLIP image encoder."""
    ours = "vision_model."
    modules = {
        f"{ours}embeddings.patch_embedding": "conv1",
        f"{ours}pre_layrnorm": "ln_pre",
        f"{ours}post_layernorm": "ln_post",
    }
    table = {
        f"{ours}embeddings.class_embedding": SourceKey(f"{prefix}class_embedding"),
        f"{ours}embeddings.position_embedding.weight": SourceKey(f"{prefix}positional_embedding"),
        "visual_projection.weight": SourceKey(f"{prefix}proj", transposed=True),
    }
    return _open_clip(config.num_hidden_layers, f"{ours}encoder", modules, table, parameters, prefix)


def _open_clip(
    layers: int, encoder: str, modules: dict[str, str], table: Table, parameters: Iterable[str], prefix: str
) -> Table:
    """`modules` and `table` with the layers of an OpenCLIP encoder, which is called `encoder` here."""
    for layer in range(layers):
        ours, theirs = f"{encoder}.layers.{layer}", f"transformer.resblocks.{layer}"
        modules |= _joined(ours, theirs, _OPEN_CLIP_LAYER)
        for qkv_index, name in enumerate(_STACKED):
            for kind in ("weight", "bias"):
                key = f"{prefix}{theirs}.attn.in_proj_{kind}"
                table[f"{ours}.self_attn.{name}.{kind}"] = SourceKey(key, qkv_index=qkv_index)
    wanted = list(parameters)
    rest = _by_module(modules, (name for name in wanted if name not in table), prefix)
    return {name: table.get(name) or rest[name] for name in wanted}


def tiny_vae_table(config: TinyVAEConfig, parameters: Iterable[str], prefix: str = "") -> Table:
    """Where TAESD's own files keep each of a tiny autoencoder's `parameters`.

    Both halves are numbered lists; the decoder's begins with the squeezing of its input, which is no layer
    here.
    """
    table = {}
    for name in parameters:
        half, _, rest = name.partition(".layers.")
        number, _, inside = rest.partition(".")
        table[name] = SourceKey(f"{prefix}taesd_{half}.{int(number) + (half == 'decoder')}.{inside}")
    return table


def table_of(config: Config, prefix: str, open_clip: bool, parameters: Iterable[str]) -> Table:
    """Where files keep the `parameters` of the network that `config` describes, under names with `prefix`."""
    if isinstance(config, UNetConfig):
        return unet_table(config, parameters, prefix)
    if isinstance(config, ControlNetConfig):
        return _by_module(controlnet_modules(config), parameters, prefix)
    if isinstance(config, VAEConfig):
        return vae_table(config, parameters, prefix)
    if isinstance(config, TinyVAEConfig):
        return tiny_vae_table(config, parameters, prefix)
    if isinstance(config, VisionConfig):
        return open_clip_vision_table(config, parameters, prefix)
    assert isinstance(config, TextConfig)
    table = open_clip_table if open_clip else openai_table
    return table(config, parameters, prefix)


def from_file(table: Mapping[str, SourceKey], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's `tensors` as parameters by their names here; matrices that were stacked share their memory."""
    return {name: taken(tensors[origin.key], origin) for name, origin in table.items()}


def to_file(table: Mapping[str, SourceKey], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters as a file's tensors: the inverse of `from_file`."""
    stacked: dict[str, dict[int, Tensor]] = {}
    tensors = {}
    for name, origin in table.items():
        tensor = state[name]
        if origin.qkv_index is not None:
            stacked.setdefault(origin.key, {})[origin.qkv_index] = tensor
        else:
            tensor = tensor[:, :, None, None] if origin.convolution else tensor
            tensors[origin.key] = tensor.t() if origin.transposed else tensor
    return tensors | {key: torch.cat([parts[n] for n in range(3)]) for key, parts in stacked.items()}


def shapes(
    table: Mapping[str, SourceKey], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a file must hold, given those of the parameters.

    Matrices kept as convolutions count as matrices, for some programs keep them so.
    """
    found = {}
    for name, origin in table.items():
        shape = expected[name]
        if origin.qkv_index is not None:
            shape = (3 * shape[0], *shape[1:])
        found[origin.key] = shape[::-1] if origin.transposed else shape
    return found


def put_back(tensor: Tensor, origin: SourceKey, parameter: Tensor) -> Tensor:
    """A file's `tensor` with a `parameter` of other numbers in its place there: the inverse of `taken`."""
    if origin.qkv_index is not None:
        thirds = list(tensor.chunk(3))
        thirds[origin.qkv_index] = parameter
        return torch.cat(thirds)
    return (parameter.t() if origin.transposed else parameter).reshape(tensor.shape)


def taken(tensor: Tensor, origin: SourceKey) -> Tensor:
    """The parameter in a file's `tensor`; one of three that are stacked shares its memory."""
    if origin.qkv_index is not None:
        return tensor.chunk(3)[origin.qkv_index]
    if origin.convolution:
        return tensor.reshape(tensor.shape[:2])
    return tensor.t().contiguous() if origin.transposed else tensor


def _by_module(modules: Mapping[str, str], parameters: Iterable[str], prefix: str) -> Table:
    table = {}
    for name in parameters:
        module, _, kind = name.rpartition(".")
        table[name] = SourceKey(f"{prefix}{modules[module]}.{kind}")
    return table


def _joined(ours: str, theirs: str, inside: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{name}": f"{theirs}.{other}" for name, other in inside.items()}


def _unet_resnet(ours: str, theirs: str, widens: bool) -> dict[str, str]:
    return _joined(ours, theirs, _UNET_RESNET | _UNET_SHORTCUT if widens else _UNET_RESNET)


def _spatial(ours: str, theirs: str, depth: int) -> dict[str, str]:
    inside = [
        *_SPATIAL,
        *(f"transformer_blocks.{block}.{name}" for block in range(depth) for name in _TRANSFORMER),
    ]
    return _joined(ours, theirs, {name: name for name in inside})


def _layers_of(config: EncoderConfig) -> tuple[_Resnet, _Transformer]:
    """How the names of a residual block and of a transformer of this UNet are written."""
    if isinstance(config, UNetSpatioTemporalConfig):
        return _temporal_resnet, _temporal_spatial
    return _unet_resnet, _spatial


def _temporal_resnet(ours: str, theirs: str, widens: bool) -> dict[str, str]:
    return (
        _unet_resnet(f"{ours}.spatial_res_block", theirs, widens)
        | _unet_resnet(f"{ours}.temporal_res_block", f"{theirs}.time_stack", False)
        | {f"{ours}.time_mixer": f"{theirs}.time_mixer"}
    )


def _temporal_spatial(ours: str, theirs: str, depth: int) -> dict[str, str]:
    names = _spatial(ours, theirs, depth) | _joined(ours, theirs, _TEMPORAL_ENDS)
    for block in range(depth):
        inside = {name: name for name in _TEMPORAL_TRANSFORMER}
        names |= _joined(
            f"{ours}.temporal_transformer_blocks.{block}", f"{theirs}.time_stack.{block}", inside
        )
    return names


def _temporal_vae_resnet(ours: str, theirs: str, widens: bool) -> dict[str, str]:
    temporal = {name: key for name, key in _UNET_RESNET.items() if name in _VAE_RESNET}
    spatial = _VAE_RESNET | _VAE_SHORTCUT if widens else _VAE_RESNET
    return (
        _joined(f"{ours}.spatial_res_block", theirs, spatial)
        | _joined(f"{ours}.temporal_res_block", f"{theirs}.time_stack", temporal)
        | {f"{ours}.time_mixer": theirs}
    )


def _vae_resnets(ours: str, theirs: str, count: int, widens: bool, temporal: bool = False) -> dict[str, str]:
    names: dict[str, str] = {}
    for layer in range(count):
        block, other, wider = f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", widens and layer == 0
        if temporal:
            names |= _temporal_vae_resnet(block, other, wider)
        else:
            names |= _joined(block, other, _VAE_RESNET | _VAE_SHORTCUT if wider else _VAE_RESNET)
    return names
