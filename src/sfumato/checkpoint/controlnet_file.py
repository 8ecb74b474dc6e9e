"""A ControlNet in one file without a configuration, under its first program's names or diffusers'."""

from collections.abc import Mapping
from functools import partial
from itertools import count, takewhile
from pathlib import Path

from sfumato.checkpoint import ldm_keys, shapes_to_config
from sfumato.checkpoint.layout import Part
from sfumato.config import ControlNetConfig, UNetConfig
from sfumato.weights import Header, TensorInfo

ORIGINAL = "control_model."
_HINT, _EMBEDDING = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
"""The first layer that reads the picture, in either layout."""


def is_controlnet(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether these are a ControlNet's tensors, or hold them."""
    return _prefix(tensors) is not None or _EMBEDDING in tensors


def controlnet_part(path: Path, header: Header, unet: UNetConfig) -> Part:
    """The ControlNet in `path`. What no tensor tells, such as the heads of its attention, is as in `unet`.

    Raises `CheckpointError`.
    """
    found = _prefix(header.tensors)
    original, prefix = found is not None, found or ""
    tensors = {
        name.removeprefix(prefix): info for name, info in header.tensors.items() if name.startswith(prefix)
    }
    config = shapes_to_config.controlnet(tensors, original, unet, _widths(tensors, original), str(path))
    table = partial(ldm_keys.table_of, config, prefix, False) if original else None
    owned = {f"{prefix}{name}": info for name, info in tensors.items()}
    name = ControlNetConfig.CLASS
    return Part("control", name, config, str(path), {path: header}, owned, prefix=prefix, table=table)


def _prefix(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What comes before the first program's names, `None` if they are not there."""
    return next((prefix for prefix in (ORIGINAL, "") if f"{prefix}{_HINT}" in tensors), None)


def _widths(tensors: Mapping[str, TensorInfo], original: bool) -> tuple[int, ...]:
    """Channels of the convolutions that the picture goes through first, without the last one."""
    names = (
        (f"input_hint_block.{2 * number}.weight" for number in count())
        if original
        else (f"controlnet_cond_embedding.blocks.{number}.weight" for number in count())
    )
    shapes = [tensors[name].shape for name in takewhile(tensors.__contains__, names)]
    inputs = [shape[1] for shape in shapes if len(shape) == 4]
    # the first program numbers the first and the last convolution with the others
    return tuple(inputs[1::2] if original else [*inputs[::2], *(shape[0] for shape in shapes[-1:])])
