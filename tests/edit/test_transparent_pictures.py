"""Transparent pictures and stickers, as a user draws them: library, file, record, command."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

import sfumato
from sfumato.errors import SfumatoWarning, UsageError

SMALL = {"strength": 0, "steps": 2, "width": 64, "height": 64, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def picture():
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((14, 14, 50, 50), (200, 40, 30))
    return picture


@pytest.mark.parametrize("name", ["cut.png", "cut.webp"])
def test_a_transparent_picture_is_saved_read_and_drawn_again_with_its_alpha(studio, picture, tmp_path, name):
    drawn = studio.generate("a ball", image=picture, transparent=True, **SMALL)
    assert drawn.pixels.shape == (64, 64, 4)
    assert drawn.pil.mode == "RGBA"
    assert drawn.pixels[2, 2, 3] == 0
    assert drawn.pixels[32, 32, 3] == 255
    read = sfumato.Image.open(drawn.save(tmp_path / name))
    assert read.pixels.shape == (64, 64, 4)
    assert np.array_equal(read.pixels[..., 3], drawn.pixels[..., 3])
    assert read.as_drawn == name.endswith(".png")
    assert studio.generate(read.request).differs(drawn) is None


def test_a_sticker_is_transparent_and_has_a_white_outline(studio, picture):
    drawn = studio.generate("a ball", image=picture, sticker=6, **SMALL)
    assert drawn.pixels[32, 9].tolist() == [255, 255, 255, 255]
    assert drawn.pixels[32, 2, 3] == 0


def test_previews_show_the_background_and_the_picture_does_not(studio, picture):
    fields = SMALL | {"strength": 0.5}
    *steps, last = studio.stream("a ball", image=picture, transparent=True, **fields)
    assert all(step.preview().pixels.shape == (64, 64, 3) for step in [*steps, last])
    assert last.image.pixels.shape == (64, 64, 4)


def test_a_background_that_is_not_plain_is_told_and_recorded(studio):
    slope = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (64, 64))
    with pytest.warns(SfumatoWarning, match="the background is not plain"):
        drawn = studio.generate("a slope", image=slope, transparent=True, **SMALL)
    assert "the background is not plain" in drawn.record.notes[-1]


def test_a_transparent_picture_can_be_drawn_over_where_it_is_transparent(studio, picture):
    cut = studio.generate("a ball", image=picture, transparent=True, **SMALL)
    drawn = studio.generate("a meadow", image=cut, mask="alpha", steps=1, seed=1)
    assert drawn.pixels.shape == (64, 64, 3)
    kept = cut.pixels[..., 3] == 255
    assert np.array_equal(drawn.pixels[kept], cut.pixels[kept][:, :3])


def test_a_jpeg_is_refused_before_anything_is_drawn(studio, picture, tmp_path):
    (prepared,) = studio.prepare("a ball", image=picture, transparent=True, **SMALL)
    with pytest.raises(UsageError, match="is a JPEG, which is never transparent; save as"):
        studio.check_fits(prepared, tmp_path / "ball.jpg")
