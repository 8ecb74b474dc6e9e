"""The task of the denoiser, which learns from latents that are made once."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sfumato import checkpoint, weights
from sfumato.checkpoint import Model
from sfumato.data.icons import Captioned, captioned, load
from sfumato.devices import DTYPES
from sfumato.diffusion.predict import prediction_named
from sfumato.nets.unet import UNet
from sfumato.prompt.chunks import chunks
from sfumato.prompt.meaning import Phrase, Piece
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.train import sheet
from sfumato.train.denoising import Denoising, Latents
from sfumato.train.loop import Task
from sfumato.train.recipe import DenoiserRecipe
from sfumato.train.tasks.common import MODEL, in_batches, natively, network

LATENTS = "latents.safetensors"


def task(recipe: DenoiserRecipe, base: Model, device: torch.device) -> Task[Any]:
    dtype = DTYPES[recipe.precision]
    for part in (base.vae, *base.text_encoders):
        part.to(device)
    base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    icons = load(Path(recipe.data), held_out=False, device=device)
    base = natively(base, icons.pictures.shape[1])
    examples = captioned(
        icons,
        seed=recipe.seed,
        ways=recipe.captions,
        tints=recipe.tints,
    )
    latents = _latents(recipe, base, examples, device)
    texts, captions = _texts(base, examples, device)
    cumulative = torch.tensor(examples.weights, dtype=torch.float64).cumsum(0)
    batches = Latents(
        latents.to(device),
        captions.to(device),
        texts,
        (cumulative / cumulative[-1]).to(device),
        recipe.drop_text,
    )

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
                drawn = sheet.draw(base, drawer, recipe.samples, guidance=recipe.guidance)
            sheet.save(drawn, path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        show(state, folder / "samples" / "last.webp")
        kept = UNet(unet.config).requires_grad_(False).eval()
        kept.load_state_dict(state)
        checkpoint.save(replace(base, unet=kept), folder / MODEL, dtype=torch.float16, overwrite=True)
        return {}

    return Task(unet, batches, Denoising(unet, base.path, prediction, recipe.weighting, device), show, finish)


@torch.no_grad()
def _latents(recipe: DenoiserRecipe, base: Model, examples: Captioned, device: torch.device) -> Tensor:
    """The scaled latents (N, C, h, w) of all examples, in half precision, kept in the run's folder."""
    path = Path(recipe.run) / LATENTS
    told = {"base": base.fingerprint, "count": str(len(examples)), "seed": str(recipe.seed)}
    if path.is_file() and weights.metadata(path) == told:
        return weights.read(path)["latents"]
    dtype = DTYPES[recipe.precision]
    parts = []
    for ends in in_batches(len(examples)):
        x = examples.signal(*ends).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            mean = base.vae.encode(x).mean
        parts.append(base.vae.scale(mean.float()).half())
    latents = torch.cat(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, {"latents": latents}, told)
    return latents


@torch.no_grad()
def _texts(base: Model, examples: Captioned, device: torch.device) -> tuple[Tensor, Tensor]:
    """The states (U, T, D) of every different caption, the empty one first, and their rows (N, K)."""
    numbers = {"": 0}
    numbered = [[numbers.setdefault(one, len(numbers)) for one in own] for own in examples.captions]
    texts = list(numbers)
    length, last = base.tokenizers[0].limit, base.facts.penultimate
    width = sum(encoder.config.hidden_size for encoder in base.text_encoders)
    states = torch.empty(len(texts), length, width, dtype=torch.float16, device=device)
    for start, end in in_batches(len(texts)):
        of_each = []
        for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
            ids = torch.tensor([_window(text, tokenizer) for text in texts[start:end]], device=device)
            of_each.append(encoder(ids, skip=int(last), final_norm=not last).states)
        states[start:end] = torch.cat(of_each, dim=-1)
    return states, torch.tensor(numbered)


def _window(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of the one chunk that a caption is read in."""
    (chunk,), _ = chunks(Phrase((Piece(text),)), tokenizer, "plain")
    return chunk.ids(tokenizer)
