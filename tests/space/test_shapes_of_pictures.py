"""Pictures puffed to closed meshes, and their files read back."""

import json

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import trimesh

from sfumato.errors import OutputError, UsageError
from sfumato.space.camera import Camera
from sfumato.space.mesh import Mesh
from sfumato.space.puff import cropped, squared_height
from sfumato.space.render import render_mesh
from sfumato.space.shape import Shape

SIZE = 160


def picture(draw, background=(255, 255, 255)):
    """A picture with smooth edges, drawn at four times its size by `draw(pen)`."""
    large = PIL.Image.new("RGB", (4 * SIZE, 4 * SIZE), background)
    draw(PIL.ImageDraw.Draw(large))
    return large.resize((SIZE, SIZE), PIL.Image.Resampling.BOX)


def disc(pen):
    pen.ellipse((100, 100, 540, 540), "red")


def face(pen):
    """A head with ears, eyes and a thin tail beside it."""
    pen.polygon([(150, 300), (170, 60), (300, 170), (420, 60), (450, 300)], "orange")
    pen.ellipse((120, 140, 480, 500), "orange")
    pen.ellipse((210, 260, 260, 320), "black")
    pen.ellipse((340, 260, 390, 320), "black")
    pen.line((440, 440, 600, 560), "brown", 24)


@pytest.fixture(scope="module")
def apple():
    return Shape.of_picture(picture(disc), faces=6000)


