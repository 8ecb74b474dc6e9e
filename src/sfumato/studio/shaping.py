"""Fields that are distilled from a model: what `sfumato.space` asks of it."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sfumato.errors import UsageError
from sfumato.request import Request
from sfumato.space.distillation import VIEWS, FieldDistillation
from sfumato.space.settings import QUALITIES
from sfumato.space.shape import Shape

if TYPE_CHECKING:
    from sfumato.studio.drawing import Studio


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
    denoisers = {
        view: studio.denoiser(resolved.changed(prompt=f"{resolved.prompt}, {view}")) for view in VIEWS
    }
    with studio.lock:
        white = studio.decoders.encode(torch.ones(1, 3, size[1], size[0]))[0]
    return FieldDistillation(resolved.prompt, settings, denoisers, studio.model.path(size), white)


def finished_shape(studio: "Studio", distillation: FieldDistillation, faces: int) -> Shape:
    """The surface of the field, coloured by the model's decoder."""
    with studio.lock:
        return Shape(distillation.mesh(studio.decoders.decode, faces=faces))


def field_shape(studio: "Studio", request: Request, quality: str, objective: str, faces: int) -> Shape:
    """The shape of a request's prompt, distilled in one go."""
    distillation = field_distillation(studio, request, quality, objective)
    while distillation.done < distillation.settings.steps:
        distillation.step()
    return finished_shape(studio, distillation, faces)
