"""`sfumato replay` and `generate --like`: pictures of other programs, and what makes a picture differ."""

import json

import PIL.Image
import pytest
import torch
from commandline import SMALL
from PIL import PngImagePlugin

from sfumato import devices, metadata, studio
from sfumato.cli import replay
from sfumato.image import Image

pytestmark = pytest.mark.usefixtures("kept_studios")

SWARM = {
    "sui_image_params": {
        "prompt": "a red apple <lora:ink:0.5>",
        "negativeprompt": "blue",
        "seed": 3,
        "steps": 2,
        "cfgscale": 3,
        "width": 68,
        "height": 64,
        "model": "someone/dreamy.safetensors",
        "refinermethod": "PostApply",
    }
}


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A picture of SwarmUI, and an empty folder of the user's own files."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", json.dumps(SWARM))
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=info)
    return tmp_path / "theirs.png"


@pytest.fixture
def threads():
    """The number of threads, which a command may change for the whole process."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_a_picture_of_another_program_is_drawn_and_what_is_left_out_is_said(theirs, here, tmp_path):
    status, out, err = here("replay", "theirs.png", "-o", "ours.png")
    assert (status, out) == (0, "ours.png\n")
    request = Image.open(tmp_path / "ours.png").request
    assert (request.prompt, request.negative, request.seed) == ("a red apple", "blue", 3)
    assert (request.steps, request.guidance, request.size) == (2, 3, (64, 64))
    said = [
        line for line in err.splitlines() if line.startswith("warning: theirs.png, by SwarmUI, not taken")
    ]
    for what in ("someone/dreamy", "the LoRA ink: it is not", "refinermethod: Post", "68×64: drawn at 64×64"):
        assert sum(what in line for line in said) == 1, (what, err)
    assert len(said) == 4
    assert here("replay", "ours.png") == (0, "identical: ours.png\n", "")


def test_a_folder_that_is_missing_is_made_for_a_replay_of_either_kind(theirs, here, tmp_path):
    assert here("replay", "theirs.png", "-o", "new/")[:2] == (0, "new/a-red-apple-3.png\n")
    assert here("replay", "new/a-red-apple-3.png", "-o", "again/{seed:04d}.png")[0] == 0
    said = "identical: new/a-red-apple-3.png\nagain/a-red-apple-3.png\n"
    assert here("replay", "new/a-red-apple-3.png", "-o", "again/", "-q")[:2] == (0, said)
    told = json.loads(here("replay", "new/a-red-apple-3.png", "-o", "again/{n}.png", "--json")[1])
    assert (told["identical"], told["output"]) == (True, "again/1.png")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "0003.png",
        "1.png",
        "a-red-apple-3.png",
    ]
    status, _, err = here("replay", "theirs.png", "-o", "-")
    assert (status, err.count("\n")) == (2, 1)


def test_without_a_name_the_picture_is_named_after_its_prompt(theirs, here):
    status, out, _ = here("replay", "theirs.png", "--json")
    told = json.loads(out)
    assert status == 0
    assert (told["program"], told["output"]) == ("SwarmUI", "a-red-apple-3.png")
    assert [line.split(":")[0] for line in told["left_out"]] == [
        "the model someone/dreamy.safetensors",
        "refinermethod",
        "size 68×64",
        "the LoRA ink",
    ]


def test_a_picture_gives_another_the_settings_that_are_not_given(theirs, here, tmp_path):
    here("generate", "--like", "theirs.png", "--seed", "8", "-o", "a.png")
    request = Image.open(tmp_path / "a.png").request
    assert (request.prompt, request.seed, request.steps, request.guidance) == ("a red apple", 8, 2, 3)
    here("generate", "a {green} pear", "--like", "a.png", "--steps", "1", "-o", "b.png")
    request = Image.open(tmp_path / "b.png").request
    assert (request.prompt, request.negative, request.seed, request.steps) == ("a green pear", "blue", 8, 1)


def test_a_picture_without_any_record_cannot_be_replayed(here, tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for command in (["replay", "a.png"], ["generate", "--like", "a.png"]):
        status, _, err = here(*command)
        assert status == 2
        assert err == "error: no record of how it was drawn in a.png\n"


def test_a_replay_takes_the_threads_of_the_record(here, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(replay, "cores", lambda: 2)
    here("generate", "a red apple", "-o", "a.png", "--threads", "2", *SMALL)
    assert metadata.read(tmp_path / "a.png").threads == 2
    torch.set_num_threads(1)
    here("replay", "a.png", "-o", "b.png", "--device", "cpu:0")
    assert metadata.read(tmp_path / "b.png").threads == 2


def test_a_replay_names_threads_and_processor_where_they_differ(here, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(replay, "cores", lambda: 1)
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    image = Image.open(tmp_path / "a.png")
    changed = {"threads": 64, "processor": "abacus", "pixels": "0" * 64}
    Image(image.pixels, image.record.model_copy(update=changed)).save(tmp_path / "b.png")
    status, out, _ = here("replay", "b.png")
    assert status == 1
    assert out.splitlines()[1:] == [
        f"  processor: abacus then, {image.record.processor} now",
        f"  threads: 64 then, {torch.get_num_threads()} now",
    ]


@pytest.mark.skipif(not devices.cpu_has_int8(), reason="needs a CPU with VNNI or AMX")
def test_a_picture_drawn_in_int8_is_drawn_so_again_and_where_that_cannot_be_it_is_said(here, monkeypatch):
    assert (
        here("generate", "a cup", *SMALL, "--device", "cpu", "--quantization", "int8", "-o", "int8.png")[0]
        == 0
    )
    assert here("replay", "int8.png")[1] == "identical: int8.png\n"
    monkeypatch.setattr(devices, "cpu_has_int8", lambda: False)
    status, out, err = here("replay", "int8.png")
    assert status == 1
    assert "  quantization: int8 then, None now\n" in out
    assert "warning: it was drawn in int8, and is drawn without: int8 needs a CPU with VNNI or AMX" in err


def test_a_prompt_too_long_for_a_jpeg_is_known_before_anything_is_drawn(here, tmp_path, monkeypatch):
    monkeypatch.setattr(studio.Studio, "stream", lambda *_: pytest.fail("it was drawn"))
    long = '"red" ' * 5_000
    for name in ("a.jpg", "{n}.jpeg"):
        status, _, err = here("generate", long, "-o", name, *SMALL)
        assert status == 2
        assert "too long for a JPEG, which holds 64 KB of it; save as .png" in err
    assert list(tmp_path.iterdir()) == []


def test_replaying_into_a_jpeg_that_cannot_hold_the_record_is_refused_before_drawing(
    here, tmp_path, monkeypatch
):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    image = Image.open(tmp_path / "a.png")
    request = image.request.filled(prompt="苹果" * 20_000)
    Image(image.pixels, image.record.model_copy(update={"request": request})).save(tmp_path / "b.png")
    monkeypatch.setattr(studio, "open_studio", lambda *_: pytest.fail("it was drawn"))
    status, _, err = here("replay", "b.png", "-o", "b.jpg")
    assert status == 2
    assert "too long for a JPEG" in err
