"""A radiance field on a grid of voxels, and its rendering: the emission-absorption integral along rays.

With densities σ_i at distances t_i, δ apart, along a ray (Max 1995; Mildenhall et al. 2020, eq. 3):

    w_i = T_i·(1 − exp(−σ_i·δ)),  T_i = exp(−Σ_{j<i} σ_j·δ)

The features of a pixel are Σ w_i·f_i, its opacity is Σ w_i, and its depth Σ w_i·t_i / Σ w_i.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.errors import NumericsError
from sfumato.space.camera import Camera

Volume = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Densities (N,) and features (N, C) at points (N, 3) of the world."""
SAMPLES = 64
"""Along each ray."""
CHUNK = 1 << 20
"""Points that are evaluated at once."""


class RadianceField(Protocol):
    """A field that can be fitted to views: see `VoxelField` and `sfumato.space.hash_grid.HashField`."""

    @property
    def extent(self) -> float:
        """Half the side of the box in which it lies."""
        ...

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (N,) and features (N, C) at `points` (N, 3)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What it learns by."""
        ...

    def roughness(self) -> Tensor:
        """How much it changes from place to place."""
        ...

    def check_finite(self) -> None:
        """Raise `NumericsError` where it holds no finite number."""
        ...


class VoxelField(nn.Module):
    """Densities and `channels` features on a grid of `side`³ voxels over [−`extent`, `extent`]³.

    Between the voxels' centres both are interpolated linearly, and density is zero outside. The density is
    `scale`·softplus(d + b(x)), with a bias b = `blob`·(1 − |x|/`radius`) that begins the field as a soft ball
    (Poole et al. 2022, §3.2; Lin et al. 2023, §3).
    """

    def __init__(
        self,
        side: int,
        channels: int,
        *,
        extent: float = 1.0,
        scale: float = 1.0,
        blob: float = 0.0,
        radius: float = 0.5,
    ) -> None:
        super().__init__()
        self.extent, self.scale, self.blob, self.radius = extent, scale, blob, radius
        self.density = nn.Parameter(torch.zeros(1, 1, side, side, side))
        """d, (1, 1, Z, Y, X)."""
        self.features = nn.Parameter(torch.zeros(1, channels, side, side, side))
        """(1, C, Z, Y, X)."""

    @property
    def side(self) -> int:
        """Voxels along each axis."""
        return self.density.shape[-1]

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (N,) and features (N, C) at `points` (N, 3)."""
        places = (points / self.extent).view(1, -1, 1, 1, 3)
        grid = torch.cat([self.density, self.features], dim=1)
        found = F.grid_sample(grid, places, padding_mode="border", align_corners=False)
        values = found.view(grid.shape[1], -1).T
        bias = self.blob * (1 - points.norm(dim=1) / self.radius)
        inside = (points.abs() <= self.extent).all(dim=1)
        return self.scale * F.softplus(values[:, 0] + bias) * inside, values[:, 1:]

    def roughness(self) -> Tensor:
        """The mean squared difference of neighbouring voxels (Fridovich-Keil et al. 2022, eq. 3)."""
        parts = [
            each.diff(dim=axis).square().sum() / self.density.numel()
            for each in (self.density, self.features)
            for axis in (2, 3, 4)
        ]
        return torch.stack(parts).sum() / (1 + self.features.shape[1])

    def check_finite(self) -> None:
        """Raise `NumericsError` where a voxel holds no finite number."""
        if not all(bool(each.isfinite().all()) for each in self.parameters()):
            raise NumericsError("the field holds values that are not finite")


@dataclass(frozen=True, eq=False)
class RayColours:
    """What rays (N,) see: `features` (N, C) premultiplied by `opacity` (N,), and `depth` (N,) along each ray.

    `depth` is 0 where nothing is seen. `weights` (N, S) of the samples at `distances` (N, S).
    """

    features: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor
    distances: Tensor

    def over(self, background: Tensor) -> Tensor:
        """(N, C) in front of `background` (C,) or (N, C)."""
        return self.features + (1 - self.opacity)[:, None] * background


