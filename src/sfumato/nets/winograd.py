"""3×3 convolutions in float32 on a CPU by Winograd's F(2×2, 3×3) (Lavin & Gray 2016, §4.1).

Tiles of the picture and the weight are transformed to 16 points, multiplied there as 16 matrices, and the
products transformed back: 4/9 of the direct way's multiplications, as exact as that to the last digits. So
are the gradients of the picture, by the weight turned round, and of the weight, by the transposed transforms.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfumato.nets.compiled import library

POINTS, LANES = 16, 16
FEWEST_TILES = 32
"""Of all pictures of a batch, below which reading the weight, which is larger, takes longest. So many are
handled at once at least.
"""
MOST_WEIGHTS = 1280 * 640
"""Products of channels read and written, above which the transformed weight takes too much memory."""
AT_ONCE = 1 << 17
"""Numbers of tiles, read and written, that are handled at once at each point, to stay in the cache."""
FEWEST_CHANNELS = 64
"""Read and written, below which moving the tiles takes longer than it saves."""
_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def winograd_suits(
    shape: tuple[int, ...], channels: tuple[int, int], kernel: tuple[Any, Any], dtype: torch.dtype
) -> bool:
    """Whether it is faster than the direct way for pictures of `shape` (B, C, H, W), and can be had.

    `channels`: read and written. `kernel`: its size and its stride.
    """
    batch, _, height, width = shape
    read, written = channels
    return (
        kernel == ((3, 3), (1, 1))
        and dtype == torch.float32
        and read % LANES == written % LANES == 0
        and min(channels) >= FEWEST_CHANNELS
        and read * written <= MOST_WEIGHTS
        and batch * height * width >= 4 * FEWEST_TILES
        and library() is not None
    )


def winograd_weight(weight: Tensor, *, turned: bool = False) -> Tensor:
    """G g Gᵀ of a weight (C_out, C, 3, 3), as (16, C, C_out), a view of matrices that lie transposed.

    `turned`: of the convolution that is the gradient of this one's input, (16, C_out, C).
    """
    g = _G.flip(1) if turned else _G
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    points = (torch.kron(g, g) @ taps).view(POINTS, *weight.shape[:2])
    return points if turned else points.mT


def winograd_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: tuple[int, int],
    add: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """`x` (B, C, H, W), channels last, to (B, C_out, H', W'); `weight` as `winograd_weight` makes it.

    `padding`: with zeros above and below, and beside. `bias` (B, C_out) or (1, C_out) is added, and `add`, of
    the result's shape; with `relu` what is then negative becomes 0.
    """
    compiled = library()
    assert compiled is not None
    batch, read, height, width = x.shape
    written = weight.shape[2]
    above, beside = padding
    rows, columns = height + 2 * above - 2, width + 2 * beside - 2
    out = torch.empty((batch, written, rows, columns), memory_format=torch.channels_last)
    tiles = batch * ((rows + 1) // 2) * ((columns + 1) // 2)
    most = _evenly(tiles, max(AT_ONCE // (read + written), FEWEST_TILES))
    before, after = _points(most, read), _points(most, written)
    add = None if add is None else add.contiguous(memory_format=torch.channels_last)
    bias, threads = bias.contiguous(), torch.get_num_threads()
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        compiled.winograd_input(
            *(x.data_ptr(), before.data_ptr(), before.stride(0), height, width, read),
            *(above, beside, first, count, threads),
        )
        torch.bmm(before[:, :count], weight, out=after[:, :count])
        compiled.winograd_output(
            *(after.data_ptr(), out.data_ptr(), after.stride(0), height, width, written),
            *(above, beside, first, count),
            *(bias.data_ptr(), 0 if len(bias) == 1 else written, None if add is None else add.data_ptr()),
            *(relu, threads),
        )
    return out


def winograd_weight_gradient(x: Tensor, gradient: Tensor, padding: tuple[int, int]) -> Tensor:
    """The weight's gradient (C_out, C, 3, 3) from `x` (B, C, H, W) and the result's, both channels last.

    Of y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ x B)] A it is Gᵀ [(A dy Aᵀ) ⊙ (Bᵀ x B)] G, summed over the tiles.
    """
    compiled = library()
    assert compiled is not None
    batch, read, height, width = x.shape
    written, rows, columns = gradient.shape[1:]
    above, beside = padding
    tiles = batch * ((rows + 1) // 2) * ((columns + 1) // 2)
    # so many that adding to all sums takes less than multiplying
    most = _evenly(tiles, max(AT_ONCE // (read + written), min(read, written)))
    seen, wanted = _points(most, read), _points(most, written)
    sums = torch.zeros(POINTS, written, read)
    where, threads = (height, width), torch.get_num_threads()
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        tile = above, beside, first, count, threads
        compiled.winograd_input(x.data_ptr(), seen.data_ptr(), seen.stride(0), *where, read, *tile)
        compiled.winograd_gradient(
            gradient.data_ptr(), wanted.data_ptr(), wanted.stride(0), *where, written, *tile
        )
        sums.baddbmm_(wanted[:, :count].mT, seen[:, :count])
    taps = torch.kron(_G, _G).mT @ sums.view(POINTS, -1)
    return taps.view(3, 3, written, read).permute(2, 3, 0, 1)


class WinogradConv(torch.autograd.Function):
    """A 3×3 convolution with a plain weight that is used once, and its gradients, where they are faster so.

    `applies` tells where. There are no gradients of the gradients. A frozen weight's input is not kept.
    """

    @staticmethod
    def applies(x: Tensor, weight: Tensor, stride: tuple[int, ...], *others: Tensor | None) -> bool:
        """Whether it is faster for `x` (B, C, H, W), and gradients of one of these are wanted."""
        given = [each for each in (x, weight, *others) if each is not None]
        suits = torch.is_grad_enabled() and any(each.requires_grad for each in given)
        return suits and fast_by_winograd(x, weight, stride) and all(each.dtype == x.dtype for each in given)

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        """`x` (B, C, H, W), `weight` (C_out, C, 3, 3) and `bias` (C_out,) to (B, C_out, H', W')."""
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.padding = padding
        return conv_once(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of all three."""
        (x, weight), of_x, of_weight, of_bias = ctx.saved_tensors, None, None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[0]:
            of_x = input_gradient_once(gradient, weight, ctx.padding)
        if ctx.needs_input_grad[1]:
            x = x.contiguous(memory_format=torch.channels_last)
            of_weight = winograd_weight_gradient(x, gradient, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def fast_by_winograd(x: Tensor, weight: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether that is so of a plain `weight` (C_out, C, h, w), used once, and `x` (B, C, H, W)."""
    kernel, channels = tuple(weight.shape[2:]), (weight.shape[1], weight.shape[0])
    return (
        x.device.type == "cpu"
        and winograd_suits(tuple(x.shape), channels, (kernel, tuple(stride)), x.dtype)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def conv_once(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """The convolution of `x` with a plain `weight`, plus `bias` (C_out,)."""
    x = x.contiguous(memory_format=torch.channels_last)
    each = x.new_zeros(1, len(weight)) if bias is None else bias[None]
    return winograd_conv(x, winograd_weight(weight), each, padding)


def input_gradient_once(gradient: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """The gradient of what `conv_once` was given as `x`."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    around = 2 - padding[0], 2 - padding[1]
    nothing = gradient.new_zeros(1, weight.shape[1])
    return winograd_conv(gradient, winograd_weight(weight, turned=True), nothing, around)


def _evenly(tiles: int, most: int) -> int:
    """How many of `tiles` to handle at once, `most` at most, so that the last are about as many."""
    return math.ceil(tiles / math.ceil(tiles / most))


def _points(tiles: int, channels: int) -> Tensor:
    """Room for (16, tiles, channels), whose parts do not lie a power of two apart: they would share cache."""
    apart = tiles * channels + 3 * LANES
    return torch.empty(POINTS * apart).as_strided((POINTS, tiles, channels), (apart, channels, 1))
