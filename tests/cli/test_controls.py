"""Controls on the command line and in the library: what is given, drawn, recorded and drawn again."""

import json
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import sfumato
from sfumato import checkpoint, metadata
from sfumato.cli.options import control
from sfumato.control import Control
from sfumato.edit.control_pictures import canny, control_picture
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.nets.inference import unpacked
from sfumato.train.objectives.controlnet import ControlNetTraining

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SIZE = ("-W", "64", "-H", "64", "--steps", "4", "--seed", "1", "--dtype", "float32")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A folder that has a ControlNet for the embedded model, its outputs random."""
    from sfumato.checkpoint.saving import save_network

    unet = unpacked(checkpoint.load("embedded", dtype=torch.float32).unet)
    torch.manual_seed(0)
    net = ControlNetTraining(attention=False, embedding_channels=(4, 4, 4, 4)).network(unet)
    for last in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(last.weight, std=0.1)
    folder = tmp_path_factory.mktemp("controls") / "lines"
    folder.mkdir()
    save_network(folder, "controlnet", net, torch.float16)
    return folder


@pytest.fixture
def drawing(tmp_path):
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:30, 20:40] = 0
    PIL.Image.fromarray(pixels).save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("edges:a.png", {"model": "edges", "image": "a.png"}),
        ("edges:canny:a.png", {"model": "edges", "preprocessor": "canny", "image": "a.png"}),
        ("org/net:invert:a b.png", {"model": "org/net", "preprocessor": "invert", "image": "a b.png"}),
        ("net:a.png:0.8", {"model": "net", "image": "a.png", "weight": "0.8"}),
        ("n:a.png:1:0.2-0.5", {"model": "n", "image": "a.png", "weight": "1", "start": "0.2", "end": "0.5"}),
        (r"C:\net:D:\a.png:2", {"model": r"C:\net", "image": r"D:\a.png", "weight": "2"}),
        ("./canny:a.png", {"model": "./canny", "image": "a.png"}),
    ],
)  # fmt: skip
def test_an_option_is_read_as_its_parts(text, given):
    assert control(text) == given


@pytest.mark.parametrize("text", ["", "edges", "edges:", ":a.png"])
def test_an_option_without_a_model_or_a_picture_is_refused(text):
    with pytest.raises(UsageError, match=r"must be MODEL:IMAGE\[:WEIGHT\[:START-END\]\]"):
        control(text)


def test_the_command_draws_by_a_picture_and_replays_it_from_the_record_alone(
    here, tmp_path, untrained, drawing
):
    line = ("--control", f"{untrained}:canny:drawing.png:0.9:0-0.75", "--json", "-o", "steered.png")
    status, out, _ = here("generate", "a lemon", *line, *SIZE)
    assert status == 0
    (given,) = json.loads(out)["request"]["controls"]
    assert given["image"] == {"name": "drawing.png", "sha256": given["image"]["sha256"], "data": None}
    record = metadata.read(tmp_path / "steered.png")
    (kept,) = record.request.controls
    assert (kept.weight, kept.start, kept.end, kept.preprocessor) == (0.9, 0.0, 0.75, "canny")
    assert kept.image.data == drawing.read_bytes()
    assert record.controls.keys() == {str(untrained)}
    assert here("generate", "a lemon", "-o", "plain.png", *SIZE)[0] == 0
    pixels = [np.asarray(PIL.Image.open(tmp_path / name)) for name in ("steered.png", "plain.png")]
    assert np.abs(pixels[0].astype(int) - pixels[1]).mean() > 1
    drawing.unlink()
    status, out, _ = here("replay", "steered.png")
    assert (status, out) == (0, "identical: steered.png\n")


def test_a_record_that_leaves_pictures_out_leaves_out_those_of_controls(here, tmp_path, untrained, drawing):
    line = ("--control", f"{untrained}:drawing.png", "--no-embed", "-o", "steered.png")
    assert here("generate", "a lemon", *line, *SIZE)[0] == 0
    request = metadata.read(tmp_path / "steered.png").request
    assert request.controls[0].image.data is None
    assert [each.name for each in request.inputs.values()] == ["drawing.png"]
    assert here("replay", "steered.png")[0] == 0
    drawing.unlink()
    status, _, err = here("replay", "steered.png")
    assert status != 0
    assert "drawing.png" in err


def test_weights_and_parts_of_the_steps_of_no_effect_draw_as_if_nothing_were_given(untrained, drawing):
    studio = sfumato.load(device="cpu", dtype="float32")
    fields = {"width": 64, "height": 64, "steps": 4, "seed": 1}
    plain = studio.generate("a lemon", **fields)
    given = {"model": str(untrained), "image": drawing}
    for idle in ({"weight": 0}, {"start": 0.9, "end": 1.0}):
        assert np.array_equal(
            studio.generate("a lemon", controls={**given, **idle}, **fields).pixels, plain.pixels
        )
    steered = studio.generate("a lemon", controls=Control(**given), **fields)
    assert not np.array_equal(steered.pixels, plain.pixels)
    batch = studio.generate_batch(["a lemon", "a lemon"], controls=[given], **fields)
    assert np.array_equal(batch[0].pixels, steered.pixels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "nowhere.png"}, "controls.0.image is 'nowhere.png': cannot read nowhere.png"),
        ({"weight": 3}, "controls.0.weight is 3: must be at most 2"),
        ({"start": 0.5, "end": 0.5}, "start 0.5 is not before end 0.5"),
        ({"preprocessor": "cany"}, "controls.0.preprocessor is 'cany': not supported; did you mean 'canny'"),
        ({"strength": 1}, "controls.0.strength is 1: no such key is known"),
    ],
)
def test_a_wrong_control_is_one_line_that_says_what_would_be_right(drawing, fields, message):
    with pytest.raises(UsageError, match=message):
        sfumato.Request("x", controls={"model": "edges", "image": drawing, **fields})


def test_a_control_that_is_not_here_is_told_before_anything_is_drawn(drawing):
    studio = sfumato.load(device="cpu")
    with pytest.raises(sfumato.SfumatoError, match="there is no control 'edgs'"):
        studio.prepare("x", controls={"model": "edgs", "image": drawing})


def test_canny_finds_the_border_of_a_square(drawing):
    edges = canny(np.asarray(PIL.Image.open(drawing)))
    assert set(np.unique(edges)) == {0, 255}
    assert 60 <= (edges > 0).sum() <= 100
    rows, columns = np.nonzero(edges)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((10, 30, 20, 40), abs=1.5)


def test_a_picture_is_resized_to_the_drawing_before_its_preprocessor(drawing):
    image = InputImage.of(drawing)
    plain, inverted, edges = (
        control_picture(image, name, (120, 160)) for name in ("none", "invert", "canny")
    )
    assert plain.shape == inverted.shape == edges.shape == (1, 3, 160, 120)
    assert torch.allclose(plain + inverted, torch.ones(1))
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(
        edges[0, 0] * 255,
        torch.from_numpy(canny((plain[0] * 255).round().byte().permute(1, 2, 0).numpy())).float(),
    )


def test_canny_without_opencv_says_what_to_install(drawing, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"needs opencv: pip install 'sfumato\[control\]'"):
        control_picture(InputImage.of(drawing), "canny", (64, 64))


def test_the_embedded_control_follows_the_edges_of_a_picture():
    studio = sfumato.load()
    apple = studio.generate("a red apple, 3d render", seed=7, steps=8)
    edges = {"model": "edges", "image": apple, "preprocessor": "canny"}
    fields = {"seed": 1, "steps": 8}
    plain = studio.generate("a full moon, noto style", **fields)
    steered = studio.generate("a full moon, noto style", controls=edges, **fields)

    def overlap(picture):
        shapes = [(255 - each.pixels.min(axis=2)) > 40 for each in (apple, picture)]
        return (shapes[0] & shapes[1]).sum() / (shapes[0] | shapes[1]).sum()

    assert overlap(steered) > 0.87
    assert overlap(steered) > overlap(plain) + 0.05
