"""Which networks a file's layers belong to: those of a model that is named, else of a published family."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sfumato.adapt import reading
from sfumato.adapt.keys import LayerIndex, parse_key
from sfumato.adapt.reading import Adapter
from sfumato.adapt.source import PARTS, Source
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.loading import empty_network
from sfumato.checkpoint.motion import MODULES
from sfumato.checkpoint.scan import scan
from sfumato.config import Config, MotionAdapterConfig, TextConfig, UNetConfig
from sfumato.errors import CheckpointError, UsageError
from sfumato.nets.motion import MotionAdapter
from sfumato.nets.unet import UNet
from sfumato.options import EMBEDDED, ModelOptions

_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "architectures": ["CLIPTextModel"],
}
_OPEN_CLIP_H = _CLIP_L | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
_OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "architectures": ["CLIPTextModelWithProjection"],
}
_SD = {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8}
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {"unet": _SD | {"cross_attention_dim": 768}, "text_encoder": _CLIP_L},
    "sd2": {
        "unet": _SD
        | {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        "text_encoder": _OPEN_CLIP_H,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "text_encoder": _CLIP_L,
        "text_encoder_2": _OPEN_CLIP_G,
    },
}
"""The networks of each family as they were published, by their places."""
_READ_TEXT = ("attn2.to_k", "attn2.to_v", "attn2_to_k", "attn2_to_v")


@dataclass(frozen=True, eq=False)
class Architecture:
    """The layers of a model's networks, by their places, without weights; `name` is what to call it.

    `family`: its name in `sfumato.checkpoint.families`.
    """

    name: str
    family: str
    indexes: Mapping[str, LayerIndex]


def of_model(model: str, *, moving: bool = False) -> Architecture:
    """That of a model; only its configuration and headers are read. Raises `CheckpointError` as `scan`.

    `moving`: with the motion modules of AnimateDiff in its UNet.
    """
    found = scan(ModelOptions.of(model))
    family = found.model_info().family.name
    configs = {part: found.parts[part].config for part in PARTS if part in found.parts}
    return Architecture(model, family, _indexes(configs, moving))


@cache
def published(family: str, *, moving: bool = False) -> Architecture:
    """That of a family, "sd1", "sd2" or "sdxl", as its models were published, or of the embedded model.

    `moving` as in `of_model`.
    """
    if family == EMBEDDED:
        return of_model(EMBEDDED, moving=moving)
    configs = {
        part: (UNetConfig if part == "unet" else TextConfig).from_dict(content, f"{family}: {part}")
        for part, content in PUBLISHED[family].items()
    }
    return Architecture(FAMILIES[family].title, family, _indexes(configs, moving))


def _indexes(configs: Mapping[str, Config], moving: bool) -> dict[str, LayerIndex]:
    """The layers of each network, without memory."""
    indexes = {}
    for part, config in configs.items():
        network = empty_network(config)
        if moving and isinstance(network, UNet) and isinstance(config, UNetConfig):
            motion = empty_network(
                MotionAdapterConfig(
                    block_out_channels=config.block_out_channels,
                    motion_layers_per_block=config.layers,
                    motion_num_attention_heads=1,
                    motion_norm_num_groups=config.norm_num_groups,
                    use_motion_mid_block=config.mid_block_type is not None,
                )
            )
            assert isinstance(motion, MotionAdapter)
            motion.attach(network)
        indexes[part] = LayerIndex(network)
    return indexes


def fitted(sources: Sequence[tuple[str, Source]], model: str | None) -> tuple[Architecture, list[Adapter]]:
    """The adapters in some `sources`, with their names, and the networks that all of them are for.

    Those of `model`, else of the first published family that has every layer. Raises `CheckpointError` where
    a file is no adapter or does not fit, and `UsageError` for adapters of two families.
    """
    moving = any(_is_moving(found) for _, found in sources)
    if model is not None:
        asked = of_model(model, moving=moving)
        try:
            return asked, [reading.from_source(found, asked.indexes, name) for name, found in sources]
        except CheckpointError as error:
            for _, found in sources:
                hint = _by_text_width(found)
                if hint is not None and hint in PUBLISHED and hint != asked.family:
                    raise CheckpointError(
                        f"{found.path} was made for {FAMILIES[hint].title}, and {model} is "
                        f"{FAMILIES[asked.family].title} ({error})"
                    ) from None
            raise
    first: CheckpointError | None = None
    for family in _likely(sources[0][1]):
        try:
            return _all(family, sources, moving)
        except CheckpointError as error:
            first = first or error
    assert first is not None
    if len(sources) > 1:
        own = [fitted([each], None)[0] for each in sources]
        if other := next((at for at, each in enumerate(own) if each.family != own[0].family), None):
            raise UsageError(
                f"{sources[other][1].path} was made for {own[other].name}, and {sources[0][1].path} for "
                f"{own[0].name}"
            )
    raise CheckpointError(f"{first} (if it was made for a model of another shape, --model names that)")


def _is_moving(source: Source) -> bool:
    """Whether it changes layers of a motion adapter."""
    return any(MODULES in key for key in source.tensors)


def _all(
    family: str, sources: Sequence[tuple[str, Source]], moving: bool
) -> tuple[Architecture, list[Adapter]]:
    architecture = published(family, moving=moving)
    return architecture, [reading.from_source(found, architecture.indexes, name) for name, found in sources]


def _likely(source: Source) -> Iterator[str]:
    """The families, the likeliest first: by the width of the text that it reads, or by its text encoders."""
    known = [*PUBLISHED, EMBEDDED]
    hint = _by_text_width(source) or _by_encoders(source)
    yield from sorted(known, key=lambda family: family != hint)


def _by_text_width(source: Source) -> str | None:
    widths: dict[int, str] = {FAMILIES[family].context or 0: family for family in PUBLISHED}
    for key, tensor in source.tensors.items():
        parsed = parse_key(key)
        role = parsed and parsed.tensor
        if parsed and role in ("down", "hada_w1_b") and parsed.layer.endswith(_READ_TEXT) and tensor.ndim > 1:
            return widths.get(tensor.shape[1], EMBEDDED)
    return None


def _by_encoders(source: Source) -> str | None:
    second = any(parsed.part == PARTS[2] for key in source.tensors if (parsed := parse_key(key)))
    return "sdxl" if second else None
