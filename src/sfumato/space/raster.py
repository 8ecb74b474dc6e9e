"""Triangles on a grid of pixels: which is in front, and where in it (barycentric coordinates)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 1 << 22
"""Pixels that are tested at once, over the bounding boxes of all triangles."""
OFFSET = (1.7e-4, 3.1e-4)
"""By which pixels are moved where each is to be in one triangle only, and not on an edge between two."""


@dataclass(frozen=True, eq=False)
class Fragments:
    """For each covered pixel the triangle in front and its place in it.

    `face` (H, W): the triangle, −1 where none is; `weights` (H, W, 3): barycentric coordinates, corrected for
    perspective where depths differ; `depth` (H, W), infinite where nothing is.
    """

    face: NDArray[np.int64]
    weights: NDArray[np.float64]
    depth: NDArray[np.float64]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(H, W)."""
        return self.face >= 0

    def interpolated(self, faces: NDArray[np.int64], values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values (V, C) of the vertices at the covered pixels, (N, C), row by row."""
        covered = self.covered
        found: NDArray[np.float64] = np.einsum(
            "nk,nkc->nc", self.weights[covered], values[faces[self.face[covered]]]
        )
        return found


def rasterise(
    pixels: NDArray[np.floating],
    depths: NDArray[np.floating],
    faces: NDArray[np.int64],
    width: int,
    height: int,
    *,
    culled: bool = True,
    perspective: bool = False,
) -> Fragments:
    """The fragments of `faces` (F, 3) of vertices at `pixels` (V, 2) and `depths` (V,).

    See `Camera.project`. A pixel is covered where its centre is inside. `culled`: triangles that show their
    back are not drawn, nor are those with a vertex behind the camera. `perspective`: interpolate 1/depth
    linearly, else the depth.
    """
    face_buffer = np.full(width * height, -1, np.int64)
    weight_buffer = np.zeros((width * height, 3))
    depth_buffer = np.full(width * height, np.inf)
    corner_depths = np.asarray(depths, np.float64)[faces]
    drawn = corner_depths.min(1, initial=np.inf) > 0 if culled else np.ones(len(faces), bool)
    for face, weights, place in _hits(pixels, faces, drawn, width, height, culled=culled):
        if perspective:
            weights /= corner_depths[face]
            depth = 1 / weights.sum(1)
            weights *= depth[:, None]
        else:
            depth = (weights * corner_depths[face]).sum(1)
        nearer = depth < depth_buffer[place]
        face, weights, place, depth = face[nearer], weights[nearer], place[nearer], depth[nearer]
        order = np.argsort(-depth, kind="stable")  # of several at one pixel the last assigned stays
        place = place[order]
        face_buffer[place], weight_buffer[place] = face[order], weights[order]
        depth_buffer[place] = depth[order]
    shape = (height, width)
    return Fragments(
        face_buffer.reshape(shape), weight_buffer.reshape(*shape, 3), depth_buffer.reshape(shape)
    )


def crossings(
    pixels: NDArray[np.floating],
    depths: NDArray[np.floating],
    faces: NDArray[np.int64],
    width: int,
    height: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All places at which the lines through the pixels' centres cross `faces`, given as for `rasterise`.

    Two arrays (N,): the pixel, row by row, and the depth.
    """
    corner_depths = np.asarray(depths, np.float64)[faces]
    every = np.ones(len(faces), bool)
    places, found = [np.empty(0, np.int64)], [np.empty(0)]
    for face, weights, place in _hits(pixels, faces, every, width, height, culled=False):
        places.append(place)
        found.append((weights * corner_depths[face]).sum(1))
    return np.concatenate(places), np.concatenate(found)


def _hits(
    pixels: NDArray[np.floating],
    faces: NDArray[np.int64],
    drawn: NDArray[np.bool_],
    width: int,
    height: int,
    *,
    culled: bool,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
    """Some at a time, each pair of a triangle that is `drawn` and a pixel whose centre is inside it.

    Three arrays (N, …): the triangle, barycentric coordinates (N, 3) on the page, and the pixel.
    """
    corners = pixels[faces].astype(np.float64)
    a, b, c = (corners[:, i] for i in range(3))
    # twice the area, positive where the vertices run counter-clockwise on a page whose y goes down
    area = (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]) - (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])
    with np.errstate(invalid="ignore"):
        drawn = drawn & np.isfinite(corners).all((1, 2)) & (np.abs(area) > 1e-12)
        if culled:
            drawn &= area > 0
        size = np.array([width, height])
        first = np.ceil(corners.min(1) - 0.5).clip(0, size)
        last = np.floor(corners.max(1) - 0.5).clip(-1, size - 1)
    across, down = np.where(drawn[:, None], (last - first + 1).clip(0), 0).astype(np.int64).T
    counts = across * down
    chosen = np.nonzero(counts)[0]
    ends = counts[chosen].cumsum()
    start = 0
    while start < len(chosen):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + CANDIDATES, "right")), start + 1)
        some = chosen[start:stop]
        face = np.repeat(some, counts[some])
        index = np.arange(len(face)) - np.repeat(counts[some].cumsum() - counts[some], counts[some])
        column = first[face, 0].astype(np.int64) + index % across[face]
        row = first[face, 1].astype(np.int64) + index // across[face]
        x, y = column + 0.5, row + 0.5
        weights = np.empty((len(face), 3))
        for i in range(3):
            p, q = corners[face, (i + 1) % 3], corners[face, (i + 2) % 3]
            weights[:, i] = (q[:, 0] - x) * (p[:, 1] - y) - (p[:, 0] - x) * (q[:, 1] - y)
        weights /= area[face, None]
        inside = (weights >= -1e-9).all(1)
        yield face[inside], weights[inside], (row * width + column)[inside]
        start = stop
