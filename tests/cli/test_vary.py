"""`sfumato vary` and what it leaves behind."""

import PIL.Image
import PIL.PngImagePlugin
import pytest

from sfumato import metadata

SMALL = ("--steps", "2", "--device", "cpu", "-q")
SIZE = ("--width", "64", "--height", "64")


@pytest.fixture
def apple(here):
    assert here("generate", "a red apple", "-o", "apple.png", "--seed", "7", *SIZE, *SMALL)[0] == 0


def test_a_picture_drawn_here_is_varied_by_its_own_record(apple, here, tmp_path):
    line = ("vary", "apple.png", "-n", "2", "--amount", "0.3", "--variation-seed", "4", "-o", "new.png")
    status, out, err = here(*line, *SMALL)
    assert (status, out.split(), err) == (0, ["new-1.png", "new-2.png"], "")
    requests = [metadata.read(tmp_path / name).request for name in out.split()]
    assert [(each.prompt, each.seed, each.steps, each.image) for each in requests] == [
        ("a red apple", 7, 2, None)
    ] * 2
    assert [each.variation_seed for each in requests] == [(4,), (5,)]
    assert {each.variation_amount for each in requests} == {(0.3,)}
    assert here("replay", "new-2.png", "-q")[0] == 0


def test_any_other_picture_is_varied_from_itself_by_the_prompt_that_its_program_left(here, tmp_path):
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("parameters", "a (red:1.2) apple\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "theirs.png", pnginfo=info)
    line = ("vary", "theirs.png", "-n", "1", "--amount", "0.5", "-o", "new.png", *SIZE)
    status, _, err = here(*line, "--steps", "2", "--device", "cpu")
    assert status == 0
    assert "theirs.png has no record of Sfumato's: its variations begin with the picture itself" in err
    request = metadata.read(tmp_path / "new.png").request
    assert (request.prompt, request.dialect, request.strength) == ("a (red:1.2) apple", "a1111", 0.5)
    assert request.image.name == "theirs.png"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--amount", "2"), "variation_amount.0 is 2: must be at most 1"),
        (("--amount", "much"), "variation_amount.0 is 'much'"),
        (("-n", "0"), "count is 0: must be at least 1"),
    ],
)
def test_what_is_wrong_is_told_before_drawing(apple, here, line, words, tmp_path):
    status, out, err = here("vary", "apple.png", "-o", "new/", *line)
    assert (status, out) == (2, "")
    assert words in err
    assert not (tmp_path / "new").exists()


def test_a_picture_that_is_not_there_is_told(here):
    status, _, err = here("vary", "nowhere.png")
    assert status == 2
    assert err == "error: cannot read nowhere.png: No such file or directory\n"
