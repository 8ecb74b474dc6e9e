"""Volume rendering in closed form, and a field fitted to views of a procedural solid."""

import math

import pytest
import torch
from solids import views_of_solid, worst_of_unseen_views

from sfumato.errors import NumericsError
from sfumato.space.camera import Camera
from sfumato.space.volume import VoxelField, fit, render, render_rays

RADIUS = 0.6


def ball(density):
    """A homogeneous ball, as bright as its distance from the middle."""

    def volume(points):
        distance = points.norm(dim=1)
        return density * (distance < RADIUS).float(), distance[:, None]

    return volume


def chords(camera):
    """For each pixel's ray the length within the ball, and the distance at which it enters it."""
    origins, directions = (torch.from_numpy(each) for each in camera.rays())
    along = -(origins * directions).sum(1)
    half = (RADIUS**2 - (origins + along[:, None] * directions).square().sum(1)).clamp(min=0).sqrt()
    return 2 * half, along - half


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_dense_ball_renders_its_analytic_silhouette_and_depth(orthographic):
    camera = Camera(40, 20, width=64, height=64, orthographic=orthographic)
    seen = render(ball(500.0), camera, samples=512)
    length, entered = chords(camera)
    clear = (length == 0) | (length > 0.15)
    assert torch.equal((seen.opacity > 0.5)[clear], (length > 0)[clear])
    hit = length > 0.15
    assert hit.sum() > 300
    assert (seen.depth[hit] - entered[hit]).abs().max() < 0.01
    assert (seen.depth[length == 0] == 0).all()


def test_the_opacity_of_a_thin_ball_is_that_of_its_chords():
    """Beer and Lambert: 1 − exp(−σ·l)."""
    camera = Camera(width=32, height=32)
    seen = render(ball(1.5), camera, samples=1024)
    length, _ = chords(camera)
    assert torch.allclose(seen.opacity.double(), 1 - torch.exp(-1.5 * length), atol=0.006)


def test_chunks_and_the_background_change_nothing_that_is_opaque():
    camera = Camera(width=16, height=16)
    origins, directions = (torch.from_numpy(each).float() for each in camera.rays())
    whole = render_rays(ball(500.0), origins, directions, samples=64)
    parts = render_rays(ball(500.0), origins, directions, samples=64, chunk=1000)
    assert torch.allclose(whole.features, parts.features)
    assert torch.allclose(whole.weights, parts.weights)
    opaque = whole.opacity > 0.999
    white, black = whole.over(torch.ones(1)), whole.over(torch.zeros(1))
    assert torch.allclose(white[opaque], black[opaque], atol=0.002)
    assert torch.equal(white[whole.opacity == 0], torch.ones_like(white[whole.opacity == 0]))


def test_the_gradient_of_a_pixel_is_that_of_finite_differences():
    field = VoxelField(4, 1).double()
    for part in field.parameters():
        torch.nn.init.normal_(part, std=0.5, generator=torch.Generator().manual_seed(0))
    origins = torch.tensor([[0.2, 0.1, 3.0]], dtype=torch.float64)
    directions = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)

    def pixel(density, features):
        field.density.data, field.features.data = density, features
        return render_rays(field, origins, directions, samples=32).features.sum()

    start = [part.detach().clone() for part in field.parameters()]
    pixel(*start).backward()
    gradients = [part.grad.clone() for part in field.parameters()]
    ways = [torch.randn(part.shape, dtype=torch.float64) for part in start]
    with torch.no_grad():
        after, before = (
            pixel(*(part + step * way for part, way in zip(start, ways, strict=True)))
            for step in (1e-5, -1e-5)
        )
    slope = sum((one * way).sum() for one, way in zip(gradients, ways, strict=True))
    assert math.isclose((after - before) / 2e-5, slope, rel_tol=1e-6)


def test_a_field_holds_nothing_outside_and_its_voxels_centres_exactly():
    field = VoxelField(4, 2, extent=0.8)
    field.features.data = torch.arange(2 * 64, dtype=torch.float32).view(1, 2, 4, 4, 4)
    x, y, z = 0.2, -0.2, 0.6  # the centres of voxels (2, 1, 3)
    density, features = field(torch.tensor([[x, y, z], [0.9, 0.0, 0.0]]))
    assert torch.allclose(features[0], field.features[0, :, 3, 1, 2])
    assert density[0] > 0
    assert density[1] == 0


def test_a_field_fitted_to_views_of_a_solid_shows_views_that_it_has_not_seen():
    cameras, views = views_of_solid()
    field = VoxelField(32, 3)
    fit(field, cameras, views, samples=48)
    assert worst_of_unseen_views(field) >= 28


def test_a_field_that_is_not_finite_is_told():
    field = VoxelField(4, 1)
    field.density.data[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericsError, match="not finite"):
        field.check_finite()
