"""Keys of adapter files: every program's way of naming a layer and a part of its change, as tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from sfumato.checkpoint.ldm_keys import unet_modules
from sfumato.checkpoint.motion import MODULES, library_name
from sfumato.nets.unet import UNet

# What follows a layer's name in a key, and the tensor's role: PEFT, diffusers of three ages, kohya, LyCORIS.
# Magnitudes have either name in either program's surroundings, as files lie about that were half converted.
_MAGNITUDES = {"lora_magnitude_vector": "magnitude", "dora_scale": "dora_scale"}
SUFFIXES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A": "down",
    ".lora_B": "up",
    ".lora_B.bias": "up_bias",
    **{
        f"{before}{name}{after}": role
        for before in (".", "_lora.", ".lora.", ".lora_linear_layer.")
        for name, role in _MAGNITUDES.items()
        for after in ("", ".weight", ".default", ".default.weight")
    },
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".scale": "scale",
    ".scalar": "scalar",
    ".diff": "diff",
    ".diff_b": "diff_b",
    ".w_norm": "diff",
    ".b_norm": "diff_b",
    **{f".hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}

NUMBERS = frozenset({"alpha", "scale", "scalar"})
"""The roles of one number each, which scale the product of the others."""

# What precedes it, and the network that is meant; without one of these it must be told from the layers.
PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lycoris_": "unet",
    "unet.": "unet",
    "diffusion_model.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
}
BARE = "base_model.model."

# How diffusers once called what it still has, in the order in which the rules apply.
OLD_NAMES = (
    (re.compile(r"\.processor\."), "."),
    (re.compile(r"\bself_attn\.to_(q|k|v)$"), r"self_attn.\1_proj"),
    (re.compile(r"\bself_attn\.to_out$"), "self_attn.out_proj"),
    (re.compile(r"\b(attn[12])\.to_out$"), r"\1.to_out.0"),
)

_TENSOR = re.compile("(.+?)(" + "|".join(map(re.escape, sorted(SUFFIXES, key=len, reverse=True))) + ")")
_PREFIX = re.compile("|".join(map(re.escape, sorted(PREFIXES, key=len, reverse=True))))
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)")
_EDGES = {"conv_in": "in", "conv_norm_out": "out", "conv_out": "out", "mid_block": "mid"}


@dataclass(frozen=True)
class Key:
    """A parsed key: the network, if it says, the layer as spelled there, and which tensor ("down", …).

    `stem` is what every key of the layer begins with.
    """

    part: str | None
    layer: str
    tensor: str
    stem: str

    @property
    def for_motion(self) -> bool:
        """Whether its layer is one of a motion adapter's."""
        return MODULES in self.layer


def parse_key(key: str) -> Key | None:
    """What a key says; nothing if it is not an adapter's."""
    if not (match := _TENSOR.fullmatch(key)):
        return None
    layer, tensor = match[1], SUFFIXES[match[2]]
    part = None
    if prefix := _PREFIX.match(layer):
        part, layer = PREFIXES[prefix[0]], layer[prefix.end() :]
    layer = layer.removeprefix(BARE)
    if MODULES in layer:
        layer = library_name(layer)
    for pattern, replacement in OLD_NAMES:
        layer = pattern.sub(replacement, layer)
    return Key(part, layer, tensor, match[1])


class LayerIndex:
    """The layers of one network that an adapter can change, under every name that files have for them."""

    def __init__(self, net: nn.Module) -> None:
        self.layers = {
            path: layer
            for path, layer in net.named_modules()
            if isinstance(layer._parameters.get("weight"), nn.Parameter)
        }
        self.originals: Mapping[str, str] = {}
        if isinstance(net, UNet):
            self.originals = unet_modules(net.config)
        self._named: dict[str, str] = {}
        for path in self.layers:
            spellings = [path, f"text_model.{path}"]
            if path in self.originals:
                spellings.append(self.originals[path])
            for spelling in spellings:
                self._named.setdefault(spelling, path)
                self._named.setdefault(spelling.replace(".", "_"), path)
        steps: dict[str, int] = {}
        for path in self.layers:
            if match := _BLOCK.match(path):
                level = f"{match[1]}.{match[2]}"
                steps[level] = max(steps.get(level, 0), int(match[4]))
        self.blocks = {path: self._blocks(path, steps, isinstance(net, UNet)) for path in self.layers}

    @property
    def has_motion(self) -> bool:
        """Whether there is a motion adapter in the network."""
        return any(MODULES in path for path in self.layers)

    def find(self, layer: str) -> str | None:
        """Our path of a layer, however it is spelled."""
        return self._named.get(layer)

    def spellings(self) -> list[str]:
        """Every name that `find` knows."""
        return list(self._named)

    def _blocks(self, path: str, steps: Mapping[str, int], unet: bool) -> tuple[str, ...]:
        """The blocks that a layer belongs to, the smallest first; see `sfumato.adapt.blocks`."""
        if not unet:
            return ("text",)
        if match := _BLOCK.match(path):
            way, level, kind, index = match.groups()
            step = int(index)
            if kind in ("downsamplers", "upsamplers"):
                step = steps[f"{way}.{level}"] + (way == "down")
            return (f"{way}.{level}.{step}", f"{way}.{level}", way)
        return (_EDGES.get(path.split(".")[0], "time"),)
