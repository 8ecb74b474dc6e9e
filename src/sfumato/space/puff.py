"""One picture of an object to a closed mesh: its outline is inflated, and it is the front's texture.

The height h of the surface above the picture's plane solves Poisson's equation ∇²h² = −4 inside the outline
with h = 0 on it, so that a disc becomes a ball. The surface is the zero level of h²(x, y) − (z/thickness)²,
which is smooth at the rim.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import UsageError
from sfumato.space.libraries import library
from sfumato.space.mesh import Mesh, spread, surface
from sfumato.space.settings import FACES

Back = Literal["inpaint", "mirror"]

CELLS = 160
"""Of the longest side of the object, for the height and the surface."""
MAX_TEXTURE = 1024
"""Pixels of the longest side of the texture of one side."""
SPECK = 0.002
"""Parts of the mask that are smaller than this share of it are left out."""
RIM = 0.12
"""How much of the largest depth in the outline the inpainted back has in common with the front."""


def puffed(
    rgba: NDArray[np.uint8],
    *,
    thickness: float = 1.0,
    back: Back = "inpaint",
    faces: int = FACES,
) -> Mesh:
    """The object of a picture (H, W, 4), cut out by its alpha, as a closed mesh of about so many `faces`.

    Its longest side in the picture's plane becomes 2, and it faces +z. `thickness`: 1 makes a ball of a
    disc. `back`: "inpaint" continues the colours of the rim over the back, "mirror" shows the front there,
    too. Raises `UsageError` for an alpha that is empty, or is everywhere.
    """
    rgba = cropped(rgba)
    alpha = rgba[..., 3].astype(np.float64) / 255
    height, width = alpha.shape
    scale = CELLS / max(height, width)
    cells = resized(alpha, max(round(width * scale), 1), max(round(height * scale), 1))
    cells = np.pad(cells, 3)
    values = squared_height(cells)
    reach = int(np.ceil(thickness * np.sqrt(max(values.max(), 0)))) + 2
    z = np.arange(-reach, reach + 1)[:, None, None] / thickness
    level = (values[::-1] - z * z).astype(np.float32)
    found = surface(level, 0.0, extent=max(level.shape) / CELLS)
    return _textured(found.simplified(faces), rgba, back)


def cropped(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 4) without its empty margins and without specks beside its object."""
    solid = rgba[..., 3] >= 128
    if not solid.any():
        raise UsageError("the mask is empty: nothing stands out from the background; give a mask")
    labels, count = library("scipy.ndimage").label(solid)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    specks = sizes < SPECK * solid.sum()
    specks[0] = False
    kept = rgba.copy()
    kept[specks[labels], 3] = 0
    rows, columns = np.nonzero(kept[..., 3] >= 128)
    if rows.max() - rows.min() < 2 or columns.max() - columns.min() < 2:
        raise UsageError("the mask is less than 3 pixels wide or high: give a larger one")
    top, left = max(rows.min() - 1, 0), max(columns.min() - 1, 0)
    return kept[top : rows.max() + 2, left : columns.max() + 2]


