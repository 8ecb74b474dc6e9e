"""The same numbers sooner: layers that can be made ready for the device that they compute on.

On a CPU much time goes into rearranging weights at every call, into reading and writing activations between
operations, and into convolving pictures that were only enlarged. The layers of this file can keep their
weights in the order in which oneDNN computes, hand it additions and activations to do on the way, and fold an
enlargement into the convolution behind it. Until `for_inference` they are the plain layers of torch.
"""

import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.nets import quantization
from sfumato.nets.circular import padded
from sfumato.nets.normalisation import (
    GroupNorm,
    group_norm,
    group_norm_learns,
    group_norm_suits,
    layer_norm,
    layer_norm_suits,
)
from sfumato.nets.quantization import Int8Activations
from sfumato.nets.winograd import WinogradConv, winograd_conv, winograd_suits, winograd_weight

Net = TypeVar("Net", bound=nn.Module)

onednn = torch.ops.mkldnn
ONE, TWO = [1, 1], [2, 2]
FEWEST_CHANNELS = 32
"""Read and written by a layer that is multiplied in int8."""
MOST_SHAPES = 64
"""Of inputs whose orders of weights a layer knows."""


class Prepacked(nn.Module, ABC):
    """A layer whose weight can be kept in oneDNN's order; who saves, copies or moves it sees the plain one.

    While it is packed `weight` is empty, so that nothing is held twice, unless it cannot be had back.
    """

    weight: Tensor
    packed: tuple[Tensor, ...] = ()
    """The weight in oneDNN's order, cut into parts along its first dimension; none while it is plain."""
    quantized = False
    """Whether `pack` makes the weight int8: each part is followed by its scales and zero points."""
    may_be_quantized = True
    """Whether int8 is worth its errors here."""

    @property
    @abstractmethod
    def channels(self) -> tuple[int, int]:
        """How many are read and written."""

    @property
    def keeps_plain(self) -> bool:
        """Whether the plain weight is held beside the packed one, from which it cannot be had back."""
        return self.quantized

    @abstractmethod
    def arranged(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The plain `weight` as `packed` holds it."""

    def pack(self) -> None:
        """Bring the weight into oneDNN's order."""
        if not self.packed:
            self._arrange(self.weight.data)

    def _arrange(self, plain: Tensor) -> None:
        self.packed = self.arranged(plain)
        self.weight.data = plain if self.keeps_plain else plain.new_empty(0)

    def unpack(self) -> None:
        """Bring the weight back, bit for bit."""
        if self.packed:
            self.weight.data = self.plain_weight()
            self.packed = ()

    def plain_weight(self) -> Tensor:
        """The weight as published, packed or not."""
        if self.weight.numel():
            return self.weight.data
        return torch.cat([part.to_dense() for part in self.packed])

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.unpack()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed:
            destination[prefix + "weight"] = self.plain_weight()

    def _load_from_state_dict(self, *args: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        unpacked = (
            nn.Parameter(self.plain_weight(), self.weight.requires_grad) if self.packed else self.weight
        )
        return {**self.__dict__, "packed": (), "_parameters": {**self._parameters, "weight": unpacked}}


class PrepackedConv(Prepacked, nn.Conv2d):
    """A convolution. oneDNN has many orders for its weight: which one is fast depends on the processor and on
    the shape of the input, and with another one it can take a hundred times as long.
    """

    shape: tuple[int, ...] | None = None
    """(B, C, H, W) of the input that the packed weight is for; not known before the first."""
    orders: dict[tuple[int, ...] | None, bytes]
    """oneDNN's descriptions of the orders that it wants for inputs of these shapes."""

    @property
    def channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels

    def convolve(self, x: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        """`x` (B, C, H, W) and the plain weight."""
        if WinogradConv.applies(x, self.weight, self.stride, bias):
            return WinogradConv.apply(x, self.weight, bias, padding)  # type: ignore[no-untyped-call]
        return F.conv2d(x, self.weight, bias, self.stride, padding)

    def pack(self) -> None:
        """Bring the weight into the order for the input that was last seen."""
        super().pack()
        self.orders = {self.shape: self._order()}

    def pack_for(self, x: Tensor) -> None:
        """Bring the packed weight into the order for inputs of the shape of `x` (B, C, H, W)."""
        # int8 is computed row by row
        shape = (1 if self.quantized else len(x), *x.shape[1:])
        if shape == self.shape:
            return
        former, self.shape = self.orders[self.shape], shape
        if self.orders.get(shape) != former:
            # also for whoever trains it later
            with torch.inference_mode(False), torch.no_grad():
                self._arrange(self.plain_weight())
            if len(self.orders) >= MOST_SHAPES:
                self.orders.clear()
            self.orders[shape] = self._order()

    def _order(self) -> bytes:
        """What tells the order of the packed weight from others."""
        description: Tensor = onednn._get_mkldnn_serialized_md(self.packed[0])
        return bytes(description.tolist())


class Conv(PrepackedConv):
    """A convolution that can add to its result and cut it off below 0 on the way.

    Its packed weight is that of Winograd's way where this is faster.
    """

    @property
    def by_winograd(self) -> bool:
        """Whether Winograd's way is the faster one for the shape that the packed weight is for."""
        kernel = self.kernel_size, self.stride
        return (
            self.shape is not None
            and not self.quantized
            and winograd_suits(self.shape, self.channels, kernel, self.weight.dtype)
        )

    @property
    def keeps_plain(self) -> bool:
        return self.quantized or self.by_winograd

    def arranged(self, weight: Tensor) -> tuple[Tensor, ...]:
        if self.quantized:
            return quantization.conv_weight(weight, self.stride, self.padding, self.shape)
        if self.by_winograd:
            return (winograd_weight(weight).contiguous(),)
        return (onednn._reorder_convolution_weight(weight, self.padding, self.stride, ONE, 1, self.shape),)

    def _order(self) -> bytes:
        return b"Winograd" if self.by_winograd else super()._order()

    def forward(
        self, x: Tensor, add: Tensor | None = None, shift: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        """(B, C, H, W) to (B, C_out, H', W').

        `add`, of the result's shape, is added to it; so is `shift`, (B, C_out), or (1, C_out) for all. With
        `relu` what is then negative becomes 0.
        """
        bias = self.bias
        if shift is not None and bias is not None and len(shift) == 1:
            bias, shift = bias + shift[0], None
        x, padding = padded(x, self.padding)
        if self.packed:
            self.pack_for(x)
            x = x.contiguous(memory_format=torch.channels_last)
            if self.quantized:
                values = quantization.quantized(x)
                return quantization.conv(values, self.packed, bias, self.stride, padding, add, shift, relu)
            if self.by_winograd:
                each = x.new_zeros(1, self.out_channels) if bias is None else bias[None]
                each = each if shift is None else each + shift
                return winograd_conv(x, self.packed[0], each, padding, add, relu)
            how = (*self.packed, bias, padding, self.stride, ONE, 1)
            if add is not None and shift is None:
                last = "relu" if relu else None
                return onednn._convolution_pointwise.binary(x, add, *how, "add", 1.0, last, [], None)
            last = "relu" if relu and shift is None else "none"
            y = onednn._convolution_pointwise(x, *how, last, [], "")
        else:
            y = self.convolve(x, bias, padding)
        if shift is not None:
            y = y + shift[:, :, None, None]
        if add is not None:
            y = y + add
        return y.relu() if relu else y


class UpsampleConv(PrepackedConv):
    """A 3×3 convolution of a picture whose pixels were repeated to make it larger.

    Where it was made twice as large, two of the three taps along each side meet the same original pixel. With
    their sums as weights this is a transposed convolution of the small picture: 4/9 of the multiplications.
    """

    may_be_quantized = False
    keeps_plain = True

    def arranged(self, weight: Tensor) -> tuple[Tensor, ...]:
        sums = _tap_sums(_tap_sums(weight.float()).mT).mT.transpose(0, 1).to(weight.dtype).contiguous()
        return (onednn._reorder_convolution_transpose_weight(sums, ONE, [0, 0], TWO, ONE, 1, self.shape),)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, C_out, *size), twice as large if no size is asked for."""
        twice = 2 * x.shape[2], 2 * x.shape[3]
        if self.packed and size in (None, twice):
            # where the picture goes on at the opposite edge, one more pixel of it is enlarged, and cut off
            x, (rows, columns) = padded(x, (1, 1))
            self.pack_for(x)
            x = x.contiguous(memory_format=torch.channels_last)
            how = (*self.packed, self.bias, ONE, [0, 0], TWO, ONE, 1)
            out: Tensor = onednn._convolution_transpose_pointwise(x, *how, "none", [], "")
            top, left = 2 * (1 - rows), 2 * (1 - columns)
            return out[:, :, top : top + twice[0], left : left + twice[1]]
        x, padding = padded(F.interpolate(x, size=size or twice, mode="nearest"), (1, 1))
        return self.convolve(x, self.bias, padding)


def _tap_sums(w: Tensor) -> Tensor:
    """The three taps of `w` (…, 3, K) along its last but one side, as the four of a transposed convolution.

    Pixel 2i of the enlarged picture sees pixels i−1, i, i of the small one, and pixel 2i + 1 sees i, i, i+1.
    """
    before, here, after = w.unbind(-2)
    return torch.stack([after, here + after, before + here, before], dim=-2)


class PrepackedLinear(Prepacked, nn.Linear):
    """A matrix."""

    @property
    def channels(self) -> tuple[int, int]:
        return self.in_features, self.out_features

    def multiply(self, x: Tensor) -> Tensor:
        """`x` (…, C) and the plain weight."""
        return F.linear(x, self.weight, self.bias)


class Linear(PrepackedLinear):
    """A matrix that can add to its result on the way."""

    def arranged(self, weight: Tensor) -> tuple[Tensor, ...]:
        if self.quantized:
            return quantization.linear_weight(weight)
        return (onednn._reorder_linear_weight(weight),)

    def forward(self, x: Tensor | Int8Activations, add: Tensor | None = None) -> Tensor:
        """(…, C) to (…, C_out); `add`, of the result's shape, is added to it. See `input_of` for int8."""
        if isinstance(x, Int8Activations):
            return quantization.linear(x, self.packed, self.bias, add)
        if self.quantized and (values := input_of(x, self)) is not x:
            return self(values, add)
        if self.packed and not self.quantized:
            if add is not None:
                return onednn._linear_pointwise.binary(x, add, *self.packed, self.bias, "add")
            return onednn._linear_pointwise(x, *self.packed, self.bias, "none", [], "")
        y = self.multiply(x)
        return y if add is None else y + add


class GEGLULinear(PrepackedLinear):
    """(x W + b) · GELU(x V + c) (Shazeer 2020, eq. 6), W and V in one matrix, b and c in one vector."""

    def arranged(self, weight: Tensor) -> tuple[Tensor, ...]:
        if self.quantized:
            return tuple(part for half in weight.chunk(2) for part in quantization.linear_weight(half))
        return tuple(onednn._reorder_linear_weight(half) for half in weight.chunk(2))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, C_out / 2)."""
        if isinstance(values := input_of(x, self), Int8Activations):
            b, c = self.bias.chunk(2)
            gate = quantization.linear(values, self.packed[3:], c, last="gelu")
            return gate.mul_(quantization.linear(values, self.packed[:3], b))
        if self.packed and not self.quantized:
            (w, v), (b, c) = self.packed, self.bias.chunk(2)
            gate = onednn._linear_pointwise(x, v, c, "gelu", [], "none")
            return onednn._linear_pointwise.binary(x, gate, w, b, "mul")
        value, gate = self.multiply(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


def input_of(x: Tensor, *layers: PrepackedLinear) -> Tensor | Int8Activations:
    """`x` (B, N, C) in int8 where all these layers, which read it, multiply in int8.

    Many short rows, as of attention over time, and other shapes are multiplied as they are.
    """
    if x.dim() == 3 and len(x) <= x.shape[1] and all(each.packed and each.quantized for each in layers):
        return quantization.quantized(x.contiguous())
    return x


class Norm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018)."""

    silu = False
    """Whether SiLU follows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if group_norm_suits(x, self.weight, self.bias):
            return group_norm(x, self.num_groups, self.weight, self.bias, self.eps, silu=self.silu)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            x = x.float()  # as torch's own does there
        if group_norm_learns(x, self.weight, self.bias):
            how = self.num_groups, self.weight, self.bias, self.eps, self.silu
            return GroupNorm.apply(x, *how)  # type: ignore[no-untyped-call]
        learns = self.weight.requires_grad or self.bias.requires_grad
        if learns and not x.requires_grad and torch.is_grad_enabled():
            # torch 2.13 crashes on a small picture in channels_last whose own gradient nobody asks for
            x = x.contiguous()
        # torch normalises small half-precision pictures number by number unless groups fill its registers
        small = x.shape[2] * x.shape[3] < 1024 and self.num_channels // self.num_groups % 16
        if not small or x.dtype == torch.float32 or x.device.type != "cpu":
            y = super().forward(x)
        else:
            weight, bias = self.weight.float(), self.bias.float()
            y = F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)
        return F.silu(y, inplace=True) if self.silu else y


class NormSiLU(Norm):
    """Group normalisation followed by SiLU: always met together."""

    silu = True


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016) over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        if layer_norm_suits(x, self.weight, self.bias):
            return layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


def for_inference(
    net: Net,
    device: torch.device,
    dtype: torch.dtype,
    *,
    compiled: bool = False,
    offload: bool = False,
    quantized: bool = False,
) -> Net:
    """`net` itself on `device`, in `dtype`, as fast there as its layers know how to be, for drawing only.

    Calling it again changes nothing; another device or precision is taken up from the plain weights.
    `compiled` has torch compile the UNet's pass and the decoder for every size that is met: minutes at
    first, for speed ever after. `offload` leaves the weights in main memory and brings those of each layer to
    the device while it computes, for large networks on small devices; on a CPU it changes nothing.
    `quantized` has a CPU multiply in int8 (see `quantization`) where that gains; plain weights are kept too.
    """
    net.eval().requires_grad_(False)
    home = torch.device("cpu") if offload else device
    if any(weight.device != home or weight.dtype != dtype for weight in net.parameters()):
        net.to(home, dtype)
        if device.type == "cuda":
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if home != device:
        for layer in net.modules():
            OffloadHook.on(layer, device)
    elif compiled:
        mode = "max-autotune" if device.type == "cuda" else "default"
        for name in ("denoise", "decode"):
            if hasattr(net, name) and name not in vars(net):
                setattr(net, name, torch.compile(getattr(net, name), mode=mode, dynamic=False))
    elif device.type == "cpu" and packs(dtype):
        for layer in net.modules():
            if isinstance(layer, Prepacked):
                if layer.quantized != (wanted := quantized and gains_by_int8(layer)):
                    layer.unpack()
                    layer.quantized = wanted
                layer.pack()
    return net


def gains_by_int8(layer: Prepacked) -> bool:
    """Whether it is large enough, and not one of those whose errors are seen most: the first and the last."""
    return layer.may_be_quantized and min(layer.channels) >= FEWEST_CHANNELS


def uncompiled(net: Any, name: str) -> Any:
    """The method `name` of `net`, which `for_inference` may have had torch compile, as it was before."""
    return getattr(type(net), name).__get__(net)


class OffloadHook:
    """Brings a layer's own weights to `device` before it computes; afterwards they are at home again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.at_home: dict[str, nn.Parameter | None] = {}

    @classmethod
    def on(cls, layer: nn.Module, device: torch.device) -> None:
        """Put a loan on `layer`, if it has weights and no loan yet."""
        lent = any(isinstance(getattr(hook, "__self__", None), cls) for hook in layer._forward_hooks.values())
        if not lent and any(True for _ in layer.parameters(recurse=False)):
            loan = cls(device)
            layer.register_forward_pre_hook(loan.bring)
            layer.register_forward_hook(loan.take_back, always_call=True)

    def bring(self, layer: nn.Module, arguments: Any) -> None:
        """Before the layer computes."""
        self.at_home = dict(layer._parameters)
        for name, weight in layer.named_parameters(recurse=False):
            layer._parameters[name] = nn.Parameter(weight.to(self.device), requires_grad=False)

    def take_back(self, layer: nn.Module, arguments: Any, result: Any) -> None:
        """After it has, or has failed to."""
        layer._parameters.update(self.at_home)
        self.at_home = {}


def unpacked(net: Net) -> Net:
    """`net` itself with its weights as published, as whoever changes them needs it."""
    for layer in net.modules():
        if isinstance(layer, Prepacked):
            layer.unpack()
    return net


def weights_of(network: nn.Module) -> Iterator[Tensor]:
    """All tensors that hold the weights of a network, packed or not, each once."""
    yield from network.parameters()
    for layer in network.modules():
        if isinstance(layer, Prepacked):
            yield from layer.packed


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes right with packed weights here: tried, for these operations are torch's own."""
    if dtype not in (torch.float32, torch.bfloat16) or platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            picture, places = torch.randn(2, 16, 4, 6, dtype=dtype), torch.randn(2, 5, 16, dtype=dtype)
            return (
                _agrees(Conv(16, 16, 3, padding=1).to(dtype), picture, picture)
                and _agrees(UpsampleConv(16, 16, 3, padding=1).to(dtype), picture, (8, 12))
                and _agrees(Linear(16, 16).to(dtype), places, places)
                and _agrees(GEGLULinear(16, 32).to(dtype), places)
            )
    except (AttributeError, RuntimeError, TypeError):
        return False


def _agrees(layer: Prepacked, *arguments: Any) -> bool:
    unpacked = layer(*arguments)
    layer.pack()
    return torch.allclose(layer(*arguments).float(), unpacked.float(), rtol=0, atol=0.05)
