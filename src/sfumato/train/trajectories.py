"""Whole walks of a teacher, kept with the picture at which each ends, for a student to learn from.

    loss = d( f(x_t, t), x_0 )      at a point x_t of a walk that ends at x_0

What consistency finds out step by step, each answer from its neighbour's, is read off here, as by Luhman &
Luhman 2021 from pure noise alone. A walk costs as much as a drawing, but is learned from at each of its
points, again and again, for one pass of the student; and no error of the student's becomes its next target.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato import weights
from sfumato.diffusion.distill import Boundary, DenoiseFn, LevelTable
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import run
from sfumato.nets.inputs import SizeConditioning
from sfumato.train.consistency import Distance, TeacherGuidance, X0Model
from sfumato.train.context import StepContext, seed_of
from sfumato.train.denoising import Examples
from sfumato.train.encoded import made_once

SAMPLER = "dpmpp-2m"
"""The sampler of the teacher: second order, and one question for each step."""
WALKS = "walks-{:05}.safetensors"
_SAID_EVERY = 5.0
"""Seconds between two words about what is being walked."""
_LARGE = ("points", "states", "pooled")
"""What is kept in half precision."""
_GUIDED, _NOISE, _CHOICE = range(3)
"""What random numbers are for."""


@dataclass(frozen=True, eq=False)
class TrajectoryBatch:
    """Points somewhere on their walks."""

    x: Tensor
    """(B, C, h, w)."""
    place: Tensor
    """Of each on the grid, (B,)."""
    scale: Tensor
    """How strongly its teacher was guided, (B,)."""
    ends: Examples
    """The pictures at which they end, and their texts."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Batches of walks in `files`, one of which is learned from at each step."""

    files: Sequence[Path]
    seed: int
    device: torch.device

    def __call__(self, context: StepContext, count: int) -> TrajectoryBatch:
        """Part `context.part` of a batch of walks, each at a place of its own."""
        random = torch.Generator().manual_seed(seed_of(self.seed, context.step, _CHOICE))
        file = self.files[int(torch.randint(len(self.files), (), generator=random))]
        part = slice(context.part * count, (context.part + 1) * count)
        kept = {name: tensor[part].to(self.device).float() for name, tensor in weights.read(file).items()}
        points, device = kept["points"], self.device
        generator = context.generator
        place = torch.randint(1, points.shape[1], (count,), generator=generator, device=device)
        added = SizeConditioning(kept["pooled"], kept["ids"]) if "pooled" in kept else None
        ends = Examples(points[:, 0], kept["states"], added, context.step)
        return TrajectoryBatch(points[torch.arange(count, device=device), place], place, kept["scale"], ends)


@dataclass(frozen=True, eq=False)
class TrajectoryGenerator:
    """A teacher that walks to the texts of `batches`, from noise of its own."""

    teacher: X0Model
    guiding: TeacherGuidance | None
    levels: Sequence[Level]
    """The clean one last."""
    batches: Callable[[StepContext, int], Examples]
    batch: int
    seed: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, number: int) -> dict[str, Tensor]:
        """Batch `number` of walks, as it is kept."""
        guided, noise = (
            torch.Generator(self.device).manual_seed(seed_of(self.seed, number, each))
            for each in (_GUIDED, _NOISE)
        )
        examples = self.batches(StepContext(number, 0, 1, guided), self.batch)
        scale = torch.ones(self.batch, device=self.device)
        denoise_fn = self.teacher.answer(examples)
        if self.guiding is not None:
            scale = self.guiding.draw(self.batch, guided)
            denoise_fn = self.guiding.guided(self.teacher, examples, scale)
        eps = torch.randn(examples.x0.shape, generator=noise, device=self.device)
        found = {
            "points": trajectory(denoise_fn, eps, self.levels),
            "states": examples.states,
            "scale": scale,
        }
        if examples.added is not None:
            found |= {"pooled": examples.added.pooled, "ids": examples.added.ids}
        return {name: tensor.half() if name in _LARGE else tensor for name, tensor in found.items()}


def cached_trajectories(
    folder: Path,
    count: int,
    generate: TrajectoryGenerator,
    told: Mapping[str, str],
    say: Callable[[str], None] = lambda _: None,
) -> Trajectories:
    """At least `count` walks in files of one batch, each made once.

    `told` is what they depend on besides their number and seed; `say` hears now and then how many there are.
    """
    files: list[Path] = []
    said = -math.inf

    def make() -> dict[str, Tensor]:
        nonlocal said
        number = len(files) - 1
        if time.monotonic() - said >= _SAID_EVERY:
            said = time.monotonic()
            say(f"{folder}: the teacher walks, {number * generate.batch:,}/{count:,}")
        return generate(number)

    for number in range(-(-count // generate.batch)):
        files.append(folder / WALKS.format(number))
        which = {"batch": f"{number} of {generate.batch}", "seed": f"{generate.seed}"}
        made_once(files[-1], {**told, **which}, make)
    return Trajectories(files, generate.seed, generate.device)


def level_table(levels: Sequence[Level], device: torch.device) -> LevelTable:
    """Where the points of walks over `levels` stand, the end of the walk first."""
    return LevelTable(levels[::-1], device)


def trajectory(denoise_fn: DenoiseFn, eps: Tensor, levels: Sequence[Level]) -> Tensor:
    """Every point of the walk from noise `eps` (B, …) over `levels` (N + 1): (B, N + 1, …), its end first."""
    grid, points = level_table(levels, eps.device), []

    def denoise(x: Tensor, level: Level) -> Tensor:
        points.append(x)
        place = torch.full((len(x),), len(levels) - len(points), device=x.device)
        return denoise_fn(x, grid.rows(place, x.ndim)).float()

    x = levels[0].s * eps
    end = run(sampler_named(SAMPLER).sample(x, levels, torch.randn_like), denoise)
    return torch.stack([end, *reversed(points)], 1)


@dataclass(frozen=True, eq=False)
class TrajectoryRegression:
    """The objective."""

    student: X0Model
    grid: LevelTable
    """Of the walks (`level_table`)."""
    boundary: Boundary
    distance: Distance
    told: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(
        self, batch: TrajectoryBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The distance (B,), and its mean over those that stood in the noisier half."""
        here = self.grid.rows(batch.place, batch.x.ndim)
        answer = self.student.answer(batch.ends, batch.scale - 1 if self.told else None)
        apart = self.distance(self.boundary(answer, batch.x, here), batch.ends.x0)
        noisy = batch.place >= len(self.grid) // 2
        return apart, {"noisy_half": (apart * noisy).sum() / noisy.sum().clamp(min=1)}
