"""3×3 convolutions in float32 on a CPU by Winograd's F(2×2, 3×3) (Lavin & Gray 2016, §4.1).

Tiles of the picture and the weight are transformed to 16 points, multiplied there as 16 matrices, and the
products transformed back: 4/9 of the direct way's multiplications, as exact as that to the last digits.
"""

from typing import Any

import torch
from torch import Tensor

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
    most = min(tiles, max(AT_ONCE // (read + written), FEWEST_TILES))
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


def _points(tiles: int, channels: int) -> Tensor:
    """Room for (16, tiles, channels), whose parts do not lie a power of two apart: they would share cache."""
    apart = tiles * channels + 3 * LANES
    return torch.empty(POINTS * apart).as_strided((POINTS, tiles, channels), (apart, channels, 1))
