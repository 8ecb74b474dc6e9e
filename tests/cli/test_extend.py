"""`sfumato extend`."""

import numpy as np
import PIL.Image
import pytest

SIZE = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "1", "--resample", "1")


def test_a_picture_is_extended_by_its_own_prompt_and_replayed(here, tmp_path):
    assert here("generate", "a lemon", "-o", "lemon.png", *SIZE[:-2])[0] == 0
    status, out, err = here("extend", "lemon.png", "right=16", "top=8", "-o", "wide.png", *SIZE)
    assert (status, out) == (0, "wide.png\n")
    assert "no prompt is given: extended by 'a lemon', its own" in err
    wide = np.asarray(PIL.Image.open(tmp_path / "wide.png"))
    assert wide.shape == (72, 80, 3)
    assert np.array_equal(wide[8:, :64], np.asarray(PIL.Image.open(tmp_path / "lemon.png")))
    status, out, _ = here("replay", "wide.png")
    assert (status, out) == (0, "identical: wide.png\n")


def test_any_picture_is_extended_by_the_prompt_that_is_given_or_by_none(here, tmp_path):
    PIL.Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    for prompt in ("a meadow", "e=mc2"):
        status, _, err = here("extend", "red.png", "left=8", prompt, "-o", "a.png", *SIZE)
        assert (status, "no prompt" in err) == (0, False)
    assert (
        "no prompt is given: extended by the empty one"
        in here("extend", "red.png", "left=8", "-o", "b.png", *SIZE)[2]
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rigth=8",), "unknown side 'rigth'; did you mean 'right'?"),
        (("a meadow",), "no side is given; say how many pixels, as right=128"),
        (("left=8", "a", "meadow"), "these are 2 prompts; give one, in quotes: 'a meadow'"),
        (("left=8", "left=9"), "left is given twice; give it once"),
        (("left=",), "'left=' is not left and a whole number of pixels, as left=128"),
        (("left=8", "top=1e2"), "'top=1e2' is not top and a whole number of pixels"),
        (("left=8", "--seamless", "x"), "no such option: --seamless"),
        (("left=-8",), "extend.left is -8: must be at least 0"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(here, tmp_path, words, told):
    PIL.Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    status, out, err = here("extend", "red.png", *words)
    assert (status, out) == (2, "")
    assert told in err
