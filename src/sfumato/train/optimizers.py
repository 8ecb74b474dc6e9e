"""What takes the steps: torch's AdamW, and others of packages that are imported where they are asked for."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError

OPTIMIZERS = ("adamw", "adamw-8bit", "prodigy", "adafactor")
"""Loshchilov & Hutter 2019; the same with moments of 8 bits (Dettmers et al. 2022), by bitsandbytes;
Mishchenko & Defazio 2024, by prodigyopt, whose learning rate is a factor of the one that it finds; Shazeer &
Stern 2018 with a given learning rate, by transformers."""
EXTRA = "optimizers"
RATE, FACTOR = "lr", "factor"
"""In a group of parameters: its learning rate, and what the schedule's is multiplied with."""
_TEXT = "text_encoder"
_B = ".delta.parts.up"

Structure = dict[str, Any]
"""The state of an optimizer without its tensors, as JSON holds it: of each weight, by name, its entries, each
a number or the dtype and shape of a tensor, and the numbers of each group."""


def groups_of(
    trained: Mapping[str, nn.Parameter], text_factor: float, lora_plus_ratio: float
) -> list[dict[str, Any]]:
    """Groups of parameters, each with its `FACTOR`: those of text encoders, and LoRA's B, whose learning rate
    should be higher than that of A (Hayou et al. 2024, §5)."""
    of: dict[float, list[nn.Parameter]] = {}
    for name, weight in trained.items():
        factor = text_factor if name.startswith(_TEXT) else 1.0
        of.setdefault(factor * (lora_plus_ratio if name.endswith(_B) else 1.0), []).append(weight)
    return [{"params": weights, FACTOR: factor} for factor, weights in of.items()]


def new(
    name: str,
    groups: Sequence[dict[str, Any]],
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    device: torch.device,
) -> torch.optim.Optimizer:
    """One of `OPTIMIZERS` for `groups` of parameters on `device`.

    Raises `UsageError` where its package is not installed, or cannot be used on the device.
    """
    options: dict[str, Any] = {"lr": learning_rate, "betas": betas, "weight_decay": weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=device.type == "cuda", **options)
    if name == "adamw-8bit":
        return _made("bitsandbytes.optim", "AdamW8bit", name, groups, options)
    if name == "prodigy":
        safe = {"safeguard_warmup": True, "use_bias_correction": True}
        return _made("prodigyopt", "Prodigy", name, groups, options | safe)
    fixed = {"relative_step": False, "scale_parameter": False, "warmup_init": False}
    del options["betas"]
    return _made("transformers.optimization", "Adafactor", name, groups, options | fixed)


def _made(
    module: str, kind: str, name: str, groups: Sequence[dict[str, Any]], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    package = module.split(".")[0]
    try:
        made: torch.optim.Optimizer = getattr(importlib.import_module(module), kind)(groups, **options)
    except ImportError:
        raise UsageError(
            f"optimizer.name = {name!r} needs the package {package}: pip install 'sfumato[{EXTRA}]'"
        ) from None
    except RuntimeError as error:
        raise UsageError(f"optimizer.name = {name!r}: {package} cannot be used here: {error}") from error
    return made


def tensors_of(optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What the optimizer has of every weight, by its own name and the weight's."""
    return {
        f"{key}.{name}": value
        for name, weight in trained.items()
        for key, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def structure_of(optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]) -> Structure:
    """What `prepare` needs to make room for `tensors_of`, and all numbers besides."""
    weights = {
        name: {
            key: [str(value.dtype).removeprefix("torch."), list(value.shape)]
            if isinstance(value, Tensor)
            else value
            for key, value in optimizer.state[weight].items()
        }
        for name, weight in trained.items()
        if weight in optimizer.state
    }
    groups = [
        {key: value for key, value in group.items() if type(value) in (int, float) and key != RATE}
        for group in optimizer.param_groups
    ]
    return {"weights": weights, "groups": groups}


def prepare(
    optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter], structure: Structure
) -> None:
    """Give the optimizer the state that `structure` describes, its tensors with room and no content yet."""
    on_device = bool(optimizer.param_groups[0].get("fused"))
    for name, entries in structure["weights"].items():
        weight = trained[name]
        optimizer.state[weight] = {
            key: _room(value[0], value[1], weight, on_device) if isinstance(value, list) else value
            for key, value in entries.items()
        }
    for group, numbers in zip(optimizer.param_groups, structure["groups"], strict=True):
        group.update(numbers)


def _room(dtype: str, shape: Sequence[int], weight: nn.Parameter, on_device: bool) -> Tensor:
    kind = getattr(torch, dtype)
    if tuple(shape) == tuple(weight.shape):
        return torch.empty_like(weight, dtype=kind, requires_grad=False)
    device = weight.device if shape or on_device else torch.device("cpu")
    return torch.empty(tuple(shape), dtype=kind, device=device)
