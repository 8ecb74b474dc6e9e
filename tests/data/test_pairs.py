"""Pairs of pictures for editing by instruction: made of icons, and read from a folder."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.captions import TINTS
from sfumato.data.crops import Crop
from sfumato.data.icon_pairs import SHARES, icon_pairs, signal
from sfumato.data.icons import Icons, Row
from sfumato.data.instructions import PHRASINGS, instructions
from sfumato.data.pairs import folder_pairs
from sfumato.data.recolour import coverage, oklab, on_ground, recoloured, rgb, with_small
from sfumato.errors import DataError
from sfumato.evaluate.colours import main_colour

SIDE = 64


def disc(colour, detail=None):
    """A disc of `colour` on white with a dark outline, and perhaps a small `detail` of another hue."""
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2 + 0.5
    away = np.hypot(rows, columns)
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    picture[away < 24] = (20, 20, 20)
    picture[away < 21] = colour
    if detail is not None:
        picture[20:28, 28:36] = detail
    return picture


@pytest.fixture(scope="module")
def icons():
    """Two concepts in three styles each, one of them of one colour, and a star to put on others."""
    drawn = [("noto", "ball"), ("twemoji", "ball"), ("noto", "plate"), ("twemoji", "plate"), ("noto", "star")]
    colours = [(220, 40, 40), (240, 60, 60), (40, 90, 230), (60, 110, 240), (250, 200, 20)]
    rows = tuple(Row(name, label, (), 1.0, False) for name, label in drawn)
    ink = (255 - disc((0, 0, 0))[..., 0]).astype(np.uint8)
    ink_rows = (Row("fluent-emoji-high-contrast", "ball", (), 1.0, False),)
    pictures = torch.from_numpy(np.stack([disc(colour) for colour in colours]))
    return Icons(pictures, rows, torch.from_numpy(ink)[None], ink_rows, "digest")


def tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("name", ["blue", "green", "purple", "orange", "black"])
def test_a_recoloured_thing_has_the_colour_and_keeps_its_outline_and_ground(name):
    before = tensor(disc((220, 40, 40)))
    after = recoloured(before, coverage(before), signal(name))
    assert main_colour(after) == name
    ground = coverage(before) == 0
    assert torch.equal(after[:, ground], before[:, ground])
    row, outline = SIDE // 2, SIDE // 2 - 23
    assert (after[:, row, outline] - before[:, row, outline]).abs().max() < 0.05


def test_a_detail_of_another_hue_keeps_its_own():
    before = tensor(disc((220, 40, 40), detail=(40, 170, 60)))
    after = recoloured(before, coverage(before), signal("blue"))
    assert (after[:, 24, 32] - before[:, 24, 32]).abs().max() < 0.02
    assert main_colour(after) == "blue"


def test_a_thing_without_a_hue_is_tinted():
    before = tensor(disc((130, 130, 130)))
    assert main_colour(recoloured(before, coverage(before), signal("red"))) == "red"


def test_oklab_of_known_colours_and_back():
    white, red = torch.ones(3, 1), torch.tensor([[1.0], [-1.0], [-1.0]])
    assert torch.allclose(oklab(white)[:, 0], torch.tensor([1.0, 0, 0]), atol=1e-3)
    # Ottosson 2020: red is L 0.628, a 0.2249, b 0.1258
    assert torch.allclose(oklab(red)[:, 0], torch.tensor([0.628, 0.2249, 0.1258]), atol=1e-3)
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(rgb(oklab(x)), x, atol=1e-3)


def test_white_inside_a_thing_is_the_thing_and_white_around_it_is_not():
    before = tensor(disc((220, 40, 40), detail=(255, 255, 255)))
    cover = coverage(before)
    assert cover[24, 32] == 1
    assert cover[2, 2] == 0
    after = on_ground(before, cover, signal("yellow"))
    assert torch.allclose(after[:, 2, 2], signal("yellow"))
    assert torch.equal(after[:, 24, 32], before[:, 24, 32])


def test_a_thing_that_is_put_on_covers_only_its_corner():
    before, small = tensor(disc((220, 40, 40))), tensor(disc((250, 200, 20)))
    after = with_small(before, small, (1.0, 0.0), 0.4)
    assert torch.equal(after[:, SIDE // 2 :], before[:, SIDE // 2 :])
    assert not torch.equal(after[:, : SIDE // 2], before[:, : SIDE // 2])


def test_icons_make_pairs_of_one_concept_in_all_kinds(icons):
    paired = icon_pairs(icons, seed=3, most=100)
    kinds = Counter(pair.kind for pair in paired.pairs)
    assert {"colour", "style", "ground"} <= kinds.keys() <= SHARES.keys()
    labels = [row.label for row in (*icons.rows, *icons.ink_rows)]
    for pair in paired.pairs:
        source, target = (paired.pictures.variants[row] for row in (pair.source, pair.target))
        assert labels[source.row] == labels[target.row]
        assert source != target
        assert any(pair.what in text for text in pair.instructions)
    for kind in kinds:
        share = sum(pair.weight for pair in paired.pairs if pair.kind == kind)
        assert share == pytest.approx(SHARES[kind])


def test_every_picture_of_a_pair_is_what_the_instruction_says(icons):
    paired = icon_pairs(icons, seed=3, most=100)
    whole = Crop((SIDE, SIDE), (SIDE, SIDE))
    for pair in paired.pairs:
        after = paired.pictures.load([pair.target], [whole])[0]
        assert after.shape == (3, SIDE, SIDE)
        if pair.kind == "ground":
            assert torch.allclose(after[:, 0, 0], signal(pair.what), atol=1e-5)
        if pair.kind == "colour" and pair.what in ("red", "green", "blue", "purple"):
            assert main_colour(after) == pair.what


def test_the_same_seed_makes_the_same_pairs_and_another_makes_others(icons):
    one, same, other = (icon_pairs(icons, seed=seed, most=100) for seed in (3, 3, 4))
    assert one.pairs == same.pairs
    assert one.pictures.digest == same.pictures.digest
    assert one.pictures.digest != other.pictures.digest


def test_instructions_name_what_is_asked_for():
    from random import Random

    for kind in PHRASINGS:
        texts = instructions(kind, "navy" if kind != "style" else "flat emoji", "owl", Random(0), 99)
        assert len(texts) == len(set(texts)) > 3
        assert all("{" not in text for text in texts)
    assert "put it on an orange background" in instructions("ground", "orange", "owl", Random(0), 99)
    assert set(TINTS) >= {"orange", "navy"}


def write_pairs(folder, rows, **pictures):
    folder.mkdir(exist_ok=True)
    for name, colour in pictures.items():
        Image.fromarray(disc(colour)).save(folder / f"{name}.png")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_folder_of_pairs_is_read_and_each_picture_once(tmp_path):
    rows = [
        {"file_name": "red.png", "edited_file_name": "blue.png", "edit_prompt": "make it blue"},
        {"file_name": "blue.png", "edited_file_name": "red.png", "edit_prompt": ["make it red", "red"]},
    ]
    paired = folder_pairs(write_pairs(tmp_path, rows, red=(220, 40, 40), blue=(40, 40, 220)))
    assert [(pair.source, pair.target) for pair in paired.pairs] == [(0, 1), (1, 0)]
    assert paired.pairs[1].instructions == ("make it red", "red")
    assert paired.pictures.sizes == ((SIDE, SIDE),) * 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"file_name": "red.png", "edit_prompt": "make it blue"}, "edited_file_name is missing"),
        ({"file_name": "red.png", "edited_file_name": "red.png", "edit_prompt": ""}, "must be a text"),
        ({"file_name": "red.png", "edited_file_name": "../a.png", "edit_prompt": "x"}, "in the folder"),
        ({"file_name": "red.png", "edited_file_name": "green.png", "edit_prompt": "x"}, "names green.png"),
    ],
)
def test_a_wrong_row_of_pairs_is_named(tmp_path, row, said):
    folder = write_pairs(tmp_path, [row], red=(220, 40, 40))
    with pytest.raises(DataError, match=said):
        folder_pairs(folder)


def test_a_folder_without_a_table_of_pairs_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match=r"metadata\.jsonl is missing, with file_name, edited_file_name"):
        folder_pairs(tmp_path)
