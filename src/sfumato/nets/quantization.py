"""Weights and activations in int8 on a CPU (Jacob et al. 2018, §2.1): x ≈ scale · (q − zero point).

A weight has a scale for each output channel and no zero point. An activation has a scale and a zero point for
each row of the batch, from its lowest and highest number, taken when it is met: nothing needs calibration,
and a row's answer does not depend on what else is in the batch. Products are summed in int32, exactly.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.nets.compiled import library
from sfumato.nets.normalisation import READ_AT_ONCE

onednn = torch.ops.onednn
ONE = [1, 1]


@dataclass(frozen=True)
class Int8Activations:
    """`values` (B, …) in uint8, with the scale and the zero point of each row, and the dtype to answer in."""

    values: Tensor
    scales: list[float]
    zero_points: list[int]
    dtype: torch.dtype

    def answers(self, compute: Callable[[int, Tensor, float, int], Tensor]) -> Tensor:
        """`compute(row, values, scale, zero point)` of every row, values (1, …), as one batch."""
        rows = zip(self.values.split(1), self.scales, self.zero_points, strict=True)
        found = [compute(row, *one) for row, one in enumerate(rows)]
        return found[0] if len(found) == 1 else torch.cat(found)


def quantized(x: Tensor) -> Int8Activations:
    """`x` (B, …), dense row by row, in float32 or bfloat16.

    A row that is not finite everywhere has NaN as its scale, so that the answer shows it.
    """
    values = torch.empty_like(x, dtype=torch.uint8)
    rows, compiled = len(x), library()
    if compiled is None or x.numel() // rows % READ_AT_ONCE:
        return _quantized_by_torch(x)
    scales, zero_points = (ctypes.c_float * rows)(), (ctypes.c_int32 * rows)()
    compiled.quantize(
        x.data_ptr(),
        values.data_ptr(),
        rows,
        x.numel() // rows,
        ctypes.addressof(scales),
        ctypes.addressof(zero_points),
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return Int8Activations(values, list(scales), list(zero_points), x.dtype)


def _quantized_by_torch(x: Tensor) -> Int8Activations:
    each = [-1, *[1] * (x.dim() - 1)]
    low, high = (limit.float().clamp(*bound) for limit, bound in zip(_limits(x), _BOUNDS, strict=True))
    scale = (high - low) / 255
    flat = scale < torch.finfo(torch.float32).tiny
    scale = torch.where(scale.isfinite(), torch.where(flat, 1, scale), torch.nan)
    zero = torch.where(scale.isfinite() & ~flat, (-low / scale).round(), 0)
    values = (x.float() * (1 / scale).view(each) + zero.view(each)).round().clamp(0, 255).nan_to_num()
    return Int8Activations(values.to(torch.uint8), scale.tolist(), [int(z) for z in zero.tolist()], x.dtype)


_BOUNDS = ((None, 0), (0, None))
"""0 is always among what is told exactly: pictures are padded with it."""


def _limits(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.aminmax(x.flatten(1), dim=1)


def int8_weight(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A weight (C_out, …) in int8, with the scales and the zero points, which are 0, of its channels."""
    most = weight.float().flatten(1).abs().amax(1)
    scales = torch.where(most > 0, most / 127, 1)
    values = (weight.float() / scales.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
    return values, scales, torch.zeros(len(scales), dtype=torch.int)


def conv_weight(weight: Tensor, stride: Any, padding: Any, shape: Any) -> tuple[Tensor, ...]:
    """`int8_weight` of a convolution in oneDNN's order for inputs of `shape` (1, C, H, W), if it is known."""
    values, *scales = int8_weight(weight)
    packed = onednn.qconv_prepack(values, scales[0], 1.0, 0, stride, padding, ONE, 1, shape)
    return packed, *scales


def linear_weight(weight: Tensor) -> tuple[Tensor, ...]:
    """`int8_weight` of a matrix in oneDNN's order."""
    values, *scales = int8_weight(weight)
    return onednn.qlinear_prepack(values, None), *scales


def conv(
    x: Int8Activations,
    weight: tuple[Tensor, ...],
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    add: Tensor | None,
    shift: Tensor | None,
    relu: bool,
) -> Tensor:
    """(B, C, H, W) to (B, C_out, H', W'); `add`, `shift` and `relu` as of `inference.Conv`."""
    own = None if bias is None else bias.float()
    last = "relu" if relu and add is None else "none"

    def row(index: int, values: Tensor, scale: float, zero_point: int) -> Tensor:
        moved = own
        if shift is not None:
            moved = shift[index].float() + (0 if own is None else own)
        y: Tensor = onednn.qconv_pointwise(
            *(values, scale, zero_point, *weight, moved, stride, padding, ONE, 1),
            *(1.0, 0, x.dtype, last, [], ""),
        )
        if add is not None:
            y += add[index]
        return y.relu_() if relu and add is not None else y

    return x.answers(row)


def linear(
    x: Int8Activations,
    weight: tuple[Tensor, ...],
    bias: Tensor | None,
    add: Tensor | None = None,
    last: str = "none",
) -> Tensor:
    """(B, N, C) to (B, N, C_out), plus `add`, of that shape; `last` is "gelu" or "none"."""
    own = None if bias is None else bias.float()

    def row(index: int, values: Tensor, scale: float, zero_point: int) -> Tensor:
        how = (values[0], scale, zero_point, *weight)
        if add is None:
            y = onednn.qlinear_pointwise(*how, own, 1.0, 0, x.dtype, last, [], "none")
        else:
            add_it: tuple[Any, ...] = (1.0, 0, x.dtype, 1.0, 0, "add", 1.0, "none", [], "")
            y = onednn.qlinear_pointwise.binary(*how, add[index], own, *add_it)
        return y[None]

    return x.answers(row)
