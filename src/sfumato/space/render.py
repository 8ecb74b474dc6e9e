"""Pictures of meshes, drawn by a z-buffer on the CPU."""

import numpy as np
import PIL.Image

from sfumato.space.camera import Camera
from sfumato.space.mesh import Mesh, unit
from sfumato.space.raster import rasterise

SAMPLES = 2
"""A side, of each pixel."""
AMBIENT = 0.62
"""The light that comes from everywhere; the rest comes from beside the camera."""
LIGHT = (-0.35, 0.55, 1.0)
"""Where from, in the camera's coordinates."""


def render_mesh(mesh: Mesh, camera: Camera, *, shaded: bool = True) -> PIL.Image.Image:
    """What `camera` sees of `mesh`, mode "RGBA" with straight alpha.

    `shaded`: lit by Lambert's law, with normals interpolated over each triangle; else the bare colours.
    """
    width, height = camera.width * SAMPLES, camera.height * SAMPLES
    pixels, depths = camera.project(mesh.vertices)
    seen = rasterise(
        pixels * SAMPLES,
        depths,
        mesh.faces,
        width,
        height,
        culled=mesh.is_watertight,
        perspective=not camera.orthographic,
    )
    covered = seen.covered
    picture = np.zeros((height, width, 4), np.float32)
    colours = mesh.colours_at(mesh.faces[seen.face[covered]], seen.weights[covered]).astype(np.float32)
    if shaded:
        normals = unit(seen.interpolated(mesh.faces, mesh.normals))
        light = camera.rotation @ (np.array(LIGHT) / np.linalg.norm(LIGHT))
        lit = normals @ light
        if not mesh.is_watertight:  # both sides are seen
            lit = np.abs(lit)
        colours *= (AMBIENT + (1 - AMBIENT) * lit.clip(0))[:, None]
    picture[covered, :3], picture[covered, 3] = colours, 255
    parts = picture.reshape(camera.height, SAMPLES, camera.width, SAMPLES, 4)
    mean = parts.mean((1, 3))
    mean[..., :3] *= 255 / np.maximum(mean[..., 3:], 1e-6)
    return PIL.Image.fromarray(mean.round().clip(0, 255).astype(np.uint8))
