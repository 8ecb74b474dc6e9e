"""The autoencoder: pictures to latents and back (Kingma & Welling 2014; Rombach et al. 2022, §3.1).

    loss = 1.5·|y − x| + 2·(y − x)² + 2·|mean₈ y − mean₈ x| + 0.4·Σ_s |∇ mean_s y − ∇ mean_s x| + kl_weight·KL

with mean_s the average over s × s pixels, s = 1, 2, 4 in the sum: edges count at three scales, and the colour
of areas once more, because a shifted texture is less visible than a washed-out colour. `border_loss` may be
added.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.objectives.common import (
    CroppedData,
    cropped,
    initial_network,
    matching_unet,
    save_reconstructions,
    with_weights,
)
from sfumato.train.pictures import pictures_of
from sfumato.train.recipe import MODEL, NotNegative, Objective, Recipe
from sfumato.train.task import Task

BORDERS = (4, 1)
"""The widths in pixels of the borders of `border_loss`."""

LOG_VARIANCE_OFFSET = 6.0
"""By how much the log-variance of latents begins below that of random weights."""


@pydantic.dataclasses.dataclass(frozen=True)
class PictureData(CroppedData):
    """Pictures, or crops of them; captions are not read."""

    resolution: NotNegative = 0
    """Width and height in pixels of the crops of a folder's pictures; 0: the base model's."""


@pydantic.dataclasses.dataclass(frozen=True)
class Autoencoding(Objective):
    """Trains the autoencoder."""

    NAME, DATA = "autoencoder", PictureData

    kl_weight: Annotated[float, Field(ge=0)] = 2e-5
    """Weight of the KL divergence from a standard normal distribution."""
    decoder_only: bool = False
    """Leave the encoder, and so the latents, as they are."""
    border_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of `border_loss`. The convolutions pad with zeros, which tints the outermost pixels."""

    def usage(self, recipe: Recipe) -> list[str]:
        return super().usage(recipe) if recipe.start == "base" else []

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        if not isinstance(base.vae, AutoencoderKL):
            raise UsageError(
                f"the base model {recipe.base} has a tiny autoencoder; this objective trains a KL one"
            )
        vae = initial_network(recipe, base.vae, base.vae.config, "autoencoder")
        vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not (self.decoder_only or (vae.quant_conv and vae.post_quant_conv)):
            raise UsageError(
                "an autoencoder without quant_conv and post_quant_conv has nowhere to put the mean and "
                "deviation of its latents: train its decoder alone, which leaves them as they are "
                "(decoder_only = true)"
            )
        if recipe.start == "scratch":
            reduce_initial_variance(vae)
        if self.decoder_only:
            vae.encoder.requires_grad_(False)
            if vae.quant_conv is not None:
                vae.quant_conv.requires_grad_(False)
        if recipe.compile:
            vae.encoder.compile()
            vae.decoder.compile()
        data = cast(PictureData, recipe.data)
        pictures = pictures_of(recipe, base, data.resolution, device, report)
        tests = pictures.tests()

        def show(state: dict[str, Tensor], path: Path) -> None:
            copy = with_weights(vae, state)
            save_reconstructions(tests, lambda x: copy.decode(copy.encode(x).mean), path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            copy, seen = with_weights(vae, state), pictures.seen()
            metrics = {"psnr_seen": psnr(copy, seen)}
            if pictures.held_out:
                metrics["psnr_held_out"] = psnr(copy, tests)
            if not self.decoder_only:
                mean, std = latent_statistics(copy, seen)
                normalise_latents(copy, mean, std)
                metrics |= {f"latent_mean_{c}": float(value) for c, value in enumerate(mean)}
                metrics |= {f"latent_std_{c}": float(value) for c, value in enumerate(std)}
                copy.config = replace(
                    copy.config, scaling_factor=1.0, shift_factor=None, latents_mean=None, latents_std=None
                )
            show(state, folder / "samples" / "last.webp")
            text = sum(encoder.config.hidden_size for encoder in base.text_encoders)
            unet = matching_unet(base.unet, text=text, latent=copy.config.latent_channels)
            model = replace(base, vae=copy.cpu(), unet=unet)
            if not self.decoder_only:
                # these fit the former latents only
                model = replace(model, tiny=None, fast=None, controls={})
            checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
            return metrics

        loss = AutoencoderLoss(vae, self.kl_weight, self.decoder_only, self.border_weight)
        return Task(vae, cropped(pictures.batches, data), loss, show, finish)


@dataclass(frozen=True, eq=False)
class AutoencoderLoss:
    """The loss; with `decoder_only` of the posterior's mean, without noise and divergence."""

    vae: AutoencoderKL
    kl_weight: float
    decoder_only: bool = False
    border_weight: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` (B, 3, S, S) to the loss (B,), and the mean squared error and divergence."""
        if self.decoder_only:
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
        loss = reconstruction_loss(y, x, mse) + self.kl_weight * divergence
        loss = loss + self.border_weight * border_loss(y, x)
        return loss, {"mse": mse.mean(), "kl": divergence.mean()}


def reconstruction_loss(y: Tensor, x: Tensor, mse: Tensor) -> Tensor:
    """The loss above without its last term: `y` for `x` (B, 3, S, S), and their squared error, to (B,)."""
    loss = 1.5 * _mean((y - x).abs()) + 2 * mse
    loss = loss + 2 * _mean((F.avg_pool2d(y, 8) - F.avg_pool2d(x, 8)).abs())
    for size in (1, 2, 4):
        error = F.avg_pool2d(y - x, size) if size > 1 else y - x
        loss = loss + 0.4 * (_mean(error.diff(dim=2).abs()) + _mean(error.diff(dim=3).abs()))
    return loss


def border_loss(y: Tensor, x: Tensor) -> Tensor:
    """Mean absolute error of `y` for `x` (B, C, H, W) in the outermost four pixels and in the last, to (B,).

    For each of the two widths of the four sides, and of the four corners once more, which are few pixels and
    the farthest off.
    """
    error = (y - x).abs()
    loss = error.new_zeros(len(error))
    for width in BORDERS:
        rows = torch.cat([error[..., :width, :], error[..., -width:, :]], dim=-2)
        columns = torch.cat([error[..., :width], error[..., -width:]], dim=-1)
        corners = torch.cat([rows[..., :width], rows[..., -width:]], dim=-1)
        loss = loss + _mean(rows) + _mean(columns) + _mean(corners)
    return loss


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> float:
    """Mean peak signal-to-noise ratio in dB of `pictures` (B, 3, S, S) in [−1, 1] reconstructed by `vae`."""
    total = 0.0
    for x in pictures.split(batch):
        total += float(psnr_of(vae.decode(vae.encode(x).mean).float(), x).sum())
    return total / len(pictures)


def psnr_of(y: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) of each of `y` for `x` (B, 3, S, S) in [−1, 1], both rounded off to the
    256 values that a file holds."""
    bytes_off = ((y.clamp(-1, 1) + 1) * 127.5).round() - ((x + 1) * 127.5).round()
    mse = _mean(bytes_off**2).clamp(min=1 / 12)
    return 10 * torch.log10(255**2 / mse)


@torch.no_grad()
def reduce_initial_variance(vae: AutoencoderKL) -> None:
    """Have an autoencoder with random weights put little noise into its latents.

    Its posteriors have deviations of about 1 otherwise, in which the means are lost at first.
    """
    last = vae.encoder.conv_out if vae.quant_conv is None else vae.quant_conv
    _bias(last)[vae.config.latent_channels :] -= LOG_VARIANCE_OFFSET


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of every channel of the latents of `pictures` (B, 3, S, S)."""
    z = torch.cat([vae.encode(x).mean.double() for x in pictures.split(batch)])
    return z.mean((0, 2, 3)), z.std((0, 2, 3))


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Fold (z − mean) / std into `quant_conv`, and its inverse into `post_quant_conv`.

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
