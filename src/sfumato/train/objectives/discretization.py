"""Into which steps of the ODE consistency models discretise the path, and how often each is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.diffusion.distill import (
    BatchLevel,
    LevelTable,
    discretization_steps,
    halfway,
    inverse_gaps,
    karras_sigmas,
    lognormal_probabilities,
)
from sfumato.diffusion.level import Level, Path
from sfumato.diffusion.spacing import trailing


@dataclass(frozen=True, eq=False)
class Discretization:
    """The steps of the ODE that a student is trained on: from `levels[n + 1]` to `levels[n]`."""

    levels: LevelTable
    middles: LevelTable
    """Halfway from `levels[n + 1]` to `levels[n]`, at n."""
    probabilities: Tensor | None = None
    """Of sampling each n, (len(levels) − 1,); uniform unless given."""
    weights: Tensor | None = None
    """Of each n in the loss; 1 unless given."""

    @classmethod
    def of(
        cls,
        levels: Sequence[Level],
        device: torch.device,
        probabilities: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> "Discretization":
        """Of `levels`, the least noisy first; the other two in any precision, on any device."""
        middles = [halfway(high, low) for low, high in pairwise(levels)]
        given = (None if each is None else each.float().to(device) for each in (probabilities, weights))
        return cls(LevelTable(levels, device), LevelTable(middles, device), *given)

    def sample(
        self, count: int, generator: torch.Generator, ndim: int
    ) -> tuple[tuple[BatchLevel, BatchLevel, BatchLevel], Tensor]:
        """For `count` examples: the levels from, halfway and to which to step, and the weights (count,)."""
        device = generator.device
        if self.probabilities is None:
            index = torch.randint(len(self.levels) - 1, (count,), generator=generator, device=device)
        else:
            index = torch.multinomial(self.probabilities, count, replacement=True, generator=generator)
        weights = torch.ones(count, device=device) if self.weights is None else self.weights[index]
        here, middle = self.levels.rows(index + 1, ndim), self.middles.rows(index, ndim)
        return (here, middle, self.levels.rows(index, ndim)), weights


def uniform(path: Path, steps: int, device: torch.device) -> Discretization:
    """`steps` of equal time, from the last to the first time of the path (Luo et al. 2023, §4.3: 50 of 1000
    times, skipping 20)."""
    *noisy, _ = trailing(path, steps)
    return Discretization.of([path.level(path.first), *reversed(noisy)], device)


@dataclass(eq=False)
class Curriculum:
    """Ever shorter steps while training, spaced as in Karras et al. 2022 (Song & Dhariwal 2024, §3)."""

    path: Path
    steps: int
    first: int
    last: int
    device: torch.device
    _made: dict[int, Discretization] = field(default_factory=dict)

    def __call__(self, step: int) -> Discretization:
        """The discretization at `step` of `steps`."""
        count = discretization_steps(step, self.steps, self.first, self.last)
        if count not in self._made:
            self._made[count] = self._of(count)
        return self._made[count]

    def _of(self, count: int) -> Discretization:
        """From the least noise to the most; where that is pure noise, from the most that has a finite σ."""
        low, high = self.path.level(self.path.first).sigma, self.path.level(self.path.last).sigma
        if math.isinf(high):
            high = self.path.level(self.path.last - 1).sigma
        sigmas = karras_sigmas(count + 1, low, high)
        levels = [self.path.at(sigma) for sigma in sigmas.tolist()]
        probabilities, weights = lognormal_probabilities(sigmas), inverse_gaps(sigmas)
        if math.isinf(self.path.level(self.path.last).sigma):
            levels[-1] = self.path.level(self.path.last)
        weights = weights / (probabilities * weights).sum()
        return Discretization.of(levels, self.device, probabilities, weights)