def silhouette(mesh, alpha):
    """Intersection over union of the mesh's outline from the front and what `alpha` covers."""
    side = max(alpha.shape)
    camera = Camera(distance=1, fov=90, width=side, height=side, orthographic=True)
    seen = np.asarray(render_mesh(mesh, camera))[..., 3] > 127
    wanted = np.zeros((side, side), bool)
    top, left = ((side - each) // 2 for each in alpha.shape)
    wanted[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha > 127
    return (seen & wanted).sum() / (seen | wanted).sum()


def test_the_height_over_a_disc_is_that_of_a_ball():
    """∇²h² = −4 with h = 0 at radius R has the solution h² = R² − r²."""
    y, x = np.mgrid[:81, :81] - 40.0
    r = np.hypot(x, y)
    found = squared_height((30.3 - r + 0.5).clip(0, 1))
    inside = r < 29
    assert np.abs(found - (30.3**2 - r**2))[inside].max() < 12  # 2 % of its height of 918, less in h
    assert (found[r > 31] < 0).all()


def test_a_disc_becomes_a_ball(apple):
    radii = np.linalg.norm(apple.mesh.vertices, axis=1)
    assert apple.mesh.is_watertight
    assert radii.min() > 0.96
    assert radii.max() < 1.03


@pytest.mark.parametrize("draw", [disc, face])
def test_the_outline_from_the_front_is_that_of_the_picture(draw):
    drawn = picture(draw)
    white = np.asarray(drawn).min(axis=2) < 128
    rgba = np.dstack([np.asarray(drawn), white * np.uint8(255)])
    mesh = Shape.of_picture(drawn).mesh
    assert mesh.is_watertight
    assert silhouette(mesh, cropped(rgba)[..., 3]) >= 0.97


def test_the_rim_shows_no_background_and_the_back_no_face():
    shape = Shape.of_picture(picture(face))
    for azimuth in range(0, 360, 45):
        seen = np.asarray(shape.render(azimuth, background=None, shaded=False, size=128)).astype(int)
        body = seen[..., 3] == 255
        assert seen[body][:, 2].max() < 110, azimuth  # neither orange, brown nor black has blue

    def eyes(shape, azimuth):
        seen = np.asarray(shape.render(azimuth, 0, background=None, shaded=False, size=128)).astype(int)
        return ((seen[..., 3] == 255) & (seen[..., :3].max(axis=2) < 60)).sum()

    mirrored = Shape.of_picture(picture(face), back="mirror")
    assert eyes(shape, 0) > 50
    assert eyes(shape, 180) == 0
    assert eyes(mirrored, 180) > 50


def test_the_front_shows_the_picture_where_it_was():
    seen = np.asarray(Shape.of_picture(picture(face)).render(0, 0, shaded=False, size=200)).astype(int)
    tail = (np.abs(seen - (165, 42, 42)).max(axis=2) < 40).nonzero()
    assert tail[1].mean() > 120  # to the right
    assert tail[0].mean() > 110  # below


def test_a_cut_out_object_keeps_one_pixel_of_margin_and_loses_specks_beside_it():
    rgba = np.zeros((400, 500, 4), np.uint8)
    rgba[100:200, 150:400] = 255
    rgba[300, 30] = 255  # a speck
    found = cropped(rgba)
    assert found.shape == (102, 252, 4)
    assert found[1:-1, 1:-1, 3].all()
    assert not found[0, :, 3].any()
    assert not found[:, 0, 3].any()
    whole = cropped(np.full((5, 6, 4), 255, np.uint8))
    assert whole.shape == (5, 6, 4)
    with pytest.raises(UsageError, match=r"^the mask is less than 3 pixels wide or high: give a larger one$"):
        cropped(rgba[98:102])


def test_front_and_back_have_a_half_of_the_texture_each_and_are_not_mixed():
    """Half a texel stays free on both sides of the seam between the halves."""
    whole = PIL.Image.new("L", (SIZE, SIZE), 255)
    mesh = Shape.of_picture(picture(disc), whole, faces=3000).mesh
    width = mesh.texture.shape[1] / 2
    u, corners = mesh.uv[:, 0], mesh.vertices[mesh.faces]
    front = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] >= 0
    assert u[mesh.faces[front]].max() <= 0.5 - 0.25 / width + 1e-6
    assert u[mesh.faces[~front]].min() >= 0.5 + 0.25 / width - 1e-6
    assert u.min() >= 0.25 / width - 1e-6
    assert u.max() <= 1 - 0.25 / width + 1e-6


def test_half_the_thickness_halves_the_depth(apple):
    flat = Shape.of_picture(picture(disc), thickness=0.5, faces=6000).mesh.vertices
    assert np.isclose(np.ptp(flat[:, 2]), np.ptp(apple.mesh.vertices[:, 2]) / 2, rtol=0.03)
    assert np.isclose(np.ptp(flat[:, 0]), np.ptp(apple.mesh.vertices[:, 0]), rtol=0.01)


def test_an_object_is_what_a_mask_or_the_pictures_own_alpha_says():
    noisy = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.raises(UsageError, match=r"the background is not plain .* give a mask"):
        Shape.of_picture(noisy)
    mask = PIL.Image.new("L", (64, 64))
    PIL.ImageDraw.Draw(mask).rectangle((10, 20, 50, 40), 255)
    assert Shape.of_picture(noisy, mask).mesh.is_watertight
    noisy.putalpha(mask)
    assert Shape.of_picture(noisy).mesh.is_watertight


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mask": PIL.Image.new("L", (SIZE, SIZE))}, "the mask is empty"),
        ({"mask": PIL.Image.new("L", (5, 5), 255)}, "the mask has 5×5 pixels and the picture 160×160"),
        ({"thickness": 0}, "thickness is 0: must be 0.05 to 2"),
        ({"back": "front"}, "back is 'front': must be inpaint or mirror"),
        ({"faces": 3}, "faces is 3: must be 100"),
    ],
)
def test_what_cannot_be_puffed_is_told(fields, said):
    with pytest.raises(UsageError, match=said):
        Shape.of_picture(picture(disc), **fields)


def test_a_large_picture_and_its_mask_are_looked_at_in_the_size_of_a_texture(monkeypatch):
    seen = []
    monkeypatch.setattr("sfumato.space.shape.puffed", lambda rgba, **options: seen.append(rgba))
    picture, mask = PIL.Image.new("RGB", (3072, 1536), "red"), PIL.Image.new("L", (3072, 1536), 0)
    mask.paste(255, (1024, 512, 2048, 1024))
    Shape.of_picture(picture, mask)
    assert seen[0].shape == (768, 1536, 4)
    assert (seen[0][..., 3] > 127).sum() == 256 * 512


