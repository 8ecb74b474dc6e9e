"""LoRA learned beside frozen weights: a layer computes with W + s·B A, in place of adding to its answer.

The gradients of A and B (Hu et al. 2022, eq. 3) are taken through the low rank, so that none of W's size is
made; what is kept for the way back is the layer's input alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sfumato.nets.winograd import conv_once, fast_by_winograd, input_gradient_once

Pair = tuple[int, int]

PASSES = 4
"""How often numbers of what a layer reads and writes are touched to add a LoRA's answer to the layer's."""


def lora_product_suits(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> bool:
    """Whether `lora_product` is as exact as the sum of two answers, and faster.

    In half precision W + s·B A would be rounded; where few places read a large weight, making it takes
    longest.
    """
    tensors = [each for each in (x, weight, bias, down, up) if each is not None]
    places = x.numel() // x.shape[1 if weight.ndim == 4 else -1]
    return (
        torch.is_grad_enabled()
        and (down.requires_grad or up.requires_grad)
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and all(each.dtype == torch.float32 for each in tensors)
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
        and PASSES * places * sum(weight.shape[:2]) >= weight.numel()
    )


def lora_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """x and W + s·B A, plus a bias, with gradients of x, A and B; W and the bias are frozen.

    Of a matrix: `x` (…, in), `weight` (out, in), `down` (rank, in), `up` (out, rank), to (…, out). Of a
    convolution `x` is (B, in, H, W), `weight` (out, in, h, w), `down` (rank, in, h, w), `up` (out, rank).
    `padding` is with zeros. There are no gradients of the gradients. Ask `lora_product_suits` first.
    """
    product: Callable[..., Tensor] = LoRAProduct.apply
    if weight.ndim == 4 and (*weight.shape[2:], *stride, *padding) == (1, 1, 1, 1, 0, 0):
        # in channels_last this is a matrix
        matrices = weight.flatten(1), bias, down.flatten(1)
        return product(x.permute(0, 2, 3, 1), *matrices, up, scale, stride, padding).permute(0, 3, 1, 2)
    return product(x, weight, bias, down, up, scale, stride, padding)


class LoRAProduct(torch.autograd.Function):
    """`lora_product` and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
    ) -> Tensor:
        """The answer."""
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale, ctx.geometry = scale, (stride, padding)
        whole = _merged(weight, down, up, scale)
        if weight.ndim == 2:
            return F.linear(x, whole, bias)
        return _conv(x, whole, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, A and B."""
        x, weight, down, up = ctx.saved_tensors
        of_x, scale = None, ctx.scale
        if weight.ndim == 2:
            rows, seen = gradient.flatten(0, -2), x.flatten(0, -2)
            if ctx.needs_input_grad[0]:
                of_x = (rows @ _merged(weight, down, up, scale)).view_as(x)
            of_down = (rows @ (scale * up)).mT @ seen
            of_up = rows.mT @ (seen @ (scale * down).mT)
            return of_x, None, None, of_down, of_up, None, None, None
        stride, padding = ctx.geometry
        if ctx.needs_input_grad[0]:
            whole = _merged(weight, down, up, scale)
            of_x = _conv_input_gradient(gradient, x, whole, stride, padding)
        hidden = F.conv2d(x, down, None, stride, padding).permute(0, 2, 3, 1).flatten(0, 2)
        rows = gradient.permute(0, 2, 3, 1)
        of_up = rows.flatten(0, 2).mT @ hidden.mul_(scale)
        of_hidden = (rows @ (scale * up)).permute(0, 3, 1, 2)
        _, of_down, _ = _conv_backward(of_hidden, x, down, stride, padding, (False, True, False))
        return of_x, None, None, of_down, of_up, None, None, None


def _merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + s·B A."""
    if weight.ndim == 2:
        return torch.addmm(weight, up, down, alpha=scale)
    # in the order in which the weight lies in channels_last
    whole, low = (each.permute(0, 2, 3, 1) for each in (weight, down))
    product = torch.addmm(whole.flatten(1), up, low.flatten(1), alpha=scale)
    return product.view(whole.shape).permute(0, 3, 1, 2)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A convolution with a weight that is used once."""
    if fast_by_winograd(x, weight, stride):
        return conv_once(x, weight, bias, padding)
    return F.conv2d(x, weight, bias, stride, padding)


def _conv_input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor | None:
    """The gradient of its input `x`."""
    if fast_by_winograd(gradient, weight, stride):
        return input_gradient_once(gradient, weight, padding)
    return _conv_backward(gradient, x, weight, stride, padding, (True, False, False))[0]


def _conv_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a convolution's input, weight and bias, as far as they are `wanted`."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, wanted
    )
    return found