def render_rays(
    volume: Volume,
    origins: Tensor,
    directions: Tensor,
    *,
    extent: float = 1.0,
    samples: int = SAMPLES,
    jitter: torch.Generator | None = None,
    chunk: int = CHUNK,
) -> RayColours:
    """What rays (N, 3) see of `volume` within the box [−`extent`, `extent`]³; can be differentiated.

    `samples` a ray at even distances δ, in the middle of each interval, or where `jitter` is given at one
    random offset for each ray. `chunk`: points that are evaluated at once.
    """
    # where a ray enters and leaves the slab of each axis (Kay and Kajiya 1986)
    away = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    sides = torch.stack([(-extent - origins) / away, (extent - origins) / away])
    near = sides.amin(0).amax(1).clamp(min=0)
    length = (sides.amax(0).amin(1) - near).clamp(min=0)
    steps = (torch.arange(samples, device=origins.device, dtype=origins.dtype) + 0.5) / samples
    if jitter is not None:
        offset = torch.rand(len(origins), 1, generator=jitter, dtype=origins.dtype).to(origins.device) - 0.5
        steps = steps + offset / samples
    distances = near[:, None] + length[:, None] * steps
    rows = max(chunk // samples, 1)
    parts = [
        _composited(volume, *each)
        for each in zip(
            origins.split(rows),
            directions.split(rows),
            distances.split(rows),
            length.split(rows),
            strict=True,
        )
    ]
    features, weights = (torch.cat(each) for each in zip(*parts, strict=True))
    opacity = weights.sum(1)
    depth = (weights * distances).sum(1) / opacity.clamp(min=1e-6)
    return RayColours(features, opacity, depth, weights, distances)


def _composited(
    volume: Volume, origins: Tensor, directions: Tensor, distances: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """Features (N, C) and weights (N, S) of rays sampled at `distances` (N, S)."""
    count, samples = distances.shape
    points = origins[:, None] + distances[..., None] * directions[:, None]
    density, features = volume(points.reshape(-1, 3))
    absorbed = density.view(count, samples) * (length / samples)[:, None]
    passed = torch.exp(-(absorbed.cumsum(1) - absorbed))
    weights = passed * -torch.expm1(-absorbed)
    return (weights[..., None] * features.view(count, samples, -1)).sum(1), weights


def render(
    volume: Volume,
    camera: Camera,
    *,
    extent: float = 1.0,
    samples: int = SAMPLES,
    jitter: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> RayColours:
    """What `camera` sees of `volume`, its pixels row by row; see `render_rays`."""
    origins, directions = (torch.from_numpy(each).float().to(device) for each in camera.rays())
    return render_rays(volume, origins, directions, extent=extent, samples=samples, jitter=jitter)


def fit(
    field: RadianceField,
    cameras: list[Camera],
    views: Tensor,
    *,
    steps: int = 200,
    rays: int = 2048,
    samples: int = SAMPLES,
    lr: float = 0.3,
    roughness: float = 0.03,
    seed: int = 0,
    background: float = 1.0,
) -> None:
    """Fit `field` to the colours `views` (V, H·W, C) that `cameras` see, by Adam on the mean squared error.

    Each step compares `rays` random rays of all views, in front of a `background` of one grey. `roughness`:
    the weight of the field's own. Raises `NumericsError` where the field leaves the finite numbers.
    """
    found = [camera.rays() for camera in cameras]
    origins, directions = (
        torch.cat([torch.from_numpy(each[part]) for each in found]).float() for part in (0, 1)
    )
    colours = views.reshape(-1, views.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(field.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr / 20)
    seen = partial(render_rays, extent=field.extent, samples=samples, jitter=generator)
    white = torch.full((views.shape[-1],), background)
    for _ in range(steps):
        chosen = torch.randint(len(colours), (rays,), generator=generator)
        pixels = seen(field, origins[chosen], directions[chosen]).over(white)
        loss = (pixels - colours[chosen]).square().mean() + roughness * field.roughness()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    field.check_finite()
