"""The shipped editor, as a user asks it."""

import pytest
import torch

import sfumato
from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.evaluate.colours import main_colour, right


@pytest.fixture(scope="module")
def apple():
    studio = sfumato.load(device="cpu")
    return studio.generate("a red apple, 3d render", seed=7, steps=8)


@pytest.fixture(scope="module")
def editor():
    return sfumato.load("embedded-instruct", device="cpu")


def tensor(image):
    return torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


def test_the_editor_is_the_embedded_model_with_further_input_channels(editor):
    base = checkpoint.load("embedded")
    assert (editor.name, editor.model.task) == ("embedded-instruct", "instruct")
    assert editor.model.unet.config.in_channels == 8
    assert editor.fingerprint != base.fingerprint
    assert editor.model.fast is None
    assert checkpoint.inspect("embedded-instruct").value("task") == "instruct"


def test_what_it_adds_to_the_installation_is_at_most_6_mb():
    assert (checkpoint.embedded() / "instruct.safetensors").stat().st_size <= 6_000_000


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_a_red_apple_is_made_another_colour(editor, apple, colour):
    assert main_colour(tensor(apple)) == "red"
    edited = editor.edit(apple, f"make it {colour}", seed=1, steps=4)
    assert right(colour, main_colour(tensor(edited)))
    # where it was: the white around it stays
    corners = edited.pixels[[8, 8, -9, -9], [8, -9, 8, -9]]
    assert corners.min() > 225


def test_it_is_put_on_another_background(editor, apple):
    edited = editor.edit(apple, "put it on a blue background", seed=1, steps=4)
    corners = torch.from_numpy(edited.pixels[[4, 4, -5, -5], [4, -5, 4, -5]]).float().mean(0)
    assert corners[2] > 150
    assert corners[2] > corners[0] + 60


def test_a_picture_is_needed_and_a_text_model_needs_a_source(editor, apple):
    with pytest.raises(UsageError, match="it edits pictures, and needs image"):
        editor.generate("make it blue")
    with pytest.raises(UsageError, match="embedded reads no instructions"):
        sfumato.load(device="cpu").edit(apple, "make it blue")
