"""What is asked for: held-out pictures, captions with a style, an order that more pictures do not change."""

import pytest
import torch

from sfumato.data.captions import TINTS
from sfumato.data.sets import SETS
from sfumato.errors import DataError, UsageError
from sfumato.evaluate.colours import main_colour
from sfumato.evaluate.examples import data


@pytest.fixture
def icons(icon_data, tmp_path):
    return data(icon_data, 32, tmp_path / "index.json")


@pytest.fixture
def own(own_data, tmp_path):
    return data(own_data, 32, tmp_path / "index.json")


def test_examples_are_the_pictures_of_concepts_held_out(icons):
    held, others = (icons.examples(held_out=held, seed=0, most=99) for held in (True, False))
    assert len(held) == 12 + 7
    assert len(others) == 14 + 19
    assert not set(held.concepts) & set(others.concepts)


def test_every_prompt_names_a_style_of_its_set(icons):
    found = icons.examples(held_out=True, seed=3, most=99)
    for prompt, style in zip(found.prompts, found.styles, strict=True):
        assert any(words in prompt for words in SETS[style].styles)


@pytest.mark.parametrize("which", ["icons", "own"])
def test_fewer_examples_are_the_first_of_more_and_another_seed_has_others(which, request):
    source = request.getfixturevalue(which)
    few, more, other = (
        source.examples(held_out=True, seed=seed, most=most) for seed, most in ((0, 5), (0, 11), (1, 11))
    )
    assert few.prompts == more.prompts[:5]
    torch.testing.assert_close(few.pictures(range(5)), more.pictures(range(5)))
    assert more.prompts != other.prompts


def test_a_one_colour_drawing_has_the_colour_that_its_prompt_names(icons):
    found = icons.examples(held_out=False, seed=0, most=99)
    checked = 0
    for place, prompt in enumerate(found.prompts):
        asked = [name for name in TINTS if f"{name} shape" in prompt]
        if found.styles[place] == "mdi" and asked:
            assert main_colour(found.pictures([place])[0]) == asked[0]
            checked += 1
    assert checked > 3


def test_rows_that_training_shows_often_come_first():
    from sfumato.evaluate.examples import _sampled

    first = [_sampled([1.0, 3.0, 0.0], seed, 1)[0] for seed in range(400)]
    assert first.count(1) / 400 == pytest.approx(0.75, abs=0.07)
    assert 2 not in first


def test_pictures_whose_colours_are_known_have_them(icons):
    found = icons.coloured(0, 10)
    assert [len(each) for each in found.values()] == [10, 10]
    for known in found.values():
        assert all(main_colour(picture) == name for name, picture in known)


def test_larger_pictures_are_reduced(icon_data, tmp_path):
    whole = data(icon_data, 32, tmp_path / "i").examples(held_out=True, seed=0, most=4).pictures(range(4))
    half = data(icon_data, 16, tmp_path / "i").examples(held_out=True, seed=0, most=4).pictures(range(4))
    assert half.shape == (4, 3, 16, 16)
    assert half.abs().max() <= 1
    torch.testing.assert_close(half.mean((2, 3)), whole.mean((2, 3)), atol=0.05, rtol=0)


def test_ones_own_pictures_are_cropped_to_squares_and_asked_for_by_their_captions(own):
    found = own.examples(held_out=True, seed=0, most=99)
    assert sorted(found.prompts) == sorted(f"picture number {place}" for place in range(12))
    assert found.pictures([0, 1]).shape == (2, 3, 32, 32)
    assert own.styles == ()
    assert own.coloured(0, 10) == {}


@pytest.mark.parametrize("kind", ["icon_data", "own_data"])
def test_pictures_are_never_enlarged(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    with pytest.raises(UsageError, match="64×64 cannot be compared with data of"):
        data(folder, 64, tmp_path / "index.json").examples(held_out=True, seed=0, most=4).pictures([0])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        data(tmp_path / "nowhere", 32, tmp_path / "index.json")
