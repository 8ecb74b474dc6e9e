"""Pictures in memory and in files, also in files that were made to do harm."""

import errno
import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest
from pictures import drawn

from sfumato import metadata
from sfumato.errors import OutputError, PictureError, UsageError
from sfumato.image import Image


def test_a_png_gives_back_every_pixel(tmp_path):
    image = drawn()
    again = Image.open(image.save(tmp_path / "picture.png"))
    assert np.array_equal(again.pixels, image.pixels)
    assert again.as_drawn
    assert again.differs(image) is None
    assert again.size == image.pil.size == (32, 24)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_a_lossy_file_knows_that_it_is_not_what_was_drawn(suffix, tmp_path):
    image = drawn()
    again = Image.open(image.save(tmp_path / f"picture{suffix}", quality=90))
    assert not again.as_drawn
    assert again.record == image.record
    assert "/255 in" in again.differs(image)


def test_less_quality_makes_a_smaller_file(tmp_path):
    sizes = [drawn().save(tmp_path / f"{q}.jpg", quality=q).stat().st_size for q in (20, 95)]
    assert sizes[0] < sizes[1]


def test_a_notebook_shows_the_png_with_its_record():
    image = drawn()
    with PIL.Image.open(io.BytesIO(image._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert metadata.record_of(shown, "notebook") == image.record


def test_the_difference_names_the_largest_deviation_and_the_number_of_pixels():
    image = drawn()
    pixels = image.pixels.copy()
    pixels[0, 0, 0] ^= 4
    pixels[5, 5, :] ^= 1
    assert image.differs(Image(pixels, image.record)) == "at most 4/255 in 2 of 768 pixels"
    assert image.differs(Image(pixels[:, :16], image.record)) == "size 16×24 instead of 32×24"


@pytest.mark.parametrize(
    ("name", "told"), [("a.gif", "unknown suffix '.gif'"), ("a", "no suffix"), (".png", "no suffix")]
)
def test_an_unknown_suffix_is_refused_and_the_known_ones_named(name, told, tmp_path):
    with pytest.raises(UsageError, match=rf"{told}; a picture is written as \.png, \.jpg, \.jpeg, \.webp"):
        drawn().save(tmp_path / name)


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_out_of_range_is_refused(quality, tmp_path):
    with pytest.raises(UsageError, match=r"quality is \d+: must be 1 to 100"):
        drawn().save(tmp_path / "a.jpg", quality=quality)


def test_an_existing_file_is_replaced_only_if_that_is_allowed(tmp_path):
    path = drawn(seed=1).save(tmp_path / "a.png")
    with pytest.raises(OutputError, match="it exists"):
        drawn(seed=2).save(path, overwrite=False)
    assert metadata.read(path).request.seed == 1
    drawn(seed=2).save(path)
    assert metadata.read(path).request.seed == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_beside_it(code, call, tmp_path, monkeypatch):
    path = drawn(seed=1).save(tmp_path / "a.png")

    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OutputError, match=r"cannot write .*a\.png"):
            drawn(seed=2).save(path)
    assert metadata.read(path).request.seed == 1
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_prompt_that_a_jpeg_cannot_hold_is_refused_and_a_png_named(tmp_path):
    long = drawn("苹果" * 20_000)
    with pytest.raises(UsageError, match=r"save as \.png"):
        long.save(tmp_path / "a.jpg")
    assert os.listdir(tmp_path) == []
    for suffix in (".png", ".webp"):
        assert metadata.read(long.save(tmp_path / f"a{suffix}")) == long.record


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("side", "told"), [(4100, "4100×4100 pixels"), (60_000, "far too many pixels")])
def test_a_picture_too_large_is_refused_before_it_is_decoded(side, told, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, chunk(b"IDAT", zlib.compress(b""))))
    with pytest.raises(PictureError, match=f"{told}; the most that is read is 16,777,216"):
        Image.open(path)


