"""What is written in C++ (the `.cpp` files of this folder) and compiled when Sfumato is installed.

Without a compiler there, or on other processors than x86-64, torch's own operations are used.
"""

import ctypes
import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name("libkernels.so")
NUMBER, ADDRESS = ctypes.c_int64, ctypes.c_void_p


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; `None` where there are none that this processor can run."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        # it counts on the OpenMP that torch has brought
        loaded = ctypes.CDLL(str(LIBRARY))
        loaded.scratch_bytes.argtypes, loaded.scratch_bytes.restype = [NUMBER] * 4, NUMBER
        loaded.attention.argtypes = (
            *[ADDRESS] * 6,
            *[NUMBER] * 5,
            *(ADDRESS, NUMBER, ctypes.c_float, ctypes.c_int, ctypes.c_int),
        )
        loaded.group_norm.argtypes = (
            *[ADDRESS] * 2,
            *[NUMBER] * 4,
            *[ADDRESS] * 2,
            *(ctypes.c_float, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        )
        loaded.layer_norm.argtypes = (
            *[ADDRESS] * 2,
            *[NUMBER] * 2,
            *[ADDRESS] * 2,
            *(ctypes.c_float, ctypes.c_int, ctypes.c_int),
        )
        loaded.quantize.argtypes = (
            *[ADDRESS] * 2,
            *[NUMBER] * 2,
            *[ADDRESS] * 2,
            *(ctypes.c_int, ctypes.c_int),
        )
        loaded.winograd_input.argtypes = (*[ADDRESS] * 2, *[NUMBER] * 8, ctypes.c_int)
        loaded.winograd_output.argtypes = (
            *[ADDRESS] * 2,
            *[NUMBER] * 8,
            *(ADDRESS, NUMBER, ADDRESS),
            *(ctypes.c_int, ctypes.c_int),
        )
        loaded.allow_tiles.argtypes, loaded.allow_tiles.restype = [], ctypes.c_int
        for name in (
            "attention",
            "group_norm",
            "layer_norm",
            "quantize",
            "winograd_input",
            "winograd_output",
        ):
            getattr(loaded, name).restype = None
    except (OSError, AttributeError):  # it is not there, or not what it is called
        return None
    return loaded


def answers_for(*tensors: Tensor | None) -> bool:
    """Whether compiled functions may compute with these: on a CPU, and nobody wants gradients or a graph."""
    learns = torch.is_grad_enabled()
    return not torch.compiler.is_compiling() and all(
        x is None or (x.device.type == "cpu" and not (learns and x.requires_grad)) for x in tensors
    )
