"""Writing adapters that other programs read: diffusers' layout, and kohya's for A1111 and ComfyUI."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.adapt.delta import Delta
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.live import attached
from sfumato.adapt.settings import HEADER
from sfumato.adapt.source import PARTS
from sfumato.errors import UsageError, nearest

_PEFT = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "up_bias": "lora_B.bias",
    "magnitude": "lora_magnitude_vector",
}
_KOHYA = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "mid": "lora_mid.weight",
    "magnitude": "dora_scale",
}
LAYOUTS = ("peft", "kohya")


def save_lora(
    path: str | Path,
    networks: Mapping[str, nn.Module],
    *,
    name: str = "new",
    layout: str = "peft",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the adapter `name` that is attached to `networks` (by their places) as one safetensors file.

    `layout`: "peft", which diffusers reads, or "kohya", which A1111 and ComfyUI read. `dtype`: what to round
    to; as it is if `None`. `metadata` goes into the header, and `others` are tensors of the
    file besides. Raises `UsageError` for an unknown layout and
    where no such adapter is attached, `OutputError` where it cannot be written.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; {nearest(layout, LAYOUTS)}")
    found = {part: attached(networks[part], name) for part in PARTS if part in networks}
    deltas = {part: {at: adapted.delta for at, adapted in own.items()} for part, own in found.items() if own}
    if not deltas:
        raise UsageError(f"no adapter {name!r} is attached to these networks")
    write = _peft if layout == "peft" else _kohya
    tensors, header = write(networks, deltas)
    tensors |= others or {}
    tensors = {key: tensor.detach().to(dtype or tensor.dtype).contiguous() for key, tensor in tensors.items()}
    weights.write(path, tensors, {"format": "pt", **header, **(metadata or {})})


Deltas = Mapping[str, Mapping[str, Delta]]


def _peft(networks: Mapping[str, nn.Module], deltas: Deltas) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for part, own in deltas.items():
        inside = "" if part == "unet" else "text_model."
        for layer, delta in own.items():
            prefix = inside if layer != "text_projection" else ""
            for role, tensor in delta.parts.items():
                tensors[f"{part}.{prefix}{layer}.{_PEFT.get(role, role)}"] = tensor
        ranks = {layer: delta.rank or 1 for layer, delta in own.items()}
        alphas = {layer: own[layer].scale * rank for layer, rank in ranks.items()}
        rank, alpha = (Counter(each.values()).most_common(1)[0][0] for each in (ranks, alphas))
        fields = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {layer: own_rank for layer, own_rank in ranks.items() if own_rank != rank},
            "alpha_pattern": {layer: own_alpha for layer, own_alpha in alphas.items() if own_alpha != alpha},
            "target_modules": sorted(own),
            "use_dora": any(delta.has("magnitude") for delta in own.values()),
        }
        settings |= {f"{part}.{field}": value for field, value in fields.items()}
    return tensors, {HEADER: json.dumps(settings, indent=2, sort_keys=True)}


def _kohya(networks: Mapping[str, nn.Module], deltas: Deltas) -> tuple[dict[str, Tensor], dict[str, str]]:
    """SDXL's UNet goes by its original names there, the others by diffusers'."""
    double = "text_encoder_2" in networks
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": f"lora_te{1 if double else ''}_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }
    tensors: dict[str, Tensor] = {}
    for part, own in deltas.items():
        originals = LayerIndex(networks[part]).originals if double else {}
        for layer, delta in own.items():
            prefix = (
                prefixes[part].removesuffix("text_model_") if layer == "text_projection" else prefixes[part]
            )
            stem = prefix + originals.get(layer, layer).replace(".", "_")
            for role, tensor in delta.parts.items():
                flat = tensor.flatten() if role == "magnitude" else None
                column = flat[(..., *[None] * (delta.parts["down"].ndim - 1))] if flat is not None else tensor
                tensors[f"{stem}.{_KOHYA.get(role, role)}"] = column
            tensors[f"{stem}.alpha"] = torch.tensor(delta.scale * (delta.rank or 1))
    ranks = Counter(delta.rank for own in deltas.values() for delta in own.values())
    return tensors, {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.most_common(1)[0][0]),
    }
