"""Progressive distillation: one step of the student for two of its teacher (Salimans & Ho 2022).

    loss = w(t) · |x̂(z_t) − x̃|²,   w = max(SNR, 1) or SNR + 1

with x̃ the x0 that takes one DDIM step to where the teacher's two arrive. A student of N steps stands at the
times i/N of the path; the next round makes it the teacher of one with N/2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.distill import BatchLevel, LevelTable, snr_plus_one, truncated_snr, two_steps_as_one
from sfumato.diffusion.level import Level, Path
from sfumato.diffusion.spacing import trailing
from sfumato.train.consistency import TeacherGuidance, X0Model
from sfumato.train.denoising import Examples

WEIGHTS = {"truncated-snr": truncated_snr, "snr-plus-one": snr_plus_one}
"""Weights of an error in x0 at `BatchLevel`."""


def half_steps(path: Path, steps: int) -> list[Level]:
    """The 2·`steps` + 1 levels at the times i/(2·`steps`) of the path, the clean one first.

    The student stands at every second of them, from the third on: where spacing "trailing" asks it.
    """
    return trailing(path, 2 * steps)[::-1]


@dataclass(frozen=True, eq=False)
class ProgressiveDistillation:
    """The objective."""

    student: X0Model
    teacher: X0Model
    grid: LevelTable
    """Of `half_steps`."""
    weighting: str
    guiding: TeacherGuidance | None = None
    """How strongly the teacher is guided; `None`: not, or as an earlier round has taught it."""
    told: bool = False
    """Whether the student reads the guidance scale."""
    teacher_has_guidance: bool = False
    """Whether the teacher does, and is not to be guided any more."""

    def __call__(self, batch: Examples, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and the mean squared error in x0."""
        x0, count, ndim = batch.x0, len(batch.x0), batch.x0.ndim
        steps = (len(self.grid) - 1) // 2
        place = torch.randint(1, steps + 1, (count,), generator=generator, device=x0.device)
        here, middle, there = (self.grid.rows(2 * place - back, ndim) for back in (0, 1, 2))
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = here.noisy(x0, eps)
        target, guidance = self._target(batch, x, (here, middle, there), generator)
        found = self.student.answer(batch, guidance)(x, here)
        error = (found - target).square().flatten(1).mean(1)
        return WEIGHTS[self.weighting](here) * error, {"x0_error": error.mean()}

    @torch.no_grad()
    def _target(
        self,
        batch: Examples,
        x: Tensor,
        levels: tuple[BatchLevel, BatchLevel, BatchLevel],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        """x̃ (B, …), and the guidance that the student is told."""
        scale = None if self.guiding is None else self.guiding.draw(len(x), generator)
        guidance = scale if self.told else None
        if self.guiding is None or scale is None or self.teacher_has_guidance:
            answer = self.teacher.answer(batch, guidance)
        else:
            answer = self.guiding.guided(self.teacher, batch, scale)
        return two_steps_as_one(answer, x, *levels), guidance
