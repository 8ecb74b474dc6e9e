"""`sfumato edit`, as a user types it."""

import hashlib
import json

import PIL.Image
import pytest

SIZE = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "1")
pytestmark = [
    pytest.mark.usefixtures("kept_studios"),
    pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning"),
]


@pytest.fixture
def cat(here, tmp_path):
    path = tmp_path / "cat.png"
    PIL.Image.new("RGB", (64, 64), (220, 40, 40)).save(path)
    return path


def test_an_instruction_makes_another_picture_and_leaves_the_original(here, cat, tmp_path):
    before = hashlib.sha256(cat.read_bytes()).hexdigest()
    status, out, err = here("edit", "cat.png", "make it blue", "-o", "blue.png", "--json", *SIZE)
    request = json.loads(out)["request"]
    assert (status, request["model"], request["inversion"]) == (0, "embedded-instruct", None)
    assert request["image_guidance"] is not None
    assert "editing by instruction with embedded-instruct\n" in err
    assert hashlib.sha256(cat.read_bytes()).hexdigest() == before
    status, out, _ = here("replay", "blue.png", "-q")
    assert (status, out) == (0, "identical: blue.png\n")


def test_several_are_drawn_with_a_sheet(here, cat, tmp_path):
    status, out, _ = here("edit", "cat.png", "make it blue", "-n", "2", "--sheet", "-o", "cats/", "-q", *SIZE)
    assert (status, len(out.splitlines())) == (0, 3)


def test_with_a_source_it_is_by_inversion_and_said(here, cat):
    line = ("edit", "cat.png", "a blue cat, 3d render", "--source", "a red cat, 3d render", "--json")
    status, out, err = here(*line, "-o", "blue.png", *SIZE)
    request = json.loads(out)["request"]
    assert (status, request["model"], request["inversion"]) == (0, "embedded", "ddpm")
    assert "editing by inversion (ddpm) with embedded\n" in err


def test_a_text_model_without_a_source_says_what_it_needs(here, cat):
    status, out, err = here("edit", "cat.png", "make it blue", "--model", "embedded", *SIZE)
    assert (status, out) == (2, "")
    assert "embedded reads no instructions" in err
    assert "source is what the picture shows" in err


def test_an_editor_with_a_source_says_that_it_needs_none(here, cat):
    status, _, err = here("edit", "cat.png", "blue", "--source", "red", "--model", "embedded-instruct", *SIZE)
    assert status == 2
    assert "leave source and inversion out" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("nowhere.png", "make it blue"), "cannot read nowhere.png"),
        (("cat.png", "  "), "the instruction is empty"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(here, cat, line, said):
    status, out, err = here("edit", *line)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
