"""Shapes of implicit functions (Shap-E, Jun & Nichol 2023): their views and their surfaces.

The functions have z upwards and are seen first from −y. Here y is upwards and that view is azimuth 0:
(x, y, z) here is (x, −z, y) there.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.nets.shap_e import ImplicitField
from sfumato.space.camera import Camera
from sfumato.space.hierarchical import COARSE, FINE, render_hierarchical
from sfumato.space.mesh import Floats, Mesh, surface

GRID = 128
"""Points along each axis at which signed distances are asked for."""
ELEVATION, DISTANCE, FOV = 26.565, 4.0, 40.107
"""Of the cameras that Shap-E was made for: their angles in degrees, and how far away they are."""


def turned(points: Tensor) -> Tensor:
    """Points (N, 3) here in the functions' own coordinates."""
    x, y, z = points.unbind(1)
    return torch.stack([x, -z, y], dim=1)


def turned_back(points: Tensor) -> Tensor:
    """Points (N, 3) of the functions' own coordinates, here."""
    x, y, z = points.unbind(1)
    return torch.stack([x, z, -y], dim=1)


def view(field: ImplicitField, camera: Camera, background: Tensor) -> Tensor:
    """What `camera` sees of the radiance field in front of `background` (3,), (H, W, 3) in [0, 1]."""
    return views(field, [camera], background)[0]


def views(
    field: ImplicitField,
    cameras: Sequence[Camera],
    background: Tensor,
    *,
    samples: tuple[int, int] = (COARSE, FINE),
) -> Tensor:
    """What V `cameras` of one size see, (V, H, W, 3), their rays rendered as those of one picture."""
    rays = [camera.rays() for camera in cameras]
    origins, directions = (torch.from_numpy(np.concatenate(each)).float() for each in zip(*rays, strict=True))
    seen = render_hierarchical(
        lambda points: field.coarse(turned(points)),
        lambda points: field.fine(turned(points)),
        origins,
        directions,
        samples=samples,
    )
    shape = len(cameras), cameras[0].height, cameras[0].width, 3
    return seen.over(background.float().cpu()).view(shape)


def turning(field: ImplicitField, background: Tensor, frames: int, size: int) -> Iterator[PIL.Image.Image]:
    """Pictures of `size` × `size` pixels of the radiance field from even azimuths."""
    for number in range(frames):
        camera = Camera(360 * number / frames, ELEVATION, DISTANCE, FOV, size, size)
        pixels = view(field, camera, background).clamp(0, 1).mul(255).round().byte()
        yield PIL.Image.fromarray(pixels.numpy())


@torch.no_grad()
def mesh(field: ImplicitField, *, faces: int, grid: int = GRID) -> Mesh:
    """The surface of the functions, of about so many `faces`, with their colours as its texture.

    It is where the signed distances on `grid`³ points change sign, closed where the box ends. Raises
    `UsageError` where there is none.
    """
    return (
        implicit_surface(field, grid)
        .simplified(faces)
        .unwrapped()
        .baked(lambda points, _: surface_colours(field, points))
    )


@torch.no_grad()
def implicit_surface(field: ImplicitField, grid: int = GRID) -> Mesh:
    """The surface by marching cubes, without colours, of as many triangles as it takes."""
    places = torch.linspace(-1, 1, grid)
    z, y, x = torch.meshgrid(places, places, places, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).view(-1, 3)
    distances, _ = field.surface(turned(points))
    try:
        # values stand in the middle of voxels, the outermost on the sides of the box
        return surface(distances.cpu().view(grid, grid, grid).numpy(), 0.0, grid / (grid - 1))
    except UsageError:
        raise UsageError("no surface has formed: draw with another seed, or more steps") from None


def surface_colours(field: ImplicitField, points: Floats) -> Floats:
    """The colours (N, 3) in [0, 1] of places (N, 3) of the surface."""
    _, colours = field.surface(turned(torch.from_numpy(np.asarray(points, np.float32))))
    found: Floats = colours.cpu().numpy()
    return found
