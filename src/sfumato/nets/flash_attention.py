"""Attention in bfloat16 on a CPU, by `flash_attention.cpp`, which is compiled when Sfumato is installed.

torch's own takes two to three times as long there. Where there was no compiler, or the processor has no
instructions for bfloat16 (AVX-512 BF16), torch's is used.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

LIBRARY = Path(__file__).with_name("libflash_attention.so")
MAX_WIDTH = 1024
"""Numbers of a head, for which a block of queries stays in the cache."""
_Number, _Address = ctypes.c_int64, ctypes.c_void_p


def suits(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> bool:
    """Whether `flash_attention` can answer here, and nobody wants gradients of it."""
    return (
        q.dtype == k.dtype == v.dtype == torch.bfloat16
        and q.device.type == "cpu"
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
        and q.shape[2] <= heads * MAX_WIDTH
        and q.shape[2] // heads % 2 == 0
        and (mask is None or mask.ndim == 2)
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def flash_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + mask) v (Vaswani et al. 2017, eq. 1) of `heads` of width d side by side.

    `q` (B, N, C), `k` and `v` (B, M, C), `mask` (1, M) or (B, M), to (B, N, C). Ask `suits` first. The bits
    of the answer do not depend on the number of threads.
    """
    compiled = library()
    assert compiled is not None
    return _answer(compiled, q, k, v, heads, mask)


def _answer(
    compiled: ctypes.CDLL, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None
) -> Tensor:
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
        (_Number * len(strides))(*strides),
        0 if mask is None or len(mask) == 1 else keys,
        width**-0.5,
        torch.get_num_threads(),
    )
    return out


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; `None` where they were not compiled or are not the fastest.

    With AMX, which they make no use of, that is tried.
    """
    capabilities = torch.cpu.get_capabilities()
    # torch may have been told to do without, by ATEN_CPU_CAPABILITY
    if not capabilities.get("avx512_bf16") or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return None
    try:
        # it counts on the OpenMP that torch has brought
        loaded = ctypes.CDLL(str(LIBRARY))
        loaded.scratch_bytes.argtypes, loaded.scratch_bytes.restype = [_Number] * 4, _Number
        loaded.attention.restype = None
        loaded.attention.argtypes = (
            *[_Address] * 6,
            *[_Number] * 5,
            *(_Address, _Number, ctypes.c_float, ctypes.c_int),
        )
    except (OSError, AttributeError):  # it is not there, or not what it is called
        return None
    return loaded if not capabilities.get("amx_tile") or _is_fastest(loaded) else None


def _is_fastest(loaded: ctypes.CDLL) -> bool:
    """Whether it takes less time than torch's own, in a few milliseconds of 512 places in 8 heads."""
    x = torch.ones(1, 512, 512, dtype=torch.bfloat16)
    parts = x.unflatten(2, (8, -1)).transpose(1, 2)
    with torch.inference_mode():
        own = _seconds(lambda: _answer(loaded, x, x, x, 8, None))
        return own < _seconds(lambda: F.scaled_dot_product_attention(parts, parts, parts))


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return min(times)
