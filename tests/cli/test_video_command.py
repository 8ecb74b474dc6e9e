"""`sfumato video` as it is typed, on the embedded model with a motion adapter that changes nothing."""

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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--frames", "0"), "frames is 0: must be at least 2"),
        (("--frames", "10000"), "frames is 10000: must be at most 1024"),
        (("--fps", "0"), "fps is 0: must be at least 1"),
        (("-o", "clip.avi"), "'clip.avi' has unknown suffix '.avi'"),
        (("--motion", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_what_is_wrong_is_told_before_drawing(here, motion, line, words, tmp_path):
    status, out, err = here("video", "a cat", *SMALL, *line)
    assert (status, out) == (2, "")
    assert words in err
    assert not list(tmp_path.iterdir())
