"""Consistency: wherever on the ODE a student stands, it names the same picture (Song et al. 2023).

    loss = w(n) · d( f(x, t_n+1),  f⁻(Ψ(x, t_n+1 → t_n), t_n) )

f is the student's consistency function, f⁻ the same of its slow average (or of itself), without gradient, and
Ψ a solver's walk along the ODE. What Ψ asks makes the method: a teacher's estimates, guided at a scale that
the student is told (latent consistency distillation, Luo et al. 2023, eq. 14); the same without guidance
(consistency distillation); or the picture itself (consistency training, Song & Dhariwal 2024).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from sfumato.diffusion.distill import (
    BatchLevel,
    Boundary,
    DenoiseFn,
    LevelTable,
    Solver,
    cfg,
    closeness,
    discretisations,
    halfway,
    karras_sigmas,
    lognormal_shares,
)
from sfumato.diffusion.level import Level, Path
from sfumato.diffusion.predict import Prediction
from sfumato.diffusion.spacing import trailing
from sfumato.train.denoising import Examples

Distance = Callable[[Tensor, Tensor], Tensor]
"""How far pictures (B, …) are from others, (B,)."""


@dataclass(frozen=True, eq=False)
class X0Model:
    """A network as it is asked here: with the texts of a batch, and the guidance that it is told."""

    net: nn.Module
    prediction: Prediction

    def answer(self, batch: Examples, guidance: Tensor | None = None) -> DenoiseFn:
        """Clean estimates for the texts of `batch`; `guidance` (B,): the scale that the network is told."""
        told = {"size": batch.added, "guidance": guidance}
        told = {name: value for name, value in told.items() if value is not None}

        def answer(x: Tensor, rows: BatchLevel) -> Tensor:
            out = self.net(x, rows.t, batch.states, **told)
            return self.prediction.x0(x, out.float(), rows.a, rows.s)

        return answer


@dataclass(frozen=True, eq=False)
class Discretization:
    """The steps along the ODE that a student learns over: from `grid[n + 1]` to `grid[n]`."""

    grid: LevelTable
    middles: LevelTable
    """Halfway from `grid[n + 1]` to `grid[n]`, at n."""
    shares: Tensor | None = None
    """How often each n is trained, (len(grid) − 1,); `None`: all alike."""
    weights: Tensor | None = None
    """How much each counts; `None`: all alike."""

    @classmethod
    def over(
        cls,
        levels: Sequence[Level],
        device: torch.device,
        shares: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> "Discretization":
        """Over `levels`, the least noisy first; `shares` and `weights` in any precision, on any device."""
        middles = [halfway(high, low) for low, high in pairwise(levels)]
        given = (None if each is None else each.float().to(device) for each in (shares, weights))
        return cls(LevelTable(levels, device), LevelTable(middles, device), *given)

    def draw(
        self, count: int, generator: torch.Generator, ndim: int
    ) -> tuple[tuple[BatchLevel, BatchLevel, BatchLevel], Tensor]:
        """Where `count` rows stand, what is halfway, where they are to go, and their weights (count,)."""
        device = generator.device
        if self.shares is None:
            index = torch.randint(len(self.grid) - 1, (count,), generator=generator, device=device)
        else:
            index = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        weights = torch.ones(count, device=device) if self.weights is None else self.weights[index]
        levels = self.grid.rows(index + 1, ndim), self.middles.rows(index, ndim), self.grid.rows(index, ndim)
        return levels, weights


def evenly(path: Path, intervals: int, device: torch.device) -> Discretization:
    """`intervals` steps of equal time, from the last to the first that the network knows (Luo et al. 2023,
    §4.3: 50 of 1000 times, skipping 20)."""
    *noisy, _ = trailing(path, intervals)
    return Discretization.over([path.level(path.first), *reversed(noisy)], device)


@dataclass(eq=False)
class Curriculum:
    """Ever shorter steps, evenly spaced as Karras et al. 2022 have them (Song & Dhariwal 2024, §3)."""

    path: Path
    steps: int
    first: int
    last: int
    device: torch.device
    _made: dict[int, Discretization] = field(default_factory=dict)

    def __call__(self, step: int) -> Discretization:
        """The course at `step` of `steps`."""
        count = discretisations(step, self.steps, self.first, self.last)
        if count not in self._made:
            self._made[count] = self._course(count)
        return self._made[count]

    def _course(self, count: int) -> Discretization:
        """From the least noise to the most; where that is pure noise, from the most that has a finite σ."""
        low, high = self.path.level(self.path.first).sigma, self.path.level(self.path.last).sigma
        if math.isinf(high):
            high = self.path.level(self.path.last - 1).sigma
        sigmas = karras_sigmas(count + 1, low, high)
        levels = [self.path.at(sigma) for sigma in sigmas.tolist()]
        shares, weights = lognormal_shares(sigmas), closeness(sigmas)
        if math.isinf(self.path.level(self.path.last).sigma):
            levels[-1] = self.path.level(self.path.last)
        weights = weights / (shares * weights).sum()
        return Discretization.over(levels, self.device, shares, weights)


@dataclass(frozen=True, eq=False)
class TeacherGuidance:
    """How strongly the teacher is guided, drawn evenly from [`low`, `high`] for each row."""

    low: float
    high: float
    untold: Callable[[Examples], Examples]
    """The same pictures with the empty text."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Guidance scales (count,)."""
        share = torch.rand(count, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * share

    def guided(self, teacher: X0Model, batch: Examples, scale: Tensor) -> DenoiseFn:
        """The teacher's guided estimates at scales (B,)."""
        shaped = scale.view(-1, *[1] * (batch.x0.ndim - 1))
        return cfg(teacher.answer(batch), teacher.answer(self.untold(batch)), shaped)


def null_text(states: Tensor, pooled: Tensor | None = None) -> Callable[[Examples], Examples]:
    """Examples with the empty text's `states` (1, T, D) and `pooled` row (1, P) in place of their own."""

    def untold(batch: Examples) -> Examples:
        count = len(batch.states)
        added = batch.added
        if added is not None and pooled is not None:
            added = replace(added, pooled=pooled.expand(count, -1))
        length = batch.states.shape[1]
        repeated = states.repeat(1, length // states.shape[1], 1)
        return replace(batch, states=repeated.expand(count, -1, -1), added=added)

    return untold


@dataclass(frozen=True, eq=False)
class Consistency:
    """The objective."""

    student: X0Model
    slow: X0Model
    """What the student is compared with: its average, or itself."""
    teacher: X0Model | None
    """Whose ODE is followed; `None`: that of the pictures themselves."""
    course: Callable[[int], Discretization]
    """What is learned at which step."""
    solver: Solver
    boundary: Boundary
    distance: Distance
    guiding: TeacherGuidance | None = None
    told: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(self, batch: Examples, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and the mean distance without weights."""
        x0, count = batch.x0, len(batch.x0)
        levels, weights = self.course(batch.step).draw(count, generator, x0.ndim)
        here, _, there = levels
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = here.noisy(x0, eps)
        scale = None if self.guiding is None else self.guiding.draw(count, generator)
        guidance = scale if self.told else None
        with torch.no_grad():
            landed = self.solver(self._leading(batch, scale), x, *levels)
            target = self.boundary(self.slow.answer(batch, guidance), landed.float(), there)
        found = self.boundary(self.student.answer(batch, guidance), x, here)
        apart = self.distance(found, target)
        return weights * apart, {"apart": apart.mean()}

    def _leading(self, batch: Examples, scale: Tensor | None) -> DenoiseFn:
        """What the solver asks."""
        if self.teacher is None:
            return lambda x, rows: batch.x0
        if scale is None or self.guiding is None:
            return self.teacher.answer(batch)
        return self.guiding.guided(self.teacher, batch, scale)
