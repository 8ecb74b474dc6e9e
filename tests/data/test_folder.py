"""Folders of pictures: what is found in them, what is left out and said so, and what training sees."""

import io
import json
import os
import struct
import tarfile
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sfumato.data import shards
from sfumato.data.crops import Crop
from sfumato.data.folder import MOST_PIXELS
from sfumato.data.search import ONE_IN, search
from sfumato.errors import DataError, OutputError, SfumatoWarning


def picture(path, size=(8, 6), colour=(200, 100, 50), **told):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **told)


def member(tar, name, content):
    told = tarfile.TarInfo(name)
    told.size = len(content)
    tar.addfile(told, io.BytesIO(content))


def encoded(mode="RGB", kind="PNG", size=(8, 6)):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def noisy(kind):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def captions(folder):
    return {one.name: one.captions for one in search(folder).pictures}


def test_captions_lie_beside_pictures_one_a_line(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "deep" / "b.JPG")
    picture(tmp_path / "c.webp")
    (tmp_path / "a.txt").write_text("an apple\n\n  a fruit \n", encoding="utf-8-sig")
    (tmp_path / "deep" / "b.txt").write_text("ein Bär\n", encoding="utf-8")
    assert captions(tmp_path) == {"a.png": ("an apple", "a fruit"), "c.webp": (), "deep/b.JPG": ("ein Bär",)}


@pytest.mark.parametrize("key", ["text", "caption", "prompt"])
@pytest.mark.parametrize(
    ("said", "read"),
    [("a cat", ("a cat",)), (["a cat", " a pet "], ("a cat", "a pet")), ([], ()), (None, ())],
)
def test_metadata_holds_a_caption_or_several(tmp_path, key, said, read):
    picture(tmp_path / "sub" / "a.png")
    line = json.dumps({"file_name": "./a.png", key: said, "licence": "CC0"})
    (tmp_path / "sub" / "metadata.jsonl").write_text(f"{line}\n\n")
    assert captions(tmp_path) == {"sub/a.png": read}


def test_metadata_goes_before_a_caption_file_and_reaches_into_subfolders(tmp_path):
    picture(tmp_path / "train" / "a.png")
    (tmp_path / "train" / "a.txt").write_text("from the file")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "train/a.png", "text": "from above", "weight": 2}'
    )
    (found,) = search(tmp_path).pictures
    assert (found.captions, found.weight) == (("from above",), 2.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not valid JSON"),
        ('{"text": "a cat"}', "line 2: file_name must say which picture is meant"),
        ('{"file_name": "a.png", "text": 7}', "line 2: a caption must be text, or a list of texts"),
        ('{"file_name": "a.png", "text": ["a", 7]}', "line 2: a caption must be text"),
        ('{"file_name": "a.png", "weight": -1}', "line 2: weight must be 0 or from 0.001"),
        ('{"file_name": "a.png", "weight": true}', "line 2: weight must be"),
        ('{"file_name": "a.png", "weight": NaN}', "line 2 is not valid JSON"),
    ],
)
def test_metadata_that_cannot_be_meant_is_an_error_with_its_line(tmp_path, line, said):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png"}}\n{line}\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 2") as caught:
        search(tmp_path)
    assert said in str(caught.value)


def test_metadata_may_begin_as_windows_begins_text(tmp_path):
    picture(tmp_path / "a.png")
    line = '{"file_name": "a.png", "text": "x"}'
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8-sig")
    assert captions(tmp_path) == {"a.png": ("x",)}


