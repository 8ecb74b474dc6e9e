"""Triangle meshes: checked, simplified, unwrapped, baked, sampled, and as surfaces of volumes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import UsageError
from sfumato.space.libraries import library
from sfumato.space.raster import OFFSET, Fragments, crossings, rasterise

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.floating)

MAX_FACES = 2_000_000
"""The most triangles that a mesh may have."""
PADDING = 4
"""Texels beyond the charts of a texture that are filled in, so that neighbouring texels can be mixed."""
OVERLAP, STRETCHED = 0.01, 0.05
"""Shares of the texels and of the surface: see `Mesh.has_own_texels`."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles `faces` (F, 3) of `vertices` (V, 3), counter-clockwise seen from outside.

    `uv` (V, 2) in [0, 1], with v upwards, into the `texture` (H, W, 3), sRGB; or `colours` (V, 3) of the
    vertices, sRGB; or neither. `normals` (V, 3) for smooth shading. Vertices at one place are one vertex of
    the surface wherever they differ in `uv` alone.
    """

    vertices: Floats
    faces: Indices
    uv: Floats | None = None
    texture: Bytes | None = None
    colours: Bytes | None = None

    def __post_init__(self) -> None:
        if not len(self.faces):
            raise UsageError("the mesh has no triangles")
        if len(self.faces) > MAX_FACES:
            raise UsageError(f"the mesh has {len(self.faces):,} triangles: at most {MAX_FACES:,} are read")
        if not np.isfinite(self.vertices).all():
            raise UsageError("the mesh has vertices that are not finite")
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise UsageError("the mesh has triangles of vertices that it has not")

    def __repr__(self) -> str:
        skin = "no texture" if self.texture is None else "texture {1}×{0}".format(*self.texture.shape)
        return f"<Mesh of {len(self.faces):,} triangles, {skin}>"

    @cached_property
    def places(self) -> Indices:
        """(V,): for each vertex the first one at the same place."""
        _, first, inverse = np.unique(self.vertices, axis=0, return_index=True, return_inverse=True)
        found: Indices = first[inverse.ravel()]
        return found

    @cached_property
    def normals(self) -> Floats:
        """(V, 3), unit: of the triangles around each vertex, weighted by their areas."""
        faces = self.places[self.faces]
        a, b, c = (self.vertices[faces[:, i]].astype(np.float64) for i in range(3))
        face_normals = np.cross(b - a, c - a)
        total = np.zeros((len(self.vertices), 3))
        for corner in range(3):
            np.add.at(total, faces[:, corner], face_normals)
        total = total[self.places]
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        normals = np.where(lengths > 0, total / np.maximum(lengths, 1e-30), [0.0, 0.0, 1.0])
        return normals.astype(np.float32)

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """(F,), of the triangles."""
        a, b, c = (self.vertices[self.faces[:, i]].astype(np.float64) for i in range(3))
        found: NDArray[np.float64] = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        return found

    @cached_property
    def _edge_uses(self) -> tuple[Indices, Indices]:
        """How often each undirected edge is used, and the same of each directed one."""
        faces = self.places[self.faces]
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        _, undirected = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
        _, directed = np.unique(edges, axis=0, return_counts=True)
        return undirected, directed

    @property
    def is_watertight(self) -> bool:
        """Whether the surface is closed and manifold: every edge is shared by two triangles, one each way."""
        undirected, directed = self._edge_uses
        return bool((undirected == 2).all() and (directed == 1).all())

    @property
    def vertex_colours(self) -> Bytes:
        """sRGB (V, 3) of the vertices themselves."""
        corners = np.repeat(np.arange(len(self.vertices))[:, None], 3, axis=1)
        return self.colours_at(corners, np.eye(3)[np.zeros(len(corners), int)])

    def fitted(self) -> "Mesh":
        """Moved and scaled so that its bounding box is centred in [−1, 1]³ and fills it along one axis."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        scale = 2 / max(float((high - low).max()), 1e-12)
        return replace(self, vertices=((self.vertices - (low + high) / 2) * scale).astype(np.float32))

    def simplified(self, faces: int) -> "Mesh":
        """At most about so many `faces`, by quadric error (Garland and Heckbert 1997).

        UVs and colours are lost. A closed mesh stays closed: where collapsed edges open it, fewer of them
        are.
        """
        target = faces
        while target < len(self.faces):
            simplify = library("fast_simplification").simplify
            vertices, kept = simplify(
                self.vertices, self.faces.astype(np.int32), target_count=target, agg=5.0
            )
            found = Mesh(vertices.astype(np.float32), kept.astype(np.int64))
            if found.is_watertight or not self.is_watertight:
                return found
            target = target * 3 // 2
        return replace(self, uv=None, texture=None, colours=None)

    def unwrapped(self) -> "Mesh":
        """The same surface with a UV atlas of non-overlapping charts; vertices at their seams are doubled."""
        sources, faces, uv = library("xatlas").parametrize(
            self.vertices, self.faces.astype(np.uint32), self.normals
        )
        return Mesh(self.vertices[sources], faces.astype(np.int64), uv.astype(np.float32))

    def baked(self, colour: Callable[[Floats, Floats], Floats], size: int = 512) -> "Mesh":
        """With a texture of `size` × `size`, its texels coloured by `colour(points, normals)`.

        `colour` is given places (N, 3) on the surface and their normals, and returns colours (N, 3) in [0,
        1]. The mesh needs UVs: see `unwrapped`.
        """
        seen = self.texels(size)
        points, normals = (seen.interpolated(self.faces, each) for each in (self.vertices, self.normals))
        colours = colour(points.astype(np.float32), unit(normals).astype(np.float32))
        return self.textured(seen.covered, colours)

    def texels(self, size: int) -> Fragments:
        """The triangles on a texture of `size` × `size` texels. Raises `UsageError` without UVs."""
        if self.uv is None:
            raise UsageError("the mesh has no UVs: unwrap it first")
        return rasterise(self._on_page(size), np.zeros(len(self.uv)), self.faces, size, size, culled=False)

    def textured(self, covered: NDArray[np.bool_], colours: Floats) -> "Mesh":
        """With a texture of the size of `covered` (H, W), its texels there of `colours` (N, 3) in [0, 1]."""
        texels = np.ones((*covered.shape, 3), np.float32)
        texels[covered] = colours
        return replace(self, texture=as_bytes(spread(texels, covered, PADDING)), colours=None)

    def has_own_texels(self, size: int = 256) -> bool:
        """Whether it has UVs in which each place of the surface has texels of its own, and enough of them.

        Not where triangles overlap, or lie outside of [0, 1], on more than `OVERLAP` of the texels, or where
        more than `STRETCHED` of the surface has less than a tenth of the texels that are its due.
        """
        if self.uv is None:
            return False
        page = self._on_page(size)
        place, _ = crossings(page + OFFSET, np.zeros(len(page)), self.faces, size, size)
        a, b, c = (page[self.faces[:, i]] for i in range(3))
        areas = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        if areas.sum() * (1 - OVERLAP) > len(place):  # some lie outside
            return False
        if len(place) - len(np.unique(place)) > OVERLAP * len(place):
            return False
        sparse = areas / areas.sum() < self.areas / self.areas.sum() / 10
        return bool(self.areas[sparse].sum() <= STRETCHED * self.areas.sum())

    def _on_page(self, size: int) -> NDArray[np.float64]:
        """The UVs (V, 2) in texels, from the upper left corner of the texture."""
        assert self.uv is not None
        page: NDArray[np.float64] = np.stack([self.uv[:, 0], 1.0 - self.uv[:, 1]], axis=1) * float(size)
        return page

    @property
    def seam_difference(self) -> float:
        """How much the texture differs on the two sides of the seams between its charts, 0 to 255.

        The mean absolute difference between the colours in the middle of the edges that are at one place of
        the surface and at two of the texture; 0 where there are none. The mesh needs UVs and a texture.
        """
        edges = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        own = self.places[edges]
        order = np.argsort(own, axis=1)
        edges, own = np.take_along_axis(edges, order, 1), np.take_along_axis(own, order, 1)
        _, first, again = np.unique(own, axis=0, return_index=True, return_inverse=True)
        other = edges[first][again.ravel()]
        seams = (edges != other).any(1)
        if not seams.any():
            return 0.0
        half = np.broadcast_to([0.5, 0.5, 0.0], (int(seams.sum()), 3))
        sides = [
            self.colours_at(pair[seams][:, [0, 1, 1]], half).astype(np.float64) for pair in (edges, other)
        ]
        return float(np.abs(sides[0] - sides[1]).mean())

    def sampled(self, count: int, seed: int = 0) -> "PointCloud":
        """`count` points, uniformly distributed over the surface, with its normals and colours."""
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(self.faces), count, p=self.areas / self.areas.sum())
        u, v = np.sqrt(generator.random(count)), generator.random(count)
        weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)
        corners = self.faces[chosen]

        def mixed(values: NDArray[np.floating]) -> Floats:
            found: Floats = np.einsum("nk,nkc->nc", weights, values[corners]).astype(np.float32)
            return found

        return PointCloud(mixed(self.vertices), unit(mixed(self.normals)), self.colours_at(corners, weights))

    def colours_at(self, corners: Indices, weights: NDArray[np.floating]) -> Bytes:
        """sRGB (N, 3) at places given by the vertices `corners` (N, 3) around them and their `weights`."""
        if self.uv is not None and self.texture is not None:
            uv = np.einsum("nk,nkc->nc", weights, self.uv[corners])
            return as_bytes(looked_up(self.texture, uv) / 255)
        if self.colours is not None:
            return as_bytes(np.einsum("nk,nkc->nc", weights, self.colours[corners].astype(np.float64)) / 255)
        return np.full((len(corners), 3), 200, np.uint8)


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points (N, 3) of a surface with unit `normals` (N, 3) and `colours` (N, 3), sRGB."""

    points: Floats
    normals: Floats
    colours: Bytes


def surface(values: NDArray[np.floating], level: float, extent: float = 1.0) -> Mesh:
    """The surface on which a grid of `values` (Z, Y, X) is `level`, by marching cubes (Lewiner et al. 2003).

    The values stand in the middle of voxels over [−`extent`, `extent`] along the longest axis, and as
    densely along the others, the origin in their middle. Larger values are inside, and there is none
    outside of the grid, so that the surface is closed. Raises `UsageError` where the values nowhere cross
    the level.
    """
    padded = np.pad(values.astype(np.float32), 1, constant_values=min(float(values.min()), level - 1e-3))
    if not (values > level).any():
        raise UsageError("the volume is empty: there is no surface in it")
    step = 2 * extent / max(values.shape)
    found, faces, _, _ = library("skimage.measure").marching_cubes(padded, level)
    middle = (np.array(padded.shape) - 1) / 2
    vertices = ((found - middle) * step)[:, ::-1]
    kept = Mesh(np.ascontiguousarray(vertices, dtype=np.float32), faces.astype(np.int64))
    return without_degenerate(kept)


def without_degenerate(mesh: Mesh) -> Mesh:
    """The vertices at one place made one, and no triangle that has two of them twice, nor unused vertices."""
    faces = mesh.places[mesh.faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    used, again = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[used], again.reshape(-1, 3).astype(np.int64))


def unit(vectors: NDArray[Number]) -> NDArray[Number]:
    """Vectors (N, 3) in length 1; those of length 0 as they are."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: NDArray[Number] = (vectors / lengths).astype(vectors.dtype)
    return found


