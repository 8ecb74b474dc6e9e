"""The autoencoder: pictures through few latents and back (Kingma & Welling 2014; Rombach et al. 2022, §3.1).

    loss = 1.5·|y − x| + 2·(y − x)² + 2·|mean₈ y − mean₈ x| + 0.4·Σ_s |∇ mean_s y − ∇ mean_s x| + kl·KL

with mean_s the average over s × s pixels, s = 1, 2, 4 in the sum: edges count at three sizes and colours of
areas once more, because the eye forgives a shifted texture but not a washed-out colour.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.crops import CropPolicy, Dataset
from sfumato.data.icons import Icons, tinted, to_signal
from sfumato.devices import sent
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.context import StepContext
from sfumato.train.order import VIEWS, Order, random_of

QUIET = 6.0
"""By how much the logarithm of the latents' variance begins below that of random weights."""
SHIFT = 1 / 16
"""Of a picture's side, by which it is moved around its edges at most."""


@dataclass(frozen=True, eq=False)
class IconBatches:
    """Batches of pictures, moved and mirrored, the one-colour drawings among them in any colours."""

    icons: Icons

    def __call__(self, context: StepContext, count: int) -> Tensor:
        """(count, 3, S, S) in [−1, 1], as channels_last."""
        icons, device = self.icons, context.generator.device
        drawings, pictures = len(icons.ink_rows), len(icons.rows)
        own = round(count * pictures / (pictures + drawings))
        rows = torch.randint(max(pictures, 1), (own,), generator=context.generator, device=device)
        parts = [to_signal(icons.pictures[rows])] if own else []
        if own < count:
            rows = torch.randint(drawings, (count - own,), generator=context.generator, device=device)
            colours = torch.rand(2, count - own, 3, generator=context.generator, device=device) * 2 - 1
            white = torch.rand(count - own, 1, generator=context.generator, device=device) < 0.5
            parts.append(tinted(icons.inks[rows], colours[0], torch.where(white, 1.0, colours[1])))
        x = torch.cat(parts)
        # not from the generator itself: the device would have to be waited for
        random = Random(context.generator.initial_seed())
        most = max(1, int(x.shape[2] * SHIFT))
        right, down = random.randrange(most), random.randrange(most)
        mirrored = torch.rand(count, 1, 1, 1, generator=context.generator, device=device) < 0.5
        x = torch.roll(x, (down, right), (2, 3))
        return torch.where(mirrored, x.flip(3), x).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class CropBatches:
    """Batches of squares cut from anywhere in pictures of any size, at any scale, one in two mirrored."""

    source: Dataset
    order: Order
    device: torch.device

    def __call__(self, context: StepContext, count: int) -> Tensor:
        """(count, 3, S, S) in [−1, 1], as channels_last."""
        size, rows = self.order(context, count)
        framing, random = CropPolicy(anywhere=True, mirrored=True, zoomed=True), random_of(context, VIEWS)
        views = [framing.view(self.source.sizes[row], size, random) for row in rows]
        x = sent(self.source.show(rows, views), self.device)
        return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class AutoencoderLoss:
    """The objective. With `only_decoder` the encoder's answer is taken as it is, without noise."""

    vae: AutoencoderKL
    kl: float
    only_decoder: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` (B, 3, S, S) to the loss (B,) and averages of error and divergence."""
        if self.only_decoder:
            with torch.no_grad():
                z = self.vae.encode(x).mean
            divergence = torch.zeros(len(x), device=x.device)
        else:
            latent = self.vae.encode(x)
            mean, logvar = latent.mean.float(), latent.logvar.float()
            noise = torch.randn(mean.shape, generator=generator, device=x.device)
            z = mean + torch.exp(0.5 * logvar) * noise
            divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean((1, 2, 3))
        y = self.vae.decode(z).float()
        mse = _mean((y - x) ** 2)
        loss = reconstruction(y, x, mse) + self.kl * divergence
        return loss, {"mse": mse.mean(), "kl": divergence.mean()}


def reconstruction(y: Tensor, x: Tensor, mse: Tensor) -> Tensor:
    """The loss above without its last term: `y` for `x` (B, 3, S, S), and their squared error, to (B,)."""
    loss = 1.5 * _mean((y - x).abs()) + 2 * mse
    loss = loss + 2 * _mean((F.avg_pool2d(y, 8) - F.avg_pool2d(x, 8)).abs())
    for size in (1, 2, 4):
        error = F.avg_pool2d(y - x, size) if size > 1 else y - x
        loss = loss + 0.4 * (_mean(error.diff(dim=2).abs()) + _mean(error.diff(dim=3).abs()))
    return loss


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> float:
    """Mean over `pictures` (B, 3, S, S) in [−1, 1] of their `decibels` once they went through `vae`."""
    total = 0.0
    for x in pictures.split(batch):
        total += float(decibels(vae.decode(vae.encode(x).mean).float(), x).sum())
    return total / len(pictures)


def decibels(y: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) of each of `y` for `x` (B, 3, S, S) in [−1, 1], both rounded off to the
    256 values that a file holds."""
    bytes_off = ((y.clamp(-1, 1) + 1) * 127.5).round() - ((x + 1) * 127.5).round()
    mse = _mean(bytes_off**2).clamp(min=1 / 12)
    return 10 * torch.log10(255**2 / mse)


@torch.no_grad()
def settle(vae: AutoencoderKL) -> None:
    """Have an autoencoder that knows nothing yet put little noise into its latents.

    Random weights answer with deviations of about 1, in which what latents say at first is lost.
    """
    last = vae.encoder.conv_out if vae.quant_conv is None else vae.quant_conv
    _bias(last)[vae.config.latent_channels :] -= QUIET


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of every channel of the latents of `pictures` (B, 3, S, S)."""
    z = torch.cat([vae.encode(x).mean.double() for x in pictures.split(batch)])
    return z.mean((0, 2, 3)), z.std((0, 2, 3))


@torch.no_grad()
def fold(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Have `vae` give latents (z − mean) / std and take them, by what it does to latents anyway.

    Raises `ValueError` for an autoencoder without those layers.
    """
    if vae.quant_conv is None or vae.post_quant_conv is None:
        raise ValueError("an autoencoder without quant_conv and post_quant_conv has nowhere to put a shift")
    channels = len(mean)
    weight, bias = vae.quant_conv.weight.double(), _bias(vae.quant_conv).double()
    mean, std = mean.to(weight), std.to(weight)
    weight[:channels] /= std.view(-1, 1, 1, 1)
    bias[:channels] = (bias[:channels] - mean) / std
    bias[channels:] -= 2 * std.log()
    vae.quant_conv.weight.copy_(weight)
    _bias(vae.quant_conv).copy_(bias)
    weight, bias = vae.post_quant_conv.weight.double(), _bias(vae.post_quant_conv).double()
    bias += (weight * mean.view(1, -1, 1, 1)).sum((1, 2, 3))
    weight *= std.view(1, -1, 1, 1)
    vae.post_quant_conv.weight.copy_(weight)
    _bias(vae.post_quant_conv).copy_(bias)


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
