"""Regression on full trajectories of a teacher, sampled once and cached with their endpoints.

    loss = d( f(x_t, t), x_0 )      at a point x_t of a trajectory that ends at x_0

Consistency propagates its targets step by step, each from its neighbour; here they are read off, as by Luhman
& Luhman 2021 from pure noise alone. A trajectory costs as much as a sample, but each of its points is an
example, again and again, for one pass of the student; and no error of the student becomes its next target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sfumato import weights
from sfumato.diffusion.distill import LATENT, DenoiseFn, LevelTable
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import run
from sfumato.nets.inputs import SizeConditioning
from sfumato.train.cache import cached
from sfumato.train.context import StepContext, seed_of
from sfumato.train.examples import LatentBatch
from sfumato.train.log import counts
from sfumato.train.objectives.distillation import Teacher
from sfumato.train.objectives.unet import X0Model

Distance = Callable[[Tensor, Tensor], Tensor]
"""A distance of latents (B, …) from others, (B,)."""
SAMPLER = "dpmpp-2m"
"""The sampler of the teacher: second order, at one evaluation a step."""
FILE = "trajectories-{:05}.safetensors"
_IN_HALF = ("points", "states", "pooled")
"""What is kept in half precision."""
_GUIDANCE, _NOISE, _CHOICE = range(3)
"""What random numbers are for."""


@dataclass(frozen=True, eq=False)
class TrajectoryBatch:
    """Points sampled from trajectories, with each trajectory's endpoint."""

    x: Tensor
    """(B, C, h, w)."""
    index: Tensor
    """Of each point's level in the `level_table`, (B,)."""
    scale: Tensor
    """The teacher's guidance scale, (B,)."""
    ends: LatentBatch
    """The endpoints, and their texts."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Batches of trajectories in `files`, one file for each step of the run."""

    files: Sequence[Path]
    seed: int
    device: torch.device

    def __call__(self, context: StepContext, count: int) -> TrajectoryBatch:
        """Part `context.part` of the file of its step, one random point of each trajectory."""
        random = torch.Generator().manual_seed(seed_of(self.seed, context.step, _CHOICE))
        file = self.files[int(torch.randint(len(self.files), (), generator=random))]
        part = slice(context.part * count, (context.part + 1) * count)
        kept = {name: tensor[part].to(self.device).float() for name, tensor in weights.read(file).items()}
        points, device = kept["points"], self.device
        index = torch.randint(1, points.shape[1], (count,), generator=context.generator, device=device)
        added = SizeConditioning(kept["pooled"], kept["ids"]) if "pooled" in kept else None
        ends = LatentBatch(points[:, 0], kept["states"], added, context.step)
        return TrajectoryBatch(points[torch.arange(count, device=device), index], index, kept["scale"], ends)


@dataclass(frozen=True, eq=False)
class TrajectoryGenerator:
    """Samples full trajectories of a teacher for the texts of `batches`, one noise for each."""

    teacher: Teacher
    levels: Sequence[Level]
    """The clean one last."""
    batches: Callable[[StepContext, int], LatentBatch]
    batch_size: int
    seed: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, number: int) -> dict[str, Tensor]:
        """Batch `number`, as it is cached."""
        guidance, noise = (
            torch.Generator(self.device).manual_seed(seed_of(self.seed, number, each))
            for each in (_GUIDANCE, _NOISE)
        )
        examples = self.batches(StepContext(number, 0, 1, guidance), self.batch_size)
        denoiser, scale = self.teacher(examples, guidance)
        scale = torch.ones(self.batch_size, device=self.device) if scale is None else scale
        eps = torch.randn(examples.x0.shape, generator=noise, device=self.device)
        points = trajectory(denoiser, eps, self.levels)
        found = {"points": points, "states": examples.states, "scale": scale}
        if examples.added is not None:
            found |= {"pooled": examples.added.pooled, "ids": examples.added.ids}
        return {name: tensor.half() if name in _IN_HALF else tensor for name, tensor in found.items()}


def cached_trajectories(
    folder: Path,
    count: int,
    generate: TrajectoryGenerator,
    inputs: Mapping[str, str],
    report: Callable[[str], None] = lambda _: None,
) -> Trajectories:
    """At least `count` trajectories in files of one batch, each sampled once.

    `inputs`: what they depend on besides their number and seed. `report(message)` is called every few
    seconds with the number sampled so far.
    """
    files, progress = [], counts(report, f"{folder}: sampling trajectories")

    def make(number: int) -> dict[str, Tensor]:
        progress(number * generate.batch_size, count)
        return generate(number)

    for number in range(-(-count // generate.batch_size)):
        files.append(folder / FILE.format(number))
        own = {"batch": f"{number} of {generate.batch_size}", "seed": f"{generate.seed}"}
        cached(files[-1], {**inputs, **own}, partial(make, number))
    return Trajectories(files, generate.seed, generate.device)


def level_table(levels: Sequence[Level], device: torch.device) -> LevelTable:
    """The levels of the points of a trajectory over `levels`, the endpoint's first."""
    return LevelTable(levels[::-1], device)


def trajectory(denoiser: DenoiseFn, eps: Tensor, levels: Sequence[Level]) -> Tensor:
    """All points (B, N + 1, …) of a trajectory from noise `eps` (B, …) over its `levels`, the end first."""
    table, points = level_table(levels, eps.device), []

    def denoise(x: Tensor, level: Level) -> Tensor:
        points.append(x)
        index = torch.full((len(x),), len(levels) - len(points), device=x.device)
        return denoiser(x, table.rows(index, x.ndim)).float()

    x = levels[0].s * eps
    end = run(sampler_named(SAMPLER).sample(x, levels, torch.randn_like), denoise)
    return torch.stack([end, *reversed(points)], 1)


@dataclass(frozen=True, eq=False)
class TrajectoryLoss:
    """The loss between the student's output and the trajectory's endpoint."""

    student: X0Model
    levels: LevelTable
    """Of the trajectories (`level_table`)."""
    distance: Distance
    guidance_embedding: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(
        self, batch: TrajectoryBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and its mean over points of the noisier half."""
        here = self.levels.rows(batch.index, batch.x.ndim)
        denoiser = self.student.denoiser(batch.ends, batch.scale if self.guidance_embedding else None)
        distance = self.distance(LATENT(denoiser, batch.x, here), batch.ends.x0)
        noisy = batch.index >= len(self.levels) // 2
        return distance, {"noisy_half": (distance * noisy).sum() / noisy.sum().clamp(min=1)}