def test_a_text_chunk_that_unpacks_to_megabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    text = b"sfumato\0\0" + zlib.compress(b" " * (8 << 20))
    path.write_bytes(png(8, 8, chunk(b"zTXt", text), chunk(b"IDAT", zlib.compress(bytes(8 * 25)))))
    with pytest.raises(PictureError):
        Image.open(path)


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
def test_a_png_with_megabytes_besides_its_pixels_is_refused_before_they_are_read(place, tmp_path):
    path = tmp_path / "bomb.png"
    texts = [chunk(b"tEXt", b"sfumato\0" + b" " * (6 << 20))] * 3
    pixels = [chunk(b"IDAT", zlib.compress(bytes(8 * 25)))]
    path.write_bytes(png(8, 8, *(texts + pixels if place.startswith("before") else pixels + texts)))
    tracemalloc.start()
    with pytest.raises(PictureError, match="more than 16,777,216 bytes besides its pixels"):
        Image.open(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_larger_than_any_picture_is_refused_before_it_is_read(tmp_path):
    path = drawn().save(tmp_path / "picture.webp")
    os.truncate(path, 1 << 40)  # without anything in it: a sparse file
    with pytest.raises(PictureError, match=r"takes 1,099,511,627,776 bytes, too many for a picture"):
        Image.open(path)


def test_a_pipe_named_as_a_picture_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "picture.png")
    with pytest.raises(PictureError, match=r"cannot read .*: it is a named pipe"):
        Image.open(tmp_path / "picture.png")


def test_a_video_is_refused_as_one(tmp_path):
    path = tmp_path / "moving.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    with pytest.raises(PictureError, match=r"is a video; .*: of a clip give one frame"):
        Image.open(path)


def test_an_animation_is_refused(tmp_path):
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in (".png", ".webp"):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(PictureError, match="is an animation"):
            Image.open(path)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".gif", "no Sfumato record"),
        (".tiff", "no Sfumato record"),
        (".ppm", "is not a PNG, JPEG, WebP, BMP"),
    ],
)
def test_a_format_is_told_by_the_content_whatever_the_name(suffix, message, tmp_path):
    path = tmp_path / "picture.png"
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / f"other{suffix}")
    (tmp_path / f"other{suffix}").rename(path)
    with pytest.raises(PictureError, match=message):
        Image.open(path)


def test_a_program_that_adds_an_srgb_profile_leaves_the_pixels_as_they_were_drawn(tmp_path):
    path = drawn().save(tmp_path / "a.png")
    with PIL.Image.open(path) as picture:
        info = PIL.PngImagePlugin.PngInfo()
        for name, text in picture.text.items():
            info.add_text(name, text)
        profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
        picture.save(path, pnginfo=info, icc_profile=profile)
    assert Image.open(path).as_drawn


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(PictureError, match="No such file"):
        Image.open(tmp_path / "none.png")
    with pytest.raises(PictureError, match="it is a folder"):
        Image.open(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_damaged_files_are_read_or_refused_but_never_crash(suffix, tmp_path):
    whole = drawn("苹果", negative="x").save(tmp_path / f"whole{suffix}").read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / f"damaged{suffix}"
    refused = 0
    for attempt in range(300):
        raw = bytearray(whole)
        if attempt % 3 == 0:
            raw = raw[: rng.integers(1, len(raw))]
        for place in rng.integers(0, len(raw), rng.integers(1, 8)):
            raw[place] = rng.integers(0, 256)
        path.write_bytes(raw)
        try:
            Image.open(path)
        except PictureError:
            refused += 1
    assert refused > 30


def test_the_orientation_a_camera_noted_is_applied(tmp_path):
    image = drawn()
    path = image.save(tmp_path / "a.jpg")
    with PIL.Image.open(path) as picture:
        exif, xmp = picture.getexif(), picture.info["xmp"]
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif, xmp=xmp)
    assert Image.open(tmp_path / "turned.jpg").size == (24, 32)
