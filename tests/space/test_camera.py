"""Cameras in OpenGL's conventions: where they are, what they see, and back."""

import numpy as np
import pytest

from sfumato.errors import UsageError
from sfumato.space.camera import Camera


def test_the_axes_are_those_of_opengl():
    assert np.allclose(Camera(0, 0, distance=3).position, [0, 0, 3])
    assert np.allclose(Camera(90, 0, distance=3).position, [3, 0, 0])
    assert np.allclose(Camera(0, 90, distance=3).position, [0, 3, 0])
    camera = Camera(30, 20)
    assert np.allclose(camera.rotation.T @ camera.rotation, np.eye(3))
    assert np.isclose(np.linalg.det(camera.rotation), 1)
    assert np.allclose((camera.view @ [*camera.position, 1])[:3], 0)
    assert np.allclose(camera.view @ [0, 0, 0, 1], [0, 0, -camera.distance, 1])


@pytest.mark.parametrize("camera", [Camera(), Camera(width=80, height=50)])
def test_right_is_right_and_up_is_up(camera):
    (centre, right, up), depth = camera.project(np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]))
    assert np.allclose(centre, [camera.width / 2, camera.height / 2])
    assert right[0] > centre[0]
    assert np.isclose(right[1], centre[1])
    assert up[1] < centre[1]
    assert np.allclose(depth, camera.distance)


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_point_along_a_pixels_ray_is_projected_to_the_pixel(orthographic):
    camera = Camera(123, -34, fov=55, width=31, height=17, orthographic=orthographic)
    pixels = np.random.default_rng(0).uniform(0, 17, (50, 2))
    origins, directions = camera.rays_at(pixels)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    for distance in (0.5, 2.0, 7.0):
        found, depth = camera.project(origins + distance * directions)
        assert np.allclose(found, pixels)
        assert np.allclose(depth, distance * directions @ -camera.rotation[:, 2])


def test_the_top_of_the_picture_is_half_the_angle_of_view_above_the_middle():
    camera = Camera(fov=60, distance=2, width=10, height=10)
    _, (direction,) = camera.rays_at(np.array([[5.0, 0.0]]))
    assert np.isclose(np.degrees(np.arctan2(direction[1], -direction[2])), 30)


def test_a_parallel_view_shows_of_the_plane_through_the_origin_what_a_perspective_view_shows():
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3)) * [1, 1, 0]
    assert np.allclose(Camera().project(points)[0], Camera(orthographic=True).project(points)[0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"elevation": 91}, "elevation is 91: must be −90 to 90"),
        ({"azimuth": float("nan")}, "azimuth is nan: must be a number"),
        ({"fov": 180}, "fov is 180: must be between"),
        ({"distance": 0}, "distance is 0: must be more"),
        ({"width": 0}, "width is 0: must be 1 to 4096"),
    ],
)
def test_cameras_that_see_nothing_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        Camera(**fields)
