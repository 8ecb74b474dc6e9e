"""Clips in memory and in files: every frame, its time and the record come back from each format."""

import json
import os
import sys

import av
import numpy as np
import PIL.Image
import pytest
from pictures import drawn

from sfumato import animation, metadata
from sfumato.errors import OutputError, PictureError, SfumatoWarning, UsageError
from sfumato.image import Image
from sfumato.metadata import pixel_digest
from sfumato.video import Video, check_writable

FILES = (".webp", ".gif", ".apng", ".mp4", ".webm")
SIZE = (48, 40)


def square(step, count, size=SIZE, channels=3):
    """A red square on white, or on nothing, that moves to the right."""
    width, height = size
    pixels = np.full((height, width, channels), 255, np.uint8)
    pixels[..., 3:] = 0
    left = step * (width - 12) // count
    pixels[12:24, left : left + 12, :3] = (200, 30, 30)
    pixels[12:24, left : left + 12, 3:] = 255
    return pixels


def clip(count=8, size=SIZE, channels=3, still=(), **settings):
    """`still`: frames that are those before them."""
    order = [step - 1 if step in still else step for step in range(count)]
    fields = {"transparent": True} if channels == 4 else {}
    record = drawn("a red square", width=size[0], height=size[1], **fields).record
    return Video.of([square(step, count, size, channels) for step in order], record, **settings)


def test_each_frame_has_the_record_of_the_clip_and_the_hash_of_its_own_pixels():
    video = clip()
    assert video.as_drawn
    assert video.record.frame_pixels == tuple(pixel_digest(frame.pixels) for frame in video.frames)
    assert all(frame.as_drawn and frame.request == video.request for frame in video.frames)
    assert repr(video) == (
        "<Video 48×40: 'a red square', 8 frames, 12 a second, loop, seed 7, model embedded>"
    )


@pytest.mark.parametrize("suffix", [*FILES, "/", ""])
@pytest.mark.parametrize("fps", [8, 12, 30])
def test_frames_their_speed_and_the_record_come_back(suffix, fps, tmp_path):
    video = clip(fps=fps, still=(3, 7))
    path = video.save(f"{tmp_path}/clip{suffix}")
    again = Video.open(path)
    assert (len(again), again.fps, again.size) == (8, fps, SIZE)
    assert again.record == metadata.read(path) == video.record
    lossy = suffix in (".webp", ".mp4", ".webm")
    for number, (frame, was) in enumerate(zip(again.frames, video.frames, strict=True)):
        apart = np.abs(frame.pixels.astype(int) - was.pixels)
        assert apart.mean() < (1.5 if lossy else 1e-9), number
        assert frame.record == was.record
    assert again.as_drawn != lossy


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".apng", "/"])
def test_a_clip_plays_once_or_for_ever(suffix, tmp_path):
    for loop in (True, False):
        path = clip(loop=loop).save(f"{tmp_path}/{loop}{suffix}")
        assert Video.open(path).loop == loop


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".apng", "/"])
def test_transparent_pixels_stay_so_and_no_frame_shines_through_the_next(suffix, tmp_path):
    video = clip(channels=4)
    again = Video.open(video.save(f"{tmp_path}/clip{suffix}"))
    for frame, was in zip(again.frames, video.frames, strict=True):
        assert np.array_equal(frame.pixels[..., 3], was.pixels[..., 3])
        seen = was.pixels[..., 3] > 0
        assert np.abs(frame.pixels.astype(int) - was.pixels)[seen].mean() < 10


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_video_of_an_odd_size_is_made_even_and_stands_on_white_which_is_said(suffix, tmp_path):
    video = clip(size=(47, 39), channels=4)
    with pytest.warns(SfumatoWarning) as told:
        path = video.save(tmp_path / f"clip{suffix}")
    assert [str(each.message).partition(":")[0] for each in told] == [
        "47×39 becomes 48×40",
        f"{suffix[1:].upper()} is not transparent",
    ]
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert first.shape == (40, 48, 3)
    assert first[-1, -1].min() > 245
    assert Video.open(path).size == (47, 39)


def test_frames_of_a_gif_begin_on_time_where_its_unit_does_not_divide_them(tmp_path):
    found = animation.read(clip(16, fps=8).save(tmp_path / "clip.gif"))
    begins = np.cumsum((0, *found.seconds))
    assert np.abs(begins - np.arange(17) / 8).max() < 0.0051


def test_what_stands_still_does_not_flicker_in_a_gif(tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (40, 48, 3), np.uint8)
    pixels = np.repeat(noise[None], 6, axis=0)
    pixels[:, :10, :10] = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    video = Video.of(pixels, drawn(width=48, height=40).record)
    again = Video.open(video.save(tmp_path / "clip.gif"))
    for frame in again.frames:
        assert np.array_equal(frame.pixels[10:], again.frames[0].pixels[10:])


