"""T2I-Adapters' files without a configuration, by diffusers' names or by those of their first program."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.ldm_keys import SourceKey, Table
from sfumato.config import T2IAdapterConfig
from sfumato.config.t2i_adapter import FULL, FULL_XL, LIGHT
from sfumato.errors import CheckpointError
from sfumato.weights import Header

_PREFIX = "adapter."
_BODY = re.compile(r"(?:adapter\.)?body\.\d+\.(?:(?:resnets|body)\.\d+\.)?block1\.weight")
_NUMBER = re.compile(r"body\.(\d{1,3})\.")
_RESNET = re.compile(r"body\.(\d+)\.resnets\.(\d+)\.(.+)")
_IN_CONV = re.compile(r"body\.(\d+)\.in_conv\.(.+)")
_BLOCKS = 2
"""Residual blocks for each feature of a full adapter: all that were published have so many."""
_PIXELS = {64: (1, 8, FULL), 192: (3, 8, FULL), 256: (1, 16, FULL_XL), 768: (3, 16, FULL_XL)}
"""Channels of the picture, the side of the squares of pixels that it is cut into, and the kind, by what the
first convolution reads."""


def is_t2i_adapter(names: Collection[str]) -> bool:
    """Whether these are the names of a T2I-Adapter's tensors."""
    return any(_BODY.fullmatch(name) for name in names)


def t2i_adapter_part(path: Path, header: Header) -> Part:
    """The T2I-Adapter in the file `path`, which has this header. Raises `CheckpointError`."""
    shapes = {name.removeprefix(_PREFIX): info.shape for name, info in header.tensors.items()}
    renamed = any(name.startswith(_PREFIX) for name in header.tensors)
    light = "conv_in.weight" not in shapes

    def table(expected: Iterable[str]) -> Table:
        return {name: SourceKey(name if renamed else _original(name, light)) for name in expected}

    config = _config(shapes, renamed, light, path)
    tensors = dict(header.tensors)
    return Part("control", config.CLASS, config, str(path), {path: header}, tensors, table=table)


def _config(shapes: dict[str, tuple[int, ...]], renamed: bool, light: bool, path: Path) -> T2IAdapterConfig:
    """What it is built of, by the shapes of its tensors, whose names are diffusers' if `renamed`."""

    def size(name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        if len(shape) <= axis:
            raise CheckpointError(f"{path} is no whole T2I-Adapter: {name} is missing or damaged")
        return shape[axis]

    blocks = 1 + max(int(match[1]) for name in shapes if (match := _NUMBER.match(name)))
    if light:
        inner = "resnets" if renamed else "body"
        counted = {name.split(".")[3] for name in shapes if name.startswith(f"body.0.{inner}.")}
        channels = [size(f"body.{block}.out_conv.weight", 0) for block in range(blocks - 1)]
        read, count = size("body.0.in_conv.weight", 1), len(counted)
    else:
        last = [f"{i}.resnets.0" if renamed else f"{i}" for i in range(0, blocks, 1 if renamed else _BLOCKS)]
        channels = [size(f"body.{block}.block1.weight", 0) for block in last]
        counted = {name.split(".")[3] for name in shapes if name.startswith("body.0.resnets.")}
        read, count = size("conv_in.weight", 1), len(counted) if renamed else _BLOCKS
    if read not in _PIXELS:
        raise CheckpointError(
            f"{path} reads {read} numbers of each square of pixels, which does not tell how many it is of: "
            "a folder with its config.json does"
        )
    in_channels, factor, kind = _PIXELS[read]
    return T2IAdapterConfig.from_dict(
        {
            "in_channels": in_channels,
            "channels": channels,
            "num_res_blocks": count,
            "downscale_factor": factor,
            "adapter_type": LIGHT if light else kind,
        },
        str(path),
    )


def _original(name: str, light: bool) -> str:
    """A parameter's name in the first program, whose full adapters are one row of residual blocks."""
    bare = name.removeprefix(_PREFIX)
    if match := _RESNET.fullmatch(bare):
        block, resnet, rest = int(match[1]), int(match[2]), match[3]
        return f"body.{block}.body.{resnet}.{rest}" if light else f"body.{_BLOCKS * block + resnet}.{rest}"
    if not light and (match := _IN_CONV.fullmatch(bare)):
        return f"body.{_BLOCKS * int(match[1])}.in_conv.{match[2]}"
    return bare
