"""From drawings to what training reads: pixels, tints and captions."""

import json
from dataclasses import asdict
from random import Random

import numpy as np
import pytest
import torch

from sfumato.data import pack
from sfumato.data.captions import TINTS, article, caption, tint, tinted_caption
from sfumato.data.crops import Crop
from sfumato.data.icons import Pixels, icon_dataset, load, tinted, to_signal
from sfumato.data.pack import Drawing
from sfumato.data.render import pixels_of, render
from sfumato.errors import DataError

RED = '<path fill="#f00" d="M0 0h16v16H0z"/>'
INK = '<path fill="currentColor" d="M4 4h8v8H4z"/>'
BOX = (0, 0, 16, 16)


def drawing(icons="noto", label="red apple", svg=RED, box=BOX):
    return Drawing(icons, label, ("fruit",), 1.0, box, svg)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two colour drawings and one of one colour, one held out, and one that is broken, all rendered."""
    folder = tmp_path_factory.mktemp("data")
    held = next(f"thing {n}" for n in range(999) if Drawing("noto", f"thing {n}", (), 1.0).held_out)
    own = {
        "part-00.jsonl.xz": [drawing(), drawing(label=held), drawing(svg="<broken", label="broken")],
        "part-01.jsonl.xz": [drawing("mdi", "square", INK)],
    }
    for name, drawings in own.items():
        pack._write_xz(folder / name, [json.dumps(asdict(one)) for one in drawings])
    (folder / "pack.json").write_text(json.dumps({"parts": [*own, "part-02.jsonl.xz"]}))
    seen = []
    rendered = render(folder, folder / "out", 32, lambda done, total: seen.append((done, total)))
    return folder / "out", rendered


def test_what_cannot_be_drawn_is_counted_and_what_is_not_there_is_named(data):
    _, rendered = data
    assert (rendered.pictures, rendered.broken, rendered.missing) == (3, 1, ("part-02.jsonl.xz",))


def test_rendering_again_has_nothing_to_do(data):
    folder, _ = data
    assert render(folder.parent, folder, 32).pictures == 0


def test_pictures_stay_in_their_files_until_they_are_asked_for(data):
    icons = load(data[0], held_out=False)
    assert not isinstance(icons.pictures, torch.Tensor)
    assert icons.pictures.shape == (1, 32, 32, 3)
    moved = load(data[0], held_out=False, device=torch.device("meta"))
    assert isinstance(moved.pictures, torch.Tensor)
    assert moved.inks.shape == icons.inks.shape == (1, 32, 32)


@pytest.mark.parametrize("rows", [slice(1, 3), [2, 0, 2], torch.tensor([1, 1]), slice(0, 0)])
def test_pictures_of_several_files_are_taken_as_from_one(rows):
    parts = [np.random.default_rng(n).integers(0, 256, (3, 2, 2), dtype=np.uint8) for n in range(2)]
    pixels = Pixels((2, 2), [(parts[0], [2]), (parts[1], [0, 2])])
    whole = torch.from_numpy(np.stack([parts[0][2], parts[1][0], parts[1][2]]))
    assert torch.equal(pixels[rows], whole[rows])
    assert torch.equal(pixels.to(torch.device("cpu")), whole)


def test_concepts_for_tests_are_kept_apart(data):
    train, test = load(data[0], held_out=False), load(data[0], held_out=True)
    assert [row.label for row in train.rows] == ["red apple"]
    assert [row.label for row in train.ink_rows] == ["square"]
    assert [row.label for row in test.rows] != []
    assert test.ink_rows == ()


def test_a_drawing_has_its_colour_in_the_middle_and_a_white_margin():
    pixels = pixels_of(drawing(), 64)
    assert pixels.shape == (64, 64, 3)
    assert pixels[32, 32].tolist() == [255, 0, 0]
    assert pixels[1, 1].tolist() == [255, 255, 255]


def test_a_drawing_that_is_wider_than_high_is_centred():
    pixels = pixels_of(drawing(svg='<path fill="#00f" d="M0 0h32v16H0z"/>', box=(0, 0, 32, 16)), 64)
    rows = np.flatnonzero((pixels[:, 32] != 255).any(-1))
    assert abs((rows[0] + rows[-1]) / 2 - 31.5) <= 0.5


def test_ink_is_where_the_drawing_is():
    ink = pixels_of(drawing("mdi", "square", INK), 64)
    assert ink.shape == (64, 64)
    assert (ink[32, 32], ink[1, 1]) == (255, 0)


@pytest.mark.parametrize("svg", ["", "<broken", '<path fill="#fff" d="M0 0h16v16H0z"/>'])
def test_a_broken_or_blank_drawing_is_no_picture(svg):
    assert pixels_of(drawing(svg=svg), 32) is None


def test_a_tint_has_its_ink_where_the_ink_is_and_its_ground_elsewhere():
    cover = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    x = tinted(cover, torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.5]]))
    assert x[0, :, 0, 0].tolist() == [0.5, 0.5, 0.5]
    assert x[0, :, 0, 1].tolist() == [1.0, -1.0, 0.0]


def test_pictures_become_signals_between_minus_one_and_one():
    x = to_signal(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8))
    assert x.shape == (1, 3, 1, 1)
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_every_picture_has_its_captions_and_every_ink_its_tints(data):
    examples = icon_dataset(load(data[0], held_out=False), seed=3, captions=4, tints=2)
    assert len(examples) == len(examples.weights) == 3
    assert all(len(own) == 4 for own in examples.captions)
    assert all("apple" in own or "fruit" in own for own in examples.captions[0])
    assert all("square" in own for own in examples.captions[1] + examples.captions[2])
    assert examples.weights[1] + examples.weights[2] == pytest.approx(0.66)
    whole = Crop((32, 32), (32, 32))
    assert examples.load([0, 1, 2], [whole] * 3).shape == (3, 3, 32, 32)
    assert torch.equal(examples.load([1, 2], [whole] * 2)[1:], examples.load([2], [whole]))


def test_captions_are_those_of_their_seed(data):
    icons = load(data[0], held_out=False)
    assert icon_dataset(icons, seed=1).captions == icon_dataset(icons, seed=1).captions
    assert icon_dataset(icons, seed=1).captions != icon_dataset(icons, seed=2).captions


def test_an_empty_folder_is_an_error_that_says_what_fills_it(tmp_path):
    with pytest.raises(DataError, match="sfumato data icons"):
        load(tmp_path, held_out=False)


def test_rows_that_do_not_fit_their_pixels_are_an_error(tmp_path):
    np.save(tmp_path / "part-00.npy", np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "part-00.jsonl").write_text("")
    with pytest.raises(DataError, match=r"describes 0 pictures, its \.npy holds 2"):
        load(tmp_path, held_out=False)


@pytest.mark.parametrize(("words", "said"), [("apple", "an apple"), ("cat", "a cat"), ("", "a ")])
def test_articles(words, said):
    assert article(words) == said


def test_captions_name_label_style_and_sometimes_tags():
    random = Random(0)
    said = [caption("red apple", ("fruit",), ("noto style",), random) for _ in range(300)]
    assert {"red apple", "a red apple", "red apple, noto style"} <= set(said)
    assert any("fruit" in one for one in said)
    assert sum("noto style" in one for one in said) > 150


def test_tinted_captions_name_every_ground_but_white_and_every_ink_but_black():
    random = Random(0)
    for _ in range(200):
        ink, ground = tint(random)
        assert ink != ground
        said = tinted_caption("skull", (), ("game icon",), ink, ground, random)
        assert ink in said or ink == "black"
        assert ground in said or ground == "white"
    assert {tint(random)[0] for _ in range(500)} == set(TINTS) - {"white"}
