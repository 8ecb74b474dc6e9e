"""The tiny autoencoder: a full one's latents to pictures and back, at a fraction of the work (Bohan 2023).

    loss = reconstruction(y, x) + (ẑ − z)²
    z = full encoder of x,  y = tiny decoder of z,  ẑ = tiny encoder of x

Its decoder learns the picture itself, not what the full decoder makes of it, which would cost more than all
the rest. Its encoder learns the most likely latent. The latents are those that the UNet knows, so that a tiny
autoencoder needs no scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.autoencoding import decibels, reconstruction
from sfumato.train.context import StepContext, seed_of


@dataclass(frozen=True, eq=False)
class RandomCrops:
    """Parts of pictures, `side` pixels high and wide, each at a place of its own."""

    pictures: Callable[[StepContext, int], Tensor]
    side: int

    def __call__(self, context: StepContext, count: int) -> Tensor:
        """(count, 3, side, side) in [−1, 1], as channels_last."""
        x = self.pictures(context, count)
        random = Random(seed_of(context.generator.initial_seed(), self.side))
        height, width = (max(length - self.side, 0) for length in x.shape[2:])
        parts = []
        for picture in x:
            top, left = random.randint(0, height), random.randint(0, width)
            parts.append(picture[:, top : top + self.side, left : left + self.side])
        return torch.stack(parts).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class TinyAutoencoderLoss:
    """The objective. `full` teaches, in a precision of its own, and does not change."""

    full: AutoencoderKL
    tiny: AutoencoderTiny

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` (B, 3, S, S) to the loss (B,) and averages of the errors of pictures and latents."""
        z = latents(self.full, x)
        y = self.tiny.decode(self.tiny.unscale(z)).float()
        mse = ((y - x) ** 2).mean((1, 2, 3))
        guess = self.tiny.scale(self.tiny.encode(x).mean).float()
        apart = ((guess - z) ** 2).mean((1, 2, 3))
        return reconstruction(y, x, mse) + apart, {"mse": mse.mean(), "latent": apart.mean()}


@torch.no_grad()
def latents(full: AutoencoderKL, x: Tensor) -> Tensor:
    """The UNet's latents (B, C, h, w) of `x` (B, 3, H, W) in [−1, 1], in float32."""
    weight = next(full.parameters())
    with torch.autocast(x.device.type, enabled=False):
        return full.scale(full.encode(x.to(weight.dtype)).mean.float())


@torch.no_grad()
def qualities(
    full: AutoencoderKL, tiny: AutoencoderTiny, pictures: Tensor, batch: int = 32
) -> dict[str, float]:
    """Mean peak signal-to-noise ratios in dB over `pictures` (B, 3, S, S) in [−1, 1].

    "decoder": of the full encoder's latents, decoded by the tiny decoder; "both": of the tiny encoder's.
    """
    totals = {"decoder": 0.0, "both": 0.0}
    for x in pictures.split(batch):
        z = tiny.unscale(latents(full, x))
        totals["decoder"] += float(decibels(tiny.decode(z).float(), x).sum())
        totals["both"] += float(decibels(tiny.decode(tiny.encode(x).mean).float(), x).sum())
    return {name: total / len(pictures) for name, total in totals.items()}
