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
from PIL import Image

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


def encoded(size=(8, 6), colour=(200, 100, 50), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
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


def animation():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def grey(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", b"", "not a PNG, JPEG or WebP picture"),
        ("x.jpg", noisy("JPEG")[:-500], "truncated"),
        ("x.png", noisy("PNG")[:-500], "x.png"),
        ("x.webp", noisy("WEBP")[:-500], "x.webp"),
        ("x.png", bomb(), "far too many pixels"),
        ("x.webp", animation(), "animation"),
        ("x.png", grey("I;16"), "more than 8 bits"),
        ("x.jfif", encoded(kind="JPEG"), "not a PNG, JPEG or WebP picture"),
        ("x.NEF", b"II", "not a PNG, JPEG or WebP picture"),
        ("x.gif", b"GIF89a", "not a PNG, JPEG or WebP picture"),
        ("x.jpg", encoded(kind="GIF"), "not a PNG, JPEG or WebP picture"),
    ],
)
def test_a_broken_picture_is_left_out_and_named(tmp_path, name, content, said):
    picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    found = search(tmp_path)
    assert [one.name for one in found.pictures] == ["good.png"]
    (line,) = found.broken
    assert said in line
    assert name in line
    with pytest.warns(SfumatoWarning, match="1 broken picture is left out"):
        found.warn(captioned=False)


def test_a_picture_of_more_pixels_than_are_read_is_told_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.data.search.MOST_PIXELS", 40)
    picture(tmp_path / "a.png")
    assert search(tmp_path).broken == ("a.png has 8×6 pixels; the most that is read is 40 pixels",)
    assert MOST_PIXELS >= 8192 * 8192


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
    with pytest.raises(DataError, match=r"holds no pictures to train with.*PNG, JPEG or WebP") as caught:
        search(tmp_path).chosen(held_out=False, captioned=False)
    assert ("1 are broken, as x.png" in str(caught.value)) == broken


def test_a_folder_without_captions_is_an_error_where_they_are_needed(tmp_path):
    picture(tmp_path / "a.png")
    assert len(search(tmp_path).chosen(held_out=False, captioned=False).pictures) == 1
    with pytest.raises(DataError, match=r"none of 1 pictures has a caption; write .* \.txt"):
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
            (tmp_path / place / f"{number}.png").write_bytes(encoded((1, 1)))
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
        member(tar, "x/1.png", encoded((8, 6)))
        member(tar, "2.jpg", encoded((5, 7), kind="JPEG"))
        member(tar, "2.json", b'{"caption": "a dog", "weight": 3}')
        member(tar, "3.png", b"broken")
        member(tar, "4.cls", b"7")
    with tarfile.open(tmp_path / "test-000.tar", "w") as tar:
        member(tar, "1.webp", encoded((9, 9), (10, 20, 250), "WEBP"))
    found = search(tmp_path)
    told = {one.name: (one.size, one.captions, one.weight, one.held_out) for one in found.pictures}
    assert told == {
        "test-000.tar/1.webp": ((9, 9), (), 1.0, True),
        "train-000.tar/2.jpg": ((5, 7), ("a dog",), 3.0, False),
        "train-000.tar/x/1.png": ((8, 6), ("a cat", "a pet"), 1.0, False),
    }
    assert found.broken == ("train-000.tar/3.png is not a PNG, JPEG or WebP picture",)
    (blue,) = found.chosen(held_out=True, captioned=False).load([0], [Crop((9, 9), (2, 2))])
    assert blue[2].mean() > 0.9
    assert blue[0].mean() < -0.8


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 99, 1024, 1300, 1600])
def test_a_damaged_shard_is_an_error_that_names_it(tmp_path, content):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member(tar, "1.png", encoded((64, 64)))
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
