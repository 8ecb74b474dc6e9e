"""Drawing from pictures on the command line."""

import json

import numpy as np
import PIL.Image
import pytest

SIZE = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "1")


def test_the_command_draws_into_a_picture_and_replays_it(here, tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    PIL.Image.fromarray(picture).save(tmp_path / "picture.png")
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    line = ("--image", "picture.png", "--mask", "mask.png", "--feather", "4", "-o", "drawn.png", "--json")
    status, out, _ = here("generate", "a lemon", *line, *SIZE)
    given = json.loads(out)["request"]["image"]
    assert (status, given["name"], given["data"]) == (0, "picture.png", None)
    drawn = np.asarray(PIL.Image.open(tmp_path / "drawn.png"))
    assert np.array_equal(drawn[:16], picture[:16])
    (tmp_path / "picture.png").unlink()
    status, out, _ = here("replay", "drawn.png")
    assert (status, out) == (0, "identical: drawn.png\n")
    status, out, _ = here("inspect", "drawn.png")
    assert status == 0
    assert "picture.png" in out
    assert len(out) < 4000


def test_a_picture_that_is_not_there_is_wrong_usage(here):
    status, out, err = here("generate", "a lemon", "--image", "nowhere.png")
    assert (status, out) == (2, "")
    assert err == "error: image is 'nowhere.png': cannot read nowhere.png: No such file or directory\n"


def test_a_strength_without_a_picture_is_wrong_usage(here):
    status, _, err = here("generate", "a lemon", "--strength", "0.5")
    assert (status, err) == (2, "error: strength is given without image, the picture that it is about\n")


@pytest.mark.parametrize(
    "line",
    [
        ("generate", "a lemon", "--image", "a.png", "-o", "a.png"),
        ("generate", "a lemon", "--image", "b.png", "--mask", "a.png", "-o", "./a.png"),
        ("generate", "a lemon", "--image", "a-1.png", "-n", "2", "-o", "a.png"),
        ("edit", "a.png", "make it blue", "-o", "a.png"),
        ("extend", "a.png", "right=8", "a lemon", "-o", "a.png"),
        ("upscale", "a.png", "a lemon", "--scale", "2", "-o", "a.png"),
        ("vary", "a.png", "-n", "1", "-o", "a.png"),
        ("replay", "a.png", "-o", "a.png"),
        ("grid", "a lemon", "--image", "a.png", "--x", "steps=1,2", "-o", "a.png"),
        ("interpolate", "a lemon", "a pear", "--image", "a.png", "-o", "a.png"),
    ],
)
def test_no_command_replaces_the_picture_that_it_draws_from(here, tmp_path, line):
    if line[0] == "replay":
        assert here("generate", "a lemon", "-o", "a.png", *SIZE)[0] == 0
    else:
        PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    PIL.Image.new("RGB", (64, 64), "blue").save(tmp_path / "b.png")
    (tmp_path / "a-1.png").write_bytes((tmp_path / "a.png").read_bytes())
    before = (tmp_path / "a.png").read_bytes()
    status, out, err = here(*line)
    assert (status, out) == (2, "")
    assert "is what this is drawn from, and is not replaced; give -o another name" in err
    assert (tmp_path / "a.png").read_bytes() == before
