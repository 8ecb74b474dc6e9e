"""Grids of pictures: what a model in training draws, and pictures beside their reconstructions."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.adapt.embedding import Embedding
from sfumato.checkpoint import Model
from sfumato.checkpoint.control import LoadedControl
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.errors import SfumatoWarning
from sfumato.files import make_folder, replace_atomically
from sfumato.formats import MAX_SIDES
from sfumato.nets.inference import unpacked
from sfumato.options import DeviceOptions
from sfumato.request import Request
from sfumato.studio import Studio

AT_ONCE = 32
"""Pictures sampled in one batch."""


@torch.no_grad()
def draw(
    model: Model,
    prompts: Sequence[str],
    device: torch.device,
    guidance: float | None = None,
    *,
    controls: Sequence[Sequence[Mapping[str, Any]]] = (),
    networks: Sequence[LoadedControl] = (),
    embeddings: Mapping[str, Embedding] | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1], one for each prompt, their `seeds` counting from 0 unless given.

    Prompts are plain text. Sampler and steps are the model's own; so is the guidance scale, unless given.
    `controls`: of each prompt, through those of `networks` that they name.
    `embeddings`: learned words that prompts may name. The model's networks are left as they were, but with
    plain weights in float32.
    """
    with _given_back(model):
        return _drawn(model, prompts, device, guidance, controls, networks, embeddings, seeds)


def _drawn(
    model: Model,
    prompts: Sequence[str],
    device: torch.device,
    guidance: float | None,
    controls: Sequence[Sequence[Mapping[str, Any]]],
    networks: Sequence[LoadedControl],
    embeddings: Mapping[str, Embedding] | None,
    seeds: Sequence[int] | None,
) -> Tensor:
    studio = Studio(model, device_options=DeviceOptions(str(device), "float32", trainable=True))
    for control in networks:
        studio.controls.add(control)
    studio.embeddings.update(embeddings or {})
    studio.budget = 2 * AT_ONCE * math.prod(model.latent.shape(model.native_size)[2:])
    requests = [
        Request.build(
            prompt=prompt,
            guidance=guidance,
            seed=seed,
            dialect="plain",
            templates="off",
            controls=controls[number] if controls else (),
        )
        for number, (seed, prompt) in enumerate(zip(seeds or range(len(prompts)), prompts, strict=True))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SfumatoWarning)  # of every grid the same
        images = studio.generate_batch(requests)
    return torch.from_numpy(np.stack([image.pixels for image in images])).permute(0, 3, 1, 2) / 127.5 - 1


@contextmanager
def _given_back(model: Model) -> Iterator[None]:
    """Leave the model's networks with plain weights that ask for gradients as they did before."""
    networks = (model.unet, model.vae, *model.text_encoders)
    asked = [(weight, weight.requires_grad) for net in networks for weight in net.parameters()]
    try:
        yield
    finally:
        for network in networks:
            unpacked(network)
        for weight, requires_grad in asked:
            weight.requires_grad_(requires_grad)


@torch.no_grad()
def draw_clips(
    model: Model,
    motion: LoadedMotion,
    prompts: Sequence[str],
    frames: int,
    device: torch.device,
    guidance: float | None = None,
) -> Iterator[Tensor]:
    """Clips (F, 3, H, W) in [−1, 1], one after another, each of a prompt; else as `draw`.

    The networks are left with plain weights, and `motion` in the model's UNet.
    """
    studio = Studio(model, device_options=DeviceOptions(str(device), "float32", trainable=True))
    studio.motions.add(motion)
    for seed, prompt in enumerate(prompts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SfumatoWarning)  # of every clip the same
            clip = studio.animate(
                prompt,
                guidance=guidance,
                seed=seed,
                dialect="plain",
                templates="off",
                frames=frames,
                motion=motion.name,
            )
        pixels = np.stack([frame.pixels for frame in clip.frames])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    for network in (model.unet.requires_grad_(False), model.vae, *model.text_encoders, motion.network):
        unpacked(network)


def save(pictures: Tensor, path: Path, columns: int = 8) -> None:
    """Write pictures (B, 3, H, W) in [−1, 1] as one image, at most `columns` in a row.

    Raises `OutputError`.
    """
    count, _, height, width = pictures.shape
    columns = min(columns, count)
    while (rows := -(-count // columns)) * height > MAX_SIDES["WEBP"]:
        columns += 1
    pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for place, one in enumerate(pixels):
        grid.paste(Image.fromarray(one), (place % columns * width, place // columns * height))
    make_folder(path.parent, path)
    with replace_atomically(path) as file:
        grid.save(file, format="WEBP", quality=85)
