"""Pictures moved by known transforms: centroids, areas and angles are those of the formulas."""

import math
from random import Random

import pytest
import torch

from sfumato.data.motion import caption
from sfumato.edit.motion import MOTIONS, ONE_WAY, Transforms, moved, placed, transforms
from sfumato.errors import UsageError
from sfumato.evaluate.motion import moments, motion_of

SIDE, FRAMES = 64, 16


def picture(width=0.5, height=0.3):
    """A blue bar with a red end, on white: no turn but a whole one leaves it as it is."""
    y, x = torch.meshgrid(*[(torch.arange(SIDE) + 0.5) / SIDE - 0.5] * 2, indexing="ij")
    bar = (x.abs() < width / 2) & (y.abs() < height / 2)
    colour = torch.ones(3, SIDE, SIDE)
    colour[0] = torch.where(bar, torch.where(x > width / 4, 1.0, -1.0), 1.0)
    colour[1] = torch.where(bar, -1.0, 1.0)
    colour[2] = torch.where(bar, torch.where(x > width / 4, -1.0, 1.0), 1.0)
    return colour


def at(count=FRAMES, **given):
    """Transforms that leave the picture where it is, but for what is `given`."""
    fields = {"x": 0.0, "y": 0.0, "scale": 1.0, "angle": 0.0, "opacity": 1.0, **given}
    spread = {name: torch.as_tensor(value).expand(count).float() for name, value in fields.items()}
    return Transforms(**spread)


def test_a_picture_that_is_not_moved_stays_as_it_is():
    smooth = torch.nn.functional.avg_pool2d(picture()[None], 5, 1, 2, count_include_pad=False)[0]
    assert (placed(smooth, at(1))[0] - smooth).abs().max() < 0.15
    assert (placed(smooth, at(1))[0] - smooth).abs().mean() < 0.005


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("motion", ["bounce", "shake", "swing"])
def test_the_centroid_is_where_the_formula_puts_it(motion, seed):
    where = transforms(motion, FRAMES, Random(seed))
    found = moments(placed(picture(), where))
    # the picture's own middle is not its middle of ink, for its two colours are of equal weight
    assert (found.x - where.x).abs().max() < 0.01
    assert (found.y - where.y).abs().max() < 0.01


def test_a_bounce_is_a_parabola_between_two_touches():
    where = transforms("bounce", 64, Random(2))
    heights = where.y.max() - where.y
    curvature = where.y.diff().diff()
    falling = curvature[heights[1:-1] > 0.1 * heights.max()]
    assert (falling - falling.median()).abs().max() < 1e-5
    assert falling.median() > 0


@pytest.mark.parametrize("motion", ["pulse", "grow"])
def test_the_area_is_the_square_of_the_scale(motion):
    where = transforms(motion, FRAMES, Random(3))
    found = moments(placed(picture(), where))
    own = moments(picture()[None])
    assert torch.allclose(found.mass, own.mass * where.scale.double() ** 2, rtol=0.05)
    assert torch.allclose(found.size, own.size * where.scale.double(), rtol=0.03)


@pytest.mark.parametrize("motion", ["swing", "spin"])
def test_the_angle_is_read_back_from_angular_moments(motion):
    where = transforms(motion, FRAMES, Random(5))
    found = moments(placed(picture(), where))
    assert (found.angle - (where.angle - where.angle[0])).abs().max() < math.radians(3)


def test_the_contrast_of_a_fade_is_its_opacity():
    where = transforms("fade", FRAMES, Random(1))
    found = moments(placed(picture(), where))
    # what is fainter than the threshold is background
    seen = where.opacity > 0.1
    assert torch.allclose(found.contrast[seen], where.opacity[seen].double(), atol=0.02)


def test_a_pan_goes_once_around_and_comes_in_where_it_went_out():
    where = transforms("pan", FRAMES, Random(4))
    clip = placed(picture(), where)
    found = moments(clip)
    assert abs(float(found.way[-1])) == pytest.approx((FRAMES - 1) / FRAMES, abs=0.02)
    assert torch.allclose(found.mass, found.mass.mean(), rtol=0.05)


@pytest.mark.parametrize("motion", sorted(set(MOTIONS) - ONE_WAY))
def test_a_loop_goes_on_in_its_first_frame_as_smoothly_as_before(motion):
    clip = moved(picture(), motion, 32, Random(6))
    change = (clip - clip.roll(1, 0)).square().mean((1, 2, 3))
    assert change[0] <= 1.3 * change[1:].max()


@pytest.mark.parametrize("motion", sorted(ONE_WAY))
def test_what_grows_never_shrinks(motion):
    assert (transforms(motion, FRAMES, Random(0)).scale.diff() > 0).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_motion_of_a_clip_is_told_from_its_moments(motion):
    random = Random(9)
    told = [motion_of(moved(picture(0.7, 0.4), motion, FRAMES, random)) for _ in range(12)]
    assert told == [motion] * 12


def test_what_stands_still_or_is_blank_does_not_move():
    assert motion_of(picture().expand(FRAMES, -1, -1, -1)) == "still"
    assert motion_of(torch.ones(FRAMES, 3, 16, 16)) == "still"


def test_the_same_numbers_make_the_same_clip_and_others_another():
    one, same, other = (moved(picture(), "shake", 8, Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (8, 3, SIDE, SIDE)
    assert one.max() <= 1
    assert one.min() >= -1.001


@pytest.mark.parametrize(
    ("motion", "frames", "words"), [("jump", 16, "unknown motion 'jump'"), ("spin", 1, "1 frames cannot")]
)
def test_unknown_motions_and_single_frames_are_refused(motion, frames, words):
    with pytest.raises(UsageError, match=words):
        transforms(motion, frames, Random(0))


def test_every_caption_says_the_motion_and_the_style():
    random = Random(0)
    for motion, words in MOTIONS.items():
        for _ in range(20):
            text = caption("red apple", motion, "3d render", random)
            assert "red apple" in text
            assert "3d render" in text
            assert any(word in text for word in words)
    assert "a red apple bouncing" in {caption("red apple", "bounce", "", random) for _ in range(20)}


def test_transforms_in_parts_place_the_same_frames():
    at = transforms("bounce", 7, Random(3))
    picture = torch.rand(3, 16, 16) * 2 - 1
    parts = torch.cat([placed(picture, part) for part in at.split(3)])
    assert torch.allclose(parts, placed(picture, at), atol=1e-6)
    assert [len(part.x) for part in transforms("pan", 7, Random(3)).split(3)] == [3, 3, 1]
    assert all(part.wraps for part in transforms("pan", 7, Random(3)).split(3))
