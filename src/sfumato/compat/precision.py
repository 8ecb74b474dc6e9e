"""Out of every `torch.autocast`: networks here compute in the dtype that the pipeline was asked for."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("cpu", "cuda", "mps")


def own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, to which an autocast around the call is nothing."""

    @wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            for kind in KINDS:
                if torch.amp.is_autocast_available(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return outside