def test_a_folder_holds_a_picture_for_every_frame_and_one_record(tmp_path):
    path = clip(3, fps=10).save(tmp_path / "clip")
    assert sorted(each.name for each in path.iterdir()) == ["0001.png", "0002.png", "0003.png", "video.json"]
    told = json.loads((path / "video.json").read_text("utf-8"))
    assert (told["fps"], told["frames"], told["record"]["request"]["prompt"]) == (10, 3, "a red square")
    assert Image.open(path / "0002.png").as_drawn


def test_the_sheet_shows_every_frame_in_rows():
    video = clip(8)
    page = np.asarray(video.sheet(columns=4))
    assert page.shape == (80, 192, 3)
    assert np.array_equal(page[40:, 48:96], video.frames[5].pixels)


def test_a_notebook_shows_a_clip_that_moves():
    html = clip()._repr_html_()
    assert html.startswith('<img src="data:image/webp;base64,')
    assert html.endswith('width="48" height="40">')


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "a clip needs one frame or more"),
        ([square(0, 1), square(0, 1, (16, 16))], "have one size, not 16×16 and 48×40"),
    ],
)
def test_frames_that_are_no_clip_are_refused(frames, words):
    with pytest.raises(UsageError, match=words):
        Video.of(frames, drawn().record)


@pytest.mark.parametrize("fps", [0, 51, True, "fast"])
def test_a_speed_that_not_every_format_can_have_is_refused(fps):
    with pytest.raises(UsageError, match=f"fps is {fps}: must be 1 to 50"):
        clip(fps=fps)


def test_an_unknown_suffix_is_refused_and_the_known_ones_named(tmp_path):
    known = r"\.webp, \.gif, \.apng, \.mp4, \.webm, a folder/"
    for name in ("clip.avi", "clip.png"):
        for write in (clip().save, check_writable):
            with pytest.raises(UsageError, match=f"unknown suffix '{name[4:]}'; frames are .* {known}"):
                write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix in (".mp4", ".webm"):
        with pytest.raises(UsageError, match=r"pip install 'sfumato\[video\]'"):
            clip().save(tmp_path / f"clip{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_told_and_nothing_is_left(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="there is no folder"):
        clip().save(tmp_path / "none" / "clip.gif")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for write in (clip().save, check_writable):
        with pytest.raises(OutputError, match=r"it is not empty and holds no video\.json"):
            write(tmp_path / "full")
    with pytest.raises(OutputError, match="it exists"):
        clip().save(clip().save(tmp_path / "a.gif"), overwrite=False)

    def fail(*_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    kept = clip(3).save(tmp_path / "clip")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        for name in ("a.gif", "clip"):
            with pytest.raises(OutputError, match="no space is left"):
                clip(5).save(tmp_path / name)
    assert len(Video.open(kept)) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.gif", "clip", "full"]


def test_frames_of_any_program_are_read_with_their_times(tmp_path):
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / "theirs.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 300, 0], loop=0)
    found = animation.read(path)
    assert (found.seconds, found.loop) == ((0.1, 0.3, 0.1), True)
    shown = [frame.getpixel((0, 0)) for frame in found.resampled(5)]
    assert shown == [(255, 0, 0), *[(0, 255, 0)] * 3, (0, 0, 255)]
    with pytest.raises(PictureError, match="no Sfumato record in"):
        Video.open(path)


def test_sound_in_a_container_is_passed_over_and_sound_alone_is_told(tmp_path):
    for name, pictures in (("both.mp4", 4), ("sound.mp4", 0)):
        with av.open(str(tmp_path / name), "w") as container:
            streams = []
            if pictures:
                video = container.add_stream("libx264", rate=10)
                video.width, video.height, video.pix_fmt = 48, 40, "yuv420p"
                streams.append((video, [av.VideoFrame(48, 40, "rgb24") for _ in range(pictures)]))
            sound = container.add_stream("aac", rate=44100)
            silence = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            silence.sample_rate = 44100
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            streams.append((sound, [silence]))
            for stream, content in streams:
                for each in (*content, None):
                    container.mux(stream.encode(each))
    assert len(animation.read(tmp_path / "both.mp4").frames) == 4
    with pytest.raises(PictureError, match="holds sound, but no pictures"):
        animation.read(tmp_path / "sound.mp4")


def test_files_that_would_fill_the_memory_and_damaged_ones_are_refused(tmp_path, monkeypatch):
    for suffix in FILES:
        path = clip().save(tmp_path / f"clip{suffix}")
        with monkeypatch.context() as patched:
            patched.setattr(animation, "MAX_READ", 5 * 48 * 40)
            with pytest.raises(PictureError, match="have more than 9,600 pixels together"):
                animation.read(path)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(PictureError):
            animation.read(path)
        path.unlink()
        with pytest.raises(PictureError, match="cannot read"):
            animation.read(path)
    with pytest.raises(PictureError, match="is no folder of frames"):
        Video.open(tmp_path)
