"""The task of the denoiser, which learns from latents and text states, made once where that can be."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.data.crops import Dataset, Size, nearest_size, sizes_near
from sfumato.data.icons import captioned, load
from sfumato.devices import DTYPES
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import UsageError
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.denoising import Batches, Denoising
from sfumato.train.encoded import (
    MOST_TEXT_BYTES,
    FreshLatents,
    FreshTexts,
    LatentsOf,
    StatesOf,
    keep_latents,
    keep_texts,
    text_bytes,
)
from sfumato.train.loop import Task
from sfumato.train.order import Epochs, Order, WeightedSampling
from sfumato.train.recipe import DenoiserRecipe, ProgressiveRecipe
from sfumato.train.tasks.common import MODEL, found, has_icons, natively, network, side_of


def task(recipe: DenoiserRecipe, base: Model, device: torch.device) -> Task[Any]:
    dtype = DTYPES[recipe.precision]
    base, batches = examples(recipe, base, device)

    config = replace(base.unet.config, sample_size=base.native_size[0] // base.factor)
    net = network(recipe, base.unet, config, "denoiser")
    unet = cast(UNet, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawer = UNet(unet.config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawer.requires_grad_(False).eval()
    if recipe.compile:
        unet.compile()
    prediction = prediction_named(base.prediction)

    def show(state: dict[str, Tensor], path: Path) -> None:
        drawer.load_state_dict(state)
        if recipe.samples:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                drawn = sample_grid.draw(base, drawer, recipe.samples, guidance=recipe.guidance)
            sample_grid.save(drawn, path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        show(state, folder / "samples" / "last.webp")
        kept = UNet(unet.config).requires_grad_(False).eval()
        kept.load_state_dict(state)
        checkpoint.save(
            replace(base, unet=kept, fast=None), folder / MODEL, dtype=torch.float16, overwrite=True
        )
        return {}

    return Task(
        unet, batches, Denoising(unet, base.path(), prediction, recipe.weighting, device), show, finish
    )


def examples(recipe: DenoiserRecipe, base: Model, device: torch.device) -> tuple[Model, Batches]:
    """The base model, its other networks on `device`, and what its denoiser, or a student, learns from."""
    _check_fits(recipe, base)
    for part in (base.vae, *base.text_encoders):
        part.to(device)
    base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    source, sizes, order, side = _pictures(recipe, base, device)
    base = natively(base, side)
    fresh = FreshLatents(source, base, device, DTYPES[recipe.precision])
    latents: LatentsOf = keep_latents(Path(recipe.run), fresh, sizes) if recipe.framing.is_fixed else fresh
    states = _states(recipe, base, source, device)
    return base, Batches(source, order, recipe.wording, recipe.framing, latents, states, device)


def _pictures(
    recipe: DenoiserRecipe, base: Model, device: torch.device
) -> tuple[Dataset, list[Size], Order, int]:
    """The pictures, what size each is shown at, in which order, and the side of those that are square."""
    data = Path(recipe.data)
    if has_icons(data):
        icons = captioned(
            load(data, held_out=False, device=device),
            seed=recipe.seed,
            ways=recipe.captions,
            tints=recipe.tints,
        )
        side = side_of(base, recipe.size or icons.side)
        return icons, [(side, side)] * len(icons), WeightedSampling.of(icons.weights, (side, side)), side
    worded = recipe.wording.needs_captions
    own = found(recipe, captioned=worded).chosen(held_out=False, captioned=worded)
    side = side_of(base, recipe.size)
    among = sizes_near(side, _step(recipe, base, side), recipe.ratio)
    sizes = [nearest_size(size, among) for size in own.sizes]
    return own, sizes, Epochs(sizes, own.weights, recipe.batch, recipe.seed), side


def _check_fits(recipe: DenoiserRecipe, base: Model) -> None:
    """Raise `UsageError` for a model that has to be told more than pictures and captions say."""
    more = {
        "an inpainting model": base.task == "inpaint",
        "an instruction model": base.task == "instruct",
        "SDXL's refiner, which is told how beautiful each picture is": base.kind == "sdxl-refiner",
        "a student, which is told the guidance": base.unet.config.time_cond_proj_dim is not None
        and not isinstance(recipe, ProgressiveRecipe),
    }
    for what, it_is in more.items():
        if it_is:
            raise UsageError(
                f"the base model {recipe.base} is {what}; this objective learns from text-to-image models"
            )


def _step(recipe: DenoiserRecipe, base: Model, side: int) -> int:
    """What the sides of pictures are multiples of, in pixels."""
    if recipe.bucket_step % base.factor:
        raise UsageError(
            f"bucket_step = {recipe.bucket_step} must be a multiple of {base.factor}, the pixels to one "
            "latent along each side"
        )
    eighth = min(64, side // 8)
    return recipe.bucket_step or max(base.factor, eighth // base.factor * base.factor)


def _states(recipe: DenoiserRecipe, base: Model, source: Dataset, device: torch.device) -> StatesOf:
    """Text states, kept if the recipe or their size says so."""
    fresh = FreshTexts(base, device)
    if recipe.cache_texts is False or recipe.wording.changes_tags:
        return fresh
    texts = dict.fromkeys(text for own in source.captions for text in recipe.wording.texts(own))
    if recipe.cache_texts is None and text_bytes(base, len(texts)) > MOST_TEXT_BYTES:
        return fresh
    return keep_texts(Path(recipe.run), fresh, list(texts))
