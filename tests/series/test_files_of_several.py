"""Files of several pictures: their frames, and the records that they hold."""

import av
import numpy as np
import PIL.Image
import pytest
from pictures import drawn

from sfumato import animation
from sfumato.errors import PictureError
from sfumato.image import Image
from sfumato.series import record as records
from sfumato.series.record import SetRecord


def frames(count=5, size=(64, 48)):
    """Pictures that brighten, each with a record of its own."""
    found = []
    for number in range(count):
        pixels = np.full((size[1], size[0], 3), 40 * number + 20, np.uint8)
        found.append(Image(pixels, drawn("an apple", seed=number).record))
    return found


@pytest.fixture
def images():
    return frames()


def file(tmp_path, images, suffix, fps=10):
    kind = animation.animation_format(path := tmp_path / f"morph{suffix}")
    record = SetRecord.of([image.record for image in images], kind="interpolation")
    path.write_bytes(animation.encoded([image.pil for image in images], kind, fps, record.held(kind)))
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_every_frame_and_plays_on(images, suffix, tmp_path):
    with PIL.Image.open(file(tmp_path, images, suffix)) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (5, (64, 48), 0)
        for number in range(5):
            picture.seek(number)
            picture.load()
            assert picture.info["duration"] == 100
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - 40 * number - 20).max() <= 2


def test_an_mp4_has_every_frame(images, tmp_path):
    with av.open(str(file(tmp_path, images, ".mp4"))) as container:
        (stream,) = container.streams.video
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (len(shown), stream.average_rate, stream.codec_context.name) == (5, 10, "h264")
        assert shown[0].shape == (48, 64, 3)
        assert (
            container.metadata["comment"]
            == SetRecord.of([image.record for image in images], kind="interpolation").text
        )
    for number, picture in enumerate(shown):
        assert np.abs(picture.astype(int) - 40 * number - 20).max() <= 4


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng", ".mp4", ".webm"])
def test_the_records_of_all_pictures_come_back_as_they_went_in(images, suffix, tmp_path):
    found = records.read(file(tmp_path, images, suffix))
    assert found.kind == "interpolation"
    assert found.records == tuple(image.record for image in images)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_the_record_of_a_grid_says_its_axes(images, kind, tmp_path):
    axes = {"steps": ("4", "8"), "prompt~apple": ("pear", "plum")}
    record = SetRecord.of([image.record for image in images[:4]], kind="grid", axes=axes)
    path = tmp_path / f"grid.{kind.lower()}"
    PIL.Image.new("RGB", (64, 64)).save(path, kind, **record.held(kind))
    assert records.read(path).axes == axes


def test_only_what_differs_is_said_of_the_other_pictures(images):
    record = SetRecord.of([image.record for image in images], kind="grid")
    assert record.others[0] == {"request": {"seed": 1}, "pixels": images[1].record.pixels}


def test_a_record_too_long_for_a_jpeg_is_left_out(images):
    assert SetRecord.of([image.record for image in images] * 1000, kind="grid").held("JPEG") == {}


@pytest.mark.parametrize("text", ['{"kind":', '{"kind":"grid"}', '{"kind":"grid","first":{},"others":[]}'])
def test_a_damaged_record_is_told(text, tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=text)
    with pytest.raises(PictureError, match=r"the record in .* cannot be read"):
        records.read(tmp_path / "a.gif")


def test_a_picture_without_such_records_is_told(tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment="made by hand")
    with pytest.raises(PictureError, match="no record of several pictures in"):
        records.read(tmp_path / "a.gif")
