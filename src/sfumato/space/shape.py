"""A shape: its mesh, pictures of it from any side, and its files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sfumato.contact_sheet import contact_sheet
from sfumato.edit.matting import PLAIN, cut_out
from sfumato.errors import UsageError
from sfumato.inputs import InputImage, PictureSource
from sfumato.space import interactive
from sfumato.space.camera import Camera
from sfumato.space.files import glb, read_mesh, write_mesh, write_points
from sfumato.space.mesh import Mesh, PointCloud
from sfumato.space.puff import Back, puffed
from sfumato.space.render import render_mesh
from sfumato.space.settings import FACES
from sfumato.validation import as_path, shown

FRAMES = 36
"""Of a turntable, unless another number is given."""
ELEVATION = 15.0
"""Degrees from which a turntable is seen."""
VIEWS = 8
"""On a contact sheet."""
MAX_POINTS = 5_000_000
LARGEST = 1536
"""Pixels a side that are looked at of a picture: more than its texture has."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A `mesh` within [−1, 1]³ that faces +z, y upwards."""

    mesh: Mesh

    @classmethod
    def of_picture(
        cls,
        picture: PictureSource | InputImage,
        mask: PictureSource | InputImage | None = None,
        *,
        thickness: float = 1.0,
        back: Back = "inpaint",
        faces: int = FACES,
    ) -> Self:
        """The object of a picture, inflated: see `sfumato.space.puff`. Nothing is learned or drawn.

        The object is what is bright in the `mask`; without one, what is opaque in a picture with
        transparency, or what stands out from a plain background. `thickness`, 0.05 to 2: 1 makes a ball of
        a disc. `back`: "inpaint" continues the colours of the rim over the back, "mirror" shows the front
        there too. `faces`: about how many triangles, 100 to 500,000. Raises `UsageError` where nothing is
        to be cut out, or the background is not plain.
        """
        check_puffing(thickness, back, faces)
        found = InputImage.of(picture).rgba
        scale = min(LARGEST / max(found.shape[:2]), 1)
        alpha = None if mask is None else _scaled(InputImage.of(mask).rgba, scale)
        rgba = object_of(_scaled(found, scale), alpha)
        return cls(puffed(rgba, thickness=thickness, back=back, faces=faces))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The mesh in a .glb, .gltf, .obj, .stl or .ply file, or the surface of a volume in an .npz.

        Raises `UsageError` where it cannot be read.
        """
        return cls(read_mesh(as_path(path)))

    def __repr__(self) -> str:
        return f"<Shape: {self.mesh!r}>"

    @cached_property
    def _shown(self) -> Mesh:
        return self.mesh.fitted()

    def render(
        self,
        azimuth: float = 0.0,
        elevation: float = ELEVATION,
        *,
        size: int = 256,
        background: str | None = "white",
        shaded: bool = True,
    ) -> PIL.Image.Image:
        """A picture of `size` × `size` pixels from `azimuth` and `elevation` in degrees; the front is at 0.

        `background`: a colour of Pillow's, or `None` for a transparent one ("RGBA"). `shaded`: lit from
        beside the camera, else in the colours of the texture.
        """
        drawn = render_mesh(self._shown, Camera(azimuth, elevation, width=size, height=size), shaded=shaded)
        if background is None:
            return drawn
        try:
            behind = PIL.Image.new("RGBA", drawn.size, background)
        except (ValueError, TypeError) as error:
            raise UsageError(f"background is {shown(background)}: {error}") from None
        return PIL.Image.alpha_composite(behind, drawn).convert("RGB")

    def turntable(
        self, frames: int = FRAMES, elevation: float = ELEVATION, **look: Any
    ) -> list[PIL.Image.Image]:
        """Pictures from all around at even azimuths; `look` as in `render`."""
        check_frames(frames)
        return [self.render(360 * index / frames, elevation, **look) for index in range(frames)]

    def sheet(self, elevation: float = ELEVATION, **look: Any) -> PIL.Image.Image:
        """Eight views on one page, with their azimuths."""
        pictures = self.turntable(VIEWS, elevation, **look)
        captions = [f"{360 * index // VIEWS}°" for index in range(VIEWS)]
        return contact_sheet(pictures, captions, columns=VIEWS // 2)

    def points(self, count: int, seed: int = 0) -> PointCloud:
        """`count` points of the surface, uniformly distributed, with normals and colours."""
        check_points(count)
        if not isinstance(seed, int) or seed < 0:
            raise UsageError(f"seed is {shown(seed)}: must be a whole number from 0")
        return self.mesh.sampled(count, seed)

    def save(self, path: str | Path, *, points: int | None = None, seed: int = 0) -> Path:
        """Write the mesh as .glb, .gltf, .obj, .stl or .ply, its volume as .npz, or a page to turn it, .html.

        With `points`, so many points of it are written as .ply or .npz. An .obj has its texture in files
        beside it. Raises `UsageError` for another suffix, or an open mesh as a volume, and `OutputError`
        where the file cannot be written.
        """
        path = as_path(path)
        if points is None:
            write_mesh(self.mesh, path)
        else:
            write_points(self.points(points, seed), path)
        return path

    def _repr_html_(self) -> str:
        return interactive.frame(
            interactive.page(glb(self.mesh, "shape"), "shape", closed=self.mesh.is_watertight)
        )


def check_puffing(thickness: Any, back: Any, faces: Any) -> None:
    """Raise `UsageError` for options of `Shape.of_picture` that are wrong."""
    if isinstance(thickness, bool) or not isinstance(thickness, int | float) or not 0.05 <= thickness <= 2:
        raise UsageError(f"thickness is {shown(thickness)}: must be 0.05 to 2")
    if back not in ("inpaint", "mirror"):
        raise UsageError(f"back is {shown(back)}: must be inpaint or mirror")
    if not isinstance(faces, int) or not 100 <= faces <= 500_000:
        raise UsageError(f"faces is {shown(faces)}: must be 100 to 500000")


def check_frames(count: Any) -> None:
    """Raise `UsageError` for a number of frames that a turntable cannot have."""
    if not isinstance(count, int) or not 2 <= count <= 360:
        raise UsageError(f"frames is {shown(count)}: must be 2 to 360")


def check_points(count: Any) -> None:
    """Raise `UsageError` for a number of points that cannot be sampled."""
    if not isinstance(count, int) or not 1 <= count <= MAX_POINTS:
        raise UsageError(f"points is {shown(count)}: must be 1 to {MAX_POINTS}")


def object_of(rgba: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A picture (H, W, 4) with its object opaque: by a `mask` (H, W, 4), its alpha, or its background."""
    if mask is not None:
        if mask.shape != rgba.shape:
            own, other = ("{1}×{0}".format(*each.shape) for each in (mask, rgba))
            raise UsageError(f"the mask has {own} pixels and the picture {other}: give one of equal size")
        luminance = np.asarray(PIL.Image.fromarray(mask).convert("L"))
        alpha = (luminance.astype(np.float32) * (mask[..., 3] / 255)).round().astype(np.uint8)
        return np.concatenate([rgba[..., :3], alpha[..., None]], axis=2)
    if (rgba[..., 3] < 128).any():
        return rgba
    matte = cut_out(rgba[..., :3])
    if matte.plainness < PLAIN:
        raise UsageError(
            f"the background is not plain ({matte.plainness:.0%} of the border has one colour): give a mask"
        )
    return matte.pixels


def _scaled(rgba: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """A picture (H, W, 4) so many times as large."""
    if scale == 1:
        return rgba
    height, width = (max(round(side * scale), 1) for side in rgba.shape[:2])
    return np.asarray(PIL.Image.fromarray(rgba).resize((width, height), PIL.Image.Resampling.LANCZOS))