def looked_up(texture: Bytes, uv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours (N, 3) of 0 to 255 at `uv` (N, 2), interpolated between texels; beyond [0, 1] it repeats."""
    height, width = texture.shape[:2]
    x = (uv[:, 0] % 1.0001) * width - 0.5
    y = (1 - uv[:, 1] % 1.0001) * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = (x - left)[:, None], (y - top)[:, None]

    def at(row: NDArray[np.int_], column: NDArray[np.int_]) -> NDArray[np.float64]:
        return texture[row.clip(0, height - 1), column.clip(0, width - 1), :3].astype(np.float64)

    upper = at(top, left) * (1 - across) + at(top, left + 1) * across
    lower = at(top + 1, left) * (1 - across) + at(top + 1, left + 1) * across
    found: NDArray[np.float64] = upper * (1 - down) + lower * down
    return found


def spread(values: Floats, known: NDArray[np.bool_], most: int | None = None) -> Floats:
    """`values` (H, W, C) with those that are not `known` (H, W) replaced by their nearest known ones.

    `most`: only up to so many pixels away.
    """
    if not known.any():
        return values
    distance, (rows, columns) = library("scipy.ndimage").distance_transform_edt(~known, return_indices=True)
    nearest: Floats = values[rows, columns]
    return nearest if most is None else np.where((distance <= most)[..., None], nearest, values)


def as_bytes(values: NDArray[np.floating]) -> Bytes:
    """Values in [0, 1] as 0 to 255."""
    found: Bytes = (values * 255).round().clip(0, 255).astype(np.uint8)
    return found
