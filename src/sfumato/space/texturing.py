"""A texture for a mesh, painted from one side after another.

Each view is drawn over what the earlier ones left: what is new, or was seen at a slant only, is drawn, and
the rest is kept (Richardson et al. 2023, §3; Chen et al. 2023, §3). A texel takes the mean of what the views
show of it, weighted by how squarely they see it, so that views run into each other without a seam. What no
view has seen takes the colours of the nearest places that were.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import UsageError
from sfumato.space.camera import Camera
from sfumato.space.libraries import library
from sfumato.space.mesh import Bytes, Mesh, as_bytes, unit
from sfumato.space.raster import Fragments, rasterise
from sfumato.space.render import AMBIENT, LIGHT

SIDES = ((0, 10), (180, 10), (-60, 10), (60, 10), (120, 10), (-120, 10), (0, 80), (180, -80))
"""Azimuths and elevations of the views, in the order in which they are drawn."""
ANGLE = 32.0
"""Vertical angle of view, in degrees: a ball of radius 1 fills nine tenths of the picture's height."""
TEXELS, MOST_TEXELS = 4, 2048
"""A side of the texture: so many for each pixel of a view, and at most."""
MAX_TEXTURED = 100_000
"""The most triangles of a mesh that is textured: unwrapping takes minutes beyond."""
SQUARE = 4.0
"""The power of the cosine between a normal and the view by which that weighs what it shows."""
SLANT = 0.2
"""Cosines below which nothing is taken from a view."""
WORSE = 0.6
"""What has less than this share of the weight that a view would give it is drawn anew."""
FEATHER = 1 / 12
"""Of a view's size: how far from what is kept a view begins to count fully."""
RIM = 1 / 128
"""Of a view's size: how far from an outline a view is not taken, as it holds some of what is behind there."""
LEAST, WELL = 0.02, 0.5
"""Views that are left out show less new than this share of the mesh, counted where the cosine is above."""
CREASE = 0.75
"""The cosine between normals of neighbouring pixels below which there is an edge."""
NEAR = 0.02
"""By how much a texel may lie behind what a view sees, and be seen."""

PLACES, NEIGHBOURS = 20_000, 12
"""Painted places of which so many nearest ones give a place its colour that was not painted."""


@dataclass(frozen=True, eq=False)
class ViewOfMesh:
    """What is drawn from one side.

    `picture` (H, W, 3): the mesh on white as textured so far, the colours continued over what is not; all
    in shaded grey before anything is. `drawn` (H, W): where it is to be drawn. `edges` (H, W): outlines and
    creases, 255 on 0. `seen`: the triangles in it.
    """

    camera: Camera
    picture: Bytes
    drawn: NDArray[np.bool_]
    edges: Bytes
    seen: Fragments


