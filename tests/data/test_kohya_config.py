"""Kohya's dataset config, taken as it is: its folders, repeats, captions, masks and settings."""

import json

import pytest
from PIL import Image

from sfumato.data import kohya_config
from sfumato.data.crops import Crop
from sfumato.data.search import search
from sfumato.errors import DataError, SfumatoWarning

CONFIG = """
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = ".txt"
enable_bucket = false

[[datasets]]
resolution = [512, 128]
batch_size = 4

  [[datasets.subsets]]
  image_dir = "mug"
  class_tokens = "sks mug"
  num_repeats = 10
  conditioning_data_dir = "white"

  [[datasets.subsets]]
  image_dir = "cup"
  caption_prefix = "photo of"
  conditioning_data_dir = "white"

  [[datasets.subsets]]
  image_dir = "cup"
  is_reg = true
  conditioning_data_dir = "white"
"""


@pytest.fixture
def config(tmp_path):
    for name in ("mug/a.png", "cup/b.png", "white/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), "white" if name[0] == "w" else "teal").save(tmp_path / name)
    (tmp_path / "cup/b.txt").write_text("a cup")
    path = tmp_path / "dataset.toml"
    path.write_text(CONFIG)
    return path


def test_its_folders_are_read_with_their_repeats_captions_and_masks(config, tmp_path):
    with pytest.warns(SfumatoWarning, match="cup are left out: dreambooth draws its class itself"):
        found = search(config, tmp_path / "run" / "index.json")
    cup, mug = found.pictures
    assert (mug.captions, mug.weight, mug.mask) == (("sks mug",), 10, str(tmp_path / "white/a.png"))
    assert (cup.captions, cup.weight, cup.mask) == (("photo of a cup",), 1, "")
    dataset = found.chosen(held_out=None, captioned=True)
    crop = Crop((32, 32), (16, 16))
    assert dataset.load([0, 1], [crop] * 2).shape == (2, 3, 16, 16)
    assert dataset.mask(1, crop).min() == 1
    again = search(config, tmp_path / "run" / "index.json")
    assert again.pictures == found.pictures


def test_its_other_settings_are_keys_of_a_recipes_data(config):
    assert kohya_config.read(config).data == {
        "shuffle_tags": True,
        "keep_tags": 1,
        "resolution": 256,
        "max_aspect_ratio": 1.0,
        "loss_mask": "files",
    }


@pytest.mark.parametrize("place", ["meta.json", "mug/meta_cap.json"])
@pytest.mark.parametrize("named", ["a", "{folder}/a.png", "/home/me/train/a.png"])
def test_a_metadata_file_names_what_is_learned_wherever_it_lies(config, tmp_path, place, named):
    Image.new("RGB", (32, 32)).save(tmp_path / "mug/other.png")
    (tmp_path / "mug/a.txt").write_text("a cup")
    rows = {
        named.format(folder=tmp_path / "mug"): {"caption": "a mug", "tags": "red"},
        "gone": {"caption": ""},
    }
    (tmp_path / place).write_text(json.dumps(rows))
    table = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "mug"\nmetadata_file = "{place}"\n'
    config.write_text(table + 'caption_prefix = "photo of"\n')
    found = search(config, tmp_path / "run" / "index.json")
    assert [(one.name[-5:], one.captions) for one in found.pictures] == [("a.png", ("photo of a mug, red",))]
    assert found.broken == (f"gone is named in {place.rpartition('/')[2]}, but is not there",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "meta.json is missing"),
        ("[1]", "meta.json"),
        ('{"a": 3}', "meta.json is no metadata of kohya's"),
    ],
)
def test_a_metadata_file_that_is_none_is_an_error(config, tmp_path, content, said):
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    config.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "mug"\nmetadata_file = "meta.json"\n')
    with pytest.raises(DataError, match=said):
        search(config)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[[datasets]]", "[[sets]]", r"must have \[\[datasets\]\]"),
        ('image_dir = "mug"', "", "a subset has no image_dir"),
        ('image_dir = "mug"', 'image_dir = "jug"', "cannot read the folder .*jug"),
        ("num_repeats = 10", "num_repeats = 0", "num_repeats is 0: must be 1 or more"),
        ("num_repeats = 10", "color_aug = true", "color_aug = True is not supported"),
        ("num_repeats = 10", "flip_aug = true", "horizontal_flip is not the same for all subsets"),
        ('".txt"', '".cap"', "caption_extension is '.cap': must be .txt or .caption"),
        ("num_repeats = 10", "num_repeats = ", "is not valid TOML"),
        ('"white"', '"black"', "cannot read the folder of masks .*black"),
    ],
)
@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_what_cannot_be_meant_is_an_error_that_names_the_file(config, before, after, said):
    config.write_text(CONFIG.replace(before, after))
    with pytest.raises(DataError, match=said):
        search(config)


def test_a_toml_file_that_lists_no_data_is_no_dataset_config(tmp_path):
    (tmp_path / "other.toml").write_text("steps = 3")
    with pytest.raises(DataError, match=r"is no dataset config of kohya's: it must have \[\[datasets\]\]"):
        search(tmp_path / "other.toml")
