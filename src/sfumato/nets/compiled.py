"""What is written in C++ (the `.cpp` files of this folder) and compiled when Sfumato is installed.

Without a compiler there, or on other processors than x86-64, torch's own operations are used.
"""

import ctypes
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name("libkernels.so")
NUMBER, ADDRESS, INT, FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int, ctypes.c_float
SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "allow_tiles": ([], INT),
    "scratch_bytes": ([NUMBER] * 4, NUMBER),
    "attention": ([*[ADDRESS] * 6, *[NUMBER] * 5, ADDRESS, NUMBER, FLOAT, INT, INT], None),
    "group_norm": ([*[ADDRESS] * 2, *[NUMBER] * 4, *[ADDRESS] * 2, FLOAT, ADDRESS, INT, INT, INT], None),
    "group_norm_backward": ([*[ADDRESS] * 3, *[NUMBER] * 4, *[ADDRESS] * 5, INT, INT], None),
    "layer_norm": ([*[ADDRESS] * 2, *[NUMBER] * 2, *[ADDRESS] * 2, FLOAT, INT, INT], None),
    "quantize": ([*[ADDRESS] * 2, *[NUMBER] * 2, *[ADDRESS] * 2, INT, INT], None),
    "winograd_input": ([*[ADDRESS] * 2, *[NUMBER] * 8, INT], None),
    "winograd_gradient": ([*[ADDRESS] * 2, *[NUMBER] * 8, INT], None),
    "winograd_output": ([*[ADDRESS] * 2, *[NUMBER] * 8, ADDRESS, NUMBER, ADDRESS, INT, INT], None),
}
"""What the compiled functions take, and what they return."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; `None` where there are none that this processor can run."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        # it counts on the OpenMP that torch has brought
        loaded = ctypes.CDLL(str(LIBRARY))
        for name, (given, answer) in SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = given, answer
    except (OSError, AttributeError):  # it is not there, or not what it is called
        return None
    return loaded


def answers_for(*tensors: Tensor | None) -> bool:
    """Whether compiled functions may compute with these: on a CPU, and nobody wants gradients or a graph."""
    learns = torch.is_grad_enabled()
    return not torch.compiler.is_compiling() and all(
        x is None or (x.device.type == "cpu" and not (learns and x.requires_grad)) for x in tensors
    )
