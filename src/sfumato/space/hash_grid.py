"""A radiance field of hashed tables at several resolutions (Müller et al. 2022), in plain torch."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.errors import NumericsError, UsageError

PRIMES = (1, 2_654_435_761, 805_459_861)
"""By which the places of a vertex are multiplied (Müller et al. 2022, eq. 4)."""
START = 1e-4
"""Numbers of the tables begin within ± this (§3)."""


def hashed(vertices: Tensor, entries: int) -> Tensor:
    """The row of each vertex (…, 3) of whole numbers in a table of so many `entries` (eq. 4)."""
    x, y, z = (vertices[..., axis] * prime for axis, prime in enumerate(PRIMES))
    return (x ^ y ^ z) % entries


class HashGrid(nn.Module):
    """`width` numbers at each vertex of one grid of `cells`³ over the unit cube, linear between vertices.

    They are in a table of at most `entries` rows. Where the grid has more vertices, those of equal `hashed`
    share a row.
    """

    def __init__(self, cells: int, entries: int, width: int) -> None:
        super().__init__()
        self.cells = cells
        self.entries = min((cells + 1) ** 3, entries)
        self.table = nn.Parameter(torch.empty(self.entries, width).uniform_(-START, START))
        corners = torch.tensor([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
        self.register_buffer("corners", corners, persistent=False)

    @property
    def collides(self) -> bool:
        """Whether vertices share rows."""
        return (self.cells + 1) ** 3 > self.entries

    def rows(self, vertices: Tensor) -> Tensor:
        """The row of each vertex (…, 3), each from 0 to `cells`."""
        if self.collides:
            return hashed(vertices, self.entries)
        x, y, z = vertices.unbind(-1)
        side = self.cells + 1
        return (z * side + y) * side + x

    def forward(self, places: Tensor) -> Tensor:
        """(N, 3) in [0, 1] to (N, width)."""
        scaled = places.clamp(0, 1) * self.cells
        low = scaled.floor().clamp(max=self.cells - 1)
        share = (scaled - low)[:, None]
        corners = self.get_buffer("corners")
        found = self.table[self.rows(low.long()[:, None] + corners)]
        weights = torch.where(corners.bool(), share, 1 - share).prod(dim=2)
        return (weights[..., None] * found).sum(1)


class HashField(nn.Module):
    """Densities and `channels` features over [−`extent`, `extent`]³ from `levels` grids and a small network.

    The grids have from `coarsest` to `finest` cells a side, each as much finer than the last (eq. 2–3), and
    tables of at most 2^`log_entries` rows of `width` numbers. The network has one layer of `hidden` between.
    The density is as in `VoxelField`. Between vertices numbers are interpolated, so that both vary smoothly
    only within cells.
    """

    def __init__(
        self,
        channels: int,
        *,
        levels: int = 8,
        log_entries: int = 13,
        width: int = 2,
        coarsest: int = 8,
        finest: int = 64,
        hidden: int = 32,
        extent: float = 1.0,
        scale: float = 1.0,
        blob: float = 0.0,
        radius: float = 0.5,
        seed: int = 0,
    ) -> None:
        """`seed`: of its first numbers. Raises `UsageError` for grids that do not become finer."""
        super().__init__()
        if levels < 2 or not 1 <= coarsest < finest:
            raise UsageError(f"{levels} levels of {coarsest} to {finest} cells: must be 2 or more, and finer")
        self.extent, self.scale, self.blob, self.radius = extent, scale, blob, radius
        growth = math.exp((math.log(finest) - math.log(coarsest)) / (levels - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.grids = nn.ModuleList(
                HashGrid(math.floor(coarsest * growth**level + 1e-6), 2**log_entries, width)
                for level in range(levels)
            )
            self.network = nn.Sequential(
                nn.Linear(levels * width, hidden), nn.ReLU(), nn.Linear(hidden, 1 + channels)
            )

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (N,) and features (N, C) at `points` (N, 3)."""
        places = (points / self.extent + 1) / 2
        values = self.network(torch.cat([grid(places) for grid in self.grids], dim=1))
        bias = self.blob * (1 - points.norm(dim=1) / self.radius)
        inside = (points.abs() <= self.extent).all(dim=1)
        return self.scale * F.softplus(values[:, 0] + bias) * inside, values[:, 1:]

    def roughness(self) -> Tensor:
        """The mean square of the tables' numbers, those of finer grids counting as much more as these are
        finer, for as much steeper is what they add.
        """
        finest = self._cells[-1]
        grids = zip(self._cells, self.grids, strict=True)
        parts = [(cells / finest) ** 2 * grid.get_parameter("table").square().mean() for cells, grid in grids]
        return torch.stack(parts).mean()

    @property
    def _cells(self) -> list[int]:
        return [grid.cells for grid in self.grids if isinstance(grid, HashGrid)]

    def check_finite(self) -> None:
        """Raise `NumericsError` where the field holds what is no finite number."""
        if not all(bool(each.isfinite().all()) for each in self.parameters()):
            raise NumericsError("the field holds values that are not finite")
