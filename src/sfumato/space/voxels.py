"""A closed mesh as a volume: signed distances on a grid of voxels, and its colours."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import UsageError
from sfumato.space.libraries import library
from sfumato.space.mesh import Bytes, Floats, Mesh, surface
from sfumato.space.raster import OFFSET, crossings

SIDE = 64
"""Voxels along each axis."""
MARGIN = 3
"""Of them outside of the mesh on each side."""
SAMPLES = 50_000
"""Points of the surface that stand for it."""


@dataclass(frozen=True, eq=False)
class DistanceVolume:
    """Signed distances (Z, Y, X) to a surface, positive inside, and the sRGB (Z, Y, X, 3) of what is nearest.

    They stand in the middle of voxels over the cube of half side `extent` around `centre` (3,).
    """

    distances: Floats
    colours: Bytes
    centre: NDArray[np.float64]
    extent: float

    @classmethod
    def of_mesh(cls, mesh: Mesh, side: int = SIDE) -> Self:
        """The volume of a closed mesh on `side`³ voxels. Raises `UsageError` for an open one."""
        if not mesh.is_watertight:
            raise UsageError("the mesh is open: only a closed one has a volume")
        low, high = mesh.vertices.min(0).astype(np.float64), mesh.vertices.max(0).astype(np.float64)
        centre, extent = (low + high) / 2, float((high - low).max()) / 2 * side / (side - 2 * MARGIN)
        step = 2 * extent / side
        middle = (np.arange(side) + 0.5) * step - extent
        z, y, x = np.meshgrid(*([middle] * 3), indexing="ij")
        points = np.stack([x, y, z], axis=-1).reshape(-1, 3) + centre
        # a voxel is inside where an odd number of triangles lies below it
        cells = (mesh.vertices - centre + extent) / step
        place, depth = crossings(cells[:, :2] + OFFSET, cells[:, 2], mesh.faces, side, side)
        counts = np.zeros((side + 1, side * side), np.int64)
        np.add.at(counts, (np.ceil(depth - 0.5).clip(0, side).astype(np.int64), place), 1)
        inside = counts[:side].cumsum(0).ravel() % 2 == 1
        cloud = mesh.sampled(SAMPLES)
        away, nearest = library("scipy.spatial").cKDTree(cloud.points).query(points)
        # beside the surface the distance is that from its plane, closer than that from a point of it
        flat = np.abs(((points - cloud.points[nearest]) * cloud.normals[nearest]).sum(1))
        away = np.where(away < 1.5 * step, flat, away)
        distances = np.where(inside, away, -away).astype(np.float32)
        shape = (side, side, side)
        return cls(distances.reshape(shape), cloud.colours[nearest].reshape(*shape, 3), centre, extent)

    def mesh(self) -> Mesh:
        """The surface at distance 0, with the colours of its vertices."""
        found = surface(self.distances, 0.0, self.extent)
        step = 2 * self.extent / max(self.distances.shape)
        middle = np.array(self.distances.shape[::-1]) / 2
        cells = np.floor(found.vertices / step + middle).astype(np.int64)
        x, y, z = cells.clip(0, np.array(self.distances.shape[::-1]) - 1).T
        vertices = (found.vertices + self.centre).astype(np.float32)
        return Mesh(vertices, found.faces, colours=self.colours[z, y, x])
