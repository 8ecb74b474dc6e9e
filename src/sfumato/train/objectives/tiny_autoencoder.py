"""The tiny autoencoder (Bohan 2023, TAESD): a full one's latents to pictures and back at low cost.

    loss = reconstruction(y, x) + (ẑ − z)²
    z = full encoder of x,  y = tiny decoder of z,  ẑ = tiny encoder of x

Its decoder regresses the picture itself, not the full decoder's output, which would cost more than all the
rest. Its encoder regresses the mean of the full encoder's posterior, in the UNet's scale, so that it needs
none.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.config import TinyVAEConfig
from sfumato.errors import UsageError
from sfumato.nets.inference import for_inference
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.objectives.autoencoder import border_loss, psnr_of, reconstruction_loss
from sfumato.train.objectives.common import (
    CroppedData,
    cropped,
    initial_network,
    save_reconstructions,
    with_weights,
)
from sfumato.train.pictures import pictures_of
from sfumato.train.recipe import MODEL, Objective, Recipe
from sfumato.train.task import Task


@pydantic.dataclasses.dataclass(frozen=True)
class TinyAutoencoding(Objective):
    """Trains a tiny autoencoder for the base model's latents."""

    NAME, DATA = "tiny", CroppedData

    border_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of `border_loss`, as for the full autoencoder."""

    def usage(self, recipe: Recipe) -> list[str]:
        return [*super().usage(recipe), "--decoder", "tiny"]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        if not isinstance(base.vae, AutoencoderKL):
            raise UsageError(
                f"the base model {recipe.base} has a tiny autoencoder alone; a full one teaches it"
            )
        if base.tiny is None and recipe.start == "base":
            raise UsageError(
                f"the base model {recipe.base} has no tiny autoencoder to go on with; start = 'scratch' "
                "makes one"
            )
        own = base.tiny or AutoencoderTiny(_taesd_config(base))
        tiny = initial_network(recipe, own, own.config, "tiny autoencoder")
        tiny.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _check_fits(tiny.config, base)
        if recipe.compile:
            tiny.encoder.compile()
            tiny.decoder.compile()
        # some autoencoders overflow in float16
        wanted = recipe.dtype(device)
        dtype = torch.float32 if wanted == torch.float16 else wanted
        teacher = for_inference(copy.deepcopy(base.vae), device, dtype)
        pictures = pictures_of(recipe, base, 0, device, report)
        tests = pictures.tests()

        def show(state: dict[str, Tensor], path: Path) -> None:
            pupil = with_weights(tiny, state)
            save_reconstructions(tests, lambda x: pupil.decode(pupil.unscale(latents(teacher, x))), path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            pupil, which = with_weights(tiny, state), "held_out" if pictures.held_out else "seen"
            show(state, folder / "samples" / "last.webp")
            metrics = reconstruction_psnr(teacher, pupil, tests)
            model = replace(base, tiny=pupil.cpu())
            checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
            return {f"psnr_{which}_{name}": value for name, value in metrics.items()}

        batches = cropped(pictures.batches, cast(CroppedData, recipe.data))
        return Task(tiny, batches, TinyAutoencoderLoss(teacher, tiny, self.border_weight), show, finish)


@dataclass(frozen=True, eq=False)
class TinyAutoencoderLoss:
    """The loss; the `full` autoencoder is the frozen teacher, in a precision of its own."""

    full: AutoencoderKL
    tiny: AutoencoderTiny
    border_weight: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` (B, 3, S, S) to the loss (B,), and the mean squared errors of pictures and latents."""
        z = latents(self.full, x)
        y = self.tiny.decode(self.tiny.unscale(z)).float()
        mse = ((y - x) ** 2).mean((1, 2, 3))
        guess = self.tiny.scale(self.tiny.encode(x).mean).float()
        apart = ((guess - z) ** 2).mean((1, 2, 3))
        loss = reconstruction_loss(y, x, mse) + apart + self.border_weight * border_loss(y, x)
        return loss, {"mse": mse.mean(), "latent": apart.mean()}


@torch.no_grad()
def latents(full: AutoencoderKL, x: Tensor) -> Tensor:
    """The UNet's latents (B, C, h, w) of `x` (B, 3, H, W) in [−1, 1], in float32."""
    weight = next(full.parameters())
    with torch.autocast(x.device.type, enabled=False):
        return full.scale(full.encode(x.to(weight.dtype)).mean.float())


@torch.no_grad()
def reconstruction_psnr(
    full: AutoencoderKL, tiny: AutoencoderTiny, pictures: Tensor, batch: int = 32
) -> dict[str, float]:
    """Mean peak signal-to-noise ratios in dB over `pictures` (B, 3, S, S) in [−1, 1].

    "decoder": of the full encoder's latents, decoded by the tiny decoder; "both": of the tiny encoder's.
    """
    totals = {"decoder": 0.0, "both": 0.0}
    for x in pictures.split(batch):
        z = tiny.unscale(latents(full, x))
        totals["decoder"] += float(psnr_of(tiny.decode(z).float(), x).sum())
        totals["both"] += float(psnr_of(tiny.decode(tiny.encode(x).mean).float(), x).sum())
    return {name: total / len(pictures) for name, total in totals.items()}


def _taesd_config(base: Model) -> TinyVAEConfig:
    """TAESD's own shape, with as many levels as the base model's autoencoder has."""
    levels = base.factor.bit_length()
    return TinyVAEConfig(
        encoder_block_out_channels=(64,) * levels,
        decoder_block_out_channels=(64,) * levels,
        latent_channels=base.vae.config.latent_channels,
        num_encoder_blocks=(1, *(3,) * (levels - 1)),
        num_decoder_blocks=(*(3,) * (levels - 1), 1),
    )


def _check_fits(config: TinyVAEConfig, base: Model) -> None:
    """Raise `UsageError` for a tiny autoencoder of other latents than the base model's."""
    for what, own, due in (
        ("latent_channels", config.latent_channels, base.vae.config.latent_channels),
        ("levels", config.factor.bit_length(), base.factor.bit_length()),
    ):
        if own != due:
            raise UsageError(f"a tiny autoencoder of {own} {what}: the base model's needs {due}")
