"""Adapters beside their layers: W stays as it is, each layer's answer gains what the adapter adds.

This is the form for training, where the parts of the change are the parameters, and for weights that change
from one picture to the next.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.adapt.delta import MAGNITUDES, SHIFTS, Delta, LowRank
from sfumato.adapt.keys import Places
from sfumato.adapt.reading import published_shape
from sfumato.errors import UsageError, nearest
from sfumato.nets.fast import DoublingConv, Gated, Packable

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
"""The projections of attention, in UNets and text encoders: what LoRA changes unless told otherwise."""


class Branches(nn.ModuleList):
    """All that stands beside one layer; `was_packed` is how the layer was found."""

    was_packed = False


class Branch(nn.Module):
    """One adapter's change of one layer, counted `weight` times."""

    def __init__(self, name: str, delta: Delta, weight: float = 1.0) -> None:
        super().__init__()
        self.name, self.delta, self.weight = name, delta, weight

    def stands_beside(self, layer: nn.Module) -> bool:
        """Whether its answer can be added to the layer's, without making ΔW."""
        return (
            isinstance(self.delta, LowRank)
            and not self.delta.has(*MAGNITUDES, *SHIFTS)
            and isinstance(layer, nn.Linear | nn.Conv2d)
            and not isinstance(layer, DoublingConv)
        )


def attach(layer: nn.Module, branch: Branch) -> None:
    """Have `layer` answer with `branch`, besides those that it has already."""
    own = _own(layer)
    if own is None:
        layer.adapters = own = Branches()
        own.was_packed = isinstance(layer, Packable) and bool(layer.packed)
        # replacing the method on the one object keeps the layer's class, name and hooks as they are
        setattr(layer, "forward", partial(_forward, layer))  # noqa: B010
    own.append(branch)


def detach(net: nn.Module, name: str | None = None) -> None:
    """Take every branch called `name` out of `net`, or all; what remains is as it was, bit for bit."""
    for layer in list(net.modules()):
        own = _own(layer)
        if own is None:
            continue
        left = [branch for branch in branches(layer) if name is not None and branch.name != name]
        if left:
            layer.adapters = kept = Branches(left)
            kept.was_packed = own.was_packed
            continue
        del layer.adapters
        delattr(layer, "forward")
        if own.was_packed and isinstance(layer, Packable):
            layer.pack()


def branches(layer: nn.Module) -> list[Branch]:
    """The branches beside one layer."""
    return [branch for branch in _own(layer) or () if isinstance(branch, Branch)]


def _own(layer: nn.Module) -> Branches | None:
    found = layer._modules.get("adapters")
    return found if isinstance(found, Branches) else None


def attached(net: nn.Module, name: str | None = None) -> dict[str, Branch]:
    """Every branch called `name` in `net`, or of any name, by the path of its layer."""
    return {
        path: branch
        for path, layer in net.named_modules()
        for branch in branches(layer)
        if name is None or branch.name == name
    }


def attach_new(
    net: nn.Module,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = ATTENTION,
    *,
    name: str = "new",
    generator: torch.Generator | None = None,
) -> list[nn.Parameter]:
    """Put a new LoRA beside the layers of `net` whose paths end in one of `targets`; its parameters A and B.

    A is drawn as PEFT and kohya draw it, uniform within ±1/√in, B is 0: at first the net answers as before.
    `alpha` is `rank` unless given. Parameters are float32 whatever the net's dtype. The net's own weights are
    not touched, nor whether they ask for gradients. Raises `UsageError` for a rank below 1 and a target that
    is no layer of `net`.
    """
    if rank < 1:
        raise UsageError(f"rank is {rank}: must be 1 or more")
    layers = {
        path: layer for path, layer in Places(net).layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    ends = {path[at:] for path in layers for at in _starts(path)}
    known = [target for target in targets if target in ends]
    if not known or (targets is not ATTENTION and len(known) < len(targets)):
        wrong = next(target for target in targets if target not in ends)
        raise UsageError(
            f"no layer ends in {wrong!r}; {nearest(wrong, {end for end in ends if len(end) < 20})}"
        )
    made: list[nn.Parameter] = []
    for path, layer in layers.items():
        if not any(path == target or path.endswith(f".{target}") for target in known):
            continue
        out, *inside = published_shape(layer)
        device = layer.get_parameter("weight").device
        down = torch.empty(rank, *inside)
        bound = down[0].numel() ** -0.5
        down.uniform_(-bound, bound, generator=generator)
        up = torch.zeros(out, rank, *[1] * (len(inside) - 1))
        parts = {"down": down.to(device), "up": up.to(device)}
        delta = LowRank(parts, (rank if alpha is None else alpha) / rank, trainable=True)
        attach(layer, Branch(name, delta))
        made += delta.parameters()
    return made


def _starts(path: str) -> list[int]:
    return [0, *(at + 1 for at, letter in enumerate(path) if letter == ".")]


def _forward(layer: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """A layer's answer with its branches.

    Those that stand beside it are added to the answer; for the rest the layer computes with W + ΔW.
    """
    own = [branch for branch in branches(layer) if branch.weight]
    beside = [branch for branch in own if branch.stands_beside(layer)]
    inside = [branch for branch in own if branch not in beside]
    if isinstance(layer, Gated) and beside:
        layer.unpack()
        with _changed(layer, inside):
            gain = _gain(layer, beside, x)
            value, gate = (F.linear(x, layer.weight, layer.bias) + gain.to(x.dtype)).chunk(2, dim=-1)
            return value * F.gelu(gate)
    with _changed(layer, inside):
        y: Tensor = type(layer).forward(layer, x, *arguments, **options)
    return y + _gain(layer, beside, x).to(y.dtype) if beside else y


def _gain(layer: nn.Module, beside: Sequence[Branch], x: Tensor) -> Tensor:
    gains = [
        branch.weight * branch.delta.answer(layer, x)
        for branch in beside
        if isinstance(branch.delta, LowRank)
    ]
    total = gains[0]
    for gain in gains[1:]:
        total = total + gain
    return total


@contextmanager
def _changed(layer: Any, inside: Sequence[Branch]) -> Iterator[None]:
    """`layer` with the changes of `inside` in its weight and bias, which gradients flow through."""
    if not inside:
        yield
        return
    if isinstance(layer, Packable):
        layer.unpack()
    weight, bias = layer.weight, layer._parameters.get("bias")
    whole = weight.float()
    for branch in inside:
        whole = whole + branch.weight * branch.delta.change(weight)
    # an entry in the object's own dictionary hides the parameter of that name
    layer.__dict__["weight"] = whole.to(weight.dtype)
    shifts = [(each.weight, s) for each in inside if (s := each.delta.shift(weight.device)) is not None]
    if shifts and bias is not None:
        moved = bias.float()
        for factor, shift in shifts:
            moved = moved + factor * shift
        layer.__dict__["bias"] = moved.to(bias.dtype)
    try:
        yield
    finally:
        layer.__dict__.pop("weight", None)
        layer.__dict__.pop("bias", None)
