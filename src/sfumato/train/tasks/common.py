"""What several tasks need: the network to train, pictures to judge by, and work done a batch at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.checkpoint import Model
from sfumato.config import Config
from sfumato.data.crops import Crop
from sfumato.data.folder import Found, OwnPictures
from sfumato.data.icons import Icons, load, tinted, to_signal
from sfumato.data.search import search
from sfumato.errors import UsageError
from sfumato.nets.inference import unpacked
from sfumato.nets.unet import UNet
from sfumato.train.autoencoding import CropBatches, IconBatches
from sfumato.train.context import StepContext
from sfumato.train.order import Epochs
from sfumato.train.recipe import Recipe

MODEL = "model"
"""The folder in a run's own that holds the result."""
AT_ONCE = 256
"""Pictures and texts that are encoded in one batch."""
MOST_LOOKED_AT = 1024
"""Pictures that figures and the statistics of latents are taken from, of 256 × 256 or as many pixels."""
INDEX = "index.json"
"""What was found in a folder of pictures, in the run's own."""


def network(recipe: Recipe, net: nn.Module, config: Config, where: str) -> nn.Module:
    """The network to train: the base model's own, or one of its kind with random weights."""
    if recipe.start == "nothing":
        changed = type(config).from_dict({**config.to_dict(), **recipe.network}, f"network of {where}")
        net = type(net)(changed)
    return unpacked(net).requires_grad_(True)


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
    size = replace(model.info, native_size=(side, side))
    return replace(model, info=size, own={**model.own, "native_size": [side, side]})


def has_icons(folder: Path) -> bool:
    """Whether `sfumato data icons` made what is in `folder`."""
    return any(folder.glob("part-*.jsonl"))


def found(recipe: Recipe, *, captioned: bool) -> Found:
    """What is in the recipe's folder of pictures; warns of what is left out."""
    there = search(Path(recipe.data), Path(recipe.run) / INDEX)
    there.warn(captioned=captioned)
    return there


def side_of(model: Model, size: int) -> int:
    """`size` in pixels, or the model's own for 0. Raises `UsageError` for one that makes no whole latents."""
    side = size or round(math.sqrt(math.prod(model.native_size)))
    if side % model.factor:
        raise UsageError(
            f"size = {side} must be a multiple of {model.factor}, the pixels to one latent along each side"
        )
    return side


@dataclass(frozen=True, eq=False)
class Material:
    """Pictures to learn from without words, and to judge by."""

    batches: Callable[[StepContext, int], Tensor]
    """(count, 3, S, S) in [−1, 1], from anywhere in them."""
    seen: Callable[[], Tensor]
    """(B, 3, S, S): some of them, whole."""
    held_out: Callable[[], Tensor] | None
    """The same of those that are not learned from, if there are any."""

    def tests(self) -> Tensor:
        """Those that are held out; where there are none, those that are seen."""
        return self.held_out() if self.held_out else self.seen()


def material(recipe: Recipe, model: Model, size: int, device: torch.device) -> Material:
    """The pictures in the recipe's folder: icons as they are, others at `size` pixels, 0 for the model's."""
    folder = Path(recipe.data)
    if has_icons(folder):
        icons, others = (load(folder, held_out=held_out, device=device) for held_out in (False, True))
        return Material(
            IconBatches(icons),
            lambda: plain_pictures(icons, most=MOST_LOOKED_AT),
            lambda: plain_pictures(others, most=MOST_LOOKED_AT),
        )
    side, there = side_of(model, size), found(recipe, captioned=False)
    own, tests = (there.chosen(held_out=held_out, captioned=False) for held_out in (False, True))
    order = Epochs([(side, side)] * len(own.pictures), own.weights, recipe.batch, recipe.seed)
    return Material(
        CropBatches(own, order, device),
        lambda: squares(own, side, device),
        (lambda: squares(tests, side, device)) if tests.pictures else None,
    )


def squares(source: OwnPictures, side: int, device: torch.device) -> Tensor:
    """The middles of some pictures, evenly chosen: (B, 3, side, side) in [−1, 1]."""
    most = max(32, MOST_LOOKED_AT * 256**2 // side**2)
    rows = _evenly(len(source.pictures), min(1.0, most / len(source.pictures)))
    return source.show(rows, [Crop(source.sizes[row], (side, side)) for row in rows]).to(device)


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