def test_what_metadata_names_and_is_not_there_is_told(tmp_path):
    picture(tmp_path / "a.png")
    lines = ['{"file_name": "../a.png", "text": "x"}', '{"file_name": "b.png", "text": "x"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert [line.split(" is named in")[0] for line in search(tmp_path).broken] == ["../a.png", "b.png"]


def bomb():
    """A PNG that says it is 60,000 pixels wide and high."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def animation(kind):
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", b"", "not a PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF picture"),
        ("x.jpg", noisy("JPEG")[:-500], "truncated"),
        ("x.png", noisy("PNG")[:-500], "x.png"),
        ("x.webp", noisy("WEBP")[:-500], "x.webp"),
        ("x.gif", b"GIF89a", "x.gif"),
        ("x.tif", noisy("TIFF")[:-500], "x.tif"),
        ("x.bmp", noisy("BMP")[:-500], "x.bmp"),
        ("x.avif", noisy("AVIF")[:-500], "x.avif"),
        ("x.jpg", b"<!DOCTYPE html><html></html>", "not a PNG, JPEG"),
    ],
)
def test_a_broken_picture_is_left_out_and_named(tmp_path, name, content, said):
    picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    found = search(tmp_path)
    assert [one.name for one in found.pictures] == ["good.png"]
    assert found.unsupported == ()
    (line,) = found.broken
    assert said in line
    assert name in line
    with pytest.warns(SfumatoWarning, match="1 broken picture is left out"):
        found.warn(captioned=False)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", bomb(), "far too many pixels"),
        ("x.webp", animation("WEBP"), "is an animation"),
        ("x.gif", animation("GIF"), "is an animation"),
        ("x.png", animation("PNG"), "is an animation"),
        ("x.avif", animation("AVIF"), "is an animation"),
        ("x.tif", animation("TIFF"), "has several pages"),
        ("x.tif", encoded("F", "TIFF"), "pixels of the kind F"),
        ("x.tif", encoded("LAB", "TIFF"), "pixels of the kind LAB"),
        ("x.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIF picture"),
        ("x.heic", b"", "not a PNG, JPEG"),
        ("x.jxl", b"\xff\x0a", "not a PNG, JPEG"),
        ("x.NEF", b"II", "not a PNG, JPEG"),
        ("x.svg", b"<svg/>", "not a PNG, JPEG"),
        ("x.parquet", b"PAR1", "a table"),
        ("x.zip", b"PK", "an archive: unpack it"),
    ],
)
def test_a_picture_of_a_kind_that_is_not_read_is_called_so_and_not_broken(tmp_path, name, content, said):
    picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    found = search(tmp_path)
    assert [one.name for one in found.pictures] == ["good.png"]
    assert found.broken == ()
    (line,) = found.unsupported
    assert said in line
    assert name in line
    with pytest.warns(SfumatoWarning, match="1 picture of a kind that is not read is left out"):
        found.warn(captioned=False)


@pytest.mark.parametrize("name", ["captions.csv", "train.jsonl", "labels.tsv"])
def test_a_table_of_another_name_is_told_where_no_caption_is_found(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text("a.png,a cat")
    (line,) = search(tmp_path).unsupported
    assert line.startswith(
        f"{name} is a table of another name: as metadata.csv or metadata.jsonl, with file_name"
    )
    (tmp_path / "a.txt").write_text("a cat")
    assert search(tmp_path).unsupported == ()


def test_a_picture_of_more_pixels_than_are_read_is_told_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.data.search.MOST_PIXELS", 40)
    picture(tmp_path / "a.png")
    assert search(tmp_path).unsupported == ("a.png has 8×6 pixels; the most that is read is 40 pixels",)
    assert MOST_PIXELS >= 8192 * 8192


def only(folder):
    """The one picture of a folder, whole, (3, h, w) in 0..255."""
    source = search(folder).chosen(held_out=False, captioned=False)
    (size,) = source.sizes
    return ((source.load([0], [Crop(size, size)])[0] + 1) * 127.5).round()


@pytest.mark.parametrize("name", ["a.png", "a.jfif", "a.bmp", "a.gif", "a.tif", "a.tiff", "a.avif", "a.webp"])
def test_every_usual_kind_of_picture_is_read(tmp_path, name):
    picture(tmp_path / name, (16, 12), format={".jfif": "JPEG"}.get(name[1:]))
    x = only(tmp_path)
    assert x.shape == (3, 12, 16)
    torch.testing.assert_close(x.mean((1, 2)), torch.tensor([200.0, 100, 50]), atol=3, rtol=0)


def test_a_picture_of_16_bits_keeps_its_greys(tmp_path):
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    for name in ("a.png", "a.tif"):
        folder = tmp_path / name.replace(".", "")
        folder.mkdir()
        Image.fromarray(values).save(folder / name)
        assert torch.equal(only(folder), torch.arange(256.0).view(1, 16, 16).expand(3, 16, 16))


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_every_kind_of_picture_is_turned_as_its_exif_says(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = Image.new("RGB", (64, 32), "black")
    whole.paste((255, 255, 255), (0, 0, 64, 16))
    whole.save(tmp_path / f"a.{kind}", exif=exif)
    x = only(tmp_path)[0]
    assert x.shape == ((64, 32) if orientation == 6 else (32, 64))
    dark, bright = (x[:, :12], x[:, 20:]) if orientation == 6 else (x[:12], x[20:])
    assert dark.mean() < 10
    assert bright.mean() > 245


def profile(red, green, blue, gamma):
    """An ICC profile of three primaries (x, y) under D50 and one gamma, from its specification."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    white = np.array([0.9642, 1.0, 0.8249])
    primaries = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    columns = primaries * np.linalg.solve(primaries, white)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78 + 1)
    tags = {b"desc": text, b"wtpt": xyz(white), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, white)) + bytes(48)
    return header + table + body


