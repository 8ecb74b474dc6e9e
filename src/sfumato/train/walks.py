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
from sfumato.diffusion.distill import Answer, Boundary, Grid
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import run
from sfumato.nets.given import AddedCond
from sfumato.train.consistency import Asked, Distance, Guiding
from sfumato.train.denoising import Examples
from sfumato.train.encoded import made_once
from sfumato.train.moment import Moment, seed_of

WALKER = "dpmpp-2m"
"""The sampler of the teacher: second order, and one question for each step."""
WALKS = "walks-{:05}.safetensors"
_SAID_EVERY = 5.0
"""Seconds between two words about what is being walked."""
_LARGE = ("points", "states", "pooled")
"""What is kept in half precision."""
_GUIDED, _NOISE, _CHOICE = range(3)
"""What random numbers are for."""


@dataclass(frozen=True, eq=False)
class Standing:
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
class Walks:
    """Batches of walks in `files`, one of which is learned from at each step."""

    files: Sequence[Path]
    seed: int
    device: torch.device

    def __call__(self, moment: Moment, count: int) -> Standing:
        """Part `moment.part` of a batch of walks, each at a place of its own."""
        random = torch.Generator().manual_seed(seed_of(self.seed, moment.step, _CHOICE))
        file = self.files[int(torch.randint(len(self.files), (), generator=random))]
        part = slice(moment.part * count, (moment.part + 1) * count)
        kept = {name: tensor[part].to(self.device).float() for name, tensor in weights.read(file).items()}
        points, device = kept["points"], self.device
        generator = moment.generator
        place = torch.randint(1, points.shape[1], (count,), generator=generator, device=device)
        added = AddedCond(kept["pooled"], kept["ids"]) if "pooled" in kept else None
        ends = Examples(points[:, 0], kept["states"], added, moment.step)
        return Standing(points[torch.arange(count, device=device), place], place, kept["scale"], ends)


def keep_walks(
    folder: Path,
    count: int,
    batches: Callable[[Moment, int], Examples],
    batch: int,
    teacher: Asked,
    guiding: Guiding | None,
    levels: Sequence[Level],
    told: Mapping[str, str],
    seed: int,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
) -> Walks:
    """At least `count` walks over `levels`, the clean one last, in files of `batch`, each made once.

    They go to the texts of `batches` from noise of their own. `told` is what else they depend on; `say` hears
    now and then how many there are.
    """
    files: list[Path] = []
    said = -math.inf

    def make() -> dict[str, Tensor]:
        nonlocal said
        if time.monotonic() - said >= _SAID_EVERY:
            said = time.monotonic()
            say(f"{folder}: the teacher walks, {(len(files) - 1) * batch:,}/{count:,}")
        return _walked(len(files) - 1, batches, batch, teacher, guiding, levels, seed, device)

    for number in range(-(-count // batch)):
        files.append(folder / WALKS.format(number))
        made_once(files[-1], {**told, "batch": f"{number} of {batch}", "seed": f"{seed}"}, make)
    return Walks(files, seed, device)


def grid_of(levels: Sequence[Level], device: torch.device) -> Grid:
    """Where the points of walks over `levels` stand, the end of the walk first."""
    return Grid(levels[::-1], device)


@torch.no_grad()
def _walked(
    number: int,
    batches: Callable[[Moment, int], Examples],
    batch: int,
    teacher: Asked,
    guiding: Guiding | None,
    levels: Sequence[Level],
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    random = [torch.Generator(device).manual_seed(seed_of(seed, number, each)) for each in (_GUIDED, _NOISE)]
    examples = batches(Moment(number, 0, 1, random[0]), batch)
    scale = torch.ones(batch, device=device)
    lead = teacher.answer(examples)
    if guiding is not None:
        scale = guiding.draw(batch, random[0])
        lead = guiding.lead(teacher, examples, scale)
    eps = torch.randn(examples.x0.shape, generator=random[1], device=device)
    found = {"points": walk(lead, eps, levels), "states": examples.states, "scale": scale}
    if examples.added is not None:
        found |= {"pooled": examples.added.pooled, "ids": examples.added.ids}
    return {name: tensor.half() if name in _LARGE else tensor for name, tensor in found.items()}


def walk(lead: Answer, eps: Tensor, levels: Sequence[Level]) -> Tensor:
    """Every point of the walk from noise `eps` (B, …) over `levels` (N + 1): (B, N + 1, …), its end first."""
    grid, points = grid_of(levels, eps.device), []

    def denoise(x: Tensor, level: Level) -> Tensor:
        points.append(x)
        place = torch.full((len(x),), len(levels) - len(points), device=x.device)
        return lead(x, grid.rows(place, x.ndim)).float()

    x = levels[0].s * eps
    end = run(sampler_named(WALKER).sample(x, levels, torch.randn_like), denoise)
    return torch.stack([end, *reversed(points)], 1)


@dataclass(frozen=True, eq=False)
class Arriving:
    """The objective."""

    student: Asked
    grid: Grid
    """Of the walks (`grid_of`)."""
    boundary: Boundary
    distance: Distance
    told: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(self, batch: Standing, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The distance (B,), and its mean over those that stood in the noisier half."""
        here = self.grid.rows(batch.place, batch.x.ndim)
        answer = self.student.answer(batch.ends, batch.scale - 1 if self.told else None)
        apart = self.distance(self.boundary(answer, batch.x, here), batch.ends.x0)
        noisy = batch.place >= len(self.grid) // 2
        return apart, {"noisy_half": (apart * noisy).sum() / noisy.sum().clamp(min=1)}
