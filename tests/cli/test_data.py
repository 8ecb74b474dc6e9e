"""`sfumato data check` and `sfumato data pack`: what they say of a folder of pictures."""

import json

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """Nine pictures of growing width, one of them broken, all but two with a caption."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (40 + 8 * number, 80), "red").save(folder / f"{number}.png")
        if number > 1:
            (folder / f"{number}.txt").write_text("a red wall\nred")
    (folder / "8.png").write_bytes(b"")
    return folder


def test_a_folder_is_described_with_what_is_wrong_in_it(here, photos):
    status, out, err = here("data", "check", "photos", "--resolution", "64", "--bucket-step", "16")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "photos: 8 pictures, 0 of them held out for tests, with 12 captions",
        "without a caption  2, as 0.png",
        "to be enlarged     1, as 0.png",
        "48x80              3",
        "64x64              5",
        "broken             1",
        "  8.png is not a PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF picture",
    ]


def test_a_folder_is_described_in_json(here, photos):
    (photos / "8.png").unlink()
    status, out, err = here("data", "check", "photos", "--json")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert told["pictures"] == sum(told["buckets"].values()) == len(told["enlarged"]) == 8
    assert told["without_caption"] == ["0.png", "1.png"]
    assert told["broken"] == []


def test_a_folder_without_captions_is_told_where_they_are_looked_for(here, photos):
    for path in photos.glob("*.txt"):
        path.unlink()
    out = here("data", "check", "photos")[1]
    assert "with 0 captions" in out
    for place in ("metadata.csv", "meta_cap.json", ".caption", "20_sks dog"):
        assert place in out


def test_masks_and_kinds_that_are_not_read_are_no_broken_pictures(here, photos):
    (photos / "8.png").unlink()
    Image.new("L", (40, 80)).save(photos / "7-masklabel.png")
    (photos / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
    status, out, err = here("data", "check", "photos", "--resolution", "64")
    assert (status, err) == (0, "")
    assert "8 pictures" in out
    assert "masks              1, as 7-masklabel.png" in out
    assert "kinds not read     1" in out
    told = json.loads(here("data", "check", "photos", "--json")[1])
    assert told["masks"] == ["7-masklabel.png"]
    assert told["unsupported"] == [
        "9.heic is not a PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF picture: convert it"
    ]


def test_a_folder_is_packed_into_shards_that_hold_the_same(here, photos):
    status, out, err = here("data", "pack", "photos", "packed")
    assert (status, out) == (0, "packed: 8 pictures, 0 of them held out for tests, in 1 shard\n")
    assert "warning: photos: 1 broken picture is left out: 8.png is not" in err
    status, out, err = here("data", "check", "packed", "--resolution", "64")
    assert (status, err) == (0, "")
    assert "packed: 8 pictures, 0 of them held out for tests, with 12 captions" in out


def test_the_home_folder_is_meant_by_a_tilde_that_the_shell_left(here, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    assert here("data", "pack", "~/photos", "~/packed", "-q")[0] == 0
    assert (photos.parent / "packed" / "train-00000.tar").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check", "nowhere"], 2, "cannot read the folder nowhere"),
        (["check", "photos", "--max-aspect-ratio", "0.5"], 2, "--max-aspect-ratio 0.5"),
        (["pack", "photos", "out", "--megabytes", "0"], 2, "--megabytes 0 must be at least 1"),
        (["icons", "out", "--size", "0"], 2, "size is 0: must be in [8, 4096] pixels"),
        (["icons", "out", "--offline"], 2, "there is no pack in out/pack, and offline none is fetched"),
        (["pack", "empty", "out"], 2, "empty holds no pictures"),
        (["pack", "photos", "letter.txt"], 1, "cannot write letter.txt"),
        (["pack", "photos", "photos"], 2, "photos lies in photos, whose pictures would be there twice"),
        (["pack", "photos", "photos/../photos/packed"], 2, "whose pictures would be there twice"),
    ],
)
def test_what_cannot_be_done_with_pictures_is_told_in_one_line(here, photos, arguments, status, said):
    (photos.parent / "empty").mkdir()
    (photos.parent / "letter.txt").touch()
    ended, out, err = here("data", *arguments, "-q")
    assert (ended, out) == (status, "")
    assert said in err
    assert len(err.splitlines()) == 1
