"""Attention in bfloat16 on a CPU, by `flash_attention.cpp`.

It takes processors with AVX-512 BF16 or AMX; elsewhere torch's own is used.
"""

from functools import cache

import torch
from torch import Tensor

from sfumato.nets.compiled import NUMBER, answers_for, library

MAX_WIDTH = 1024
"""Numbers of a head, for which a block of queries stays in the cache."""


def suits(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> bool:
    """Whether `flash_attention` can answer here, and nobody wants gradients of it."""
    return (
        q.dtype == k.dtype == v.dtype == torch.bfloat16
        and q.shape[2] <= heads * MAX_WIDTH
        and q.shape[2] // heads % 2 == 0
        and (mask is None or mask.ndim == 2)
        and answers_for(q, k, v)
        and available()
    )


def flash_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + mask) v (Vaswani et al. 2017, eq. 1) of `heads` of width d side by side.

    `q` (B, N, C), `k` and `v` (B, M, C), `mask` (1, M) or (B, M), to (B, N, C). Ask `suits` first. The bits
    of the answer do not depend on the number of threads.
    """
    compiled = library()
    assert compiled is not None
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    (batch, queries, channels), keys = q.shape, k.shape[1]
    width = channels // heads
    out = torch.empty((batch, queries, channels), dtype=q.dtype)
    scratch = torch.empty(compiled.scratch_bytes(batch, heads, keys, width), dtype=torch.uint8)
    strides = [stride for x in (q, k, v, out) for stride in x.stride()[:2]]
    mask = None if mask is None else mask.float().contiguous()
    compiled.attention(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if mask is None else mask.data_ptr(),
        out.data_ptr(),
        scratch.data_ptr(),
        batch,
        heads,
        queries,
        keys,
        width,
        (NUMBER * len(strides))(*strides),
        0 if mask is None or len(mask) == 1 else keys,
        width**-0.5,
        tiles(),
        torch.get_num_threads(),
    )
    return out


@cache
def available() -> bool:
    """Whether it was compiled, and the processor has what it is made of."""
    # torch may have been told to do without, by ATEN_CPU_CAPABILITY
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return bool(wide and torch.cpu.get_capabilities().get("avx512_bf16")) and library() is not None


@cache
def tiles() -> bool:
    """Whether AMX multiplies: the processor has it, and the system allows its use."""
    compiled, found = library(), torch.cpu.get_capabilities()
    has = found.get("amx_tile") and found.get("amx_bf16")
    return bool(has and compiled is not None and compiled.allow_tiles())
