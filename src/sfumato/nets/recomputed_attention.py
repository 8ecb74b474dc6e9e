"""Attention that is learned through on a CPU: its weights are computed again on the way back, in blocks.

torch's own is slow on its way back there, and weights that are kept take more memory than all else.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2 << 20
"""Attention weights of a block: what is done with them finds them in the cache."""


class RecomputedAttention(torch.autograd.Function):
    """softmax(q kᵀ / √d + mask) v and its gradients (Dao et al. 2022, algorithms 1 and 4).

    `q` (G, N, d), `k` and `v` (G, M, d), `mask` (G or 1, N or 1, M) or `None`, to (G, N, d). The softmax is
    taken in float32 at least. There is no gradient of the mask, nor of the gradients.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The answer, block by block."""
        out = torch.empty_like(q)
        for heads, rows in _blocks(q, k):
            out[heads, rows] = _weights(q, k, mask, heads, rows).to(v.dtype) @ v[heads]
        ctx.save_for_backward(q, k, v, mask, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients of q, k and v."""
        q, k, v, mask, out = ctx.saved_tensors
        scale = q.shape[2] ** -0.5
        exact = torch.promote_types(q.dtype, torch.float32)
        of_q = torch.empty_like(q)
        of_k, of_v = (torch.zeros_like(x, dtype=exact) for x in (k, v))
        for heads, rows in _blocks(q, k):
            weights, asked, told = _weights(q, k, mask, heads, rows), q[heads, rows], gradient[heads, rows]
            of_v[heads] += weights.to(v.dtype).mT @ told
            along = (told * out[heads, rows]).sum(2, keepdim=True, dtype=exact)
            of_scores = weights.mul_((told @ v[heads].mT).to(exact).sub_(along)).to(q.dtype)
            of_q[heads, rows] = scale * (of_scores @ k[heads])
            of_k[heads] += scale * (of_scores.mT @ asked)
        return of_q, of_k.to(k.dtype), of_v.to(v.dtype), None


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, heads: slice, rows: slice) -> Tensor:
    """The attention weights of some heads and queries."""
    scores = (q[heads, rows] * q.shape[2] ** -0.5) @ k[heads].mT
    if mask is not None:
        mask = mask if len(mask) == 1 else mask[heads]
        scores = scores + (mask if mask.shape[1] == 1 else mask[:, rows])
    return scores.softmax(2, dtype=torch.promote_types(scores.dtype, torch.float32))


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Some heads and queries at a time."""
    rows = max(1, min(q.shape[1], BLOCK // k.shape[1]))
    heads = max(1, BLOCK // (rows * k.shape[1]))
    for head in range(0, len(q), heads):
        for row in range(0, q.shape[1], rows):
            yield slice(head, head + heads), slice(row, row + rows)
