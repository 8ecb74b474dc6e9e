"""What distillation into few steps shares: networks as x0 models, guidance, the student's settings."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange, span
from sfumato.diffusion.distill import DenoiseFn, cfg
from sfumato.diffusion.level import Flow
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import UsageError
from sfumato.nets.inference import unpacked
from sfumato.train.examples import CaptionedData, LatentBatch
from sfumato.train.objectives.unet import X0Model
from sfumato.train.recipe import Objective, Recipe

Scale = Annotated[float, Field(ge=1, le=100)]


@pydantic.dataclasses.dataclass(frozen=True)
class DistillationData(CaptionedData):
    """Captioned pictures."""

    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0


@pydantic.dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """Trains a student that samples in few steps; it begins as the base model."""

    DATA, STARTS, TAKES_ADAPTER, FEW_STEPS = DistillationData, ("base",), True, True


@pydantic.dataclasses.dataclass(frozen=True)
class GuidedDistillation(Distillation):
    """The same of a teacher that may be guided."""

    guidance_range: tuple[Scale, Scale] | None = None
    """The lowest and the highest guidance scale of the teacher; without it, it is not guided."""
    guidance_embedding: bool = False
    """Whether the student reads the scale, so that a request may choose it; else it learns their mean."""

    def check(self) -> None:
        super().check()
        if self.guidance_range and self.guidance_range[0] > self.guidance_range[1]:
            raise ValueError(f"guidance_range is {list(self.guidance_range)}: must be [lowest, highest]")
        if self.guidance_embedding and not self.guidance_range:
            raise ValueError("guidance_embedding needs guidance_range = [lowest, highest]")

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.adapter and self.guidance_embedding:
            raise ValueError("an adapter reads no guidance scale: objective.guidance_embedding = false")

    @property
    def learned_range(self) -> tuple[float, float]:
        """The guidance scales that the student can be sampled with."""
        return self.guidance_range if self.guidance_range and self.guidance_embedding else (1.0, 1.0)

    def teacher(self, recipe: Recipe, base: Model, device: torch.device) -> "Teacher":
        """The base model, guided over the range that the student reads, else at its mean."""
        net = unpacked(base.unet)
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.compile:
            net.compile()
        low, high = self.guidance_range or (1.0, 1.0)
        if not self.guidance_embedding:
            low = high = (low + high) / 2
        null = base.encode("", device=device)
        if base.zero_negative:
            null = null.zeroed()
        return Teacher(
            X0Model(net, prediction_named(base.prediction)),
            (low, high) if self.guidance_range else None,
            null.states.to(device).float(),
            None if null.pooled is None else null.pooled.to(device).float(),
            reads_guidance=base.unet.reads_guidance,
        )


Estimates = tuple[DenoiseFn, Tensor | None]
"""The clean estimates that a solver follows, and the scales (B,) that they are guided at, if they are."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with classifier-free guidance, its scale uniform in `guidance_range` for each example."""

    model: X0Model
    guidance_range: tuple[float, float] | None = None
    null_states: Tensor | None = None
    """The empty text's states (1, T, D)."""
    null_pooled: Tensor | None = None
    """And its pooled row (1, P)."""
    reads_guidance: bool = False
    """Whether the network reads the scale, from an earlier round, and needs no second evaluation."""

    def __call__(self, batch: LatentBatch, generator: torch.Generator) -> Estimates:
        """The estimates for the texts of `batch`."""
        if self.guidance_range is None:
            return self.model.denoiser(batch), None
        count, (low, high) = len(batch.x0), self.guidance_range
        scale = low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
        if self.reads_guidance:
            return self.model.denoiser(batch, scale), scale
        uncond = self.model.denoiser(self.without_text(batch))
        return cfg(self.model.denoiser(batch), uncond, scale.view(-1, *[1] * (batch.x0.ndim - 1))), scale

    def without_text(self, batch: LatentBatch) -> LatentBatch:
        """`batch` with the empty text in place of its own."""
        assert self.null_states is not None
        count, length = batch.states.shape[:2]
        states = self.null_states.repeat(1, length // self.null_states.shape[1], 1).expand(count, -1, -1)
        added = batch.added
        if added is not None and self.null_pooled is not None:
            added = replace(added, pooled=self.null_pooled.expand(count, -1))
        return replace(batch, states=states, added=added)


def refuse_student(recipe: Recipe, base: Model) -> None:
    """Raise `UsageError` for a base model that has been distilled."""
    if (learned := base.info.trained_range) is not None:
        raise UsageError(
            f"{recipe.base} is a student of {span(*learned.steps)} steps and teaches none: base = the model "
            "that it has learned from"
        )


def student_model(
    model: Model,
    defaults: Defaults,
    learned: TrainedRange,
    distilled: str | None,
    **schedule: Any,
) -> Model:
    """`model` with a student as its UNet, sampled with `defaults` within what it has `learned`.

    `schedule`: keys of its scheduler's configuration; `distilled`: what diffusers calls such a model.
    """
    if isinstance(model.path(), Flow):
        schedule.pop("class_name", None)  # diffusers has neither scheduler for a flow
    info = replace(model.info, distilled=distilled, defaults=defaults, trained_range=learned)
    settings = {
        **vars(defaults),
        "steps_range": list(learned.steps),
        "guidance_range": list(learned.guidance),
    }
    config = replace(model.schedule, clip_sample=False, thresholding=False, **schedule)
    return replace(model, schedule=config, info=info, own={**model.own, **settings})
