"""Meshes textured view by view, by painters whose colours are known."""

import numpy as np
import pytest

import sfumato
from sfumato.errors import UsageError
from sfumato.expansion import expand
from sfumato.space.mesh import Mesh, surface
from sfumato.space.shape import Shape
from sfumato.space.texturing import SIDES, Texturing
from sfumato.studio.texturing import TextureDrawing

SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def ball(side=24):
    z, y, x = (np.mgrid[:side, :side, :side] + 0.5) / side * 2 - 1
    return surface(0.7 - np.sqrt(x * x + y * y + z * z), level=0.0)


def truth(points):
    """A colour (N, 3) in [0, 1] for every place."""
    return 0.5 + 0.4 * np.sin(3 * points)


def painted(mesh, paint, size=64):
    """`mesh`, each view of it painted by `paint(points, pictured)` where it is covered."""
    texturing = Texturing(mesh, size)
    for side in SIDES:
        view = texturing.view(texturing.camera(*side))
        if view is not None:
            picture, covered = view.picture.copy(), view.seen.covered
            points = view.seen.interpolated(texturing.mesh.faces, texturing.mesh.fitted().vertices)
            picture[covered] = np.rint(255 * paint(points, picture[covered] / 255))
            texturing.paint(view, picture)
    return texturing


def test_a_colour_of_every_place_is_found_again_on_the_surface():
    texturing = painted(ball(), lambda points, pictured: truth(points))
    made = texturing.finished()
    cloud = made.sampled(4000)
    shown = truth(cloud.points / np.abs(made.vertices).max())
    assert texturing.unseen < 0.01
    assert np.abs(cloud.colours / 255 - shown).mean() < 0.02
    assert made.seam_difference < 6
    assert made.is_watertight


def test_what_was_painted_squarely_stays_and_the_rest_is_drawn():
    texturing = Texturing(ball(), 96)
    first = texturing.view(texturing.camera(0, 10))
    assert texturing.unseen == 1
    assert np.array_equal(first.drawn, first.seen.covered)
    assert np.ptp(first.picture[first.drawn], axis=1).max() == 0  # grey before anything is painted
    texturing.paint(first, np.full((96, 96, 3), (200, 30, 30), np.uint8))
    assert texturing.view(texturing.camera(0, 10)) is None
    side = texturing.view(texturing.camera(60, 10))
    assert 0.3 < side.drawn.sum() / side.seen.covered.sum() < 0.9
    assert side.drawn[:, 64:].sum() > side.drawn[:, :32].sum()
    # the colours are continued over what was not painted
    assert np.abs(side.picture[side.seen.covered].astype(int) - (200, 30, 30)).max() <= 1
    assert side.edges[~side.seen.covered][0] == 0
    assert side.edges.any()


def test_views_of_different_brightness_run_into_each_other():
    shades = iter((0.4, 0.6, 0.45, 0.55, 0.5, 0.6, 0.4, 0.5))

    def paint(points, pictured):
        return np.full_like(points, next(shades))

    made = Shape(painted(ball(), paint).finished())
    for azimuth in (30, 90, 150, 210, 270, 330):
        seen = np.asarray(made.render(azimuth, 10, size=96, shaded=False, background=None)).astype(int)
        inside = (seen[:, 1:, 3] == 255) & (seen[:, :-1, 3] == 255)
        # the views differ by up to 51
        assert np.abs(np.diff(seen[..., 0], axis=1))[inside].max() < 26


@pytest.mark.parametrize(
    ("uv", "own"),
    [
        ([[0, 0], [1, 0], [1, 1], [0, 1]], True),
        ([[0, 0], [1, 0], [1, 1], [1, 0.02]], False),  # one triangle has hardly a texel
        ([[0, 0], [1, 0], [1, 1], [0.9, 0.1]], False),  # one lies on the other
        ([[0, 0], [3, 0], [3, 3], [0, 3]], False),  # the texture repeats
    ],
)
def test_uvs_are_kept_where_each_place_has_its_own_texels(uv, own):
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    mesh = Mesh(corners, SQUARE, np.array(uv, np.float32), np.full((8, 8, 3), 9, np.uint8))
    assert mesh.has_own_texels() == own
    assert np.array_equal(Texturing(mesh, 16).mesh.uv, mesh.uv) == own


def test_the_difference_at_seams_is_that_between_the_two_sides():
    """Two triangles with an edge in common, each in a half of the texture of its own grey."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    uv = np.array([[0.1, 0.1], [0.3, 0.1], [0.1, 0.3], [0.7, 0.1], [0.9, 0.3], [0.7, 0.3]], np.float32)
    texture = np.full((64, 64, 3), 100, np.uint8)
    texture[:, 32:] = 130
    mesh = Mesh(corners, np.array([[0, 1, 2], [3, 4, 5]]), uv, texture)
    assert mesh.seam_difference == pytest.approx(30)
    whole = Mesh(corners[:3], np.array([[0, 1, 2]]), uv[:3], texture)
    assert whole.seam_difference == 0


def test_an_open_mesh_is_painted_from_the_side_that_is_seen_first():
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    made = painted(Mesh(corners, SQUARE[:, ::-1]), lambda points, pictured: points * 0 + (0.2, 0.4, 0.6))
    assert np.abs(made.finished().sampled(500).colours.astype(int) - (51, 102, 153)).max() <= 1


def test_degenerate_triangles_do_no_harm_and_meshes_of_nothing_else_are_refused():
    good = ball(16)
    faces = np.concatenate([good.faces, [[0, 0, 1], [2, 2, 2]]])
    made = painted(Mesh(good.vertices, faces), lambda points, pictured: truth(points)).finished()
    assert made.texture.std() > 20
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float32)
    with pytest.raises(UsageError, match="the mesh has no area: all of its triangles are degenerate"):
        Texturing(Mesh(line, np.array([[0, 1, 2]])), 64)
    with pytest.raises(UsageError, match="vertices that are not finite"):
        Mesh(np.full((3, 3), np.nan, np.float32), np.array([[0, 1, 2]]))


def test_a_huge_mesh_is_refused_and_told_to_be_simplified(monkeypatch):
    monkeypatch.setattr("sfumato.space.texturing.MAX_TEXTURED", 100)
    with pytest.raises(UsageError, match=r"at most 100 are textured; have it simplified by giving faces"):
        Texturing(ball(16), 64)


def test_all_views_have_the_text_that_the_templates_of_the_prompt_made_at_first():
    studio = sfumato.load(device="cpu")
    drawing = TextureDrawing(studio, sfumato.Request(prompt="{red|blue|green} iron", seed=4), Shape(ball()))
    views = [drawing.texturing.view(drawing.texturing.camera(*side)) for side in SIDES[:4]]
    requests = [drawing.request_of(view, number) for number, view in enumerate(views)]
    texts = [next(expand(each)).request.prompt.partition(" iron, ")[0] for each in requests]
    assert len({*texts}) == 1
    assert texts[0] in ("red", "blue", "green")
    assert len({each.seed for each in requests}) == 4
