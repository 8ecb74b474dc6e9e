"""The task of the autoencoder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.errors import UsageError
from sfumato.nets.vae import AutoencoderKL
from sfumato.train import sample_grid
from sfumato.train.autoencoding import AutoencoderLoss, fold, latent_statistics, psnr, settle
from sfumato.train.loop import Task
from sfumato.train.recipe import AutoencoderRecipe
from sfumato.train.tasks.common import MODEL, fitting, material, network


def task(recipe: AutoencoderRecipe, base: Model, device: torch.device) -> Task[Tensor]:
    if not isinstance(base.vae, AutoencoderKL):
        raise UsageError(
            f"the base model {recipe.base} has a tiny autoencoder; this objective trains a KL one"
        )
    net = network(recipe, base.vae, base.vae.config, "autoencoder")
    vae = cast(AutoencoderKL, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not (recipe.only_decoder or (vae.quant_conv and vae.post_quant_conv)):
        raise UsageError(
            "an autoencoder without quant_conv and post_quant_conv has nowhere to put the mean and deviation "
            "of its latents: train its decoder alone, which leaves them as they are (only_decoder = true)"
        )
    if recipe.start == "nothing":
        settle(vae)
    if recipe.only_decoder:
        vae.encoder.requires_grad_(False)
        if vae.quant_conv is not None:
            vae.quant_conv.requires_grad_(False)
    if recipe.compile:
        vae.encoder.compile()
        vae.decoder.compile()
    pictures = material(recipe, base, recipe.size, device)
    tests = pictures.tests()

    def averaged(state: Mapping[str, Tensor]) -> AutoencoderKL:
        copy = AutoencoderKL(vae.config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        copy.load_state_dict(state)
        return cast(AutoencoderKL, copy.eval())

    def show(state: dict[str, Tensor], path: Path) -> None:
        copy, x = averaged(state), tests[:: max(len(tests) // 32, 1)][:32]
        with torch.no_grad():
            y = copy.decode(copy.encode(x).mean).float().clamp(-1, 1)
        pairs = [part for rows in zip(x.split(8), y.split(8), strict=True) for part in rows]
        sample_grid.save(torch.cat(pairs), path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        copy = averaged(state)
        seen = pictures.seen()
        figures = {"psnr_seen": psnr(copy, seen)}
        if pictures.held_out:
            figures["psnr_held_out"] = psnr(copy, tests)
        if not recipe.only_decoder:
            mean, std = latent_statistics(copy, seen)
            fold(copy, mean, std)
            figures |= {f"latent_mean_{c}": float(value) for c, value in enumerate(mean)}
            figures |= {f"latent_std_{c}": float(value) for c, value in enumerate(std)}
            copy.config = replace(
                copy.config, scaling_factor=1.0, shift_factor=None, latents_mean=None, latents_std=None
            )
        show(state, folder / "samples" / "last.webp")
        unet = fitting(
            base.unet,
            text=sum(encoder.config.hidden_size for encoder in base.text_encoders),
            latent=copy.config.latent_channels,
        )
        # what knew the latents as they were
        tiny, fast = (base.tiny, base.fast) if recipe.only_decoder else (None, None)
        model = replace(base, vae=copy.cpu(), unet=unet, tiny=tiny, fast=fast)
        checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
        return figures

    objective = AutoencoderLoss(vae, recipe.kl, recipe.only_decoder)
    return Task(vae, pictures.batches, objective, show, finish)
