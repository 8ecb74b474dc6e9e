"""A procedural solid, and how well a radiance field that was fitted to its views shows others."""

import math

import torch

from sfumato.space.camera import Camera
from sfumato.space.volume import render

SIDE = 40


def solid(points):
    """A torus with soft edges, coloured by its place."""
    x, y, z = points.unbind(1)
    tube = ((x.square() + y.square()).sqrt() - 0.5).square() + z.square()
    density = 25 * torch.sigmoid((0.25 - tube.sqrt()) * 16)
    return density, 0.5 + 0.5 * torch.sin(points * 3)


@torch.no_grad()
def views_of_solid():
    """Cameras all around it, and what each of them sees on white."""
    cameras = [
        Camera(azimuth, elevation, width=SIDE, height=SIDE)
        for elevation in (-35, 0, 35)
        for azimuth in range(0, 360, 45)
    ]
    return cameras, torch.stack([seen(solid, camera, samples=128) for camera in cameras])


def seen(volume, camera, **options):
    return render(volume, camera, **options).over(torch.ones(3))


@torch.no_grad()
def worst_of_unseen_views(field):
    """The lowest peak signal-to-noise ratio, in dB, of two views that are not among `views_of_solid`."""
    cameras = (Camera(20, 15, width=SIDE, height=SIDE), Camera(200, -20, width=SIDE, height=SIDE))
    errors = [(seen(field, each) - seen(solid, each, samples=128)).square().mean().item() for each in cameras]
    return -10 * math.log10(max(errors))
