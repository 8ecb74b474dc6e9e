"""What several objectives share: the network to train, its averaged copy, and grids of what it does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato.config import Config
from sfumato.nets.inference import unpacked
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.pictures import PictureBatches, RandomCrops
from sfumato.train.recipe import DataSection, Recipe

BATCH = 256
"""Pictures and texts that are encoded at once."""
SHOWN = 32
"""Pairs of pictures in a grid."""
N = TypeVar("N", bound=nn.Module)


@pydantic.dataclasses.dataclass(frozen=True)
class CroppedData(DataSection):
    """Pictures, or crops of them."""

    crop_size: Annotated[int, Field(ge=0, multiple_of=8)] = 0
    """Side in pixels of a random crop of each picture, for large pictures; 0: the whole."""


def cropped(batches: PictureBatches, data: CroppedData) -> PictureBatches:
    """`batches`, or random crops of their pictures where `data` says so."""
    return RandomCrops(batches, data.crop_size) if data.crop_size else batches


def initial_network(recipe: Recipe, net: N, config: Config, where: str) -> N:
    """The network to train: the base model's own, or one of its kind with random weights."""
    if recipe.start == "scratch":
        net = type(net)(type(config).from_dict({**config.to_dict(), **recipe.network}, f"network of {where}"))
    return unpacked(net).requires_grad_(True)


def with_weights(net: N, state: dict[str, Tensor]) -> N:
    """A frozen copy of `net`, on its device, with the weights `state`."""
    copy: Any = type(net)(net.config)
    copy.load_state_dict(state)
    copy.to(next(net.parameters()).device, memory_format=torch.channels_last)
    return cast(N, copy.requires_grad_(False).eval())


def matching_unet(unet: UNet, *, text: int, latent: int) -> UNet:
    """`unet`, if it reads text states `text` wide and makes latents of `latent` channels, or else a random
    one of its kind that does: a model whose other networks have changed their shape stays a whole model.
    """
    config = unet.config
    if config.out_channels == latent and all(width == text for width in config.context):
        return unet
    changed = replace(config, cross_attention_dim=text, in_channels=latent, out_channels=latent)
    return UNet(changed).requires_grad_(False).eval()


def save_reconstructions(tests: Tensor, reconstruct: Callable[[Tensor], Tensor], path: Path) -> None:
    """Write a grid of some of `tests` (B, 3, H, W), each row above that of its reconstructions."""
    x = tests[:: max(len(tests) // SHOWN, 1)][:SHOWN]
    with torch.no_grad():
        y = reconstruct(x).float().clamp(-1, 1)
    rows = zip(x.split(8), y.split(8), strict=True)
    sample_grid.save(torch.cat([part for pair in rows for part in pair]), path)
