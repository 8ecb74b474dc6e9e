"""The task of the tiny autoencoder."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.config import TinyVAEConfig
from sfumato.devices import DTYPES
from sfumato.errors import UsageError
from sfumato.nets.inference import for_inference
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL
from sfumato.train import sample_grid
from sfumato.train.condensing import RandomCrops, TinyAutoencoderLoss, latents, qualities
from sfumato.train.loop import Task
from sfumato.train.recipe import TinyRecipe
from sfumato.train.tasks.common import MODEL, material, network

SHOWN = 32
"""Pairs of pictures on a sample sheet."""


def task(recipe: TinyRecipe, base: Model, device: torch.device) -> Task[Tensor]:
    if not isinstance(base.vae, AutoencoderKL):
        raise UsageError(f"the base model {recipe.base} has a tiny autoencoder alone; a full one teaches it")
    if base.tiny is None and recipe.start == "base":
        raise UsageError(
            f"the base model {recipe.base} has no tiny autoencoder to go on with; start = 'nothing' makes one"
        )
    own = base.tiny or AutoencoderTiny(_as_published(base))
    net = network(recipe, own, own.config, "tiny autoencoder")
    tiny = cast(AutoencoderTiny, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_fits(tiny.config, base)
    if recipe.compile:
        tiny.encoder.compile()
        tiny.decoder.compile()
    teacher = for_inference(copy.deepcopy(base.vae), device, _precision(recipe))
    pictures = material(recipe, base, 0, device)
    tests = pictures.tests()

    def averaged(state: Mapping[str, Tensor]) -> AutoencoderTiny:
        pupil = AutoencoderTiny(tiny.config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        pupil.load_state_dict(state)
        return cast(AutoencoderTiny, pupil.eval())

    def show(state: dict[str, Tensor], path: Path) -> None:
        pupil, x = averaged(state), tests[:: max(len(tests) // SHOWN, 1)][:SHOWN]
        with torch.no_grad():
            y = pupil.decode(pupil.unscale(latents(teacher, x))).clamp(-1, 1)
        pairs = [part for rows in zip(x.split(8), y.split(8), strict=True) for part in rows]
        sample_grid.save(torch.cat(pairs), path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        pupil = averaged(state)
        which = "held_out" if pictures.held_out else "seen"
        figures = {f"psnr_{which}_{name}": value for name, value in qualities(teacher, pupil, tests).items()}
        show(state, folder / "samples" / "last.webp")
        checkpoint.save(replace(base, tiny=pupil.cpu()), folder / MODEL, dtype=torch.float16, overwrite=True)
        return figures

    batches = RandomCrops(pictures.batches, recipe.crop) if recipe.crop else pictures.batches
    return Task(tiny, batches, TinyAutoencoderLoss(teacher, tiny), show, finish)


def _as_published(base: Model) -> TinyVAEConfig:
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


def _precision(recipe: TinyRecipe) -> torch.dtype:
    """The teacher's: some autoencoders overflow in float16."""
    return torch.float32 if recipe.precision in ("float16", "fp16") else DTYPES[recipe.precision]
