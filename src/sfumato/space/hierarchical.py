"""Volume rendering in two passes: one finds out where along each ray something is, one looks closer there.

As of radiance fields (Mildenhall et al. 2020, §5.2): stratified samples first, and then samples from the
distribution that their weights make. A sample stands for all that is nearer to it than to its neighbours.
"""

import torch
from torch import Tensor

from sfumato.space.volume import RayColours, Volume

COARSE, FINE = 64, 128
"""Samples along a ray, of the first pass and those that the second adds."""
RAYS = 4096
"""Rays whose random numbers come from one generator."""
THINNEST = 1e-3
"""Of what a ray passes of the box, where it is taken to meet it."""
EVERYWHERE = 1e-5
"""The weight that each interval has at least, so that none is never looked at."""


@torch.no_grad()
def render_hierarchical(
    coarse: Volume,
    fine: Volume,
    origins: Tensor,
    directions: Tensor,
    *,
    extent: float = 1.0,
    samples: tuple[int, int] = (COARSE, FINE),
    seed: int = 0,
) -> RayColours:
    """What rays (N, 3) see of `fine` within the box [−`extent`, `extent`]³, sampled as `coarse` says.

    `samples`: of the first pass, and those that the second adds. Random places in their intervals follow from
    `seed`, the same for every `RAYS` rays.
    """
    parts = [
        _rendered(coarse, fine, *each, extent, samples, torch.Generator().manual_seed(seed))
        for each in zip(origins.split(RAYS), directions.split(RAYS), strict=True)
    ]
    features, opacity, depth, weights, distances = (torch.cat(each) for each in zip(*parts, strict=True))
    return RayColours(features, opacity, depth, weights, distances)


def _rendered(
    coarse: Volume,
    fine: Volume,
    origins: Tensor,
    directions: Tensor,
    extent: float,
    samples: tuple[int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features, opacity, depth, weights and distances, as in `RayColours`."""
    near, far, met = _crossed(origins, directions, extent)
    ends = torch.cat([near, far], dim=1)
    even = torch.linspace(0, 1, samples[0]).to(near)
    lower, upper = _intervals(near * (1 - even) + far * even, ends)
    first = lower + (upper - lower) * torch.rand(lower.shape, generator=generator).to(near)
    weights, _ = _weighed(coarse, origins, directions, first, ends)

    lower, upper = _intervals(first, ends)
    chances = weights + EVERYWHERE
    reached = (chances / chances.sum(1, keepdim=True)).cumsum(1)
    shape = len(origins), samples[1]
    chosen = torch.searchsorted(reached, torch.rand(shape, generator=generator).to(near))
    chosen = chosen.clamp(0, samples[0] - 1)
    within = torch.rand(shape, generator=generator).to(near)
    low, high = lower.gather(1, chosen), upper.gather(1, chosen)
    distances = torch.cat([low + (high - low) * within, first], dim=1).sort(dim=1).values
    weights, features = _weighed(fine, origins, directions, distances, ends)

    weights = weights * met
    opacity = weights.sum(1)
    depth = (weights * distances).sum(1) / opacity.clamp(min=1e-6)
    return (weights[..., None] * features).sum(1), opacity, depth, weights, distances


def _crossed(origins: Tensor, directions: Tensor, extent: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays (N, 3) enter and leave the box, (N, 1) each, and which of them meet it; 0 and 1 if not."""
    away = torch.where(directions < 0, directions - 1e-6, directions + 1e-6)
    sides = torch.stack([(-extent - origins) / away, (extent - origins) / away])
    near = sides.amin(0).amax(1, keepdim=True).clamp(min=0)
    far = sides.amax(0).amin(1, keepdim=True)
    met = near + THINNEST < far
    return torch.where(met, near, 0.0), torch.where(met, far, 1.0), met


def _intervals(places: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Where what is nearest to each of `places` (N, S) begins and ends (N, S) between `ends` (N, 2)."""
    middles = (places[:, 1:] + places[:, :-1]) / 2
    return torch.cat([ends[:, :1], middles], dim=1), torch.cat([middles, ends[:, 1:]], dim=1)


def _weighed(
    volume: Volume, origins: Tensor, directions: Tensor, distances: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """The weights (N, S) and features (N, S, C) of samples at `distances` (N, S) along rays (N, 3)."""
    points = origins[:, None] + distances[..., None] * directions[:, None]
    density, features = volume(points.reshape(-1, 3))
    lower, upper = _intervals(distances, ends)
    absorbed = density.view(distances.shape).to(distances) * (upper - lower)
    passed = torch.exp(-(absorbed.cumsum(1) - absorbed))
    weights = passed * -torch.expm1(-absorbed)
    return weights, features.view(*distances.shape, -1).to(distances)
