"""Group and layer normalisation on a CPU, in bfloat16 or float32, by `normalisation.cpp`.

A picture is read twice and written once, SiLU included; the bits of the answer do not depend on the number of
threads or on what else is in the batch. So are the gradients of group normalisation in float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfumato.nets.compiled import answers_for, library

READ_AT_ONCE = 32
"""Numbers that the compiled functions read at once: channels come in multiples of them."""


def group_norm_suits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `group_norm` can answer here, and nobody wants gradients of it."""
    return x.is_contiguous(memory_format=torch.channels_last) and _suit(x, x.shape[1], weight, bias)


def layer_norm_suits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `layer_norm` can answer here, and nobody wants gradients of it."""
    return x.is_contiguous() and _suit(x, x.shape[-1], weight, bias)


def group_norm_learns(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `GroupNorm` can answer here, and somebody wants gradients of it."""
    given = (x, weight, bias)
    return (
        torch.is_grad_enabled()
        and any(each.requires_grad for each in given)
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in given)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] % READ_AT_ONCE == 0
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and library() is not None
    )


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
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    silu: bool = False,
    kept: Tensor | None = None,
) -> Tensor:
    """(x - mean) / √(variance + eps) · weight + bias over each of `groups` of channels (Wu & He 2018, eq. 1).

    `x` (B, C, H, W), channels last, `weight` and `bias` (C,), to the same shape. With `silu`, y · sigmoid(y)
    of the result. To `kept` (B, groups, 2), float32, go the means and 1 / √(variance + eps). Ask
    `group_norm_suits` first.
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
        None if kept is None else kept.data_ptr(),
        silu,
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return out


class GroupNorm(torch.autograd.Function):
    """`group_norm` in float32 and its gradients; nothing but `x` itself is kept of its size.

    Ask `group_norm_learns` first. There are no gradients of the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool
    ) -> Tensor:
        """The answer."""
        kept = torch.empty(len(x), groups, 2)
        ctx.save_for_backward(x, weight, bias, kept)
        ctx.silu = silu
        return group_norm(x, groups, weight, bias, eps, silu=silu, kept=kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        compiled = library()
        assert compiled is not None
        x, weight, bias, kept = ctx.saved_tensors
        batch, channels, height, width = x.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = torch.empty_like(x, memory_format=torch.channels_last)
        of_weight, of_bias = torch.empty(batch, channels), torch.empty(batch, channels)
        compiled.group_norm_backward(
            *(x.data_ptr(), gradient.data_ptr(), of_x.data_ptr()),
            *(batch, height * width, channels, kept.shape[1]),
            *(weight.data_ptr(), bias.data_ptr(), kept.data_ptr(), of_weight.data_ptr(), of_bias.data_ptr()),
            *(ctx.silu, torch.get_num_threads()),
        )
        wanted = zip((of_x, None, of_weight.sum(0), of_bias.sum(0)), ctx.needs_input_grad, strict=False)
        return *(each if asked else None for each, asked in wanted), None, None


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
