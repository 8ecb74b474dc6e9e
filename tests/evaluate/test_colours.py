"""The colour of a thing: CIELAB in closed form, and pictures whose colour is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.data.captions import TINTS
from sfumato.evaluate import colours
from sfumato.evaluate.colours import NAMES, STYLES, difference, lab, main_colour, named, prompts, right


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_is_what_tables_say(rgb, expected):
    torch.testing.assert_close(
        lab(torch.tensor(rgb, dtype=torch.float64)), torch.tensor(expected).double(), atol=0.02, rtol=0
    )


@given(st.integers(0, 255))
def test_grays_have_no_hue_and_get_lighter(value):
    gray = lab(torch.full((3,), value / 255))
    assert gray[1:].abs().max() < 1e-3
    if value:
        assert gray[0] > lab(torch.full((3,), (value - 1) / 255))[0]


def test_the_difference_counts_lightness_half_and_hue_more_than_saturation():
    red = torch.tensor([50.0, 60.0, 0.0])
    lighter, stronger, turned = red + torch.eye(3) * 10
    assert difference(lighter, red) == pytest.approx(25)
    assert difference(stronger, red) == pytest.approx((10 / (1 + 0.048 * 60)) ** 2)
    assert difference(turned, red) > 2 * difference(stronger, red)


def square(ink, ground, side=12, size=32):
    """A square of a named colour on a named ground."""
    pixels = torch.tensor(TINTS[ground]).expand(size, size, 3).clone()
    start = (size - side) // 2
    pixels[start : start + side, start : start + side] = torch.tensor(TINTS[ink])
    return pixels.permute(2, 0, 1) / 127.5 - 1


@pytest.mark.parametrize("ink", TINTS)
@pytest.mark.parametrize("ground", ["white", "black", "teal", "yellow"])
def test_a_square_has_its_own_colour_on_every_ground(ink, ground):
    expected = None if ink == ground else ink
    assert main_colour(square(ink, ground)) == expected


@given(st.sampled_from(NAMES), st.floats(-0.06, 0.06), st.integers(0, 2**31))
def test_a_little_shading_and_noise_does_not_change_a_colour(ink, shade, seed):
    noise = 0.02 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed))
    picture = square(ink, "white", side=20) + noise + shade
    assert right(ink, main_colour(picture.clamp(-1, 1)))


def test_most_of_a_thing_counts_and_not_its_outline():
    picture = square("black", "white", side=20)
    inner = square("orange", "white", side=18)
    picture[:, 7:25, 7:25] = inner[:, 7:25, 7:25]
    assert main_colour(picture) == "orange"


def test_a_speck_is_nothing():
    assert main_colour(square("red", "white", side=2)) is None


@pytest.mark.parametrize(
    ("asked", "seen", "expected"),
    [
        ("red", "red", True),
        ("yellow", "gold", True),
        ("gold", "yellow", False),
        ("blue", "navy", True),
        ("red", None, False),
        ("black", "gray", False),
    ],
)
def test_what_passes_for_a_colour(asked, seen, expected):
    assert right(asked, seen) is expected


def test_every_colour_is_asked_for_equally_often_of_different_things():
    asked = prompts(4, STYLES)
    assert [name for name, _ in asked] == [name for name in NAMES for _ in range(4)]
    assert len({said for _, said in asked}) == len(asked)
    assert all(name in said and any(thing in said for thing in colours.THINGS) for name, said in asked)
    assert prompts(1, ())[0] == ("red", "a red apple")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("red apple", "red"),
        ("apple red", None),
        ("white heart", None),
        ("blue", None),
        ("old blue car", None),
    ],
)
def test_a_label_names_a_colour_only_before_the_one_thing(label, expected):
    assert named(label) == expected
