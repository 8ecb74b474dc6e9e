"""Writing adapters that other programs read: diffusers' layout, and kohya's for A1111 and ComfyUI."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.adapt.delta import MAGNITUDES, Delta, Diff, LoRA
from sfumato.adapt.embedding import Embedding, bundled_tensors, tensors_of
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.live import attached
from sfumato.adapt.reading import published_shape
from sfumato.adapt.settings import HEADER
from sfumato.adapt.source import PARTS
from sfumato.checkpoint.motion import MODULES, original_layer
from sfumato.errors import UsageError, nearest
from sfumato.names import LORA_LAYOUTS

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
    "up_bias": "diff_b",
}
MODEL_HASH = "sshs_model_hash"
"""The header's entry by which A1111 and kohya's scripts know a LoRA: SHA-256 of what follows the header."""

Deltas = Mapping[tuple[str, str], Delta]
"""The changes by the network's place and the layer's path there."""


def check_layout(layout: str) -> None:
    """Raise `UsageError` for an unknown layout."""
    if layout not in LORA_LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; {nearest(layout, LORA_LAYOUTS)}")


def save_lora(
    path: str | Path,
    networks: Mapping[str, nn.Module],
    *,
    name: str = "new",
    layout: str = "peft",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    others: Mapping[str, Tensor] | None = None,
    embeddings: Mapping[str, Embedding] | None = None,
) -> None:
    """Write the adapter `name` that is attached to `networks` (by their places) as one safetensors file.

    `layout`: "peft", which diffusers reads, or "kohya", which A1111 and ComfyUI read. `dtype`: what to round
    to; as it is if `None`. `metadata` goes into the header, and `others` are tensors of the file besides.
    `embeddings`: learned words that the file brings with it, for which only kohya's layout has a place.
    Raises `UsageError` for an unknown layout, where no such adapter is attached, and as `write` does;
    `OutputError` where it cannot be written.
    """
    check_layout(layout)
    found = {part: attached(networks[part], name) for part in PARTS if part in networks}
    deltas = {(part, at): adapted.delta for part, own in found.items() for at, adapted in own.items()}
    if not deltas:
        raise UsageError(f"no adapter {name!r} is attached to these networks")
    indexes = {part: LayerIndex(networks[part]) for part in PARTS if part in networks}
    write(
        path, deltas, indexes, layout=layout, dtype=dtype, metadata=metadata, others=others,
        embeddings=embeddings,
    )  # fmt: skip


def write(
    path: str | Path,
    deltas: Deltas,
    indexes: Mapping[str, LayerIndex],
    *,
    layout: str,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    others: Mapping[str, Tensor] | None = None,
    embeddings: Mapping[str, Embedding] | None = None,
) -> None:
    """Write `deltas`, for networks with these `indexes`, as one safetensors file. See `save_lora`.

    Raises `UsageError` for what the layout has no way to say, and for numbers too large for `dtype`.
    """
    check_layout(layout)
    if embeddings and layout == "peft":
        raise UsageError(
            f"the layout peft has no place for the embedding {next(iter(embeddings))!r}; kohya's has one"
        )
    tensors = (_peft if layout == "peft" else _kohya)(deltas, indexes)
    for embedding in (embeddings or {}).values():
        tensors |= bundled_tensors(embedding)
    tensors |= others or {}
    tensors = {key: _rounded(key, tensor.detach(), dtype) for key, tensor in tensors.items()}
    header = {"format": "pt", **_header(deltas), **(_settings(deltas) if layout == "peft" else {})}
    header |= {**(metadata or {}), MODEL_HASH: weights.body_digest(tensors)}
    weights.write(path, tensors, header)


def save_embedding(
    path: str | Path, embedding: Embedding, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a learned word as one safetensors file that A1111, ComfyUI, diffusers and kohya's scripts read.

    One text encoder's vectors stand under the word itself, those of SDXL's two under "clip_l" and "clip_g".
    Raises `OutputError` where it cannot be written.
    """
    tensors = {key: rows.detach().contiguous() for key, rows in tensors_of(embedding).items()}
    weights.write(path, tensors, {"format": "pt", **(metadata or {})})


