"""`sfumato doctor`: what is installed, what is fast here, and what is missing. It draws nothing."""

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from sfumato import machine
from sfumato.cli import console
from sfumato.cli.options import Json, Program
from sfumato.version import __version__

NEEDED = ["torch", "numpy", "tokenizers", "pillow", "huggingface_hub", "pydantic", "typer", "rich"]
FLAGS = [
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "sve",
    "bf16",
]
ENVIRONMENT = [
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
]
ROOM = 3 << 30
"""Bytes of memory, and of disk in the cache, below which a Stable Diffusion checkpoint will not do well."""

GIB = 1 << 30


program = Program()


@program.add()
def doctor(as_json: Json = False) -> int:
    """Print the findings; 1 if something is missing without which nothing is drawn."""
    found, missing = examine()
    if as_json:
        console.result(console.as_json({**found, "missing": missing}))
    else:
        lines = [line for name, value in found.items() for line in _topic(name, value)]
        console.result("\n".join([*lines, *(f"{'missing':18} {what}" for what in missing)]))
    return 0 if found["ready"] else 1


def examine() -> tuple[dict[str, Any], list[str]]:
    """What there is, by topic, and what is not."""
    versions, missing = _versions()
    memory = machine.memory()
    here = {
        "system": platform.platform(),
        "cpu": machine.processor(),
        "cores": machine.cores(),
        "features": _cpu_features(),
        **memory,
    }
    torch_found, drawing = _torch(missing)
    cache = _cache()
    if (free := memory.get("memory_available")) is not None and free < ROOM:
        missing.append(
            f"memory: {free / GIB:.1f} GiB are free; a Stable Diffusion model wants {ROOM / GIB:.0f}"
        )
    if cache["free"] < ROOM:
        missing.append(f"disk: {cache['free'] / GIB:.1f} GiB are free in {cache['folder']}")
    embedded = _embedded()
    if not embedded["there"]:
        missing.append(f"the embedded model: {embedded['why']}; reinstall sfumato")
    found = {
        "sfumato": {"version": __version__, "python": platform.python_version(), "at": sys.prefix},
        "versions": versions,
        "machine": here,
        "torch": torch_found,
        "cache": cache,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "embedded": embedded,
        "drawing": drawing,
        "ready": bool(drawing) and embedded["there"],
    }
    return found, missing


def _versions() -> tuple[dict[str, str], list[str]]:
    versions, missing = {}, []
    for name in NEEDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"package {name}: pip install {name}")
    return versions, missing


def _torch(missing: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What torch sees of the machine, and what Sfumato would draw with."""
    try:
        import torch

        from sfumato import devices
        from sfumato.nets.compiled import library
    except Exception as error:  # a broken installation fails in any way it likes
        missing.append(f"torch cannot be imported: {type(error).__name__}: {error}")
        return {}, {}
    gpus = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": about.name,
                "memory": about.total_memory,
                "capability": f"{about.major}.{about.minor}",
                "bfloat16": torch.cuda.is_bf16_supported(),
            }
        )
    device = devices.pick_device()
    fast = devices.cpu_has_bfloat16()
    found = {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.is_available(),
        "cpu_fast_dtypes": ["bfloat16", "float32"] if fast else ["float32"],
        "compiled_kernels": library() is not None,
        "cpu_int8": devices.cpu_has_int8(),
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "gpus": gpus,
    }
    if not gpus and not found["mps"]:
        missing.append("a GPU that torch can use: pictures are drawn on the CPU")
    if device.type == "cpu" and not fast:
        missing.append(
            "bfloat16 faster than float32 on this CPU (AMX, or AVX-512 BF16 of AMD's): float32 is used"
        )
    if device.type == "cpu" and library() is None:
        missing.append("compiled kernels: apt-get install g++, then reinstall sfumato; slower without")
    dtype = str(devices.pick_dtype(device)).removeprefix("torch.")
    return found, {"device": devices.describe(device), "dtype": dtype}


def _cpu_features() -> list[str]:
    """Those of `FLAGS` that the kernel reports."""
    for line in machine.lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            there = set(line.partition(":")[2].split())
            return [flag for flag in FLAGS if flag in there]
    return []


def _cache() -> dict[str, Any]:
    """Where models from the hub are kept, and how much room is left there."""
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return {
        "folder": str(folder),
        "models": len(list(folder.glob("models--*"))),
        "free": shutil.disk_usage(there).free,
        "offline": os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"},
    }


def _embedded() -> dict[str, Any]:
    try:
        from sfumato import checkpoint

        report = checkpoint.inspect("embedded")
    except Exception as error:  # whatever is wrong with it is the finding
        return {"there": False, "why": str(error)}
    return {"there": not report.problems, "why": "; ".join(report.problems), "parameters": report.parameters}


def _topic(name: str, value: Any) -> list[str]:
    """A topic as a heading with its facts below, or as one line; nothing where there are none."""
    if not isinstance(value, dict):
        return [f"{name:18} {_shown(name, value)}"]
    rows = [f"  {key:16} {_shown(key, inner)}" for key, inner in value.items() if inner not in ("", [], None)]
    return [name, *rows] if rows else []


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(name, one) for one in value)
    if isinstance(value, dict):
        return " ".join(f"{key} {_shown(key, inner)}" for key, inner in value.items())
    if name in {"memory", "memory_available", "free"}:
        return f"{value / GIB:.1f} GiB"
    return str(value)