def test_a_picture_without_an_object_is_told():
    with pytest.raises(UsageError, match="the mask is empty: nothing stands out"):
        Shape.of_picture(PIL.Image.new("RGB", (40, 40), "white"))


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".obj"])
def test_a_file_holds_the_mesh_with_its_texture(apple, tmp_path, suffix):
    path = apple.save(tmp_path / f"apple{suffix}")
    again = Shape.open(path).mesh
    assert again.is_watertight
    assert len(again.faces) == len(apple.mesh.faces)
    assert np.array_equal(again.texture, apple.mesh.texture)
    assert np.abs(np.sort(again.uv, 0) - np.sort(apple.mesh.uv, 0)).max() < 1e-5
    one, other = (np.asarray(each.render(30)).astype(int) for each in (apple, Shape(again)))
    assert np.abs(one - other).mean() < 0.5
    loaded = trimesh.load_mesh(path)  # as another program reads it
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight
    assert loaded.visual.uv is not None


def test_stl_holds_the_surface_and_ply_the_colours_too(apple, tmp_path):
    for suffix in (".stl", ".ply"):
        again = Shape.open(apple.save(tmp_path / f"apple{suffix}")).mesh
        assert again.is_watertight
        assert np.isclose(again.areas.sum(), apple.mesh.areas.sum(), rtol=1e-4)
    assert (again.colours[:, 0] > 200).all()


def test_points_have_normals_and_colours(apple, tmp_path):
    cloud = trimesh.load(apple.save(tmp_path / "points.ply", points=500))
    assert cloud.vertices.shape == (500, 3)
    assert (np.asarray(cloud.colors)[:, 0] > 200).all()
    held = np.load(apple.save(tmp_path / "points.npz", points=500))
    assert np.allclose(held["points"], cloud.vertices)
    assert (np.einsum("nc,nc->n", held["normals"], held["points"]) > 0.8).all()
    with pytest.raises(UsageError, match="points is 0: must be 1 to"):
        apple.save(tmp_path / "none.ply", points=0)


def test_a_volume_holds_distances_from_the_surface_and_its_colours(apple, tmp_path):
    moved = Mesh(apple.mesh.vertices * 3 + 5, apple.mesh.faces, apple.mesh.uv, apple.mesh.texture)
    path = Shape(moved).save(tmp_path / "apple.npz")
    with np.load(path) as held:
        distances, centre, extent = (held[name] for name in ("distances", "centre", "extent"))
        red = held["colours"].reshape(-1, 3).mean(0)
    axis = ((np.arange(len(distances)) + 0.5) / len(distances) * 2 - 1) * extent
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = (np.ptp(moved.vertices, axis=0) / 2).mean()
    assert np.allclose(centre, 5, atol=0.05)
    assert (
        np.abs(distances - (radius - np.sqrt(x * x + y * y + z * z))).max() < 0.15
    )  # of 6: it is no exact ball
    assert red[0] > 200 > 60 > red[1]
    again = Shape.open(path).mesh
    assert again.is_watertight
    assert np.isclose(again.areas.sum(), moved.areas.sum(), rtol=0.02)
    assert (again.vertex_colours[:, 0] > 200).all()


def test_an_open_mesh_has_no_volume_and_other_arrays_are_none(tmp_path):
    corners = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32)
    with pytest.raises(UsageError, match="the mesh is open: only a closed one has a volume"):
        Shape(Mesh(corners, np.array([[0, 1, 2]]))).save(tmp_path / "open.npz")
    assert not list(tmp_path.iterdir())
    good = {"distances": np.zeros((4, 4, 4)), "colours": np.zeros((4, 4, 4, 3)), "centre": np.zeros(3)}
    for held, said in (
        ({"points": np.zeros((5, 3))}, "is no volume: it has no distances, colours, centre, extent"),
        ({**good, "extent": 0}, "extent more than 0"),
        ({**good, "extent": 1, "distances": np.full((4, 4, 4), np.nan)}, "must be finite"),
        ({**good, "extent": 1, "centre": np.zeros(2)}, r"centre \(3,\)"),
        ({**good, "extent": 1}, "the volume is empty"),
    ):
        np.savez(tmp_path / "held.npz", **held)
        with pytest.raises(UsageError, match=said):
            Shape.open(tmp_path / "held.npz")


