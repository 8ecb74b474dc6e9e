"""Cross-frame attention (Text2Video-Zero, Khachatryan et al. 2023, §4.3): every frame of a clip attends to
the first, so that what it shows keeps its looks.

Whether it does is said by the caller for the time of an evaluation, in its thread alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_on: ContextVar[bool] = ContextVar("cross_frame", default=False)


@contextmanager
def cross_frame(on: bool) -> Iterator[None]:
    """Within it, where it is `on`, the self-attention of this thread is to the first frame of each clip."""
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


def attends_across_frames() -> bool:
    """Whether that is so here and now."""
    # what is compiled is compiled for attention within each frame: see `uncompiled`
    return not torch.compiler.is_compiling() and _on.get()
