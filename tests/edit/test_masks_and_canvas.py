"""What is drawn of a picture, and how it is put back: masks, crops, fillings, in closed form."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from sfumato.edit.canvas import canvas_of, drawn_size, filled
from sfumato.edit.masks import bounds, cells, feathered
from sfumato.errors import PictureError, UsageError
from sfumato.inputs import InputImage
from sfumato.request import Request

NATIVE, FACTOR = (64, 64), 8


def noise(width, height, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def box_mask(width, height, left, top, right, bottom):
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def canvas(image, native=NATIVE, **fields):
    return canvas_of(Request(prompt="x", image=image, **fields), native, FACTOR)


@pytest.mark.parametrize("size", [(64, 64), (40, 88)])
def test_a_network_is_shown_the_picture_from_minus_one_to_one_in_single_precision(size):
    picture = noise(*size)
    made = canvas(picture, width=64, height=64, mask=box_mask(*size, 0, 0, 8, 8))
    assert made.shown.dtype == made.kept.dtype == torch.float32
    assert made.shown.shape == made.kept.shape == (1, 3, 64, 64)
    assert -1 <= made.shown.min() < -0.9 < 0.9 < made.shown.max() <= 1
    if size == (64, 64):
        known = torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None].float()
        torch.testing.assert_close(made.shown, known)
        assert not made.kept[..., :8, :8].any()
        torch.testing.assert_close(made.kept[..., 8:], known[..., 8:])


def test_a_feathered_mask_is_whole_where_it_was_and_nothing_beyond_its_radius():
    mask = box_mask(60, 60, 20, 20, 40, 40).astype(np.float32) / 255
    for radius in (1, 2, 3, 8, 9):
        soft = feathered(mask, radius)
        assert (soft[mask == 1] == 1).all()
        rows, columns = np.indices(mask.shape)
        away = np.maximum(np.maximum(20 - rows, rows - 39), np.maximum(20 - columns, columns - 39))
        assert (soft[away > radius] == 0).all()
        assert 0 < soft[away == 1].min() <= soft.max() <= 1
    assert feathered(mask, 0) is mask


def test_a_cell_of_which_one_pixel_is_drawn_is_drawn():
    mask = np.zeros((32, 48), np.float32)
    mask[9, 17] = 0.01
    found = cells(mask, (48, 32), 8)
    assert found.shape == (1, 1, 4, 6)
    assert found.sum() == 1
    assert found[0, 0, 1, 2] == 1


def test_the_bounds_of_a_mask_hold_all_of_it():
    mask = box_mask(40, 30, 5, 6, 17, 20).astype(np.float32)
    assert bounds(mask) == (5, 6, 17, 20)
    assert bounds(np.zeros_like(mask)) is None


@pytest.mark.parametrize(
    ("size", "given", "drawn"),
    [
        ((64, 64), (None, None), (64, 64)),
        ((1024, 1024), (None, None), (64, 64)),
        ((2000, 1000), (None, None), (88, 48)),
        ((10, 10), (None, None), (64, 64)),
        ((2000, 1000), (128, None), (128, 64)),
        ((2000, 1000), (None, 128), (256, 128)),
        ((2000, 1000), (40, 72), (40, 72)),
        ((4000, 10), (None, None), (1280, 8)),
    ],
)
def test_a_picture_is_drawn_in_its_own_proportions_at_about_the_native_area(size, given, drawn):
    assert drawn_size(size, given, NATIVE, FACTOR) == drawn


def test_what_is_not_in_the_mask_keeps_every_pixel_at_any_size():
    for width, height in ((64, 64), (131, 77)):
        picture = noise(width, height)
        mask = box_mask(width, height, 10, 20, 40, 50)
        made = canvas(picture, mask=mask)
        drawn = np.full((made.size[1], made.size[0], 3), 7, np.uint8)
        whole = made.put_back(drawn)
        assert np.array_equal(whole[mask == 0], picture[mask == 0])
        assert (whole[mask == 255] == 7).all()


def test_a_crop_is_drawn_at_the_native_size_around_the_mask_and_put_back_at_the_pictures_own():
    picture = noise(400, 300)
    mask = box_mask(400, 300, 300, 100, 320, 110)
    made = canvas(picture, mask=mask, crop=20)
    left, top, right, bottom = made.box
    assert made.size == NATIVE
    assert (right - left, bottom - top) == (60, 60)
    assert left <= 280
    assert right >= 340
    whole = made.put_back(np.zeros((64, 64, 3), np.uint8))
    assert whole.shape == picture.shape
    assert np.array_equal(whole[mask == 0], picture[mask == 0])
    assert (whole[mask == 255] == 0).all()


def test_a_crop_at_the_edge_stays_within_the_picture():
    made = canvas(noise(100, 80), mask=box_mask(100, 80, 0, 0, 5, 5), crop=40)
    left, top, right, bottom = made.box
    assert (left, top) == (0, 0)
    assert right <= 100
    assert bottom <= 80


def test_transparency_is_laid_on_white_and_can_be_the_mask():
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, :32, 3] = 255
    plain = canvas(picture)
    assert plain.mask is None
    assert (plain.pixels[:, 32:] == 255).all()
    masked = canvas(picture, mask="alpha")
    assert (masked.mask[:, 32:] == 1).all()
    assert (masked.mask[:, :32] == 0).all()


def test_greys_of_a_mask_mix_what_is_drawn_with_what_is_kept():
    picture = np.full((64, 64, 3), 200, np.uint8)
    made = canvas(picture, mask=np.full((64, 64), 51, np.uint8))
    assert (made.put_back(np.zeros((64, 64, 3), np.uint8)) == 160).all()
    assert made.cells(FACTOR).min() == 1


def test_the_fillings_change_only_what_is_drawn():
    picture = np.full((64, 64, 3), 30, np.uint8)
    picture[16:48, 16:48] = 250
    mask = box_mask(64, 64, 16, 16, 48, 48).astype(np.float32) / 255
    shown = PIL.Image.fromarray(picture)
    assert np.array_equal(np.asarray(filled(shown, mask, "keep")), picture)
    blurred = np.asarray(filled(shown, mask, "blur"))
    assert (blurred == 30).all()
    red = np.asarray(filled(shown, mask, "#ff0000"))
    assert (red[mask == 1] == [255, 0, 0]).all()
    assert (red[mask == 0] == 30).all()


def test_what_an_inpainting_model_is_shown_is_grey_where_it_draws():
    made = canvas(np.full((64, 64, 3), 255, np.uint8), mask=box_mask(64, 64, 0, 0, 32, 64))
    assert (made.kept[..., :32] == 0).all()
    assert (made.kept[..., 32:] == 1).all()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"mask": np.zeros((64, 64), np.uint8)}, "the mask is black: white is what is drawn anew"),
        ({"mask": np.zeros((32, 64), np.uint8)}, "the mask has 64×32 pixels and the picture 64×64"),
        ({"mask": "alpha"}, "nothing of the picture is transparent"),
    ],
)
def test_a_mask_that_says_nothing_is_refused(fields, wrong):
    with pytest.raises(UsageError, match=wrong):
        canvas(noise(64, 64), **fields)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"strength": 0.5}, "strength is given without image"),
        ({"mask": noise(8, 8)}, "mask is given without image"),
        ({"image": noise(8, 8), "feather": 3}, "feather is given without mask"),
        ({"image": noise(8, 8), "fill": "blur"}, "fill is given without mask"),
        (
            {"image": noise(8, 8), "mask": noise(8, 8), "fill": "#12"},
            "must be keep, noise, nothing, blur or a colour",
        ),
        ({"image": noise(8, 8), "strength": 1.5}, "strength is 1.5"),
        ({"image": "nowhere.png"}, "cannot read nowhere.png"),
        ({"image": b"no picture"}, "is not a PNG"),
        ({"image": 3}, "a picture is a path, the bytes of a file"),
        ({"image": np.zeros((4, 4, 3))}, "of bytes"),
        ({"image": np.zeros((4, 4, 2), np.uint8)}, "of bytes"),
    ],
)
def test_a_picture_that_cannot_be_used_is_refused_in_one_line(fields, wrong):
    with pytest.raises(UsageError, match=wrong) as raised:
        Request(prompt="x", **fields)
    assert "\n" not in str(raised.value)


def test_a_picture_can_be_given_in_every_form_and_is_the_same(tmp_path):
    pixels = noise(10, 6)
    picture = PIL.Image.fromarray(pixels)
    path = tmp_path / "picture.png"
    picture.save(path)
    for given in (str(path), path, path.read_bytes(), picture, pixels):
        assert np.array_equal(InputImage.of(given).rgba[..., :3], pixels)
    assert InputImage.of(path).name == "picture.png"


def test_a_turned_photograph_is_upright():
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(noise(10, 6)).save(buffer, "PNG", exif=exif)
    assert InputImage.of(buffer.getvalue()).rgba.shape == (10, 6, 4)


def test_a_request_with_pictures_survives_json():
    request = Request(prompt="x", image=noise(8, 8), mask=noise(8, 8, 1)[..., 0], fill="noise")
    again = Request.model_validate_json(request.model_dump_json())
    assert again == request
    assert np.array_equal(again.image.rgba, request.image.rgba)


def test_a_picture_that_a_record_leaves_out_is_found_by_its_name_and_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(noise(10, 6)).save("given.png")
    bare = InputImage.of("given.png").without_data()
    assert bare.data is None
    assert bare.rgba.shape == (6, 10, 4)
    assert bare.loaded() == InputImage.of("given.png")
    assert bare.loaded().without_data() == bare
    named = rf"the picture 'given.png' \(sha256 {bare.sha256[:12]}…\), which this record only names"
    PIL.Image.fromarray(noise(6, 6)).save("given.png")
    with pytest.raises(PictureError, match=f"^{named}, is not the file of that name here$"):
        bare.without_data().loaded()
    Path("given.png").unlink()
    with pytest.raises(PictureError, match=f"^{named}, is not here: No such file or directory$"):
        bare.without_data().loaded()
