"""Pinhole and orthographic cameras on a sphere around the origin, in OpenGL's conventions."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import UsageError
from sfumato.validation import shown

Array = NDArray[np.float64]

FOV = 40.0
"""Vertical angle of view unless another is given."""
DISTANCE = 4.2
"""From the origin: a ball of radius 1 takes two thirds of the picture's height at `FOV`."""


@dataclass(frozen=True)
class Camera:
    """A camera that looks at the origin from `distance` away, y upwards.

    `azimuth` and `elevation` in degrees: (0, 0) is on the +z axis, (90, 0) on the +x axis, elevation 90 on
    the +y axis. `fov`: the vertical angle of view in degrees. `orthographic`: parallel rays, with what a
    perspective view shows of the plane through the origin. `width` and `height` in pixels. In its own
    coordinates the camera looks along −z, x to the right and y up.
    """

    azimuth: float = 0.0
    elevation: float = 0.0
    distance: float = DISTANCE
    fov: float = FOV
    width: int = 256
    height: int = 256
    orthographic: bool = False

    def __post_init__(self) -> None:
        for name in ("azimuth", "elevation", "distance", "fov"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"{name} is {shown(value)}: must be a number")
        if not -90 <= self.elevation <= 90:
            raise UsageError(f"elevation is {self.elevation:g}: must be −90 to 90 degrees")
        if not 0 < self.fov < 180:
            raise UsageError(f"fov is {self.fov:g}: must be between 0 and 180 degrees")
        if not self.distance > 0:
            raise UsageError(f"distance is {self.distance:g}: must be more than 0")
        for name in ("width", "height"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= 4096:
                raise UsageError(f"{name} is {shown(value)}: must be 1 to 4096 pixels")

    @property
    def rotation(self) -> Array:
        """(3, 3), whose columns are the camera's x, y and z axes in the world."""
        azimuth, elevation = math.radians(self.azimuth), math.radians(self.elevation)
        right = np.array([math.cos(azimuth), 0.0, -math.sin(azimuth)])
        back = np.array(
            [
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
                math.cos(azimuth) * math.cos(elevation),
            ]
        )
        return np.stack([right, np.cross(back, right), back], axis=1)

    @property
    def position(self) -> Array:
        """(3,), in the world."""
        position: Array = self.rotation[:, 2] * self.distance
        return position

    @property
    def view(self) -> Array:
        """(4, 4), from homogeneous coordinates in the world to the camera's."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation.T
        matrix[2, 3] = -self.distance
        return matrix

    @property
    def half_height(self) -> float:
        """Of what is seen of the plane through the origin."""
        return self.distance * math.tan(math.radians(self.fov) / 2)

    def project(self, points: NDArray[np.floating]) -> tuple[Array, Array]:
        """Pixel coordinates (N, 2) and depths (N,) of `points` (N, 3) of the world.

        Pixel (column i, row j) has its centre at (i + ½, j + ½), rows counted from the top. The depth is the
        distance along the viewing direction, positive in front of the camera.
        """
        own = np.asarray(points, np.float64) @ self.rotation - [0.0, 0.0, self.distance]
        depth = -own[:, 2]
        apart = self.distance if self.orthographic else depth
        scale = self.distance / self.half_height * (self.height / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.width / 2 + own[:, 0] / apart * scale
            y = self.height / 2 - own[:, 1] / apart * scale
        return np.stack([x, y], axis=1), depth

    def rays(self) -> tuple[Array, Array]:
        """Origins and unit directions (H·W, 3) of the rays through the pixels' centres, row by row."""
        return self.rays_at(self.pixel_centres())

    def rays_at(self, pixels: Array) -> tuple[Array, Array]:
        """The same through pixel coordinates (N, 2), as `project` gives them."""
        step = self.half_height / (self.height / 2)
        x = (pixels[:, 0] - self.width / 2) * step
        y = (self.height / 2 - pixels[:, 1]) * step
        plane = np.stack([x, y, np.zeros_like(x)], axis=1) @ self.rotation.T
        if self.orthographic:
            directions = np.broadcast_to(-self.rotation[:, 2], plane.shape)
            return plane + self.position, directions.copy()
        directions = plane - self.position
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(self.position, plane.shape).copy(), directions

    def pixel_centres(self) -> Array:
        """(H·W, 2), row by row."""
        y, x = np.mgrid[: self.height, : self.width] + 0.5
        return np.stack([x.ravel(), y.ravel()], axis=1)

    @classmethod
    def around(
        cls, count: int, *, elevation: float = 15.0, width: int = 256, height: int = 256
    ) -> list[Self]:
        """`count` cameras at even azimuths from 0, as for a turntable."""
        return [cls(360 * index / count, elevation, width=width, height=height) for index in range(count)]
