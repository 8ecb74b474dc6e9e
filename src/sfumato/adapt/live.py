"""Adapters injected beside layers: W stays as it is, each layer's answer gains what the adapter adds.

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

from sfumato.adapt.delta import MAGNITUDES, SHIFTS, Delta, LoRA, merged
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.reading import published_shape
from sfumato.errors import UsageError, nearest
from sfumato.nets.inference import GEGLULinear, Prepacked, UpsampleConv

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
"""The projections of attention, in UNets and text encoders: what LoRA changes unless told otherwise."""


class AdapterLayers(nn.ModuleList):
    """All adapters of one layer; `was_packed` is how the layer was found."""

    was_packed = False


class AdapterLayer(nn.Module):
    """One adapter's change of one layer, counted `weight` times."""

    def __init__(self, name: str, delta: Delta, weight: float = 1.0) -> None:
        super().__init__()
        self.name, self.delta, self.weight = name, delta, weight

    def is_additive(self, layer: nn.Module) -> bool:
        """Whether its answer can be added to the layer's, without making ΔW."""
        return (
            isinstance(self.delta, LoRA)
            and not self.delta.has(*MAGNITUDES, *SHIFTS)
            and isinstance(layer, nn.Linear | nn.Conv2d)
            and not isinstance(layer, UpsampleConv)
        )


def attach(layer: nn.Module, adapter: AdapterLayer) -> None:
    """Have `layer` answer with `adapter`, besides those that it has already."""
    own = _own(layer)
    if own is None:
        layer.adapters = own = AdapterLayers()
        own.was_packed = isinstance(layer, Prepacked) and bool(layer.packed)
        # replacing the method on the one object keeps the layer's class, name and hooks as they are
        setattr(layer, "forward", partial(_forward, layer))  # noqa: B010
    own.append(adapter)


def detach(net: nn.Module, name: str | None = None) -> None:
    """Take every adapter called `name` out of `net`, or all; what remains is as it was, bit for bit."""
    for layer in list(net.modules()):
        own = _own(layer)
        if own is None:
            continue
        left = [each for each in adapter_layers(layer) if name is not None and each.name != name]
        if left:
            layer.adapters = kept = AdapterLayers(left)
            kept.was_packed = own.was_packed
            continue
        del layer.adapters
        delattr(layer, "forward")
        if own.was_packed and isinstance(layer, Prepacked):
            layer.pack()


def adapter_layers(layer: nn.Module) -> list[AdapterLayer]:
    """The adapters that one layer has."""
    return [each for each in _own(layer) or () if isinstance(each, AdapterLayer)]


def _own(layer: nn.Module) -> AdapterLayers | None:
    found = layer._modules.get("adapters")
    return found if isinstance(found, AdapterLayers) else None


def attached(net: nn.Module, name: str | None = None) -> dict[str, AdapterLayer]:
    """Every adapter called `name` in `net`, or of any name, by the path of its layer."""
    return {
        path: each
        for path, layer in net.named_modules()
        for each in adapter_layers(layer)
        if name is None or each.name == name
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
        path: layer
        for path, layer in LayerIndex(net).layers.items()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    names = [path.split(".") for path in layers]
    ends = {".".join(each[at:]) for each in names for at in range(len(each))}
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
        out, *inputs = published_shape(layer)
        device = layer.get_parameter("weight").device
        down = torch.empty(rank, *inputs)
        bound = down[0].numel() ** -0.5
        down.uniform_(-bound, bound, generator=generator)
        up = torch.zeros(out, rank, *[1] * (len(inputs) - 1))
        parts = {"down": down.to(device), "up": up.to(device)}
        delta = LoRA(parts, (rank if alpha is None else alpha) / rank, trainable=True)
        attach(layer, AdapterLayer(name, delta))
        made += delta.parameters()
    return made


def _forward(layer: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """A layer's answer with its adapters.

    Additive ones give s·B(A x), which is added; for the rest the layer computes with W + ΔW.
    """
    own = [each for each in adapter_layers(layer) if each.weight]
    additive = [each for each in own if each.is_additive(layer)]
    with _with_merged(layer, [each for each in own if each not in additive]):
        if isinstance(layer, GEGLULinear) and additive:
            layer.unpack()
            gain = _gain(layer, additive, x)
            value, gate = (F.linear(x, layer.weight, layer.bias) + gain.to(x.dtype)).chunk(2, dim=-1)
            return value * F.gelu(gate)
        y: Tensor = type(layer).forward(layer, x, *arguments, **options)
    return y + _gain(layer, additive, x).to(y.dtype) if additive else y


def _gain(layer: nn.Module, additive: Sequence[AdapterLayer], x: Tensor) -> Tensor:
    first, *rest = (
        each.weight * each.delta.answer(layer, x) for each in additive if isinstance(each.delta, LoRA)
    )
    return sum(rest, first)


@contextmanager
def _with_merged(layer: Any, own: Sequence[AdapterLayer]) -> Iterator[None]:
    """`layer` with these changes in its weight and bias, which gradients flow through."""
    if not own:
        yield
        return
    if isinstance(layer, Prepacked):
        layer.unpack()
    changes = ((each.weight, each.delta) for each in own)
    # an entry in the object's own dictionary hides the parameter of that name
    layer.__dict__["weight"], bias = merged(layer.weight, layer._parameters.get("bias"), changes)
    if bias is not None:
        layer.__dict__["bias"] = bias
    try:
        yield
    finally:
        layer.__dict__.pop("weight", None)
        layer.__dict__.pop("bias", None)