WIDE = profile((0.6484, 0.3309), (0.2302, 0.7016), (0.1559, 0.0660), 2.2)
"""Adobe RGB (1998), its primaries adapted to D50."""


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "avif"])
def test_colours_are_those_of_the_pictures_profile(tmp_path, kind):
    told = {"quality": 100, "subsampling": "4:4:4"} if kind in ("jpg", "avif") else {}
    told |= {"lossless": True} if kind == "webp" else {}
    picture(tmp_path / f"a.{kind}", (16, 16), (120, 180, 90), icc_profile=WIDE, **told)
    # by hand: gamma 2.2, Adobe RGB to XYZ (D65) to sRGB, its curve
    linear = (np.array([120, 180, 90]) / 255) ** 2.19921875
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    to_srgb = [[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]]
    c = np.clip(np.array(to_srgb) @ np.array(to_xyz) @ linear, 0, 1)
    right = 255 * np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)
    assert abs(right[0] - 120) > 30
    torch.testing.assert_close(only(tmp_path).mean((1, 2)), torch.tensor(right).float(), atol=3, rtol=0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_a_profile_is_applied_to_every_mode_and_what_is_clear_stays_white(tmp_path, mode):
    whole = Image.new("RGBA", (8, 8), (120, 180, 90, 255))
    whole.paste((0, 0, 0, 0), (0, 0, 4, 8))
    whole = whole.convert(mode)
    whole.save(tmp_path / "a.png", icc_profile=WIDE)
    right = Image.new("RGB", (8, 8), (120, 180, 90)).convert("L" if mode in ("L", "LA") else "RGB")
    right.save(tmp_path / "b.png", icc_profile=WIDE)
    source = search(tmp_path).chosen(held_out=False, captioned=False)
    x, y = source.load([0, 1], [Crop((8, 8), (8, 8))] * 2)
    torch.testing.assert_close(x[:, :, 4:], y[:, :, 4:], atol=0.05, rtol=0)
    assert mode == "L" or bool((x[:, :, :4] == 1).all())


@pytest.mark.parametrize("content", [b"no profile at all", WIDE[:200]])
def test_a_profile_that_cannot_be_read_changes_nothing(tmp_path, content):
    picture(tmp_path / "a.png", icc_profile=content)
    assert only(tmp_path)[:, 0, 0].tolist() == [200, 100, 50]


def test_an_srgb_profile_changes_no_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=own)
    assert np.array_equal(only(tmp_path).permute(1, 2, 0).numpy(), pixels)


