"""`sfumato shape` and `sfumato turntable`: meshes and points from pictures and prompts."""

import json
import signal
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from commandline import process
from shap_e_models import shap_e

import sfumato
from sfumato.cli.console import Interrupted
from sfumato.space import distillation
from sfumato.space.volume import fit
from sfumato.studio import ShapeModel

pytestmark = pytest.mark.usefixtures("kept_studios")


@pytest.fixture
def apple(tmp_path):
    """A picture of a red disc on white."""
    picture = PIL.Image.new("RGB", (96, 96), "white")
    PIL.ImageDraw.Draw(picture).ellipse((16, 16, 80, 80), "red")
    picture.save(tmp_path / "apple.png")
    return tmp_path / "apple.png"


def test_a_picture_becomes_a_mesh_that_turns(apple, tmp_path):
    made = process("shape", "apple.png", "-o", "apple.glb", "--faces", "2000", cwd=tmp_path)
    assert made == (0, "apple.glb\n", "")
    assert sfumato.Shape.open(tmp_path / "apple.glb").mesh.is_watertight
    turn = "turntable", "apple.glb", "-o", "apple.webp", "--frames", "6", "--size", "48", "--sheet"
    assert process(*turn, cwd=tmp_path)[:2] == (0, "apple-sheet.png\napple.webp\n")
    with PIL.Image.open(tmp_path / "apple.webp") as film:
        assert (film.n_frames, film.size) == (6, (48, 48))
        middle = np.asarray(film.convert("RGB"))[24, 24]
    assert middle[0] > 150 > middle[1] + 60


