"""`sfumato upscale`, and the options of large pictures, on the command line."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from sfumato.nets import upscaler
from sfumato.studio import enlarging

DRAW = ("-W", "32", "-H", "32", "--steps", "2", "--seed", "1", "-q")


def test_a_drawn_picture_is_made_larger_and_replayed(here, tmp_path):
    assert here("generate", "a lemon", *DRAW, "-o", "lemon.png")[0] == 0
    line = ("--scale", "2", "--upscaler", "lanczos", "--strength", "0.5", "-o", "big.png", "--json", "-q")
    status, out, _ = here("upscale", "lemon.png", *line)
    request = json.loads(out)["request"]
    assert (status, request["prompt"], request["image"]["name"]) == (0, "a lemon", "lemon.png")
    assert PIL.Image.open(tmp_path / "big.png").size == (64, 64)
    (tmp_path / "lemon.png").unlink()
    assert here("replay", "big.png")[:2] == (0, "identical: big.png\n")


def test_replay_names_an_upscaler_that_is_another_now(here, tmp_path):
    PIL.Image.new("RGB", (16, 16), "teal").save(tmp_path / "small.png")
    line = ("--scale", "2", "--strength", "0", "--upscaler", "mine.safetensors", "-o", "big.png", "-q")
    made(tmp_path / "mine.safetensors", 0)
    assert here("upscale", "small.png", *line)[0] == 0
    assert here("replay", "big.png")[:2] == (0, "identical: big.png\n")
    enlarging.network.cache_clear()  # read once in a process
    made(tmp_path / "mine.safetensors", 1)
    status, out, _ = here("replay", "big.png")
    assert status == 1
    assert "  upscalers: {'mine.safetensors': " in out


def made(path, seed):
    torch.manual_seed(seed)
    net = upscaler.Upscaler(upscaler.UpscalerConfig(width=8, blocks=1))
    with torch.no_grad():
        for each in net.parameters():
            each.normal_(std=0.1)
    upscaler.save(net, path)


def test_any_picture_is_enlarged_and_no_more_at_strength_0(here, tmp_path):
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    picture.save(tmp_path / "photo.png")
    line = ("--scale", "3", "--strength", "0", "--upscaler", "lanczos", "-o", "big.png", "-q")
    assert here("upscale", "photo.png", *line)[0] == 0
    large = picture.resize((72, 48), PIL.Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "big.png")), np.asarray(large))
    assert here("replay", "big.png")[:2] == (0, "identical: big.png\n")


def test_a_texture_goes_on_at_its_opposite_edge(here, tmp_path):
    line = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "1", "--seamless", "x", "-o", "tile.png", "-q")
    assert here("generate", "stripes", *line)[0] == 0
    pixels = np.asarray(PIL.Image.open(tmp_path / "tile.png")).astype(float)
    across = np.abs(pixels[:, 0] - pixels[:, -1]).mean()
    assert across < 2 * np.abs(np.diff(pixels, axis=1)).mean()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scale", "1"), "error: --scale is '1': must be more than 1, and at most 16\n"),
        (("--scale", "big"), "error: --scale is 'big': must be more than 1, and at most 16\n"),
        (("--upscaler", "best"), "error: upscaler is 'best': unknown upscaler;"),
        (("--scale", "16"), "error: width is 4800:"),
    ],
)
def test_what_cannot_be_is_wrong_usage(here, tmp_path, arguments, said):
    PIL.Image.new("RGB", (300, 20)).save(tmp_path / "photo.png")
    status, out, err = here("upscale", "photo.png", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(said)