def test_captions_lie_in_caption_files_of_every_trainer(tmp_path):
    for name in "abcdefgh":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "a.caption").write_text("a small dog\n")
    (tmp_path / "b.json").write_text('{"caption": "a boat", "width": 8}')
    (tmp_path / "c.png.txt").write_text("a house")
    (tmp_path / "d.json").write_text('{"tags": ["red", "wall"], "score": 9}')
    (tmp_path / "g.json").write_text('{"tags": {"general": ["sea", "sky"], "artist": ["ann"]}}')
    (tmp_path / "h.json").write_text('{"tags": {"sea": 0.9, "sky": 0.4}}')
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "e.caption").write_text("an elk")
    (tmp_path / "f.json").write_text('[{"shapes": []}]')
    assert captions(tmp_path) == {
        "a.png": ("a small dog",),
        "b.png": ("a boat",),
        "c.png": ("a house",),
        "d.png": ("red, wall",),
        "e.png": ("an elk",),
        "f.png": (),
        "g.png": ("sea, sky, ann",),
        "h.png": ("sea, sky",),
    }


def test_a_caption_file_may_be_utf_16_as_windows_writes_it(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.TXT").write_text("ein Bär", encoding="utf-16")
    assert captions(tmp_path) == {"a.png": ("ein Bär",)}


def test_a_table_may_be_csv(tmp_path):
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        picture(tmp_path / name)
    lines = ["file_name,text,weight", 'a.png,"a cat, asleep",2', "a.png,a pet,", "sub/b.png,,"]
    (tmp_path / "metadata.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,text\nc.png,ein Bär\n", encoding="utf-8")
    found = {one.name: (one.captions, one.weight) for one in search(tmp_path).pictures}
    assert found == {
        "a.png": (("a cat, asleep", "a pet"), 2.0),
        "sub/b.png": ((), 1.0),
        "sub/c.png": (("ein Bär",), 1.0),
    }
    (tmp_path / "metadata.csv").write_text("name,text\na.png,x\n")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: file_name must say which"):
        search(tmp_path)


@pytest.mark.parametrize("key", ["a", "sub/a.png", "/home/me/train/sub/a.png", r"C:\train\sub\a.jpg"])
def test_kohyas_metadata_names_pictures_by_path_or_stem(tmp_path, key):
    picture(tmp_path / "sub" / "a.png")
    rows = {key: {"caption": "a boat", "tags": "sea, sky"}, "gone": {"caption": "x"}}
    (tmp_path / "meta_cap.json").write_text(json.dumps({key: {"caption": "an old caption"}}))
    (tmp_path / "meta_lat.json").write_text(json.dumps(rows))
    found = search(tmp_path)
    assert [one.captions for one in found.pictures] == [("a boat, sea, sky",)]
    assert found.broken == ("gone is named in meta_lat.json, but is not there",)


def test_one_json_may_hold_the_captions_of_all_pictures_and_another_be_of_something_else(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "captions.json").write_text('{"a.png": "a boat", "b.png": "a house"}')
    (tmp_path / "config.json").write_text('{"name": "x", "size": 3}')
    found = search(tmp_path)
    assert [one.captions for one in found.pictures] == [("a boat",)]
    assert found.broken == ()


def test_a_folders_name_gives_repeats_and_class_as_kohyas_does(tmp_path):
    for name in ("20_zwx dog/a.png", "20_zwx dog/deep/b.png", "1_dog/c.png", "2024_summer/d.png"):
        picture(tmp_path / name)
    (tmp_path / "20_zwx dog" / "a.txt").write_text("zwx dog on a lawn")
    assert {one.name: (one.captions, one.weight) for one in search(tmp_path).pictures} == {
        "20_zwx dog/a.png": (("zwx dog on a lawn",), 20.0),
        "20_zwx dog/deep/b.png": (("zwx dog",), 20.0),
        "1_dog/c.png": (("dog",), 1.0),
        "2024_summer/d.png": ((), 1.0),
    }
    assert captions(tmp_path / "1_dog") == {"c.png": ("dog",)}


@pytest.mark.parametrize("mask", ["a-masklabel.png", "a_mask.png", "masks/a.png", "conditioning/a.jpg"])
def test_a_mask_is_no_picture_to_learn_from(tmp_path, mask):
    picture(tmp_path / "a.png")
    picture(tmp_path / mask)
    found = search(tmp_path)
    assert [(one.name, one.mask) for one in found.pictures] == [("a.png", mask)]
    assert found.masks == (mask,)
    with pytest.warns(SfumatoWarning, match=r"1 mask, read with data\.loss_mask = 'files' alone"):
        found.warn(captioned=False)


def test_what_a_picture_is_conditioned_on_is_no_mask_of_it(tmp_path):
    for name in ("a.png", "a-condlabel.png"):
        picture(tmp_path / name)
    found = search(tmp_path)
    assert [(one.name, one.mask) for one in found.pictures] == [("a.png", "")]
    assert found.masks == ("a-condlabel.png",)


def test_of_two_pictures_of_one_name_each_has_the_mask_beside_it(tmp_path):
    for name in ("a/x.png", "a/masks/x.png", "b/x.png", "b/masks/x.png"):
        picture(tmp_path / name)
    assert {one.name: one.mask for one in search(tmp_path).pictures} == {
        "a/x.png": "a/masks/x.png",
        "b/x.png": "b/masks/x.png",
    }


def test_a_picture_that_a_table_names_besides_is_no_picture_to_learn_from(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "shape.png")
    row = {"file_name": "a.png", "text": "a boat", "conditioning_image_file_name": "shape.png"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert search(tmp_path).masks == ("shape.png",)


def test_a_picture_with_a_caption_is_learned_from_whatever_it_is_called(tmp_path):
    for name in ("party.png", "party_mask.png", "masks/party.png"):
        picture(tmp_path / name)
    (tmp_path / "party_mask.txt").write_text("a carnival mask")
    (tmp_path / "masks" / "party.txt").write_text("a carnival mask")
    picture(tmp_path / "gas_mask.png")
    assert search(tmp_path).masks == ()


def test_a_photograph_with_previews_behind_it_is_a_picture(tmp_path):
    preview = Image.new("RGB", (4, 3))
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.n_frames == 2
    assert search(tmp_path).chosen(held_out=False, captioned=False).sizes == ((8, 6),)


def test_what_a_run_draws_is_not_found(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "run" / "samples" / "last.webp")
    assert len(search(tmp_path).pictures) == 2
    assert [one.name for one in search(tmp_path, tmp_path / "run" / "index.json").pictures] == ["a.png"]


def test_a_caption_that_is_not_utf8_is_told(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"b\xe4r")
    assert search(tmp_path).broken == ("a.txt is not UTF-8 text",)


def test_a_picture_whose_name_is_no_text_is_told(tmp_path):
    picture(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert search(tmp_path).broken == (r"'\udcff.png' has a name that is not UTF-8",)


def test_a_link_to_nothing_is_told_and_one_in_a_circle_is_walked_once(tmp_path):
    picture(tmp_path / "sub" / "a.png")
    (tmp_path / "sub" / "again").symlink_to(tmp_path)
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere")
    found = search(tmp_path)
    assert [one.name for one in found.pictures] == ["sub/a.png"]
    assert found.broken == ("cannot read b.png: No such file or directory",)


def test_warnings_name_the_first_few_and_count_all(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.png")
    with pytest.warns(SfumatoWarning) as caught:
        search(tmp_path).warn(captioned=True)
    assert str(caught[0].message).endswith(
        "5 pictures without a caption are left out: 0.png; 1.png; 2.png, and 2 more"
    )


@pytest.mark.parametrize("broken", [False, True])
def test_a_folder_without_pictures_is_an_error_that_says_what_it_should_hold(tmp_path, broken):
    if broken:
        (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no pictures to train with.*PNG, JPEG, WebP") as caught:
        search(tmp_path).chosen(held_out=False, captioned=False)
    assert ("1 are broken, as x.png" in str(caught.value)) == broken


def test_a_folder_without_captions_is_an_error_where_they_are_needed(tmp_path):
    picture(tmp_path / "a.png")
    assert len(search(tmp_path).chosen(held_out=False, captioned=False).pictures) == 1
    with pytest.raises(DataError, match=r"none of 1 pictures has a caption; .*\.txt, \.caption"):
        search(tmp_path).chosen(held_out=False, captioned=True)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the folder .*nowhere: No such file"):
        search(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["test/a.png", "validation/deep/a.png", "val/a.png"])
def test_a_folder_that_has_a_test_split_keeps_it(tmp_path, name):
    picture(tmp_path / "train" / "b.png")
    picture(tmp_path / name)
    assert {one.name: one.held_out for one in search(tmp_path).pictures} == {"train/b.png": False, name: True}


def test_else_about_one_in_forty_is_held_out_by_its_name_wherever_the_folder_is(tmp_path):
    for place in ("one", "two"):
        for number in range(300):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / f"{number}.png").write_bytes(encoded(size=(1, 1)))
    one, two = ([p.name for p in search(tmp_path / x).pictures if p.held_out] for x in ("one", "two"))
    assert one == two
    assert 1 <= len(one) <= 3 * 300 // ONE_IN


def test_sizes_are_those_of_upright_pictures(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGB", (64, 32), "black")
    turned.paste((255, 0, 0), (0, 0, 64, 16))
    turned.save(tmp_path / "a.png", exif=exif)
    source = search(tmp_path).chosen(held_out=False, captioned=False)
    assert source.sizes == ((32, 64),)
    x = source.load([0], [Crop((32, 64), (32, 64))])
    assert x.shape == (1, 3, 64, 32)
    assert x[0, :, 5, 2].tolist() == [-1, -1, -1]
    assert x[0, :, 5, 29].tolist() == [1, -1, -1]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_pictures_of_every_mode_become_three_colours_on_white(tmp_path, mode):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    kind = "jpg" if mode == "CMYK" else "png"
    clear.convert(mode).save(tmp_path / f"a.{kind}")
    x = search(tmp_path).chosen(held_out=False, captioned=False).load([0], [Crop((4, 4), (4, 4))])
    assert x.shape == (1, 3, 4, 4)
    assert torch.equal(x, torch.ones_like(x)) == (mode in ("P", "RGBA", "LA"))


def test_a_view_shows_what_it_says(tmp_path):
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, :, 0] = np.arange(12) * 20
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = search(tmp_path).chosen(held_out=False, captioned=False)
    crops = [
        Crop((12, 4), (4, 4), across=0.0),
        Crop((12, 4), (4, 4), across=0.5),
        Crop((12, 4), (4, 4), across=1.0, mirrored=True),
    ]
    x = ((source.load([0, 0, 0], crops)[:, 0, 0] + 1) * 127.5 / 20).round()
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [11, 10, 9, 8]]
    assert [crop.visible_corner for crop in crops] == [(0, 0), (4, 0), (0, 0)]


def test_a_picture_that_is_gone_meanwhile_is_an_error_that_names_it(tmp_path):
    picture(tmp_path / "a.png")
    source = search(tmp_path).chosen(held_out=False, captioned=False)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png.*it was sound when the folder was searched"):
        source.load([0], [Crop((8, 6), (4, 4))])
    picture(tmp_path / "a.png", (9, 9))
    with pytest.raises(DataError, match=r"a\.png has another size now"):
        source.load([0], [Crop((8, 6), (4, 4))])


def test_what_was_found_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    folder, index = tmp_path / "data", tmp_path / "run" / "index.json"
    picture(folder / "a.png")
    (folder / "a.txt").write_text("a cat")
    (folder / "bad.png").write_bytes(b"")
    first = search(folder, index)
    with monkeypatch.context() as patched:
        patched.setattr("sfumato.pictures.opened_content", None)
        assert search(folder, index) == first
    (folder / "a.txt").write_text("a big cat")
    with pytest.warns(SfumatoWarning, match="has changed since it was last searched: 1 pictures then, 1 now"):
        assert search(folder, index).pictures[0].captions == ("a big cat",)
    os.utime(folder / "a.png", (1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        touched = search(folder, index)
        index.write_text('{"stamp": 1')
        assert search(folder, index) == touched
    kept = touched.chosen(held_out=False, captioned=True)
    assert kept.digest != first.chosen(held_out=False, captioned=True).digest


def test_shards_hold_pictures_with_their_words(tmp_path):
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        member(tar, "x/1.txt", b"a cat\na pet")
        member(tar, "x/1.png", encoded())
        member(tar, "2.jpg", encoded("RGB", "JPEG", (5, 7)))
        member(tar, "2.json", b'{"caption": "a dog", "weight": 3}')
        member(tar, "3.png", b"broken")
        member(tar, "4.cls", b"7")
    blue = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 20, 250)).save(blue, "WEBP")
    with tarfile.open(tmp_path / "test-000.tar", "w") as tar:
        member(tar, "1.webp", blue.getvalue())
    found = search(tmp_path)
    told = {one.name: (one.size, one.captions, one.weight, one.held_out) for one in found.pictures}
    assert told == {
        "test-000.tar/1.webp": ((9, 9), (), 1.0, True),
        "train-000.tar/2.jpg": ((5, 7), ("a dog",), 3.0, False),
        "train-000.tar/x/1.png": ((8, 6), ("a cat", "a pet"), 1.0, False),
    }
    assert found.broken == ("train-000.tar/3.png is not a PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF picture",)
    (x,) = found.chosen(held_out=True, captioned=False).load([0], [Crop((9, 9), (2, 2))])
    assert x[2].mean() > 0.9
    assert x[0].mean() < -0.8


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 99, 1024, 1300, 1600])
def test_a_damaged_shard_is_an_error_that_names_it(tmp_path, content):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member(tar, "1.png", encoded(size=(64, 64)))
        member(tar, "1.txt", b"a cat" * 200)
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(DataError, match=r"the shard .*a\.tar is damaged"):
        search(tmp_path)


def test_what_was_packed_is_what_was_found(tmp_path):
    folder, out = tmp_path / "data", tmp_path / "out"
    for number in range(90):
        picture(folder / f"{number:02}.png", (4 + number, 8))
    lines = [{"file_name": f"{n:02}.png", "text": [f"number {n}", "ü"], "weight": 1 + n} for n in range(90)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "bad.png").write_bytes(b"")
    found = search(folder)
    assert any(one.held_out for one in found.pictures)
    done = []
    paths = shards.pack(found, out, 2000, lambda *counts: done.append(counts))
    assert len(paths) > 2
    assert done[-1] == (90, 90)

    def told(found):
        return sorted((one.size, one.captions, one.weight, one.held_out) for one in found.pictures)

    packed = search(out)
    assert told(packed) == told(found)
    assert packed.broken == ()
    again = packed.pictures[0]
    raw = (out / again.file).read_bytes()[again.start : again.start + again.length]
    assert raw in {path.read_bytes() for path in folder.glob("*.png")}
    with pytest.raises(OutputError, match=r"will not add to .*test-00000\.tar is there already"):
        shards.pack(found, out)
