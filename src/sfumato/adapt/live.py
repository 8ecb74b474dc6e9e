"""Adapters injected beside layers: W stays as it is, each layer's answer gains what the adapter adds.

This is the form for training, where the parts of the change are the parameters, and for weights that change
from one picture to the next.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sfumato.adapt.delta import MAGNITUDES, SHIFTS, Delta, LoRA, kind_of, merged, scale_of
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.reading import published_shape
from sfumato.adapt.training import lora_product, lora_product_suits
from sfumato.errors import UsageError, nearest
from sfumato.nets.inference import GEGLULinear, Prepacked, UpsampleConv

V = TypeVar("V")
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
            and not (isinstance(layer, UpsampleConv) and layer.packed)
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
    kind: str = "lora",
    ranks: Mapping[str, int] | None = None,
    alphas: Mapping[str, float] | None = None,
    magnitudes: bool = False,
    rank_stabilised: bool = False,
    name: str = "new",
    generator: torch.Generator | None = None,
) -> list[nn.Parameter]:
    """Put a new adapter beside the layers of `net` whose paths end in one of `targets`; its parameters.

    `kind` is one of `NEW_KINDS`; of whichever, at first the net answers as before. `alpha` is `rank` unless
    given. `ranks` and `alphas` say otherwise for layers whose paths end in what their keys, regular
    expressions, match. `magnitudes`: DoRA. `rank_stabilised`: alpha is divided by the root of the rank.
    Parameters are float32 whatever the net's dtype. The net's own weights are not touched, nor whether they
    ask for gradients. Raises `UsageError` for a rank below 1, an unknown kind, magnitudes of what has none,
    and a target or a pattern that fits no layer of `net`.
    """
    if kind not in NEW_KINDS:
        raise UsageError(f"unknown kind of adapter {kind!r}; {nearest(kind, NEW_KINDS)}")
    if magnitudes and kind != "lora":
        raise UsageError(f"magnitudes (DoRA) go with the kind 'lora', not with {kind!r}")
    for each in (rank, *(ranks or {}).values()):
        if each < 1:
            raise UsageError(f"rank is {each}: must be 1 or more")
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
    layers = {
        path: layer
        for path, layer in layers.items()
        if any(path == target or path.endswith(f".{target}") for target in known)
    }
    for pattern in (*(ranks or {}), *(alphas or {})):
        if not any(path_ends_in(pattern, path) for path in layers):
            raise UsageError(f"the pattern {pattern!r} fits none of the layers that the adapter changes")
    made: list[nn.Parameter] = []
    for path, layer in layers.items():
        own_rank = _of_layer(ranks, path, rank)
        own_alpha = _of_layer(alphas, path, own_rank if alpha is None else alpha)
        parts = NEW_KINDS[kind](tuple(published_shape(layer)), own_rank, generator)
        if magnitudes:
            parts["magnitude"] = _magnitudes(layer)
        device = layer.get_parameter("weight").device
        found = kind_of(frozenset(parts))
        delta = found({role: part.to(device) for role, part in parts.items()}, trainable=True)
        delta.scale = scale_of(own_alpha, delta.rank, rank_stabilised)
        attach(layer, AdapterLayer(name, delta))
        made += delta.parameters()
    return made


def path_ends_in(pattern: str, path: str) -> bool:
    """Whether the path of a layer ends in what a pattern matches, a regular expression as PEFT takes it.

    Raises `UsageError` for one that is none.
    """
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", path) is not None
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is no regular expression: {error}") from None


def _of_layer(patterns: Mapping[str, V] | None, path: str, otherwise: V) -> V:
    return next((value for key, value in (patterns or {}).items() if path_ends_in(key, path)), otherwise)


def _magnitudes(layer: nn.Module) -> Tensor:
    """The norm of the weights of each output, in the shape that PEFT keeps it in (Liu et al. 2024, eq. 5)."""
    weight = layer.get_parameter("weight").detach().float()
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms if weight.ndim == 2 else norms.view(1, -1, *[1] * (weight.ndim - 2))


Shape = tuple[int, ...]


def _uniform(shape: Shape, generator: torch.Generator | None) -> Tensor:
    """As PEFT, kohya and LyCORIS draw them: uniform within ±1/√in."""
    bound = math.prod(shape[1:]) ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _new_lora(shape: Shape, rank: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    out, *inputs = shape
    up = torch.zeros(out, rank, *[1] * (len(inputs) - 1))
    return {"down": _uniform((rank, *inputs), generator), "up": up}


def _new_loha(shape: Shape, rank: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """One of the four is 0, the deviations of the others are LyCORIS'."""
    out, inputs = shape[0], math.prod(shape[1:])

    def normal(*size: int, deviation: float = 1.0) -> Tensor:
        return torch.empty(size).normal_(std=deviation, generator=generator)

    return {
        "hada_w1_a": normal(out, rank, deviation=0.1),
        "hada_w1_b": normal(rank, inputs),
        "hada_w2_a": torch.zeros(out, rank),
        "hada_w2_b": normal(rank, inputs),
    }


