"""Meshes: closed surfaces of volumes, simplified, unwrapped, baked and sampled; triangles on pixels."""

import numpy as np
import pytest

from sfumato.errors import UsageError
from sfumato.space import libraries
from sfumato.space.camera import Camera
from sfumato.space.mesh import Mesh, looked_up, spread, surface, unit, without_degenerate
from sfumato.space.raster import rasterise

RADIUS = 0.7


@pytest.fixture(scope="module")
def ball():
    """The surface of a ball, by marching cubes."""
    z, y, x = (np.mgrid[:40, :40, :40] + 0.5) / 20 - 1
    return surface(RADIUS - np.sqrt(x * x + y * y + z * z), 0.0)


def volume(mesh):
    """By the divergence theorem."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
    return (a * np.cross(b, c)).sum() / 6


def test_the_surface_of_a_ball_is_closed_and_has_its_radius_area_and_volume(ball):
    assert ball.is_watertight
    assert np.abs(np.linalg.norm(ball.vertices, axis=1) - RADIUS).max() < 0.01
    assert np.isclose(ball.areas.sum(), 4 * np.pi * RADIUS**2, rtol=0.01)
    assert np.isclose(volume(ball), 4 / 3 * np.pi * RADIUS**3, rtol=0.01)
    outwards = ball.vertices / np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    assert (ball.normals * outwards).sum(1).min() > 0.97


def test_a_surface_that_reaches_the_edge_of_its_volume_is_closed_there():
    assert surface(np.ones((6, 7, 8)), 0.5).is_watertight


def test_an_empty_volume_has_no_surface():
    with pytest.raises(UsageError, match=r"^the volume is empty: there is no surface in it$"):
        surface(np.zeros((4, 4, 4)), 0.5)


def test_a_simplified_mesh_has_fewer_triangles_and_stays_closed(ball):
    small = ball.simplified(500)
    assert len(small.faces) <= 520
    assert small.is_watertight
    assert np.isclose(volume(small), volume(ball), rtol=0.02)
    assert len(ball.simplified(10**6).faces) == len(ball.faces)


def test_an_atlas_doubles_vertices_at_seams_and_leaves_the_surface(ball):
    small = ball.simplified(500)
    atlas = small.unwrapped()
    assert len(atlas.vertices) > len(small.vertices)
    assert atlas.uv.min() >= 0
    assert atlas.uv.max() <= 1
    assert atlas.is_watertight
    assert np.isclose(atlas.areas.sum(), small.areas.sum())
    texels = rasterise(atlas.uv * 256, np.zeros(len(atlas.uv)), atlas.faces, 256, 256, culled=False)
    parts = atlas.uv[atlas.faces] * 256
    a, b = parts[:, 1] - parts[:, 0], parts[:, 2] - parts[:, 0]
    sizes = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert np.isclose(texels.covered.sum(), sizes.sum(), rtol=0.05)  # the charts do not overlap


def test_a_baked_texture_gives_every_sampled_point_the_colour_of_its_place(ball):
    mesh = ball.simplified(800).unwrapped().baked(lambda points, normals: points / 2 + 0.5, 256)
    cloud = mesh.sampled(2000, seed=1)
    assert np.abs(cloud.colours / 255 - (cloud.points / 2 + 0.5)).max() < 0.03


def test_sampled_points_are_uniform_on_the_surface_with_its_normals(ball):
    cloud = ball.sampled(20_000)
    assert cloud.points.shape == cloud.normals.shape == (20_000, 3)
    assert np.abs(np.linalg.norm(cloud.points, axis=1) - RADIUS).max() < 0.01
    assert (cloud.normals * cloud.points).sum(1).min() > 0.95 * RADIUS
    # the height of uniform points on a sphere is uniform (Archimedes)
    heights = np.sort(cloud.points[:, 1])
    assert np.abs(heights - np.linspace(-RADIUS, RADIUS, len(heights))).max() < 0.03


def test_baking_without_an_atlas_says_what_is_missing(ball):
    with pytest.raises(UsageError, match="no UVs"):
        ball.baked(lambda points, normals: points)


@pytest.mark.parametrize(
    ("vertices", "faces", "said"),
    [
        (np.zeros((3, 3)), np.zeros((0, 3), int), "the mesh has no triangles"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "the mesh has vertices that are not finite"),
        (np.zeros((3, 3)), [[0, 1, 3]], "the mesh has triangles of vertices that it has not"),
        (np.zeros((3, 3)), [[-1, 0, 1]], "the mesh has triangles of vertices that it has not"),
    ],
)
def test_meshes_that_are_none_are_refused(vertices, faces, said):
    with pytest.raises(UsageError, match=f"^{said}$"):
        Mesh(vertices.astype(np.float32), np.asarray(faces))


def test_the_most_triangles_are_read_and_one_more_is_not(monkeypatch):
    monkeypatch.setattr("sfumato.space.mesh.MAX_FACES", 2)
    corners = np.eye(3, dtype=np.float32)
    assert len(Mesh(corners, np.array([[0, 1, 2]] * 2)).faces) == 2
    with pytest.raises(UsageError, match=r"^the mesh has 3 triangles: at most 2 are read$"):
        Mesh(corners, np.array([[0, 1, 2]] * 3))


def test_an_open_mesh_is_not_watertight():
    assert not Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]])).is_watertight


def test_the_pixels_of_a_triangle_are_those_whose_centres_it_holds_and_the_nearer_one_is_seen():
    corners = np.array([[0, 8], [8, 8], [0, 0], [0, 8], [8, 8], [0, 0]], float)
    depths = np.array([2, 2, 2, 1, 3, 1], float)
    seen = rasterise(corners, depths, np.array([[0, 1, 2], [3, 4, 5]]), 8, 8)
    y, x = np.mgrid[:8, :8] + 0.5
    assert np.array_equal(seen.covered, x <= y)
    nearer = 1 + x / 4 < 2
    assert np.array_equal(seen.face == 1, nearer & seen.covered)
    assert np.allclose(seen.depth[seen.face == 1], (1 + x / 4)[seen.face == 1])
    back = rasterise(corners, depths, np.array([[0, 2, 1]]), 8, 8)
    assert not back.covered.any()


def test_interpolation_in_perspective_finds_the_points_on_the_rays():
    camera = Camera(25, 10, width=40, height=40)
    vertices = np.array([[-0.8, -0.6, 0.7], [0.9, -0.5, -0.9], [0.1, 0.9, 0.2]])
    faces = np.array([[0, 1, 2]])
    seen = rasterise(*camera.project(vertices), faces, 40, 40, perspective=True)
    points = seen.interpolated(faces, vertices)
    pixels, depth = camera.project(points)
    assert len(points) > 100
    assert np.allclose(pixels, camera.pixel_centres().reshape(40, 40, 2)[seen.covered])
    assert np.allclose(depth, seen.depth[seen.covered])


def test_unknown_pixels_get_the_nearest_known_colour():
    values = np.zeros((1, 6, 1), np.float32)
    values[0, 0], values[0, 5] = 1, 2
    known = np.array([[True, False, False, False, False, True]])
    assert spread(values, known).ravel().tolist() == [1, 1, 1, 2, 2, 2]
    assert spread(values, known, 1).ravel().tolist() == [1, 1, 0, 0, 2, 2]


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xatlas", None)
    with pytest.raises(UsageError, match=r"shapes need xatlas: pip install 'sfumato\[three-d\]'"):
        libraries.library("xatlas")


def test_an_oblong_grid_has_its_extent_along_its_longest_axis():
    """A box of values over half of each axis, at the right end of x."""
    values = np.zeros((8, 16, 32))
    values[2:6, 4:12, 24:32] = 1
    mesh = surface(values, 0.5, extent=2.0)
    step = 4 / 32
    # the surface lies halfway to the next voxel, on the edge of the grid right beside it
    assert np.allclose(mesh.vertices.min(0), [8 * step, -4 * step, -2 * step], atol=1e-5)
    assert np.allclose(mesh.vertices.max(0)[1:], [4 * step, 2 * step], atol=1e-5)
    assert 16 * step - step / 2 <= mesh.vertices[:, 0].max() <= 16 * step + step / 2


def test_normals_are_the_mean_of_the_triangles_around_weighted_by_their_areas():
    """At the first vertex a triangle of area 2 that faces +z meets one of area ½ that faces −x."""
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    mesh = Mesh(corners, np.array([[0, 1, 2], [0, 4, 3]]))
    assert mesh.areas.tolist() == [2, 0.5]
    assert np.allclose(mesh.normals[0], np.array([-0.5, 0, 2]) / np.hypot(0.5, 2))
    assert np.allclose(mesh.normals[1:3], [0, 0, 1])
    assert np.allclose(mesh.normals[3:], [-1, 0, 0])


def test_a_fitted_mesh_fills_the_cube_along_its_longest_axis_and_is_centred():
    mesh = Mesh(np.array([[2, 0, 0], [6, 1, 0], [2, 2, 1]], np.float32), np.array([[0, 1, 2]]))
    fitted = mesh.fitted().vertices
    assert fitted.min(0).tolist() == [-1, -0.5, -0.25]
    assert fitted.max(0).tolist() == [1, 0.5, 0.25]


def test_colours_are_those_of_the_texture_of_the_vertices_or_grey():
    corners, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]])
    weights = np.array([[0.5, 0.25, 0.25]])
    assert Mesh(corners, faces).colours_at(faces, weights).tolist() == [[200, 200, 200]]
    own = np.array([[200, 0, 0], [0, 100, 0], [0, 0, 40]], np.uint8)
    coloured = Mesh(corners, faces, colours=own)
    assert coloured.colours_at(faces, weights).tolist() == [[100, 25, 10]]
    assert np.array_equal(coloured.vertex_colours, own)
    # v points upwards: the first row of the texture is at v = 1
    texture = np.array([[[0, 0, 0], [80, 0, 0]], [[0, 40, 0], [0, 0, 200]]], np.uint8)
    uv = np.array([[0.25, 0.75], [0.75, 0.75], [0.75, 0.25]], np.float32)
    textured = Mesh(corners, faces, uv, texture)
    assert textured.vertex_colours.tolist() == [[0, 0, 0], [80, 0, 0], [0, 0, 200]]
    middle = looked_up(texture, np.array([[0.5, 0.5], [0.25, 0.5], [1.25, 0.25], [0.0, 0.0]]))
    assert np.allclose(middle, [[20, 10, 50], [0, 20, 0], [0, 40, 0], [0, 40, 0]], atol=0.2)


def test_a_mesh_says_how_many_triangles_and_which_texture_it_has():
    corners, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]] * 1200)
    assert repr(Mesh(corners, faces)) == "<Mesh of 1,200 triangles, no texture>"
    texture = np.zeros((16, 32, 3), np.uint8)
    assert repr(Mesh(corners, faces, corners[:, :2], texture)).endswith("texture 32×16>")


def test_a_mesh_with_few_triangles_is_not_simplified_but_loses_its_colours():
    corners, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]])
    mesh = Mesh(corners, faces, colours=np.zeros((3, 3), np.uint8)).simplified(1)
    assert (mesh.colours, mesh.uv, mesh.texture) == (None, None, None)
    assert np.array_equal(mesh.vertices, corners)


def test_points_of_one_seed_are_the_same_and_of_another_others(ball):
    assert np.array_equal(ball.sampled(50, 3).points, ball.sampled(50, 3).points)
    assert not np.array_equal(ball.sampled(50, 3).points, ball.sampled(50).points)
    assert np.array_equal(ball.sampled(50, 0).points, ball.sampled(50).points)
    assert np.allclose(np.linalg.norm(ball.sampled(50).normals, axis=1), 1)


def test_vertices_at_one_place_become_one_and_triangles_of_them_go():
    corners = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    mesh = without_degenerate(Mesh(corners, np.array([[4, 2, 3], [1, 4, 2], [2, 3, 3]])))
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2]]


def test_vectors_of_no_length_stay_as_they_are():
    assert unit(np.array([[3.0, 0, 4], [0, 0, 0]])).tolist() == [[0.6, 0, 0.8], [0, 0, 0]]
