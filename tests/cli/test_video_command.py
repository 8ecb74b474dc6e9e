"""`sfumato video` as it is typed, on the embedded model with a motion adapter that changes nothing."""

import json

import PIL.Image
import pytest
from clips_motion import save_motion

import sfumato
from sfumato import metadata
from sfumato.checkpoint import embedded
from sfumato.config import UNetConfig
from sfumato.files import read_json

SMALL = ("--steps", "2", "--width", "64", "--height", "64", "--device", "cpu", "-q", "--seed", "7")


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    config = UNetConfig.from_dict(read_json(embedded() / "unet" / "config.json"), "unet")
    return save_motion(tmp_path_factory.mktemp("motion") / "zero", config, zero=True)


def test_a_clip_is_written_with_its_record_and_a_sheet(here, motion, tmp_path):
    line = ("video", "a red apple", "--motion", motion, "--frames", "3", "--fps", "5", "--loop", "--sheet")
    status, out, err = here(*line, "-o", "apple.webp", *SMALL)
    assert (status, out.split(), err) == (0, ["apple.webp"], "")
    with PIL.Image.open(tmp_path / "apple.webp") as clip:
        assert (clip.n_frames, clip.size, clip.info["loop"]) == (3, (64, 64), 0)
    request = metadata.read(tmp_path / "apple.webp").request
    assert (request.frames, request.fps, request.loop, request.seed) == (3, 5, True, 7)
    with PIL.Image.open(tmp_path / "apple-sheet.png") as sheet:
        assert sheet.width >= 2 * 64


def test_a_folder_holds_every_frame(here, motion, tmp_path):
    line = ("video", "a cat", "--motion", motion, "--frames", "2", "-o", "frames/", *SMALL)
    assert here(*line)[0] == 0
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["0001.png", "0002.png", "video.json"]
    assert len(sfumato.Video.open(tmp_path / "frames")) == 2


def test_a_clip_in_any_format_and_each_of_its_frames_replays(here, motion, tmp_path):
    line = ("video", "a cat", "--motion", motion, "--frames", "2", *SMALL)
    for name in ("cat.gif", "cat.mp4", "cat/"):
        assert here(*line, "-o", name)[0] == 0
        found = here("replay", name, "-q")
        shown = name.rstrip("/")
        assert found == (0, f"identical: {shown}, all 2 frames as they were drawn\n", "")
    status, out, _ = here("replay", "cat/0002.png", "-o", "again.apng", "--json", "-q")
    told = json.loads(out)
    assert (status, told["identical"], told["output"]) == (0, True, "again.apng")
    assert here("inspect", "cat/0002.png")[1].splitlines()[0] == "cat/0002.png: PNG, 64×64"
    assert here("inspect", "cat")[1].splitlines()[0] == "cat: PNG, 64×64, 2 frames, 8 a second"
    again, first = sfumato.Video.open(tmp_path / "again.apng"), sfumato.Video.open(tmp_path / "cat")
    assert again.as_drawn
    assert again.record.frame_pixels == first.record.frame_pixels
    assert again.fps == first.fps


def test_a_replay_says_which_frames_of_a_clip_differ(here, motion, tmp_path):
    line = ("video", "a cat", "--motion", motion, "--frames", "2", "-o", "cat.gif", *SMALL)
    assert here(*line)[0] == 0
    video = sfumato.Video.open(tmp_path / "cat.gif")
    digests = (video.record.frame_pixels[0], "0" * 64)
    record = video.record.model_copy(update={"frame_pixels": digests, "torch": "1.0"})
    frames = tuple(sfumato.Image(frame.pixels, record) for frame in video.frames)
    sfumato.Video(frames, video.fps, video.loop).save(tmp_path / "other.gif")
    status, out, _ = here("replay", "other.gif", "-q")
    assert (status, out.splitlines()[0]) == (1, "differs: other.gif: 1 of 2 frames")
    assert "torch: 1.0 then" in out


def test_the_frames_of_a_clip_in_a_folder_are_kept_beside_it_too(here, motion, tmp_path):
    line = ("--motion", motion, "--frames", "2", "--keep", "kept", "-o", "cat/", *SMALL)
    assert here("video", "a cat", *line)[0] == 0
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["1.png", "2.png"]


def test_a_sheet_that_cannot_be_written_is_told_before_drawing(here, tmp_path):
    (tmp_path / "cat-sheet.png").mkdir()
    status, _, err = here("video", "a cat", "--sheet", "-o", "cat.webp", *SMALL)
    assert (status, "cat-sheet.png: it is a folder" in err) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["cat-sheet.png"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("-o", "-"), "--output is '-': a clip is written as a file or a folder"),
        (("--frames", "0"), "frames is 0: must be at least 2"),
        (("--frames", "10000"), "frames is 10000: must be at most 1024"),
        (("--fps", "0"), "fps is 0: must be at least 1"),
        (("--overlap", "2"), "context_overlap is 2: without a motion adapter windows have none"),
        (("-o", "clip.avi"), "'clip.avi' has unknown suffix '.avi'"),
        (("--motion", "nowhere.safetensors"), "there is no motion adapter 'nowhere.safetensors'"),
    ],
)
def test_what_is_wrong_is_told_before_drawing(here, motion, line, words, tmp_path):
    status, out, err = here("video", "a cat", *SMALL, *line)
    assert (status, out) == (2, "")
    assert words in err
    assert not list(tmp_path.iterdir())
