"""A shape from a prompt by score distillation: a field of latents, seen from random cameras.

Each step renders the field, adds noise to what is seen, asks the network for a clean estimate, and moves the
field by the gradient of `sfumato.diffusion.score_distillation`. The prompt says from which side the camera
looks (Poole et al. 2022, §3.2). Every step follows from the seed and its number alone, so that a distillation
that is resumed is the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato import weights
from sfumato.diffusion.level import Level
from sfumato.diffusion.level import Path as NoisePath
from sfumato.diffusion.score_distillation import (
    annealed_level,
    as_loss,
    distillation_gradient,
    student_loss,
)
from sfumato.errors import NumericsError, UsageError
from sfumato.space.camera import Camera
from sfumato.space.libraries import library
from sfumato.space.mesh import Floats, Mesh, surface
from sfumato.space.render import render_mesh
from sfumato.space.settings import FieldSettings
from sfumato.space.volume import VoxelField, fit, render, render_rays

VIEWS = ("front view", "side view", "back view")
"""What prompts say of the side from which they are seen."""
VIEW_ANGLE = 27.0
"""Across the shorter side, in degrees: an object of radius 0.8 fills it as it does in drawings."""
COLOUR_VIEWS = tuple((azimuth, elevation) for elevation in (-5, 35) for azimuth in range(0, 360, 45))
"""Azimuths and elevations that are decoded for the colours of the surface."""
BEGINNING = {"scale": 10.0, "blob": 4.0, "radius": 0.6}
"""The densities of a field at its first step."""
LEVELS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
"""Densities of which the surface is at the one whose outlines agree best with what is opaque."""
DENSEST, SMOOTHING = 20.0, 0.8
"""The surface is that of densities cut off at the one and smoothed by a Gaussian of the other in voxels."""
PART = 0.01
"""Parts that are smaller than this share of the largest one are left out."""


class ViewDenoiser(Protocol):
    """The guided clean estimate (1, C, h, w) of a latent `x` at `level`."""

    def __call__(self, x: Tensor, level: Level) -> Tensor: ...


class ViewStudent(Protocol):
    """A network that learns what is rendered: see `sfumato.diffusion.score_distillation`."""

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What it learns by, by names."""
        ...

    def __call__(self, x: Tensor, level: Level, view: str) -> Tensor:
        """The clean estimate (1, C, h, w) of a latent `x` at `level`, seen as `view` says."""
        ...


def view_of(azimuth: float) -> str:
    """What a camera at `azimuth` sees, one of `VIEWS`: the front within 45 degrees, the back within 45."""
    away = abs((azimuth + 180) % 360 - 180)
    return VIEWS[0] if away <= 45 else VIEWS[2] if away >= 135 else VIEWS[1]


