"""Objects cut out of their backgrounds: against the alpha and colours that the picture was mixed of."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from sfumato.edit.masks import distances
from sfumato.edit.matting import connected_to_border, cut_out, outlined

SIZE = 128


def soft_disc(radius=40.0, blur=0.0):
    """α of a disc with a soft edge, 1.5 to 4 pixels wide."""
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    away = np.hypot(rows - SIZE / 2, columns - SIZE / 2)
    return ((radius - away) / (1.5 + blur) + 0.5).clip(0, 1)[..., None]


def mixed(alpha, colour, background):
    return (alpha * np.asarray(colour) + (1 - alpha) * np.asarray(background)).round().astype(np.uint8)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (30, 160, 90)])
@pytest.mark.parametrize("colour", [(220, 40, 60), (250, 210, 30), (90, 90, 200)])
def test_alpha_and_colour_of_a_soft_edge_are_those_that_it_was_mixed_of(colour, background):
    alpha = soft_disc()
    found = cut_out(mixed(alpha, colour, background))
    assert found.background == background
    assert found.notes == ()
    contrast = np.abs(np.subtract(colour, background)).max()
    assert np.abs(found.pixels[..., 3:] / 255 - alpha).max() < 11 / contrast + 0.02
    seen = found.pixels[found.pixels[..., 3] > 30]
    assert np.abs(seen[:, :3].astype(int) - colour).max() <= 12


def test_laid_on_its_background_it_is_the_picture_again():
    picture = mixed(soft_disc(blur=2), (200, 60, 20), (255, 255, 255))
    rgba = Image.fromarray(cut_out(picture).pixels)
    again = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    assert np.abs(np.asarray(again).astype(int) - picture).max() <= 10


def test_no_fringe_of_a_white_background_is_left_on_black():
    picture = mixed(soft_disc(), (150, 20, 30), (255, 255, 255))
    rgba = cut_out(picture).pixels.astype(float)
    on_black = rgba[..., :3] * rgba[..., 3:] / 255
    assert (on_black <= np.array([150, 20, 30]) + 12).all()


def test_what_the_object_encloses_stays_opaque_in_the_backgrounds_colour():
    picture = Image.fromarray(mixed(soft_disc(), (240, 200, 30), (255, 255, 255)))
    ImageDraw.Draw(picture).ellipse((50, 50, 60, 60), "white")
    rgba = cut_out(np.asarray(picture)).pixels
    assert rgba[55, 55].tolist() == [255, 255, 255, 255]


def test_a_faint_glow_becomes_transparent_in_the_objects_colour():
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    away = np.hypot(rows - SIZE / 2, columns - SIZE / 2) - 40
    alpha = np.where(away < 0, 1.0, 0.18 * np.exp(-away / 2))[..., None]
    rgba = cut_out(mixed(alpha, (200, 30, 30), (255, 255, 255))).pixels
    glow = (away > 1) & (rgba[..., 3] > 0)
    assert glow.any()
    assert rgba[glow][:, 3].max() < 60
    assert np.abs(rgba[glow][:, 1:3].astype(int) - 30).mean() < 40


def test_a_pale_object_is_no_glow():
    picture = mixed(soft_disc(), (225, 230, 235), (255, 255, 255))
    rgba = cut_out(picture).pixels
    assert rgba[SIZE // 2, SIZE // 2, 3] == 255
    assert (rgba[44:84, 44:84, 3] == 255).all()


def test_a_background_that_is_not_plain_is_told_and_so_is_an_empty_picture():
    stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
    stripes[::2] = 200
    assert "the background is not plain: #" in cut_out(stripes).notes[0]
    assert cut_out(np.full((SIZE, SIZE, 3), 255, np.uint8)).notes == (
        "nothing stands out from the background: the picture is all transparent",
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 1)])
def test_a_picture_that_is_all_border_is_all_background(shape):
    assert not cut_out(np.full((*shape, 3), 255, np.uint8)).pixels[..., 3].any()


def test_a_sticker_is_white_around_the_object_and_as_wide_as_asked():
    cut = cut_out(mixed(soft_disc(30), (200, 30, 30), (255, 255, 255))).pixels
    sticker = outlined(cut, 8)
    middle = sticker[SIZE // 2]
    assert middle[SIZE // 2].tolist() == cut[SIZE // 2, SIZE // 2].tolist()
    assert middle[SIZE // 2 + 34].tolist() == [255, 255, 255, 255]
    assert middle[SIZE // 2 + 40, 3] == 0
    assert np.count_nonzero(middle[:, 3] > 127) == pytest.approx(2 * (30 + 8), abs=1)


def test_what_is_connected_to_the_border_and_how_far_away_it_is_agree_with_scipy():
    flags = ndimage.gaussian_filter(np.random.default_rng(1).random((60, 90)), 1.5) > 0.49
    labels, _ = ndimage.label(flags)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    assert np.array_equal(connected_to_border(flags), np.isin(labels, border[border > 0]))
    exact = np.minimum(ndimage.distance_transform_edt(~flags), 5.5)
    assert np.allclose(distances(flags, 5.5), exact)
