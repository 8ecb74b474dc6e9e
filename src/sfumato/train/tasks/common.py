"""What several tasks need: the network to train, pictures to judge by, and work done a batch at a time."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sfumato.checkpoint import Model
from sfumato.config import Config
from sfumato.data.icons import Icons, tinted, to_signal
from sfumato.nets.fast import plain
from sfumato.nets.unet import UNet
from sfumato.train.recipe import Recipe

MODEL = "model"
"""The folder in a run's own that holds the result."""
AT_ONCE = 256
"""Pictures and texts that are encoded in one batch."""
MOST_LOOKED_AT = 1024
"""Pictures that figures and the statistics of latents are taken from."""


def network(recipe: Recipe, net: nn.Module, config: Config, where: str) -> nn.Module:
    """The network to train: the base model's own, or one of its kind with random weights."""
    if recipe.start == "nothing":
        changed = type(config).from_dict({**config.to_dict(), **recipe.network}, f"network of {where}")
        net = type(net)(changed)
    return plain(net).requires_grad_(True)


def fitting(unet: UNet, *, text: int, latent: int) -> UNet:
    """`unet`, if it reads text states `text` wide and makes latents of `latent` channels, or else a random
    one of its kind that does: a model whose other networks have changed their shape stays a whole model.
    """
    config = unet.config
    if config.out_channels == latent and all(width == text for width in config.context):
        return unet
    changed = replace(config, cross_attention_dim=text, in_channels=latent, out_channels=latent)
    return UNet(changed).requires_grad_(False).eval()


def natively(model: Model, side: int) -> Model:
    """`model`, whose pictures are `side` pixels wide and high unless a request says otherwise."""
    size = replace(model.facts, native_size=(side, side))
    return replace(model, facts=size, own={**model.own, "native_size": [side, side]})


def plain_pictures(icons: Icons, most: int) -> Tensor:
    """At most `most` of the pictures, evenly chosen, one-colour drawings in black on white; (B, 3, S, S)."""
    total = len(icons.rows) + len(icons.ink_rows)
    share = min(1.0, most / total)
    parts = []
    if icons.rows:
        parts.append(to_signal(icons.pictures[_evenly(len(icons.rows), share)]))
    if icons.ink_rows:
        inks = icons.inks[_evenly(len(icons.ink_rows), share)]
        black = torch.full((len(inks), 3), -1.0, device=inks.device)
        parts.append(tinted(inks, black, -black))
    return torch.cat(parts)


def _evenly(count: int, share: float) -> list[int]:
    kept = max(1, int(count * share))
    return [place * count // kept for place in range(kept)]


def in_batches(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
