"""Consistency: wherever on the ODE a student stands, it names the same picture (Song et al. 2023).

    loss = w(n) · d( f(x, t_n+k),  f⁻(Ψ(x, t_n+k → t_n), t_n) )

f is the student's consistency function, f⁻ the same of its slow average (or of itself), without gradient, and
Ψ a solver's walk along the ODE. What Ψ asks makes the method: a teacher's estimates, guided at a scale that
the student is told (latent consistency distillation, Luo et al. 2023, eq. 14); the same without guidance
(consistency distillation); or the picture itself (consistency training, Song & Dhariwal 2024).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.diffusion.distill import Answer, Boundary, Grid, Rows, Solver, guided
from sfumato.diffusion.predict import Prediction
from sfumato.train.denoising import Examples

Distance = Callable[[Tensor, Tensor], Tensor]
"""How far pictures (B, …) are from others, (B,)."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A network as it is asked here: with the texts of a batch, and the guidance that it is told."""

    net: nn.Module
    prediction: Prediction

    def answer(self, states: Tensor, w: Tensor | None = None) -> Answer:
        """Clean estimates for text `states` (B, T, D); `w` (B,): the guidance scale minus one."""

        def answer(x: Tensor, rows: Rows) -> Tensor:
            told = {} if w is None else {"w": w}
            out = self.net(x, rows.t, states, **told)
            return self.prediction.x0(x, out.float(), rows.a, rows.s)

        return answer


@dataclass(frozen=True, eq=False)
class Course:
    """The steps along the ODE that a student learns over: from `grid[n + skip]` to `grid[n]`."""

    grid: Grid
    skip: int = 1
    shares: Tensor | None = None
    """How often each n is trained, (len(grid) − skip,); `None`: all alike."""
    weights: Tensor | None = None
    """How much each counts; `None`: all alike."""

    def draw(self, count: int, generator: torch.Generator, ndim: int) -> tuple[Rows, Rows, Tensor]:
        """Where `count` rows stand, where they are to go, and their weights (count,)."""
        places = len(self.grid) - self.skip
        device = generator.device
        if self.shares is None:
            index = torch.randint(places, (count,), generator=generator, device=device)
        else:
            index = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        weights = torch.ones(count, device=device) if self.weights is None else self.weights[index]
        return self.grid.rows(index + self.skip, ndim), self.grid.rows(index, ndim), weights


@dataclass(frozen=True, eq=False)
class Guiding:
    """How strongly the teacher is guided, drawn evenly from [`low`, `high`] for each row."""

    low: float
    high: float
    untold: Tensor
    """The states (1, T, D) of the empty text."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Guidance scales (count,)."""
        share = torch.rand(count, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True, eq=False)
class Consistency:
    """The objective."""

    student: Asked
    slow: Asked
    """What the student is compared with: its average, or itself."""
    teacher: Asked | None
    """Whose ODE is followed; `None`: that of the pictures themselves."""
    course: Course
    solver: Solver
    boundary: Boundary
    distance: Distance
    guiding: Guiding | None = None
    told: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(self, batch: Examples, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and the mean distance without weights."""
        x0, count = batch.x0, len(batch.x0)
        here, there, weights = self.course.draw(count, generator, x0.ndim)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = here.noisy(x0, eps)
        scale = None if self.guiding is None else self.guiding.draw(count, generator)
        w = scale - 1 if self.told and scale is not None else None
        with torch.no_grad():
            landed = self.solver(self._leading(batch, scale), x, here, there)
            target = self.boundary(self.slow.answer(batch.states, w), landed.float(), there)
        found = self.boundary(self.student.answer(batch.states, w), x, here)
        apart = self.distance(found, target)
        return weights * apart, {"apart": apart.mean()}

    def _leading(self, batch: Examples, scale: Tensor | None) -> Answer:
        """What the solver asks."""
        if self.teacher is None:
            return lambda x, rows: batch.x0
        told = self.teacher.answer(batch.states)
        if scale is None or self.guiding is None:
            return told
        untold = self.teacher.answer(self.guiding.untold.expand(len(batch.x0), -1, -1))
        return guided(told, untold, scale.view(-1, *[1] * (batch.x0.ndim - 1)))
