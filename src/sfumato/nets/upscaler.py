"""A small network that makes pictures larger: residual convolutions at the small size, then a shuffle of
pixels.

As Real-ESRGAN's compact network (Wang et al. 2021), after Shi et al. 2016. It adds to what bicubic
interpolation gives.
"""

import json
from pathlib import Path
from typing import Annotated

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato import weights
from sfumato.config.base import Channels, Config, Layers
from sfumato.errors import CheckpointError
from sfumato.files import parse_json
from sfumato.nets.circular import continued
from sfumato.nets.inference import Conv
from sfumato.nets.tiny_vae import TinyBlock

FORMAT = "sfumato.upscaler"
"""What a file's header says of itself under `format`."""


@pydantic.dataclasses.dataclass(frozen=True)
class UpscalerConfig(Config):
    """The shape of the network."""

    scale: Annotated[int, Field(ge=2, le=8)] = 2
    """How many times larger it makes a picture."""
    width: Channels = 32
    """Channels between the first and the last convolution."""
    blocks: Layers = 4
    """Residual blocks of three convolutions."""


class Upscaler(nn.Module):
    """Pictures to `scale` times larger ones."""

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = Conv(3, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(TinyBlock(config.width) for _ in range(config.blocks)))
        self.conv_out = Conv(config.width, 3 * config.scale**2, 3, padding=1)

    @property
    def reach(self) -> int:
        """How many pixels away from a place of a picture its enlargement still depends on."""
        return 2 + 3 * self.config.blocks

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, 3, H, W) in [−1, 1] to (B, 3, H·scale, W·scale), about [−1, 1].

        In the precision of `x`; what is added is computed in that of the weights.
        """
        scale = self.config.scale
        h = self.conv_in(x.to(self.conv_in.weight.dtype), relu=True)
        detail = F.pixel_shuffle(self.conv_out(self.blocks(h)), scale)
        return F.interpolate(x, scale_factor=scale, mode="bicubic") + detail.to(x.dtype)


def enlarged(net: Upscaler, x: Tensor, seamless: str = "", tile: int = 256) -> Tensor:
    """`net` of pictures `x` (B, 3, H, W), from tiles of `tile` pixels a side and what they depend on around
    them, which changes nothing but the memory it takes.

    The picture goes on as its border is, and at the opposite edge along the axes `seamless`.
    """
    scale, reach = net.config.scale, net.reach
    height, width = x.shape[2:]
    around = bordered(x, reach, seamless)
    out = x.new_empty(*x.shape[:2], height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            part = net(around[:, :, top : bottom + 2 * reach, left : right + 2 * reach])
            cut = slice(reach * scale, -reach * scale)
            out[:, :, top * scale : bottom * scale, left * scale : right * scale] = part[:, :, cut, cut]
    return out


def bordered(x: Tensor, margin: int, seamless: str = "") -> Tensor:
    """`x` (B, C, H, W) with `margin` pixels more on every side: its border, or along the axes `seamless` what
    is at the opposite edge.
    """
    down, across = margin * ("y" not in seamless), margin * ("x" not in seamless)
    return F.pad(continued(x, margin, seamless), (across, across, down, down), mode="replicate")


def save(net: Upscaler, path: Path, **said: str) -> None:
    """Write `net` to the file `path`, in half precision, its shape and what is `said` of it in the header."""
    half = {name: tensor.half() for name, tensor in net.state_dict().items()}
    weights.write(path, half, {"format": FORMAT, "config": json.dumps(net.config.to_dict()), **said})


def load(path: Path) -> Upscaler:
    """The network in the file `path`, in float32. Raises `CheckpointError`."""
    header = weights.metadata(path)
    if header.get("format") != FORMAT or "config" not in header:
        raise CheckpointError(
            f"{path} is no upscaler: its header does not say format {FORMAT!r}; `sfumato train` makes one by "
            "the objective upscaler"
        )
    config = parse_json(header["config"].encode(), f"the config in the header of {path}")
    net = Upscaler(UpscalerConfig.from_dict(config, str(path)))
    state = weights.read(path, dtype=torch.float32)
    weights.check(state, net, str(path))
    net.load_state_dict(state)
    return net.requires_grad_(False).eval()
