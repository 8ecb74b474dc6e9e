"""`sfumato interpolate` and `sfumato grid`, and what they leave behind."""

import json

import numpy as np
import PIL.Image
import pytest
from pictures import drawn

from sfumato import metadata
from sfumato.contact_sheet import contact_sheet
from sfumato.series import record as records
from sfumato.video import Video

SMALL = ("--steps", "2", "--width", "64", "--height", "64", "--device", "cpu", "-q")
WAY = ("interpolate", "a red apple", "a lemon", "--seed", "7", "--frames", "3")
pytestmark = pytest.mark.usefixtures("kept_studios")


def test_frames_are_written_as_an_animation_and_kept_as_pictures_that_are_replayed(here, tmp_path):
    line = (*WAY, "--seed", "8", "--fps", "10", "--keep", "frames/", "-o", "morph.gif")
    assert here(*line, *SMALL) == (0, "morph.gif\n", "")
    with PIL.Image.open(tmp_path / "morph.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["duration"]) == (3, (64, 64), 100)
    kept = [metadata.read(tmp_path / "frames" / f"{number}.png") for number in (1, 2, 3)]
    assert records.read(tmp_path / "morph.gif").records == tuple(kept)
    assert [kept[0].request.seed, kept[2].request.seed] == [7, 8]
    assert (kept[1].request.seed, kept[1].request.variation_seed) == (7, (8,))
    assert here("replay", "frames/2.png", "-q")[0] == 0
    whole = here("replay", "morph.gif", "-q")
    assert whole == (0, "identical: morph.gif, all 3 pictures as they were drawn\n", "")


def test_a_strip_is_the_frames_in_a_row_and_inspect_says_what_they_are(here, tmp_path):
    status, out, _ = here(*WAY, "--equal-weights", "-o", "strip.png", "--json", *SMALL)
    assert status == 0
    found = json.loads(out)
    assert (found["path"], len(found["frames"])) == ("strip.png", 3)
    assert found["frames"][1]["request"]["prompt"] == '("a red apple", "a lemon").blend(0.5000, 0.5000)'
    with PIL.Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (192, 64)
        for number in range(3):
            shown = np.asarray(strip)[:, 64 * number : 64 * (number + 1)]
            assert metadata.pixel_digest(shown) == found["frames"][number]["pixels"]
    status, out, _ = here("inspect", "strip.png")
    assert out.splitlines()[:2] == [
        "strip.png: interpolation of 3 pictures",
        "prompt             3 values",
    ]
    pictures = json.loads(here("inspect", "strip.png", "--json")[1])["pictures"]
    assert pictures == found["frames"]


def test_without_a_name_an_animation_is_called_after_its_prompts_and_replaces_nothing(here):
    for name in ("a-red-apple-to-a-lemon.gif", "a-red-apple-to-a-lemon-2.gif"):
        assert here(*WAY, "--equal-weights", *SMALL) == (0, f"{name}\n", "")


GRID = ("grid", "a {red|blue} apple", "--seed", "7", *SMALL)


def test_the_cells_of_a_grid_are_the_single_pictures(here, tmp_path):
    axes = ("--x", "prompt~apple=pear,plum", "--y", "guidance=1,4")
    assert here(*GRID, *axes, "--keep", "cells/", "-o", "grid.png") == (0, "grid.png\n", "")
    cells = []
    for number, (guidance, word) in enumerate(
        [("1", "pear"), ("1", "plum"), ("4", "pear"), ("4", "plum")], start=1
    ):
        line = ("generate", f"a {{red|blue}} {word}", "--guidance", guidance, "--seed", "7", "-o", "one.png")
        assert here(*line, *SMALL)[0] == 0
        with PIL.Image.open(tmp_path / "one.png") as single:
            single.load()
        with PIL.Image.open(tmp_path / "cells" / f"{number}.png") as kept:
            assert np.array_equal(np.asarray(kept), np.asarray(single))
        cells.append(single)
    page = contact_sheet(
        cells, column_labels=["pear", "plum"], row_labels=["guidance 1", "guidance 4"], cell=(64, 64)
    )
    with PIL.Image.open(tmp_path / "grid.png") as grid:
        assert np.array_equal(np.asarray(grid), np.asarray(page))
    record = records.read(tmp_path / "grid.png")
    assert record.axes == {"prompt~apple": ("pear", "plum"), "guidance": ("1", "4")}
    assert [each.request.guidance for each in record.records] == [1, 1, 4, 4]
    out = here("inspect", "grid.png")[1].splitlines()
    assert out[1:3] == ["columns            prompt~apple: pear, plum", "rows               guidance: 1, 4"]


def test_models_can_be_an_axis(here, tmp_path):
    from sfumato import checkpoint

    (tmp_path / "other").symlink_to(checkpoint.embedded())
    status, out, _ = here(*GRID, "--x", "model=embedded,other", "--json", "-o", "grid.webp")
    assert status == 0
    assert [cell["request"]["model"] for cell in json.loads(out)["cells"]] == ["embedded", "other"]


def test_a_replay_says_which_pictures_of_a_grid_differ(here, tmp_path):
    assert here(*GRID, "--x", "guidance=1,4", "-o", "grid.png")[0] == 0
    found = records.read(tmp_path / "grid.png")
    other = found.model_copy(update={"others": ({**found.others[0], "pixels": "0" * 64, "torch": "1.0"},)})
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "other.png", **other.held("PNG"))
    status, out, _ = here("replay", "other.png", "-q")
    assert (status, out.splitlines()[0]) == (1, "differs: other.png: 1 of 2 pictures")
    assert "torch: 1.0 then" in out
    assert json.loads(here("replay", "other.png", "--json", "-q")[1])["pictures"] == [2]
    status, _, err = here("replay", "grid.png", "-o", "again.png")
    assert (status, err) == (2, "error: grid.png holds 2 pictures, which are compared, not saved\n")


