"""Fields that are distilled from a model: what `sfumato.space` asks of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import PIL.Image
import torch
from torch import Tensor

from sfumato.adapt.live import attach_new
from sfumato.diffusion.level import Level
from sfumato.errors import UsageError
from sfumato.request import Request
from sfumato.space.distillation import VIEWS, FieldDistillation
from sfumato.space.settings import QUALITIES
from sfumato.space.shape import ELEVATION, Shape
from sfumato.studio.clips import pixels_of
from sfumato.studio.texturing import textured_shape

if TYPE_CHECKING:
    from sfumato.studio.drawing import Studio

RANK = 4
"""Of the student's LoRA."""
PREVIEW_FRAMES = 12
"""Of a preview that turns, unless another number is given."""


class LoRAStudent:
    """The model again, with a LoRA that learns what is rendered, asked without guidance.

    See Wang et al. 2023 (ProlificDreamer), §3.2. It takes the memory of the network once more, in float32.
    """

    def __init__(self, studio: "Studio", views: Mapping[str, Request], seed: int) -> None:
        own = studio.trainable_copy()
        unet = own.model.unet.requires_grad_(False)
        made = attach_new(unet, RANK, generator=torch.Generator().manual_seed(seed))
        self.weights = {f"student.{number}": each for number, each in enumerate(made)}
        self._denoisers = {view: own.denoiser(each.changed(guidance=1.0)) for view, each in views.items()}

    def __call__(self, x: Tensor, level: Level, view: str) -> Tensor:
        return self._denoisers[view](x, level)


def field_distillation(studio: "Studio", request: Request, quality: str, objective: str) -> FieldDistillation:
    """The distillation of a request's prompt, at its first step.

    `steps` and `guidance` of the request are the distillation's where they are given. Raises `UsageError`
    for a model that draws from more than a text.
    """
    settings = replace(QUALITIES[quality], objective=objective)
    if request.steps is not None:
        settings = replace(settings, steps=request.steps)
    if request.guidance is not None:
        settings = replace(settings, guidance=request.guidance)
    resolved = studio.resolve(request.changed(steps=None, guidance=settings.guidance))
    assert resolved.seed is not None
    if studio.model.task != "text":
        raise UsageError(
            f"{studio.name} is an {studio.model.task} model: a field needs one that draws from text"
        )
    settings = replace(settings, seed=resolved.seed)
    size = resolved.size
    views = {view: resolved.changed(prompt=f"{resolved.prompt}, {view}") for view in VIEWS}
    denoisers = {view: studio.denoiser(each) for view, each in views.items()}
    student = LoRAStudent(studio, views, settings.seed) if objective == "vsd" else None
    with studio.lock:
        white = studio.decoders.encode(torch.ones(1, 3, size[1], size[0]))[0]
    return FieldDistillation(resolved.prompt, settings, denoisers, studio.model.path(size), white, student)


def turning_preview(
    studio: "Studio", distillation: FieldDistillation, frames: int = PREVIEW_FRAMES
) -> list[PIL.Image.Image]:
    """What the field looks like by now from even azimuths, by the quickest decoder."""
    pictures = []
    for number in range(frames):
        with torch.no_grad():
            latent, _ = distillation.latent(distillation.view(360 * number / frames, ELEVATION))
        with studio.lock:
            pixels = studio.decoders.decode(latent, studio.quickest_decoder)
        pictures.append(PIL.Image.fromarray(pixels_of(pixels[:, :, None])[0]))
    return pictures


def finished_shape(studio: "Studio", distillation: FieldDistillation, request: Request, faces: int) -> Shape:
    """The surface of the field, coloured by the model's decoder, and painted where its settings say so."""
    with studio.lock:
        shape = Shape(distillation.mesh(studio.decoders.decode, faces=faces))
    if not distillation.settings.painted:
        return shape
    drawn = request.changed(width=None, height=None, steps=None, guidance=None)
    return textured_shape(studio, drawn.changed(seed=distillation.settings.seed), shape)


def field_shape(studio: "Studio", request: Request, quality: str, objective: str, faces: int) -> Shape:
    """The shape of a request's prompt, distilled in one go."""
    distillation = field_distillation(studio, request, quality, objective)
    while distillation.done < distillation.settings.steps:
        distillation.step()
    return finished_shape(studio, distillation, request, faces)
