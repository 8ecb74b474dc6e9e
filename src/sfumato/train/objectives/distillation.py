"""What distillation into few steps shares: networks as x0 models, guidance, the student's settings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato.checkpoint import Model
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange, span
from sfumato.diffusion.distill import BatchLevel, DenoiseFn, cfg
from sfumato.diffusion.level import Flow
from sfumato.diffusion.predict import Prediction
from sfumato.errors import UsageError
from sfumato.nets.inference import unpacked
from sfumato.nets.unet import UNet
from sfumato.train.examples import CaptionedData, Examples
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

    def teacher_guidance(self, base: Model, device: torch.device) -> "TeacherGuidance | None":
        """The guidance of the teacher, over the range that the student reads, else at its mean."""
        if not self.guidance_range:
            return None
        null = base.encode("", device=device)
        if base.zero_negative:
            null = null.zeroed()
        pooled = None if null.pooled is None else null.pooled.to(device).float()
        low, high = self.guidance_range
        if not self.guidance_embedding:
            low = high = (low + high) / 2
        return TeacherGuidance(low, high, null_text(null.states.to(device).float(), pooled))


@dataclass(frozen=True, eq=False)
class X0Model:
    """A network whose output is read as an estimate of x0."""

    net: nn.Module
    prediction: Prediction

    def denoiser(self, batch: Examples, guidance: Tensor | None = None) -> DenoiseFn:
        """Clean estimates for the texts of `batch`; `guidance` (B,): the scale, if the network reads it."""
        given = {"size": batch.added, "guidance": guidance}
        given = {name: value for name, value in given.items() if value is not None}

        def denoise(x: Tensor, level: BatchLevel) -> Tensor:
            out = self.net(x, level.t, batch.states, **given)
            return self.prediction.x0(x, out.float(), level.a, level.s)

        return denoise


@dataclass(frozen=True, eq=False)
class TeacherGuidance:
    """Classifier-free guidance of the teacher, its scale uniform in [`low`, `high`] for each example."""

    low: float
    high: float
    null_text: Callable[[Examples], Examples]
    """The same latents with the empty text."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Guidance scales (count,)."""
        u = torch.rand(count, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * u

    def denoiser(self, teacher: X0Model, batch: Examples, scale: Tensor) -> DenoiseFn:
        """The teacher's guided estimates at scales (B,)."""
        shaped = scale.view(-1, *[1] * (batch.x0.ndim - 1))
        return cfg(teacher.denoiser(batch), teacher.denoiser(self.null_text(batch)), shaped)


def null_text(states: Tensor, pooled: Tensor | None = None) -> Callable[[Examples], Examples]:
    """Examples with the empty text's `states` (1, T, D) and `pooled` row (1, P) in place of their own."""

    def without_text(batch: Examples) -> Examples:
        count = len(batch.states)
        added = batch.added
        if added is not None and pooled is not None:
            added = replace(added, pooled=pooled.expand(count, -1))
        length = batch.states.shape[1]
        repeated = states.repeat(1, length // states.shape[1], 1)
        return replace(batch, states=repeated.expand(count, -1, -1), added=added)

    return without_text


def teacher_of(recipe: Recipe, base: Model, device: torch.device) -> UNet:
    """The base model's UNet on `device`."""
    teacher = unpacked(base.unet)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.compile:
        teacher.compile()
    return teacher


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
    config = replace(model.schedule, clip_sample=False, **schedule)
    return replace(model, schedule=config, info=info, own={**model.own, **settings})
