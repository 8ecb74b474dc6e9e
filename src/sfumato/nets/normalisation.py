"""Group and layer normalisation on a CPU, in bfloat16 or float32, by `normalisation.cpp`.

A picture is read twice and written once, SiLU included; the bits of the answer do not depend on the number of
threads or on what else is in the batch.
"""

import torch
from torch import Tensor

from sfumato.nets.compiled import answers_for, library

READ_AT_ONCE = 32
"""Numbers that the compiled functions read at once: channels come in multiples of them."""


def group_norm_suits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `group_norm` can answer here, and nobody wants gradients of it."""
    return x.is_contiguous(memory_format=torch.channels_last) and _suit(x, x.shape[1], weight, bias)


def layer_norm_suits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `layer_norm` can answer here, and nobody wants gradients of it."""
    return x.is_contiguous() and _suit(x, x.shape[-1], weight, bias)


def _suit(x: Tensor, channels: int, weight: Tensor, bias: Tensor) -> bool:
    return (
        x.dtype in (torch.bfloat16, torch.float32)
        and weight.dtype == bias.dtype == x.dtype
        and channels % READ_AT_ONCE == 0
        and x.numel() > 0
        and answers_for(x, weight, bias)
        and library() is not None
    )


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool = False
) -> Tensor:
    """(x - mean) / √(variance + eps) · weight + bias over each of `groups` of channels (Wu & He 2018, eq. 1).

    `x` (B, C, H, W), channels last, `weight` and `bias` (C,), to the same shape. With `silu`, y · sigmoid(y)
    of the result. Ask `group_norm_suits` first.
    """
    compiled = library()
    assert compiled is not None
    out = torch.empty_like(x, memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    compiled.group_norm(
        x.data_ptr(),
        out.data_ptr(),
        batch,
        height * width,
        channels,
        groups,
        weight.data_ptr(),
        bias.data_ptr(),
        eps,
        silu,
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return out


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The same over the last dimension of `x` (…, C) (Ba et al. 2016, eq. 4).

    Ask `layer_norm_suits` first.
    """
    compiled = library()
    assert compiled is not None
    out, channels = torch.empty_like(x), x.shape[-1]
    compiled.layer_norm(
        x.data_ptr(),
        out.data_ptr(),
        x.numel() // channels,
        channels,
        weight.data_ptr(),
        bias.data_ptr(),
        eps,
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return out
