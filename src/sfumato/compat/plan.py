"""What a scheduler makes of a call: a sampler and its levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Sampler, visited


@dataclass(frozen=True)
class SampleArgs:
    """A call's arguments for its scheduler; `timesteps` has `steps` entries, `sigmas` one more.

    `first`: how many steps are left out at the start. `strength`: the part of the times that a consistency
    model was trained at that the steps are chosen from, the less noisy ones.
    """

    steps: int = 50
    eta: float = 0.0
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    original_steps: int | None = None
    """The number of times that a consistency model was trained at."""
    first: int = 0
    strength: float = 1.0


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """A sampler and its levels, the last included.

    `init_noise_sigma`: the scale of the initial noise. `exploding`: diffusers' latents are scaled to a = 1.
    `draws`: how many times diffusers draws noise, after `unused` times for steps of no length at the start.
    `noise_dtype`: its precision, if not the network's.
    """

    sampler: Sampler
    levels: Sequence[Level]
    init_noise_sigma: float = 1.0
    exploding: bool = False
    draws: int = 0
    unused: int = 0
    noise_dtype: torch.dtype | None = None

    @cached_property
    def evaluated(self) -> list[Level]:
        """The level of every evaluation."""
        return visited(self.sampler, self.levels)

    def scale(self, level: Level) -> float:
        """The factor from diffusers' latents at `level` to a·x0 + s·eps."""
        return level.a if self.exploding else 1.0