def test_files_that_are_no_meshes_are_refused(apple, tmp_path):
    damaged, empty = tmp_path / "damaged.glb", tmp_path / "empty.obj"
    damaged.write_bytes(b"glTF" + bytes(100))
    empty.write_text("v 0 0 0\n")
    for path, said in (
        (damaged, "damaged.glb is no mesh that can be read"),
        (empty, r"empty.obj (has no triangles|is no mesh)"),
        (tmp_path / "none.glb", "cannot read .*none.glb: No such file"),
        (tmp_path / "mesh.blend", "unknown suffix '.blend'; a mesh is a file .glb"),
    ):
        with pytest.raises(UsageError, match=said):
            Shape.open(path)
    with pytest.raises(UsageError, match=r"unknown suffix '.png'"):
        apple.save(tmp_path / "apple.png")
    with pytest.raises(OutputError):
        apple.save(tmp_path / "nowhere" / "apple.glb")


def test_a_mesh_of_one_colour_has_it_at_every_vertex(tmp_path):
    one = trimesh.creation.box()
    one.visual = trimesh.visual.TextureVisuals(
        material=trimesh.visual.material.PBRMaterial(baseColorFactor=[200, 30, 60, 255])
    )
    (tmp_path / "box.glb").write_bytes(one.scene().export(file_type="glb"))
    found = Shape.open(tmp_path / "box.glb").mesh
    assert found.colours.tolist() == [[200, 30, 60]] * len(found.vertices)


def test_a_shape_is_lit_from_beside_the_camera_unless_its_bare_colours_are_asked_for(apple):
    """Lambert's law on a ball: as bright as its own colour where it faces the light."""
    lit, bare = (np.asarray(apple.render(0, 0, size=96, **more)) for more in ({}, {"shaded": False}))
    inside = np.hypot(*(np.mgrid[:96, :96] + 0.5 - 48)) < 25
    assert np.ptp(bare[inside][:, 0]) <= 2
    share = lit[..., 0] / bare[..., 0].max()
    y, x = np.argwhere(np.where(inside, share, 0) > 0.995).mean(0)
    assert x < 44  # the light comes from the left
    assert y < 40  # and from above
    assert share[inside].max() > 0.98
    assert share[47:49, 18:78].min() < 0.9


def test_an_open_mesh_is_seen_from_both_sides():
    corners = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32)
    shape = Shape(Mesh(corners, np.array([[0, 1, 2]]), colours=np.full((3, 3), 200, np.uint8)))
    front, back = (np.asarray(shape.render(azimuth, 0, background=None)) for azimuth in (0, 180))
    assert front[..., 3].any()
    assert np.array_equal(front[..., 3], back[:, ::-1, 3])


def test_a_large_mesh_is_centred_and_scaled_to_be_seen(apple):
    moved = Shape(Mesh(apple.mesh.vertices * 50 + 700, apple.mesh.faces, apple.mesh.uv, apple.mesh.texture))
    one, other = (np.asarray(each.render(20)).astype(int) for each in (apple, moved))
    assert np.abs(one - other).mean() < 0.5


def test_a_colour_and_a_seed_that_are_none_are_told(apple):
    with pytest.raises(UsageError, match="background is 'nocolour': unknown color specifier"):
        apple.render(size=16, background="nocolour")
    with pytest.raises(UsageError, match="seed is -1: must be a whole number from 0"):
        apple.points(5, seed=-1)


def test_a_turntable_goes_all_the_way_round(apple):
    pictures = apple.turntable(4, size=64)
    assert [each.size for each in pictures] == [(64, 64)] * 4
    assert np.array_equal(pictures[1], apple.render(90, size=64))
    assert apple.sheet(size=64).width == 4 * 64
    with pytest.raises(UsageError, match="frames is 1"):
        apple.turntable(1)


def test_the_gltf_is_one_file_with_normals_and_a_texture(apple, tmp_path):
    held = json.loads(apple.save(tmp_path / "apple.gltf").read_text())
    assert all(each["uri"].startswith("data:") for each in held["buffers"])
    (primitive,) = held["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= primitive["attributes"].keys()
    assert held["images"][0]["mimeType"] == "image/png"