def _new_lokr(shape: Shape, rank: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """The second factor is 0: a product of two where that has fewer numbers."""
    (out_1, out_2), (in_1, in_2) = (_factors(length) for length in shape[:2])
    inputs = in_2 * math.prod(shape[2:])
    parts = {"lokr_w1": _uniform((out_1, in_1), generator)}
    if rank * (out_2 + inputs) >= out_2 * inputs:
        return {**parts, "lokr_w2": torch.zeros(out_2, in_2, *shape[2:])}
    return {
        **parts,
        "lokr_w2_a": _uniform((out_2, rank), generator),
        "lokr_w2_b": torch.zeros(rank, inputs),
    }


def _new_full(shape: Shape, rank: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"diff": torch.zeros(shape)}


def _factors(length: int) -> tuple[int, int]:
    """The two whole factors of `length` that are nearest each other, the smaller first."""
    smaller = next(each for each in range(math.isqrt(length), 0, -1) if length % each == 0)
    return smaller, length // smaller


NEW_KINDS: dict[str, Callable[[Shape, int, torch.Generator | None], dict[str, Tensor]]] = {
    "lora": _new_lora,
    "loha": _new_loha,
    "lokr": _new_lokr,
    "full": _new_full,
}
"""The parts of a new change of one layer, from the shape of its weight: LoRA, LoHa and LoKr as LyCORIS begins
them, and the change itself."""


def _forward(layer: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """A layer's answer with its adapters.

    Additive ones give s·B(A x), which is added to the product of x and W where that is made, or else to the
    layer's answer; for the rest the layer computes with W + ΔW.
    """
    own = [each for each in adapter_layers(layer) if each.weight]
    additive = [each for each in own if each.is_additive(layer)]
    with _with_merged(layer, [each for each in own if each not in additive]):
        if isinstance(layer, GEGLULinear) and additive:
            layer.unpack()
        product = _product_of(layer) if additive else None
        with _adding(layer, additive, product):
            y: Tensor = type(layer).forward(layer, x, *arguments, **options)
    return y if product or not additive else y + _gain(layer, additive, x).to(y.dtype)


def _gain(
    layer: nn.Module, additive: Sequence[AdapterLayer], x: Tensor, padding: tuple[int, int] | None = None
) -> Tensor:
    first, *rest = (
        each.delta.answer(layer, x, each.weight, padding) for each in additive if isinstance(each.delta, LoRA)
    )
    return sum(rest, first)


def _product_of(layer: nn.Module) -> str:
    """The name of the method by which `layer` multiplies its weight as it is published, if it does."""
    if isinstance(layer, Prepacked) and layer.packed:
        return ""
    return next((name for name in ("multiply", "convolve") if hasattr(layer, name)), "")


@contextmanager
def _adding(layer: nn.Module, additive: Sequence[AdapterLayer], product: str | None) -> Iterator[None]:
    """`layer` with these changes in what its method called `product` answers, if there is one."""
    if not product:
        yield
        return
    layer.__dict__[product] = partial(_product, layer, getattr(layer, product), additive)
    try:
        yield
    finally:
        del layer.__dict__[product]


def _product(
    layer: Any,
    product: Callable[..., Tensor],
    additive: Sequence[AdapterLayer],
    x: Tensor,
    *bias_and_padding: Any,
) -> Tensor:
    """`product(x, …)` and what the changes add to it."""
    bias, padding = bias_and_padding or (layer.bias, (0, 0))
    (first, *others), kernel = additive, layer.weight.shape[2:]
    if not others and not first.delta.has("mid"):
        down, up = (first.delta.parts[role].flatten(1) for role in ("down", "up"))
        down = down.unflatten(1, (-1, *kernel)) if kernel else down
        if lora_product_suits(x, layer.weight, bias, down, up):
            stride = layer.stride if kernel else (1, 1)
            factor = first.weight * first.delta.scale
            return lora_product(x, layer.weight, bias, down, up, factor, stride, padding)
    y = product(x, *bias_and_padding)
    return y + _gain(layer, additive, x, padding).to(y.dtype)


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
