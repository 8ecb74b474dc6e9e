"""Progressive distillation: one step of the student for two of its teacher (Salimans & Ho 2022).

    loss = w(t) · |x̂(z_t) − x̃|²,   w = max(SNR, 1) or SNR + 1

with x̃ the x0 that takes one DDIM step to where the teacher's two end. A student of N steps is trained at the
times i/N of the path; the next round makes it the teacher of one with N/2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange, span
from sfumato.diffusion.distill import LevelTable, snr_plus_one, truncated_snr, two_steps_as_one
from sfumato.diffusion.level import Level, Path
from sfumato.diffusion.spacing import trailing
from sfumato.errors import UsageError
from sfumato.train.examples import LatentBatch, captioned_batches
from sfumato.train.objectives.distillation import (
    GuidedDistillation,
    Teacher,
    refuse_student,
    student_model,
)
from sfumato.train.objectives.unet import TrainedUNet, X0Model
from sfumato.train.recipe import Recipe
from sfumato.train.task import Task
from sfumato.validation import one_of

WEIGHTINGS = {"truncated-snr": truncated_snr, "snr-plus-one": snr_plus_one}
"""Weights of an error in x0 at the levels of a batch."""


@pydantic.dataclasses.dataclass(frozen=True)
class Progressive(GuidedDistillation):
    """Halves the steps of the base model."""

    NAME = "progressive"

    student_steps: Annotated[int, Field(ge=0, le=500)] = 0
    """Half as many as the base model is taken to need."""
    weighting: Annotated[str, one_of(WEIGHTINGS)] = "truncated-snr"
    """Of an error in x0, a name of `WEIGHTINGS`."""

    def check(self) -> None:
        super().check()
        if not self.student_steps:
            raise ValueError("student_steps must be 1 to 500, half the steps of the teacher")

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        self._check_teacher(recipe, base)
        base, batches = captioned_batches(recipe, base, device, report, from_student=True)
        trained = TrainedUNet(recipe, base, device, self.guidance_embedding, apart=True)
        net = trained.network()
        loss = ProgressiveLoss(
            student=trained.x0_model(net),
            teacher=self.teacher(recipe, base, device),
            levels=LevelTable(half_steps(base.path(), self.student_steps), device),
            weighting=self.weighting,
            guidance_embedding=self.guidance_embedding,
        )
        return trained.task(net, batches, loss, as_sampled=self._as_sampled)

    def _as_sampled(self, model: Model) -> Model:
        """`model` as it is sampled: by DDIM in its own number of steps."""
        steps, guidance = self.student_steps, self.learned_range
        defaults = Defaults(steps=steps, guidance=sum(guidance) / 2, sampler="ddim", spacing="trailing")
        schedule = {
            "class_name": "DDIMScheduler",
            "timestep_spacing": "trailing",
            "set_alpha_to_one": True,
        }
        learned = TrainedRange((steps, steps), guidance)
        return student_model(model, defaults, learned, model.info.distilled, **schedule)

    def _check_teacher(self, recipe: Recipe, base: Model) -> None:
        """Raise `UsageError` for a teacher that is a student of other steps or guidance."""
        if (learned := base.info.trained_range) is None:
            return
        if base.defaults.sampler == "lcm":
            refuse_student(recipe, base)
        student = f"{recipe.base} is a student of {span(*learned.steps)} steps"
        if not learned.steps[0] <= 2 * self.student_steps <= learned.steps[1]:
            raise UsageError(f"{student}, of which student_steps = {self.student_steps} is not half")
        guidance = span(*learned.guidance)
        if base.unet.reads_guidance and not self.guidance_embedding:
            raise UsageError(
                f"{student} that reads the guidance scale: guidance_embedding = true, guidance_range within "
                f"{guidance}"
            )
        low, high = self.guidance_range or (1.0, 1.0)
        if not learned.guidance[0] <= low <= high <= learned.guidance[1]:
            hint = "; leave guidance_range out" if learned.guidance == (1, 1) else ""
            raise UsageError(f"{student} that has learned guidance {guidance}, not {span(low, high)}{hint}")


@dataclass(frozen=True, eq=False)
class ProgressiveLoss:
    """The loss."""

    student: X0Model
    teacher: Teacher
    levels: LevelTable
    """Of `half_steps`."""
    weighting: str
    guidance_embedding: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and the mean squared error in x0."""
        x0, count, ndim = batch.x0, len(batch.x0), batch.x0.ndim
        steps = (len(self.levels) - 1) // 2
        place = torch.randint(1, steps + 1, (count,), generator=generator, device=x0.device)
        here, middle, there = (self.levels.rows(2 * place - back, ndim) for back in (0, 1, 2))
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = here.noisy(x0, eps)
        denoiser, scale = self.teacher(batch, generator)
        with torch.no_grad():
            target = two_steps_as_one(denoiser, x, here, middle, there)
        found = self.student.denoiser(batch, scale if self.guidance_embedding else None)(x, here)
        error = (found - target).square().flatten(1).mean(1)
        return WEIGHTINGS[self.weighting](here) * error, {"x0_error": error.mean()}


def half_steps(path: Path, steps: int) -> list[Level]:
    """The 2·`steps` + 1 levels at the times i/(2·`steps`) of the path, the clean one first.

    The student is trained at every second of them, from the third on: where spacing "trailing" evaluates it.
    """
    return trailing(path, 2 * steps)[::-1]