class Texturing:
    """A mesh that is painted: ask for the `view` from a camera, and `paint` what was drawn over it."""

    def __init__(self, mesh: Mesh, size: int) -> None:
        """`size`: of the views in pixels.

        A mesh whose UVs give each place its own texels keeps them, any other is unwrapped. Raises
        `UsageError` for a mesh of too many triangles, or none with an area.
        """
        if len(mesh.faces) > MAX_TEXTURED:
            raise UsageError(
                f"the mesh has {len(mesh.faces):,} triangles: at most {MAX_TEXTURED:,} are textured; "
                "have it simplified by giving faces"
            )
        if not mesh.areas.sum() > 1e-12 * np.ptp(mesh.vertices, axis=0).max(initial=0) ** 2:
            raise UsageError("the mesh has no area: all of its triangles are degenerate")
        self.mesh = mesh if mesh.has_own_texels() else mesh.unwrapped()
        self.size = size
        self._shown = self.mesh.fitted()
        self._closed = mesh.is_watertight
        texels = self.mesh.texels(min(TEXELS * size, MOST_TEXELS))
        self._covered = texels.covered
        self._points = texels.interpolated(self.mesh.faces, self._shown.vertices)
        self._normals = unit(texels.interpolated(self.mesh.faces, self._shown.normals))
        self._sums = np.zeros((len(self._points), 3))
        self._weights = np.zeros(len(self._points))

    def camera(self, azimuth: float, elevation: float) -> Camera:
        """One that sees all of the mesh in the size of the views."""
        return Camera(azimuth, elevation, fov=ANGLE, width=self.size, height=self.size)

    def view(self, camera: Camera) -> ViewOfMesh | None:
        """What is to be drawn as `camera` sees it; `None` where that is next to nothing."""
        pixels, depths = camera.project(self._shown.vertices)
        seen = rasterise(
            pixels, depths, self.mesh.faces, self.size, self.size, culled=self._closed, perspective=True
        )
        covered = seen.covered
        points = seen.interpolated(self.mesh.faces, self._shown.vertices)
        normals = unit(seen.interpolated(self.mesh.faces, self._shown.normals))
        facing = self._facing(camera, points, normals)
        place = self._texels_at(seen)
        weights = np.zeros(len(points))
        known = place >= 0
        weights[known] = self._weights[place[known]]
        fresh = np.zeros(covered.shape, bool)
        fresh[covered] = weights <= np.maximum(WORSE * facing**SQUARE, 1e-6)
        ndimage = library("scipy.ndimage")
        fresh = ndimage.median_filter(fresh, 3) & covered
        if (fresh[covered] & (facing > WELL)).sum() < LEAST * max(covered.sum(), 1):
            return None
        painted = weights > 0
        colours = np.zeros((len(points), 3))
        colours[painted] = self._sums[place[painted]] / self._weights[place[painted], None]
        if self._weights.any():
            colours[~painted] = self._near(points[~painted])
        else:
            light = camera.rotation @ unit(np.array([LIGHT]))[0]
            colours[:] = (AMBIENT + (1 - AMBIENT) * np.abs(normals @ light))[:, None]
        picture = np.full((*covered.shape, 3), 255, np.uint8)
        picture[covered] = as_bytes(colours)
        return ViewOfMesh(camera, picture, fresh, _edges(seen, normals), seen)

    def paint(self, view: ViewOfMesh, picture: Bytes) -> None:
        """Take the colours of what was drawn over `view`, a `picture` (H, W, 3), where it was to be drawn."""
        ndimage = library("scipy.ndimage")
        # a step between neighbouring depths is an outline too
        depth = np.where(view.seen.covered, view.seen.depth, 1e3)
        jump = ndimage.maximum_filter(depth, 3) - ndimage.minimum_filter(depth, 3) > 0.2
        solid = np.pad(view.seen.covered & ~jump, 1)
        inside = ndimage.distance_transform_edt(solid)[1:-1, 1:-1] > RIM * self.size
        kept = view.seen.covered & ~view.drawn
        away = ndimage.distance_transform_edt(~kept) if kept.any() else np.full(kept.shape, np.inf)
        share = (away / (FEATHER * self.size)).clip(0.01, 1) * (view.drawn & inside)
        pixels, depths = view.camera.project(self._points)
        column, row = (np.floor(pixels[:, i]).astype(np.int64) for i in (0, 1))
        within = (column >= 0) & (row >= 0) & (column < self.size) & (row < self.size)
        column, row = column.clip(0, self.size - 1), row.clip(0, self.size - 1)
        visible = within & (depths <= ndimage.maximum_filter(depth, 3)[row, column] + NEAR)
        facing = self._facing(view.camera, self._points, self._normals)
        weights = np.where(visible & (facing > SLANT), facing**SQUARE * share[row, column], 0.0)
        some = weights > 0
        coordinates = pixels[some].T[::-1] - 0.5
        for channel in range(3):
            values = picture[..., channel].astype(np.float64)
            found = ndimage.map_coordinates(values, coordinates, order=1, mode="nearest")
            self._sums[some, channel] += weights[some] * found / 255
        self._weights += weights

    def finished(self) -> Mesh:
        """The mesh with its texture. Raises `UsageError` where nothing was painted."""
        known = self._weights > 0
        if not known.any():
            raise UsageError("nothing of the mesh could be seen: it has no side that faces outwards")
        colours = np.zeros_like(self._sums)
        colours[known] = self._sums[known] / self._weights[known, None]
        if not known.all():
            colours[~known] = self._near(self._points[~known])
        return self.mesh.textured(self._covered, colours.astype(np.float32))

    @property
    def unseen(self) -> float:
        """The share of the texels that no view has painted."""
        return float((self._weights == 0).mean())

    def _near(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Colours (N, 3) for `points` (N, 3) that were not painted: of the painted places nearest to them."""
        known = np.nonzero(self._weights > 0)[0]
        known = known[:: max(len(known) // PLACES, 1)]
        colours = self._sums[known] / self._weights[known, None]
        neighbours = list(range(1, min(NEIGHBOURS, len(known)) + 1))
        away, nearest = library("scipy.spatial").cKDTree(self._points[known]).query(points, k=neighbours)
        shares = 1 / (away + 1e-3)
        shares /= shares.sum(1, keepdims=True)
        found: NDArray[np.float64] = (shares[..., None] * colours[nearest]).sum(1)
        return found

    def _facing(
        self, camera: Camera, points: NDArray[np.float64], normals: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Cosines (N,) between normals and the directions to the camera; those of backs are 0.

        An open mesh has no back.
        """
        cosines: NDArray[np.float64] = (unit(camera.position - points) * normals).sum(1)
        return cosines.clip(0) if self._closed else np.abs(cosines)

    def _texels_at(self, seen: Fragments) -> NDArray[np.int64]:
        """For each covered pixel the number of its texel among those that are covered, −1 beside them."""
        number = np.full(self._covered.shape, -1, np.int64)
        number[self._covered] = np.arange(len(self._points))
        assert self.mesh.uv is not None
        uv = seen.interpolated(self.mesh.faces, self.mesh.uv)
        side = len(number)
        column = np.floor(uv[:, 0] * side).astype(np.int64).clip(0, side - 1)
        row = np.floor((1 - uv[:, 1]) * side).astype(np.int64).clip(0, side - 1)
        found: NDArray[np.int64] = number[row, column]
        return found


def _edges(seen: Fragments, normals: NDArray[np.float64]) -> Bytes:
    """Outlines and creases (H, W), 255 on 0, one pixel wide, given the normals (N, 3) of covered pixels."""
    covered = seen.covered
    field = np.zeros((*covered.shape, 3))
    field[covered] = normals
    depth = np.where(covered, seen.depth, 1e3)
    edges = np.zeros(covered.shape, bool)
    for axis in (0, 1):
        here, there = (np.take(each, range(1, each.shape[axis]), axis) for each in (field, depth))
        before, nearer = (np.take(each, range(each.shape[axis] - 1), axis) for each in (field, depth))
        both = (here**2).sum(2) * (before**2).sum(2) > 0.25
        step = (np.abs(there - nearer) > 0.15) | (both & ((here * before).sum(2) < CREASE))
        edges |= np.pad(step, [(0, 1) if each == axis else (0, 0) for each in (0, 1)])
    return as_bytes(edges.astype(np.float32))
