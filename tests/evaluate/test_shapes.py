"""The shapes that an evaluation without data is made of."""

import torch

from sfumato.evaluate.colours import NAMES, main_colour
from sfumato.evaluate.shapes import SHAPES, Shapes


def test_every_shape_is_drawn_in_every_colour_and_half_of_them_are_held_out():
    held, others = (Shapes(32).examples(held_out=held, seed=0, most=999) for held in (True, False))
    assert len(held) == len(others) == len(SHAPES) * len(NAMES) // 2
    assert not set(held.prompts) & set(others.prompts)
    assert len({picture.numpy().tobytes() for picture in held.pictures(range(len(held)))}) == len(held)


def test_fewer_shapes_are_the_first_of_more():
    few, more = (Shapes(32).examples(held_out=True, seed=3, most=most) for most in (5, 20))
    assert few.prompts == more.prompts[:5]
    assert torch.equal(few.pictures(range(5)), more.pictures(range(5)))


def test_a_shape_has_the_colour_that_its_prompt_names():
    found = Shapes(64).examples(held_out=True, seed=0, most=30)
    for prompt, picture in zip(found.prompts, found.pictures(range(30)), strict=True):
        assert main_colour(picture) == prompt.split()[1]
    assert all(main_colour(picture) == name for name, picture in Shapes(64).coloured(0, 99)["tinted"])