def test_points_are_written_instead_of_a_mesh(here, apple):
    status, out, _ = here("shape", apple, "--points", "300", "--json")
    told = json.loads(out)
    assert (status, told["path"], told["watertight"]) == (0, "apple.ply", True)
    assert b"element vertex 300\n" in Path("apple.ply").read_bytes()


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_prompt_is_drawn_and_puffed(here):
    drawn = "a red apple, 3d render", "-W", "64", "-H", "64", "--steps", "2", "--seed", "7"
    status, out, err = here("shape", *drawn, "-o", "red.obj", "--faces", "500", "--json")
    assert status == 0, err
    assert json.loads(out)["request"]["seed"] == 7
    assert sfumato.Shape.open("red.obj").mesh.texture is not None
    same = sfumato.load().shape(drawn[0], width=64, height=64, steps=2, seed=7, faces=500)
    assert np.allclose(
        same.mesh.vertices.max(0), sfumato.Shape.open("red.obj").mesh.vertices.max(0), atol=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.png"], "cannot read none.png"),
        ([""], "nothing is to be shaped: give a picture, a mesh, or a prompt in words"),
        (["apple.png", "-o", "new/apple.blend"], "unknown suffix '.blend'"),
        (["an apple", "-o", "new/apple.glb", "--steps", "-1"], "steps is -1"),
        (["apple.png", "-o", "apple.blend"], "unknown suffix '.blend'; a mesh is written as .glb"),
        (
            ["apple.png", "-o", "apple.stl", "--points", "9"],
            "unknown suffix '.stl'; points are written as .ply",
        ),
        (["apple.png", "--points", "many"], "points is 'many': must be 1 to"),
        (["apple.png", "--thickness", "9"], "thickness is 9: must be 0.05 to 2"),
        (["apple.png", "--back", "side"], "back is 'side': must be inpaint or mirror"),
        (["apple.png", "--faces", "1"], "faces is 1: must be 100"),
        (["apple.png", "--mask", "apple.glb"], "cannot read apple.glb"),
        (["apple.png", "--seed", "3"], "seed is given for a picture that is there: nothing is drawn"),
        (["an apple", "--mask", "apple.png"], "--mask is given with a prompt"),
        (["apple.png", "--method", "field"], "--method field is given with a picture"),
        (["apple.png", "rusty iron"], "a second prompt is given with a picture: it belongs to a mesh"),
        (["none.glb", "iron", "--mask", "apple.png"], "--mask is given with a mesh: it belongs to a picture"),
        (
            ["none.glb", "iron", "--method", "field"],
            "--method field is given with a mesh: it belongs to a prompt",
        ),
        (
            ["none.glb", "iron", "--back", "mirror"],
            "--back is given with a mesh: it belongs to a picture or a",
        ),
        (["none.glb", "--seed", "3"], "seed is given for a mesh that is there: nothing is drawn"),
        (
            ["none.glb", "--faces", "300"],
            "--faces is given with a mesh: it belongs to a prompt, or a mesh with",
        ),
        (["none.glb", "iron", "--steps", "-1"], "steps is -1"),
        (["none.glb"], "cannot read none.glb: No such file"),
        (["an apple", "--method", "views"], "method is 'views': must be puff or field"),
        (["an apple", "--quality", "good"], "quality is good: it belongs to the method field, not to puff"),
        (["an apple", "--objective", "sjc"], "objective is sjc: it belongs to the method field"),
        (
            ["an apple", "--method", "field", "--thickness", "0.5"],
            "thickness is 0.5: it belongs to the method",
        ),
        (
            ["an apple", "--method", "field", "--back", "mirror"],
            "back is mirror: it belongs to the method puff",
        ),
        (
            ["an apple", "--preview", "turn.webp"],
            "--preview is given with a prompt: it belongs to the method",
        ),
        (["an apple", "--method", "field", "--preview", "turn.png"], "unknown suffix '.png'; frames are"),
        (["an apple", "--quality", "best"], "quality is 'best': must be draft or good"),
        (["an apple", "--steps", "-1"], "steps is -1"),
    ],
)
def test_what_cannot_be_shaped_is_told_before_anything_is_written(here, apple, arguments, said):
    status, out, err = here("shape", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert [path.name for path in apple.parent.iterdir()] == ["apple.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.glb"], "cannot read none.glb: No such file"),
        ([""], "'.' has no suffix; a mesh is a file .glb"),
        (["none.glb", "-o", "new/none.png"], "unknown suffix '.png'; frames are written as"),
        (["apple.png"], "unknown suffix '.png'; a mesh is a file .glb"),
        (["none.glb", "-o", "none.jpg"], "unknown suffix '.jpg'; frames are written as"),
        (["none.glb", "--frames", "1"], "frames is 1: must be 2 to 360"),
        (["none.glb", "--size", "4"], "--size is '4': must be 16 to 2048"),
        (["none.glb", "--elevation", "100"], "--elevation is '100': must be −90 to 90"),
        (["none.glb", "--fps", "0"], "fps is 0"),
    ],
)
def test_what_cannot_turn_is_told_before_anything_is_written(here, apple, arguments, said):
    status, out, err = here("turntable", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert [path.name for path in apple.parent.iterdir()] == ["apple.png"]


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_mesh_is_given_a_texture_by_a_prompt(here, apple):
    assert here("shape", apple, "-o", "apple.stl", "--faces", "400")[0] == 0
    given = "rusty iron", "-W", "64", "-H", "64", "--steps", "2", "--seed", "7"
    status, out, err = here("shape", "apple.stl", *given, "-o", "iron.glb", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert (told["prompt"], told["seed"], told["watertight"]) == ("rusty iron", 7, True)
    assert told["unseen"] < 0.05
    made, before = sfumato.Shape.open("iron.glb").mesh, sfumato.Shape.open("apple.stl").mesh
    assert np.isclose(made.areas.sum(), before.areas.sum(), rtol=1e-5)
    assert made.texture.std() > 5  # it is not one colour
    shape = sfumato.load().texture("apple.stl", given[0], width=64, height=64, steps=2, seed=7)
    assert np.abs(shape.mesh.texture.astype(int) - made.texture).mean() < 1
    status, _, err = here("shape", "apple.stl", "iron", "-W", "64", "-H", "96", "-o", "tall.glb")
    assert (status, Path("tall.glb").exists()) == (2, False)
    assert "the size is 64×96: the views of a texture are square" in err


def test_a_mesh_without_a_prompt_is_written_in_another_format_or_as_points(here, apple):
    assert here("shape", apple, "-o", "apple.glb", "--faces", "400")[0] == 0
    assert here("shape", "apple.glb", "-o", "apple.obj")[0] == 0
    assert sfumato.Shape.open("apple.obj").mesh.texture is not None
    assert here("shape", "apple.glb", "--points", "50", "-o", "apple.ply")[0] == 0
    assert b"element vertex 50\n" in Path("apple.ply").read_bytes()


def test_a_missing_extra_is_named(here, apple, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    status, _, err = here("shape", apple)
    assert status == 2
    assert "shapes need skimage: pip install 'sfumato[three-d]'" in err


FIELD = (
    "a red ball",
    "--method",
    "field",
    "-W",
    "32",
    "-H",
    "32",
    "--steps",
    "3",
    "--seed",
    "1",
    "--faces",
    "300",
)


@pytest.fixture
def quick_colours(monkeypatch):
    """Two decoded views, and hardly any fitting."""
    monkeypatch.setattr(distillation, "COLOUR_VIEWS", ((0, 0), (180, 0)))
    monkeypatch.setattr(distillation, "fit", lambda *given, **how: fit(*given, **{**how, "steps": 2}))


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_field_that_is_interrupted_goes_on_with_the_same_command(here, monkeypatch, quick_colours):
    step, taken = distillation.FieldDistillation.step, []

    def interrupted(self):
        if len(taken) == 2:
            taken.append("interrupted")
            raise Interrupted(signal.SIGINT)
        taken.append(self.done)
        step(self)

    monkeypatch.setattr(distillation.FieldDistillation, "step", interrupted)
    status, out, err = here("shape", *FIELD, "-o", "ball.glb")
    assert (status, out) == (130, "")
    assert "2 of 3 steps are kept in ball.field.safetensors; the same command goes on from there" in err
    status, _, err = here("shape", *FIELD, "--steps", "4", "-o", "ball.glb")
    assert status == 2
    assert "ball.field.safetensors is of another prompt or other settings" in err
    status, out, _ = here("shape", *FIELD, "-o", "ball.glb", "--json")
    told = json.loads(out)
    assert (status, told["steps"], told["seed"], told["watertight"]) == (0, 3, 1, True)
    assert taken == [0, 1, "interrupted", 2]
    assert [path.name for path in Path().iterdir()] == ["ball.glb"]


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_the_library_distils_the_same_field(quick_colours):
    shape = sfumato.load().shape(
        "a red ball", method="field", width=32, height=32, steps=2, seed=1, faces=300
    )
    assert shape.mesh.is_watertight
    assert shape.mesh.texture is not None


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
@pytest.mark.parametrize("how", [("--objective", "vsd"), ("--quality", "good")])
def test_a_field_is_distilled_with_a_student_and_a_good_one_is_painted(here, quick, quick_colours, how):
    status, out, err = here("shape", *FIELD, *how, "-o", "ball.glb", "--json")
    assert status == 0, err
    assert json.loads(out)["watertight"]
    # the texture of one that is painted has four texels for each pixel of a view
    texture = sfumato.Shape.open("ball.glb").mesh.texture
    assert texture.shape[0] == (512 if "vsd" in how else 256)


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_field_is_seen_from_around_while_it_forms(here, quick_colours, monkeypatch):
    monkeypatch.setattr("sfumato.cli.shape.KEPT_STEPS", 2)
    assert here("shape", *FIELD, "--preview", "turn.webp", "-o", "ball.glb")[0] == 0
    with PIL.Image.open("turn.webp") as film:
        assert (film.n_frames, film.size) == (12, (32, 32))


@pytest.fixture(scope="module")
def shap_e_folders(tmp_path_factory):
    """A random model of shapes of prompts, and one of shapes of pictures."""
    folder = tmp_path_factory.mktemp("models")
    shap_e().save_pretrained(folder / "shap-e")
    shap_e(picture=True).save_pretrained(folder / "shap-e-img2img")
    return folder


@pytest.fixture
def small_grid(monkeypatch):
    """Surfaces found on few points, and few small views."""
    shape_of, views = ShapeModel.shape_of, ShapeModel.views
    monkeypatch.setattr(ShapeModel, "shape_of", partialmethod(shape_of, grid=10))
    monkeypatch.setattr(ShapeModel, "views", lambda own, latent: views(own, latent, frames=2, size=8))


def test_shap_e_makes_shapes_of_prompts_and_of_pictures(here, apple, shap_e_folders, small_grid):
    how = "--steps", "2", "--seed", "4", "-o", "red.glb", "--json"
    prompt = "shape", "a red apple", "--model", shap_e_folders / "shap-e", "--preview", "turn.webp"
    status, out, err = here(*prompt, *how)
    assert status == 0, err
    told = json.loads(out)
    assert (told["seed"], told["steps"], told["sampler"], told["spacing"]) == (4, 2, "heun", "karras")
    assert (told["prompt"], told["model"]) == ("a red apple", "shap-e")
    assert sfumato.Shape.open("red.glb").mesh.texture is not None
    with PIL.Image.open("turn.webp") as film:
        assert (film.n_frames, film.size) == (2, (8, 8))
    status, out, err = here("shape", apple, "--model", shap_e_folders / "shap-e-img2img", *how)
    assert status == 0, err
    assert json.loads(out)["prompt"] == ""


@pytest.mark.parametrize(
    ("what", "model", "more", "said"),
    [
        ("an apple", "shap-e", ["-W", "64"], "width is given, and Shap-E does not read it"),
        ("an apple", "shap-e", ["--method", "field"], "--method field is given, and Shap-E does not read"),
        ("apple.png", "shap-e", [], "shap-e makes shapes of prompts: give no picture"),
        ("an apple", "shap-e-img2img", [], "shap-e-img2img makes shapes of pictures: give a picture"),
        ("an apple", "none-such", [], "there is no model"),
    ],
)
def test_what_shap_e_cannot_use_is_told(here, apple, shap_e_folders, what, model, more, said):
    status, _, err = here("shape", what, "--model", shap_e_folders / model, "-o", "x.glb", *more)
    assert status == 2
    assert said in err, err


def test_pictures_are_not_drawn_with_shap_e(here, shap_e_folders):
    status, _, err = here("generate", "an apple", "--model", shap_e_folders / "shap-e")
    assert status == 2
    assert "is Shap-E, which makes shapes and no pictures: sfumato shape --model" in err
    status, out, err = here("inspect", shap_e_folders / "shap-e")
    assert (status, err) == (0, "")
    assert "kind: shap-e (there is shap_e_renderer)" in out
