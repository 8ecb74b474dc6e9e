"""Which device and which precision to draw with."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

from sfumato import machine
from sfumato.errors import UsageError, nearest, warn
from sfumato.options import DTYPES as DTYPE_NAMES
from sfumato.options import KNOWN_DEVICES, DeviceOptions

P = ParamSpec("P")
R = TypeVar("R")

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, theirs) for name, theirs in DTYPE_NAMES.items()}


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or the fastest one here: CUDA, then Apple's MPS, then the CPU."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; {KNOWN_DEVICES}") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        here = ", ".join(kind for kind, there in available.items() if there)
        raise UsageError(f"device {name!r} is not available here; available: {here}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} does not exist; there are {torch.cuda.device_count()} CUDA devices"
        )
    return device


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 sooner than float32: by AMX, or by AVX-512 BF16 but for Intel's.

    Intel's processors take twice as long for the latter, where AMX is not to be had, as in virtual machines.
    """
    capabilities = torch.cpu.get_capabilities()
    by_vectors = capabilities.get("avx512_bf16") and "Intel" not in machine.processor()
    return bool(capabilities.get("amx_bf16") or by_vectors)


def cpu_has_int8() -> bool:
    """Whether this CPU multiplies int8 in hardware (VNNI or AMX), and torch has operations for it."""
    found = torch.cpu.get_capabilities()
    has = any(found.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return has and found.get("architecture") == "x86_64" and hasattr(torch.ops.onednn, "qconv_pointwise")


def check_int8(device: torch.device) -> None:
    """Raise `UsageError` unless `device` is a CPU that multiplies int8 in hardware."""
    if device.type != "cpu" or not cpu_has_int8():
        where = (
            f"the device {device.type}" if device.type != "cpu" else f"{machine.processor()} with this torch"
        )
        raise UsageError(f"int8 needs a CPU with VNNI or AMX; {where} has none; leave quantization out")


def emulated(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `device` is a CPU without instructions for `dtype`, which takes it 100 times as long."""
    has = torch.cpu.get_capabilities()
    if device.type != "cpu" or has.get("architecture") != "x86_64":
        return False
    if dtype == torch.float16:
        return not (has.get("avx512_fp16") or has.get("amx_fp16"))
    # with AVX-512 alone bfloat16 is slower than float32, but takes half of its memory
    return dtype == torch.bfloat16 and not has.get("avx512_bw")


def native(options: DeviceOptions) -> DeviceOptions:
    """`options` with the best dtype of a CPU that would emulate the one they name; warns of it."""
    device = pick_device(options.device)
    asked = pick_dtype(device, options.dtype)
    if not emulated(device, asked):
        return options
    best = str(pick_dtype(device)).removeprefix("torch.")
    warn(
        f"this CPU has no instructions for {options.dtype}, which would take 100 times as long; using {best}"
    )
    return replace(options, dtype=best)


def pick_dtype(device: torch.device, name: str | torch.dtype | None = None) -> torch.dtype:
    """The named precision, or the fastest that is safe on `device`."""
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name is not None:
        if name not in DTYPES:
            raise UsageError(f"unknown dtype {name!r}; {nearest(name, DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def describe(device: torch.device) -> str:
    """The device as a record names it: "cpu", "cuda:0 NVIDIA H100 80GB HBM3"."""
    if device.type != "cuda":
        return device.type
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} {torch.cuda.get_device_name(index)}"


def set_threads(options: DeviceOptions) -> None:
    """Have torch compute with as many threads of the CPU as `options` say, if they do."""
    if options.threads is not None:
        if options.threads > machine.cores():
            warn(f"threads is {options.threads}, more than the {machine.cores()} cores here: that is slower")
        torch.set_num_threads(options.threads)


@cache
def processor() -> str:
    """The processor as a record names it, with the instructions that torch uses."""
    return f"{machine.processor()} ({torch.backends.cpu.get_cpu_capability()})"


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`; the work that CUDA still has to do is not waited for.

    From ordinary memory it would be: only what is pinned is copied while the program goes on.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function` out of every `torch.autocast`: networks compute in the dtype that they were loaded in."""

    @wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            for kind in ("cpu", "cuda", "mps"):
                if torch.amp.is_autocast_available(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return outside