def _rounded(key: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    rounded = tensor.to(dtype or tensor.dtype).contiguous()
    if not bool(rounded.isfinite().all()):
        what = "is too large for" if bool(tensor.isfinite().all()) else "is not finite in"
        raise UsageError(f"{key!r} {what} {str(rounded.dtype).removeprefix('torch.')}; use fp32 or bf16")
    return rounded


def _header(deltas: Deltas) -> dict[str, str]:
    """What kohya's scripts and A1111 show of a LoRA: its module, rank and alpha, where all layers agree."""
    ranks = {str(delta.rank) for delta in deltas.values() if delta.rank}
    alphas = {f"{delta.scale * delta.rank:g}" for delta in deltas.values() if delta.rank}
    plain = all(type(delta) is LoRA for delta in deltas.values())
    return {
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
        "ss_network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
    }


def _peft(deltas: Deltas, indexes: Mapping[str, LayerIndex]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (part, layer), delta in deltas.items():
        inside = "" if part == "unet" or layer == "text_projection" else "text_model."
        shape = published_shape(indexes[part].layers[layer])
        for role, tensor in _low_rank_parts(part, layer, delta, shape).items():
            tensors[f"{part}.{inside}{layer}.{_PEFT[role]}"] = tensor
    for part in PARTS:
        own = [delta for (place, _), delta in deltas.items() if place == part]
        if len({delta.has(*MAGNITUDES) for delta in own}) > 1:
            raise UsageError(f"some layers of the {part} are DoRA and some are not, which PEFT cannot say")
    return tensors


def _low_rank_parts(part: str, layer: str, delta: Delta, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The parts of a LoRA as PEFT has them: two factors, magnitudes of the outputs, a bias of the second."""
    where = f"{layer} of the {part}"
    if not isinstance(delta, LoRA):
        kind = "a full difference" if isinstance(delta, Diff) else type(delta).__name__
        raise UsageError(f"{where} is {kind}, which diffusers does not read; a LoRA of some rank comes near")
    plain = delta.without_core()
    down, up = plain.parts["down"], plain.parts["up"]
    kernel = [1] * (len(shape) - 2)
    parts: dict[str, Tensor] = {"down": down.reshape(-1, *shape[1:]), "up": up.reshape(shape[0], -1, *kernel)}
    if delta.has(*MAGNITUDES):
        magnitude, axis = delta.magnitude(shape)
        if axis:
            raise UsageError(f"{where} has magnitudes of inputs; PEFT has those of outputs alone")
        parts["magnitude"] = magnitude.reshape(1, -1, *kernel) if kernel else magnitude.flatten()
    if delta.has("up_bias"):
        parts["up_bias"] = delta.parts["up_bias"]
    elif delta.has("diff_b"):
        parts["up_bias"] = delta.parts["diff_b"] / delta.scale
    return parts


def _settings(deltas: Deltas) -> dict[str, str]:
    """What PEFT keeps beside the tensors, as diffusers writes it into the header."""
    settings: dict[str, Any] = {}
    for part in PARTS:
        own = {layer: delta for (place, layer), delta in deltas.items() if place == part}
        if not own:
            continue
        ranks = {layer: delta.rank or 1 for layer, delta in own.items()}
        alphas = {layer: own[layer].scale * rank for layer, rank in ranks.items()}
        rank, alpha = (Counter(each.values()).most_common(1)[0][0] for each in (ranks, alphas))
        fields = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {layer: own_rank for layer, own_rank in ranks.items() if own_rank != rank},
            "alpha_pattern": {layer: own_alpha for layer, own_alpha in alphas.items() if own_alpha != alpha},
            "target_modules": sorted(own),
            "use_dora": any(delta.has(*MAGNITUDES) for delta in own.values()),
        }
        if any(delta.has("up_bias", "diff_b") for delta in own.values()):
            fields["lora_bias"] = True
        settings |= {f"{part}.{field}": value for field, value in fields.items()}
    return {HEADER: json.dumps(settings, indent=2, sort_keys=True)}


def _kohya(deltas: Deltas, indexes: Mapping[str, LayerIndex]) -> dict[str, Tensor]:
    """SDXL's UNet goes by its original names there, the others by diffusers', and layers of a motion adapter
    by those of AnimateDiff's own program, whose files have no alpha.
    """
    spelled = kohya_stems(indexes)
    tensors: dict[str, Tensor] = {}
    for (part, layer), delta in deltas.items():
        if MODULES in layer:
            if not isinstance(delta, LoRA) or delta.has(*MAGNITUDES):
                raise UsageError(f"{layer} is no plain LoRA, and AnimateDiff's own program reads no other")
            block, _, projection = original_layer(layer).removesuffix(".0").rpartition(".")
            stem, plain = f"{block}.processor.{projection}_lora", delta.without_core()
            tensors[f"{stem}.down.weight"] = plain.parts["down"]
            tensors[f"{stem}.up.weight"] = delta.scale * plain.parts["up"]
            continue
        stem = spelled(part, layer)
        shape = published_shape(indexes[part].layers[layer])
        whole = 1.0 if delta.rank else delta.scale
        for role, tensor in delta.parts.items():
            if role in MAGNITUDES:
                tensor, _ = delta.magnitude(shape)
            elif role == "up_bias" or (role in ("diff", "lokr_w1") and whole != 1):
                tensor = delta.scale * tensor
            tensors[f"{stem}.{_KOHYA.get(role, role)}"] = tensor
        if delta.rank:
            tensors[f"{stem}.alpha"] = torch.tensor(delta.scale * delta.rank)
    return tensors


def kohya_stems(indexes: Mapping[str, LayerIndex]) -> Callable[[str, str], str]:
    """What kohya's keys begin with, by the network's place and the layer's path there."""
    double = "text_encoder_2" in indexes
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": f"lora_te{1 if double else ''}_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }

    def stem(part: str, layer: str) -> str:
        inside = prefixes[part]
        if layer == "text_projection":
            inside = inside.removesuffix("text_model_")
        originals = indexes[part].originals if double else {}
        return inside + originals.get(layer, layer).replace(".", "_")

    return stem