class FieldDistillation:
    """The state of a distillation: a field of latents, its optimizer, and how many steps are `done`."""

    def __init__(
        self,
        prompt: str,
        settings: FieldSettings,
        denoisers: Mapping[str, ViewDenoiser],
        path: NoisePath,
        background: Tensor,
        student: ViewStudent | None = None,
    ) -> None:
        """`denoisers`: by view. `background` (C, h, w): a white picture's latent. `student`: for "vsd"."""
        self.prompt, self.settings, self.denoisers, self.path = prompt, settings, denoisers, path
        self.size = background.shape[1:]
        self.background = background.flatten(1).T.cpu()
        self.field = VoxelField(settings.side, len(background), **BEGINNING)
        self.student = student
        learned = {} if student is None else student.weights
        self.parameters = {"density": self.field.density, "features": self.field.features, **learned}
        self.optimizer = torch.optim.Adam(
            [
                {"params": [self.field.density], "lr": settings.density_lr},
                {"params": [self.field.features], "lr": settings.feature_lr},
                {"params": list(learned.values()), "lr": settings.student_lr},
            ],
            betas=(0.9, 0.99),
        )
        self.done = 0
        self._kept = self._state()

    def view(self, azimuth: float, elevation: float) -> Camera:
        """A camera that sees the field in the size of its latents."""
        height, width = self.size
        half = math.tan(math.radians(VIEW_ANGLE) / 2) * max(height / width, 1)
        fov = math.degrees(2 * math.atan(half))
        return Camera(azimuth, elevation, fov=fov, width=width, height=height)

    def latent(self, camera: Camera, jitter: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What `camera` sees, (1, C, h, w), in front of white; and the opacity of each pixel, (h·w,)."""
        seen = render(self.field, camera, samples=self.settings.samples, jitter=jitter)
        return seen.over(self.background).T.reshape(1, -1, *self.size), seen.opacity

    def step(self) -> None:
        """One step. Raises `NumericsError` and leaves the field as it was where an estimate is not finite."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.done)
        progress = self.done / settings.steps
        turn, tilt = torch.rand(2, generator=generator).tolist()
        low, high = settings.elevations
        camera = self.view(360 * turn, low + (high - low) * tilt)
        x, opacity = self.latent(camera, generator)
        level = annealed_level(self.path, progress, generator)
        noised = level.a * x + level.s * torch.randn(x.shape, generator=generator)
        view = view_of(camera.azimuth)
        learned = None
        with torch.no_grad():
            x0 = self.denoisers[view](noised, level).cpu()
            if self.student is not None:
                learned = self.student(noised, level, view).cpu()
        if not x0.isfinite().all():
            raise NumericsError(f"the estimate of step {self.done + 1} is not finite")
        gradient = distillation_gradient(settings.objective, x, x0, level, learned)
        loss = as_loss(x, gradient) / x.numel()
        loss = loss + settings.roughness * self.field.roughness() + settings.sparsity * opacity.mean()
        self.optimizer.zero_grad()
        loss.backward()
        if self.student is not None:
            self._teach(self.student, x.detach(), view, generator)
        self.optimizer.step()
        self.done += 1
        self._kept = self._state()

    def _teach(self, student: ViewStudent, x: Tensor, view: str, generator: torch.Generator) -> None:
        """The gradients by which the student learns what was rendered, `x` (1, C, h, w)."""
        level = annealed_level(self.path, 0.0, generator)
        noised = level.noisy(x, torch.randn(x.shape, generator=generator))
        student_loss(x, student(noised, level, view).cpu(), level).backward()

    def _state(self) -> tuple[int, dict[str, Tensor]]:
        """The number of steps, and copies of the field and of the optimizer's state."""
        tensors = {}
        for name, part in self.parameters.items():
            tensors[name] = part.detach().clone()
            for key, value in self.optimizer.state.get(part, {}).items():
                tensors[f"{name}.{key}"] = value.clone()
        return self.done, tensors

    @property
    def _facts(self) -> dict[str, str]:
        return {"prompt": self.prompt, "settings": dumps(asdict(self.settings))}

    def save(self, path: Path) -> None:
        """Write the state after the last whole step, as safetensors."""
        done, tensors = self._kept
        weights.write(path, tensors, {**self._facts, "done": str(done)})

    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote. Raises `UsageError` where that is of another prompt or settings."""
        facts = weights.metadata(path)
        if {name: facts.get(name) for name in self._facts} != self._facts:
            raise UsageError(
                f"{path} is of another prompt or other settings: delete it, or give -o another name"
            )
        tensors = weights.read(path)
        for name, part in self.parameters.items():
            part.data = tensors[name]
            state = {key: tensors[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[part] = state
        self.done = int(facts["done"])
        self._kept = self._state()

    def mesh(self, decode: Callable[[Tensor], Tensor], *, faces: int) -> Mesh:
        """The surface of the field, of about so many `faces`, in the colours of its decoded views.

        `decode`: latents (1, C, h, w) to pixels (1, 3, H, W) in [−1, 1]. A field of colours is fitted to
        the views from all around, and baked. Raises `UsageError` where no surface has formed.
        """
        self.field.check_finite()
        mesh = self._surface().simplified(faces).unwrapped()
        colours = self._colours(decode)

        @torch.no_grad()
        def colour(points: Floats, normals: Floats) -> Floats:
            origins, directions = torch.from_numpy(points + 0.15 * normals), torch.from_numpy(-normals)
            seen = render_rays(colours, origins, directions)
            found: Floats = (seen.features / seen.opacity[:, None].clamp(min=1e-3)).clamp(0, 1).numpy()
            return found

        return mesh.baked(colour)

    def _surface(self) -> Mesh:
        """The level set of the densities whose outlines agree best with where the field is opaque."""
        smooth = library("scipy.ndimage").gaussian_filter
        values = smooth(np.minimum(densities(self.field), DENSEST), SMOOTHING)
        cameras = [self.view(azimuth, elevation) for azimuth, elevation in COLOUR_VIEWS[::2]]
        with torch.no_grad():
            opaque = np.stack([self.latent(camera)[1].numpy() > 0.5 for camera in cameras])
        best, agreed = None, 0.0
        for level in LEVELS:
            kept = largest(values, level)
            if not kept.any():
                break
            mesh = surface(kept, level)
            drawn = [np.asarray(render_mesh(mesh, camera, shaded=False))[..., 3] > 127 for camera in cameras]
            seen = np.stack([each.ravel() for each in drawn])
            share = (seen & opaque).sum() / max((seen | opaque).sum(), 1)
            if share > agreed:
                best, agreed = mesh, share
        if best is None:
            raise UsageError("no surface has formed in the field: give more steps or another seed")
        return best

    def _colours(self, decode: Callable[[Tensor], Tensor]) -> VoxelField:
        """A field of RGB fitted to decoded views of the latents, its density beginning with theirs."""
        cameras, views = [], []
        with torch.no_grad():
            for azimuth, elevation in COLOUR_VIEWS:
                latent, _ = self.latent(self.view(azimuth, elevation))
                pixels = decode(latent).float().cpu() / 2 + 0.5
                height, width = (2 * edge for edge in self.size)
                views.append(F.interpolate(pixels, size=(height, width), mode="area")[0].flatten(1).T)
                cameras.append(replace(self.view(azimuth, elevation), width=width, height=height))
            field = VoxelField(self.settings.side, 3, **BEGINNING)
            field.density.data.copy_(self.field.density)
            field.features.data.fill_(0.5)
        fit(field, cameras, torch.stack(views), steps=120, samples=self.settings.samples, lr=0.05)
        return field


def densities(field: VoxelField) -> NDArray[np.float32]:
    """The densities (Z, Y, X) in the middle of the voxels."""
    side = field.side
    axis = ((torch.arange(side) + 0.5) / side * 2 - 1) * field.extent
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        found, _ = field(torch.stack([x, y, z], dim=-1).view(-1, 3))
    values: NDArray[np.float32] = found.view(side, side, side).numpy()
    return values


def largest(values: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """`values` (Z, Y, X) without what is above `level` apart from the larger parts that are."""
    ndimage = library("scipy.ndimage")
    labels, count = ndimage.label(values > level)
    if not count:
        return np.zeros_like(values)
    sizes = np.bincount(labels.ravel())[1:]
    small = np.isin(labels, 1 + np.nonzero(sizes < PART * sizes.max())[0])
    found: NDArray[np.float32] = np.where(small, 0, values).astype(np.float32)
    return found