def test_a_file_that_only_is_called_mp4_is_told(here, tmp_path):
    (tmp_path / "morph.mp4").write_text("no video")
    for command in ("inspect", "replay"):
        status, out, err = here(command, "morph.mp4")
        assert (status, out) == (2, "")
        assert err.startswith("error: cannot read morph.mp4: Invalid data")


@pytest.mark.parametrize("name", ["clip.gif", "clip.webm", "clip"])
def test_inspect_shows_the_record_of_a_clip(here, name, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 24, 32, 3), np.uint8)
    video = Video.of(pixels, drawn("an apple").record, fps=8)
    video.save(tmp_path / name)
    status, out, _ = here("inspect", name)
    kind = {"clip.gif": "GIF", "clip.webm": "WEBM", "clip": "PNG"}[name]
    assert (status, out.splitlines()[:2]) == (
        0,
        [f"{name}: {kind}, 32×24, 4 frames, 8 a second", f"{'prompt':18} an apple"],
    )
    told = json.loads(here("inspect", name, "--json")[1])
    assert (told["frames"], told["fps"]) == (4, 8)
    assert told["record"]["frame_pixels"] == list(video.record.frame_pixels)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((*WAY, "-o", "a.avi"), "unknown suffix '.avi'; frames are written as .webp, .gif, .apng,"),
        ((*WAY, "--fps", "0"), "fps is 0: must be 1 to 50"),
        ((*WAY, "--frames", "1"), "frames is 1: must be 2 to 1000"),
        (("interpolate", "a cat"), "two prompts or more"),
        ((*WAY, "--seed", "-1"), "seed"),
        ((*GRID, "--x", "steps=0"), "axis steps, value '0': steps is 0: must be at least 1"),
        ((*GRID,), "one to three axes, not 0"),
        ((*GRID, "--x", "width=64,70"), "the cell of width 70: width is 70: must be a multiple of 8"),
        ((*GRID, "--x", "steps=1", "-o", "a.gif"), "unknown suffix '.gif'"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(here, line, words, tmp_path):
    status, out, err = here(*line)
    assert (status, out) == (2, "")
    assert words in err
    assert list(tmp_path.iterdir()) == []