def squared_height(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """h² in cells², the solution of ∇²h² = −4 where `alpha` (H, W) is above ½; negative elsewhere.

    The outline lies between cells where alpha is ½ (Shortley and Weller 1938). The border must be outside.
    """
    sparse = library("scipy.sparse")
    inside = alpha > 0.5
    number = np.full(alpha.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns = np.nonzero(inside)
    own = number[inside]
    diagonal = np.zeros(len(own))
    entries: list[tuple[NDArray[np.int_], NDArray[np.int_]]] = []
    crossings = []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        other = rows + dy, columns + dx
        out = ~inside[other]
        # where on the way to a cell outside alpha is a half
        share = (alpha[inside] - 0.5) / np.maximum(alpha[inside] - alpha[other], 1e-9)
        share = np.where(out, share.clip(0.1, 1), 1)
        diagonal += 1 / share
        entries.append((own[~out], number[other][~out]))
        crossings.append((other[0][out], other[1][out], own[out], share[out]))
    first, second = (np.concatenate(each) for each in zip(*entries, strict=True))
    matrix = sparse.coo_matrix((-np.ones(len(first)), (first, second)), shape=(len(own), len(own)))
    matrix = (matrix + sparse.diags(diagonal)).tocsc()
    solved = library("scipy.sparse.linalg").spsolve(matrix, np.full(len(own), 4.0))
    # outside the values fall with the slope of the rim, so that they cross zero at the outline
    total, count, slopes = np.zeros(alpha.shape), np.zeros(alpha.shape), []
    for row, column, cell, share in crossings:
        np.add.at(total, (row, column), -solved[cell] * (1 - share) / share)
        np.add.at(count, (row, column), 1)
        slopes.append(solved[cell] / share)
    slope = float(np.median(np.concatenate(slopes)))
    distance = library("scipy.ndimage").distance_transform_edt(~inside)
    values: NDArray[np.float64] = -slope * (distance - 0.5)
    rim = count > 0
    values[rim] = np.minimum(total[rim] / count[rim], -1e-6 * slope)
    values[inside] = solved
    return values


def _textured(mesh: Mesh, rgba: NDArray[np.uint8], back: Back) -> Mesh:
    """`mesh` with a picture (H, W, 4) on its front, and `back` on its back, side by side in one texture."""
    height, width = rgba.shape[:2]
    shrink = min(MAX_TEXTURE / max(height, width), 1)
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    alpha = resized(rgba[..., 3].astype(np.float64) / 255, *size)
    colours = np.stack([resized(rgba[..., i].astype(np.float64), *size) for i in range(3)], axis=2)
    front, depth = _bled(colours.astype(np.float32), alpha)
    behind = front if back == "mirror" else _continued(front, depth)
    # the back is seen from behind: both lie over the same places of the picture
    texture = np.concatenate([front, behind], axis=1).round().clip(0, 255).astype(np.uint8)
    half = max(height, width) / 2
    across = (mesh.vertices[:, 0] * half / width + 0.5).clip(0, 1)
    up = (mesh.vertices[:, 1] * half / height + 0.5).clip(0, 1)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    behind_faces = np.cross(b - a, c - a)[:, 2] < 0
    corners, again = np.unique(mesh.faces * 2 + behind_faces[:, None], return_inverse=True)
    source, side = corners // 2, corners % 2
    margin = 0.5 / size[0]  # the two halves are not mixed
    u = (across[source].clip(margin, 1 - margin) + side) / 2
    uv = np.stack([u, up[source]], axis=1).astype(np.float32)
    return Mesh(mesh.vertices[source], again.reshape(-1, 3), uv, texture)


def _bled(
    colours: NDArray[np.float32], alpha: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The colours of what is surely object, spread beyond the outline; and the depth of each pixel in it.

    The outermost pixels hold some of the background.
    """
    ndimage = library("scipy.ndimage")
    depth = ndimage.distance_transform_edt(np.pad(alpha > 0.5, 1))[1:-1, 1:-1]
    edge = max(1.0, 4 * max(alpha.shape) / 256)
    sure = (depth > edge) & (alpha > 0.98)
    thin = depth > ndimage.maximum_filter(depth * (depth <= edge), size=int(2 * edge) + 1) - 0.5
    sure |= thin & (depth > 0) & ~(ndimage.maximum_filter(sure, size=int(4 * edge) + 1))
    bled = spread(colours, sure if sure.any() else alpha > 0.5)
    # the rim is seen from the side, where its texels are stretched
    blurred = ndimage.gaussian_filter(bled, (1.5 * edge, 1.5 * edge, 0))
    share = (1 - depth / (4 * edge)).clip(0, 1)[..., None]
    return (share * blurred + (1 - share) * bled).astype(np.float32), depth


def _continued(colours: NDArray[np.float32], depth: NDArray[np.float64]) -> NDArray[np.float32]:
    """`colours` (H, W, 3) near the rim, continued smoothly over what lies deeper: ∇²c = 0."""
    sparse, ndimage = library("scipy.sparse"), library("scipy.ndimage")
    inner = depth > max(RIM * depth.max(), 3.0)
    if not inner.any():
        return colours
    smooth = ndimage.gaussian_filter(colours, (3.0, 3.0, 0))
    number = np.full(depth.shape, -1)
    number[inner] = np.arange(inner.sum())
    rows, columns = np.nonzero(inner)
    own, known = number[inner], np.zeros((len(rows), 3))
    first, second = [], []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        other = rows + dy, columns + dx
        out = ~inner[other]
        known[out] += smooth[other][out]
        first.append(own[~out])
        second.append(number[other][~out])
    pairs = np.concatenate(first), np.concatenate(second)
    matrix = sparse.coo_matrix((-np.ones(len(pairs[0])), pairs), shape=(len(own), len(own)))
    matrix = (matrix + 4 * sparse.identity(len(own))).tocsc()
    solve = library("scipy.sparse.linalg").factorized(matrix)
    found = colours.copy()
    found[inner] = np.stack([solve(known[:, i]) for i in range(3)], axis=1)
    return found


def resized(values: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """One channel (H, W) in another size, antialiased."""
    import PIL.Image

    picture = PIL.Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((width, height), PIL.Image.Resampling.BICUBIC), np.float64)
