"""Pictures extended beyond their edges: where windows lie, what is kept, and what a user gets."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sfumato
from sfumato.edit import outpainting
from sfumato.edit.outpainting import extended, joined, resolved, windows
from sfumato.errors import UsageError
from sfumato.request import Extend

SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 3, "resample": 1}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")

PIXELS = st.integers(0, 200)


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.indices((50, 61))
    return np.stack([rows * 4, columns * 4, np.full_like(rows, 90)], -1).astype(np.uint8)


@settings(max_examples=60)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), PIXELS, PIXELS, PIXELS, st.integers(1, 200))
def test_windows_cover_what_is_new_and_begin_at_the_joints_with_whole_cells(size, left, top, right, bottom):
    extend, window, factor = Extend(left=left, top=top, right=right, bottom=bottom), (64, 48), 8
    known = np.zeros((top + size[1] + bottom, left + size[0] + right), bool)
    known[top : top + size[1], left : left + size[0]] = True
    for x, y, far, low in windows(size, extend, window, factor):
        assert (far - x, low - y) == window
        part = np.s_[max(y, 0) : max(low, 0), max(x, 0) : max(far, 0)]
        known[part] = True
    assert known.all()


def test_a_window_lies_by_half_at_least_over_what_is_known_and_joints_lie_between_cells():
    boxes = [*windows((1024, 1024), Extend(right=100), (256, 256), 8)]
    assert {(left, right) for left, _, right, _ in boxes} == {(872, 1128)}
    assert (1024 - 872) % 8 == 0
    tops = [top for _, top, _, _ in boxes]
    assert tops[0] == 0
    assert tops[-1] == 768
    assert all(0 < below - above <= 128 for above, below in pairwise(tops))


def test_a_shift_of_colours_ends_at_the_joint_and_an_edge_of_a_shape_does_not():
    before = np.full((40, 80, 3), 200, np.uint8)
    before[20:] = 30
    known = np.zeros((40, 80), bool)
    known[:, :40] = True
    drawn = np.full((40, 80, 3), 190, np.uint8)
    both = joined(drawn, before, known)
    assert np.array_equal(both[known], before[known])
    assert np.abs(both[:12, 40].astype(int) - 200).max() <= 1
    assert (both[:, 70] == 190).all()
    assert np.abs(both[28:, 40].astype(int) - 190).max() <= 1


def test_an_extended_picture_keeps_its_pixels_and_is_drawn_again_from_its_record(studio, picture, tmp_path):
    drawn = studio.generate("a lemon", image=picture, extend={"left": 9, "bottom": 30}, **SMALL)
    assert drawn.size == (61 + 9, 50 + 30)
    assert np.array_equal(drawn.pixels[:50, 9:], picture)
    assert (drawn.request.strength, drawn.request.resample) == (1, 1)
    read = sfumato.Image.open(drawn.save(tmp_path / "wide.png"))
    assert np.array_equal(read.request.image.rgba[..., :3], picture)
    assert studio.generate(read.request).differs(drawn) is None


def test_ten_rounds_of_extending_keep_every_pixel_that_was_there(studio, picture):
    image, left, top = picture, 0, 0
    for number in range(10):
        side = ("left", "top", "right", "bottom")[number % 4]
        left, top = left + 5 * (side == "left"), top + 5 * (side == "top")
        image = studio.generate(
            "a lemon", image=image, extend={side: 5}, **SMALL | {"seed": number, "steps": 1}
        )
    assert image.size == (61 + 25, 50 + 25)
    assert np.array_equal(image.pixels[top : top + 50, left : left + 61], picture)


def test_every_step_of_all_windows_is_counted_and_only_the_last_has_the_picture(studio, picture):
    steps = list(studio.stream("a lemon", image=picture, extend={"right": 70}, count=2, **SMALL))
    for number in (0, 1):
        own = [step for step in steps if step.image_index == number]
        assert [step.index for step in own] == list(range(1, own[0].total + 1))
        assert own[0].total == 3 * SMALL["steps"]
        assert [step.image is not None for step in own] == [False] * (len(own) - 1) + [True]
    assert steps[0].preview().size == (64, 64)


def test_a_transparent_extension_is_cut_out_as_a_whole(studio):
    white = np.full((64, 64, 3), 255, np.uint8)
    white[16:48, 16:48] = (200, 30, 30)
    drawn = studio.generate("", image=white, extend={"right": 16}, transparent=True, **SMALL)
    assert drawn.pixels.shape == (64, 80, 4)
    assert drawn.pixels[32, 32, 3] == 255


@pytest.mark.parametrize("on_plain", [True, False])
def test_a_plain_background_is_drawn_as_white_and_goes_on_in_its_own_colour(on_plain):
    teal, red = (60, 190, 180), (200, 30, 30)
    before = np.full((64, 64, 3), teal, np.uint8)
    before[16:48, 16:48] = red
    fields = {"image": before, "extend": {"right": 32}, **SMALL}
    course = extended(resolved(sfumato.Request("", **fields), "text"), 8, 10**6, on_plain=on_plain)
    (asked,) = next(course)
    known = asked.request.image.rgba
    assert np.array_equal(known[24, 8, :3], red)
    assert tuple(known[2, 2, :3]) == ((255, 255, 255) if on_plain else teal)
    drawn = np.full((64, 64, 3), 255, np.uint8)
    drawn[24:40, 40:56] = red
    with pytest.raises(StopIteration) as end:
        course.send([drawn])
    whole = end.value.value
    assert whole.shape == (64, 96, 3)
    assert np.array_equal(whole[:, :64], before)
    assert np.array_equal(whole[2, 70], teal if on_plain else (255, 255, 255))
    assert np.array_equal(whole[32, 80], red)


def test_what_was_drawn_without_a_white_background_stays_as_it_was_drawn():
    before = np.full((64, 64, 3), (60, 190, 180), np.uint8)
    fields = {"image": before, "extend": {"right": 32}, **SMALL}
    course = extended(resolved(sfumato.Request("", **fields), "text"), 8, 10**6, on_plain=True)
    next(course)
    meadow = np.full((64, 64, 3), (90, 160, 40), np.uint8)
    with pytest.raises(StopIteration) as end:
        course.send([meadow])
    assert np.array_equal(end.value.value[2, 80], (90, 160, 40))
    assert np.array_equal(end.value.value[:, :64], before)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"extend": {"rigth": 5}}, "extend.rigth is 5: no such key is known"),
        ({"extend": {}}, "must be more than 0 on some side: left, top, right or bottom"),
        ({"extend": {"left": -1}}, "extend.left is -1: must be at least 0"),
        ({"extend": {"left": 8}, "mask": "alpha"}, "mask is given with extend, which draws just what is new"),
        ({"extend": {"left": 8}, "feather": 3}, "feather is given without mask"),
        ({"extend": {"left": 8}, "seamless": "x"}, "seamless is given with extend"),
        ({"extend": {"left": 8}, "upscale": 2}, "upscale is given with extend, which draws in windows"),
        ({"extend": {"left": 8}, "upscaler": "lanczos"}, "upscaler is given with extend"),
        ({"extend": {"left": 8}, "multidiffusion": True}, "multidiffusion is given with extend"),
        (
            {"extend": {"left": 8}, "regions": [{"prompt": "a", "box": (0, 0, 1, 0.5)}]},
            "regions is given with extend",
        ),
    ],
)
def test_an_extension_that_cannot_be_is_told(picture, fields, told):
    with pytest.raises(UsageError) as raised:
        sfumato.Request("a lemon", image=picture, **fields)
    assert told in str(raised.value)


def test_an_extension_needs_a_picture_and_has_a_largest_size(studio, monkeypatch):
    monkeypatch.setattr(outpainting, "cut_out", lambda _: pytest.fail("the size is to be known before"))
    with pytest.raises(UsageError, match="extend is given without image"):
        sfumato.Request("a lemon", extend={"left": 8})
    large = np.zeros((4000, 3000), np.uint8)
    with pytest.raises(
        UsageError, match="extend makes a picture of 7000×4000 pixels; the most is 16,777,216"
    ):
        studio.prepare("a lemon", image=large, extend={"left": 4000})
