"""`sfumato teach` as one uses it: a few pictures to a file that draws them, and what it says no to."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from commandline import Here

import sfumato
from sfumato import weights
from sfumato.adapt.description import describe
from sfumato.cli import console
from sfumato.errors import UsageError
from sfumato.image import Image as Drawn
from sfumato.train import recipe_file

SHORT = ("--device", "cpu", "--steps", "2")


@pytest.fixture
def here(capfdbinary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(console, "SILENCE", 600.0)  # a busy machine does not add to what is said
    return Here(capfdbinary)


@pytest.fixture
def mug(tmp_path):
    """Three pictures of a striped thing, of different sizes, in the folder `mug`."""
    folder = tmp_path / "mug"
    folder.mkdir()
    for number, size in enumerate(((40, 40), (60, 38), (48, 44))):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).rectangle((8, 8, 30, 30), fill="teal", outline="orange", width=4)
        picture.save(folder / f"{number}.png")
    return folder


def taught(here, tiny_base, *arguments):
    return here("teach", *arguments, "--name", "sks mug", "--model", tiny_base, *SHORT)


def test_a_subject_is_taught_and_drawn_by_the_name_of_its_folder(here, mug, tiny_base, tmp_path):
    status, out, err = taught(here, tiny_base, mug, "--class", "mug")
    assert status == 0, err
    result = tmp_path / "home" / "adapters" / "mug.safetensors"
    assert f"result           {result}\n" in out
    assert out.endswith(
        f"next             sfumato generate 'sks mug on the moon' --model {tiny_base} --lora mug\n"
    )
    assert describe(result).triggers == ("sks mug",)
    assert (tmp_path / "runs/mug/samples/last.webp").is_file()
    drawn = ("generate", "sks mug on the moon", "--model", tiny_base, "--seed", "1", "--device", "cpu", "-o")
    assert here(*drawn, "with.png", "--lora", "mug") == (0, "with.png\n", "")
    assert list(Drawn.open(tmp_path / "with.png").record.adapters) == ["mug"]


def test_what_is_taught_in_python_is_drawn_in_two_more_lines(here, mug, tiny_base, tmp_path):
    seen = []
    asked = {"model": tiny_base, "steps": 2, "device": "cpu", "progress": seen.append}
    path = sfumato.teach(mug, "sks mug", of_class="mug", **asked)
    assert path == tmp_path / "home" / "adapters" / "mug.safetensors"
    assert seen[-1].step == 2
    studio = sfumato.load(tiny_base, device="cpu")
    name = studio.load_adapter(path)
    drawn = studio.generate("sks mug", seed=1, steps=1, adapters=[name])
    assert list(drawn.record.adapters) == ["mug"]
    with pytest.raises(sfumato.SfumatoError, match=r"will not replace .*mug\.safetensors"):
        sfumato.teach(mug, "sks mug", **asked)
    named = [str(each) for each in sorted(mug.iterdir())]
    elsewhere = sfumato.teach(named, "sks mug", **asked, run="runs/again", output="again.safetensors")
    assert describe(elsewhere).triggers == ("sks mug",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "steps is 0: must be"),
        (["--model", "none"], "there is no model 'none'"),
        (["--name", "zwx cup"], "is of another recipe"),
    ],
)
def test_what_is_asked_otherwise_leaves_the_run_that_is_there_alone(
    here, mug, tiny_base, tmp_path, arguments, said
):
    given = ["teach", mug, "--name", "sks mug", "--model", tiny_base, *SHORT]
    assert here(*given, "--seconds", "0.001")[0] == 0
    before = (tmp_path / "runs/mug/recipe.toml").read_bytes()
    status, out, err = here(*given, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert (tmp_path / "runs/mug/recipe.toml").read_bytes() == before


def test_the_file_names_the_model_that_it_was_made_for_by_the_hash_of_its_file(
    here, mug, tiny_base, tmp_path
):
    assert here("convert", tiny_base, "base.safetensors")[0] == 0
    status, _, err = taught(here, tmp_path / "base.safetensors", mug)
    assert status == 0, err
    with safe_open(tmp_path / "home/adapters/mug.safetensors", "pt") as file:
        header = file.metadata()
    digest = hashlib.sha256((tmp_path / "base.safetensors").read_bytes()).hexdigest()
    assert header["ss_new_sd_model_hash"] == digest
    assert header["ss_sd_model_name"] == "base.safetensors"


def test_with_dreambooth_the_class_is_drawn_first_and_learned_beside_it(here, mug, tiny_base, tmp_path):
    short = ("--method", "dreambooth", "--class", "mug")
    status, out, err = taught(here, tiny_base, mug, *short)
    assert status == 0, err
    assert len(list((tmp_path / "runs/mug/class").glob("*.png"))) == 24
    assert recipe_file.read(tmp_path / "runs/mug/recipe.toml").objective.class_prompt == "mug"
    assert out.endswith("--lora mug\n")
    assert (tmp_path / "home/adapters/mug.safetensors").is_file()
    status, _, err = taught(here, tiny_base, mug, "--method", "dreambooth")
    assert status == 2
    assert "dreambooth keeps the class as it was, and must know it: --class mug" in err


def test_with_inversion_a_word_is_learned_that_prompts_name(here, mug, tiny_base, tmp_path):
    status, out, err = taught(here, tiny_base, mug, "--method", "inversion", "--class", "mug")
    assert status == 0, err
    assert f"result           {tmp_path / 'home/embeddings/sks.safetensors'}\n" in out
    assert out.endswith(f"next             sfumato generate 'sks mug on the moon' --model {tiny_base}\n")
    drawn = ("generate", "sks mug on the moon", "--model", tiny_base, "--seed", "1", "--device", "cpu", "-o")
    assert here(*drawn, "with.png") == (0, "with.png\n", "")
    assert list(Drawn.open(tmp_path / "with.png").record.embeddings) == ["sks"]
    status, _, err = taught(here, tiny_base, mug, "--method", "inversion", "-o", "mug.safetensors")
    assert status == 2
    assert "mug.safetensors must be called sks.safetensors: prompts name a word by its file" in err


def test_with_pivotal_tuning_one_file_holds_the_word_and_the_lora(here, mug, tiny_base, tmp_path):
    status, out, err = taught(here, tiny_base, mug, "--method", "pivotal")
    assert status == 0, err
    assert out.endswith("--lora mug\n")
    assert f"samples          {Path('runs/mug/lora/samples/last.webp')}\n" in out
    drawn = ("generate", "sks mug", "--model", tiny_base, "--seed", "1", "--device", "cpu", "-o", "with.png")
    assert here(*drawn, "--lora", "mug") == (0, "with.png\n", "")
    record = Drawn.open(tmp_path / "with.png").record
    assert (list(record.adapters), list(record.embeddings)) == (["mug"], ["sks"])
    status, out, _ = here("train", "runs/mug/recipe.toml", "--device", "cpu")
    assert status == 0
    assert "runs/mug/lora: done" in out


def test_every_picture_is_learned_from_and_the_recipe_can_be_carried_out_by_train(
    here, mug, tiny_base, tmp_path
):
    """None of so few is held out, and `train` finds nothing left to do."""
    assert taught(here, tiny_base, mug, "-o", "mine.safetensors")[0] == 0
    recipe = recipe_file.read(tmp_path / "runs/mug/recipe.toml")
    assert not recipe.data.hold_out
    assert len(json.loads((tmp_path / "runs/mug/index.json").read_text())["pictures"]) == 3
    status, out, _ = here("train", "runs/mug/recipe.toml", "--device", "cpu")
    assert status == 0
    assert "runs/mug: done" in out


def test_pictures_that_are_named_one_by_one_are_copied_with_their_captions(here, mug, tiny_base, tmp_path):
    (mug / "0.txt").write_text("sks mug, front")
    (mug / "other.png").write_bytes((mug / "1.png").read_bytes())
    status, _, err = taught(here, tiny_base, mug / "0.png", mug / "1.png")
    assert status == 0, err
    copies = {path.name: path.read_bytes() for path in (tmp_path / "runs/mug/pictures").iterdir()}
    assert copies == {name: (mug / name).read_bytes() for name in ("0.png", "1.png", "0.txt")}


def test_captions_are_learned_with_the_name_in_them(here, mug, tiny_base, tmp_path):
    """As ai-toolkit has them, with "[trigger]" for the name; a picture without one is called by the name."""
    (mug / "0.txt").write_text("[trigger] on a table")
    (mug / "1.txt").write_text("a striped thing")
    assert taught(here, tiny_base, mug)[0] == 0
    data = recipe_file.read(tmp_path / "runs/mug/recipe.toml").data
    own = [data.texts(captions)[1] for captions in ((), ("[trigger] on a table",), ("a striped thing",))]
    assert own == ["sks mug", "sks mug on a table", "sks mug, a striped thing"]


def test_masks_beside_the_pictures_are_used(here, mug, tiny_base, tmp_path):
    for number in range(3):
        size = Image.open(mug / f"{number}.png").size
        mask = Image.new("L", size)
        mask.paste(255, (8, 8, 30, 30))
        mask.save(mug / f"{number}-masklabel.png")
    named = [mug / f"{number}.png" for number in range(3)]
    status, _, err = taught(here, tiny_base, *named)
    assert status == 0, err
    assert "mask" not in err
    assert recipe_file.read(tmp_path / "runs/mug/recipe.toml").data.loss_mask == "files"
    status, _, err = taught(here, tiny_base, mug, "--mask", "alpha", "--run", "other", "-o", "o.safetensors")
    assert status == 2
    assert "every picture has no part that is transparent" in err


def test_of_many_pictures_one_in_ten_is_held_out_to_keep_the_best_step(here, mug, tiny_base, tmp_path):
    for number in range(3, 21):
        (mug / f"{number}.png").write_bytes((mug / f"{number % 3}.png").read_bytes())
    status, _, err = taught(here, tiny_base, mug)
    assert status == 0, err
    validation = recipe_file.read(tmp_path / "runs/mug/recipe.toml").validation
    assert (validation.pictures, validation.patience) == (2, 4)
    assert json.loads((tmp_path / "runs/mug/outcome.json").read_text())["metrics"]["held_out_loss"] > 0


def test_a_dataset_config_of_kohyas_is_taken_as_it_is(here, mug, tiny_base, tmp_path):
    (mug / "0.txt").write_text("orange, sks mug, teal")
    config = tmp_path / "dataset.toml"
    config.write_text(
        "[general]\nshuffle_caption = true\nflip_aug = true\n[[datasets]]\n[[datasets.subsets]]\n"
        'image_dir = "mug"\nclass_tokens = "sks mug"\nnum_repeats = 3\n'
    )
    status, _, err = taught(here, tiny_base, config, "--run", "runs/mug", "-o", "mug.safetensors")
    assert (status, "says, in the words" in err) == (0, False), err
    data = recipe_file.read(tmp_path / "runs/mug/recipe.toml").data
    assert (data.shuffle_tags, data.horizontal_flip, data.trigger) == (True, True, "sks mug")


def test_it_is_taught_in_slices_as_in_a_piece(here, mug, tiny_base, tmp_path):
    assert taught(here, tiny_base, mug, "-o", "whole.safetensors", "--run", "whole")[0] == 0
    status, out, _ = taught(
        here, tiny_base, mug, "-o", "parts.safetensors", "--run", "parts", "--seconds", "0.001"
    )
    assert status == 0
    assert "parts: stopped at step 1 of 2, run again to go on" in out
    assert not (tmp_path / "parts.safetensors").exists()
    assert taught(here, tiny_base, mug, "-o", "parts.safetensors", "--run", "parts")[0] == 0
    parts, whole = (weights.read(tmp_path / f"{name}.safetensors") for name in ("parts", "whole"))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.png"], "there is no picture none.png"),
        (["mug", "mug/0.png"], "mug is a folder: name one folder alone, or pictures"),
        (["notes.txt"], "notes.txt is not a"),
        (["mug/0.png", "two/0.png"], "two pictures are called 0.png"),
        (["mug", "--method", "lorra"], "unknown method 'lorra'; did you mean 'lora'?"),
        (["mug", "--mask", "file"], "unknown mask 'file'; did you mean 'files'?"),
        (["mug", "--name", "a <lora:x>"], "mean something else in prompts"),
        (["mug", "--name", " "], "must be a few words"),
        (["mug", "-o", "mug.bin"], "mug.bin must be called .safetensors"),
        (["mug", "-o", "there.safetensors"], "will not replace there.safetensors"),
    ],
)
def test_what_cannot_be_taught_is_said_and_nothing_is_left(here, mug, tmp_path, arguments, said):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/0.png").write_bytes((mug / "0.png").read_bytes())
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    status, out, err = here("teach", *arguments, *(() if "--name" in arguments else ("--name", "sks mug")))
    assert (status in (1, 2), out) == (True, "")
    assert said in err
    assert not list(tmp_path.glob("runs/*/state.safetensors"))
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("pictures", "given", "said"),
    [
        ([], {}, "no pictures are given: name a folder"),
        (["mug/0.png"], {"device": "gpu"}, "unknown device 'gpu'"),
        (["mug/0.png"], {"device": "cuda:99"}, "device 'cuda:99'"),
        (["mug/0.png"], {"output": "mug.bin"}, "mug.bin must be called .safetensors"),
    ],
)
def test_what_a_program_cannot_teach_is_said_and_nothing_is_left(
    mug, tmp_path, monkeypatch, pictures, given, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        sfumato.teach(pictures, "sks mug", **given)
    assert not (tmp_path / "runs").exists()


def test_a_common_name_and_a_single_picture_are_warned_of(here, mug, tiny_base):
    arguments = (mug / "0.png", "--name", "my red mug", "--class", "mug", "--model", tiny_base)
    status, _, err = here("teach", *arguments, *SHORT, "--seconds", "0.001")
    assert status == 0
    assert "'my red mug' is made of common words" in err
    assert "'sks mug' has a word of its own" in err
    assert "one picture is little: background and position are learned too" in err


def test_where_memory_runs_out_it_is_said_what_takes_less(here, mug, tiny_base, monkeypatch, tmp_path):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sfumato.train.objectives.denoiser.DenoisingLoss.__call__", full)
    status, _, err = taught(here, tiny_base, mug)
    assert status == 1
    assert "out of memory; less is needed with a lower batch_size" in err
    assert "(of teach: --batch-size, --resolution)" in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    status, _, err = taught(here, tiny_base, mug, "--batch-size", "1", "--resolution", "16")
    assert status == 0, err
    recipe = recipe_file.read(tmp_path / "runs/mug/recipe.toml")
    assert (recipe.batch_size, recipe.data.resolution) == (1, 16)


def test_text_encoders_are_taught_too_where_that_is_asked_for(here, mug, tiny_base, tmp_path):
    status, _, err = taught(here, tiny_base, mug, "--text-encoders")
    assert status == 0, err
    names = weights.read(tmp_path / "home/adapters/mug.safetensors")
    assert {name.split(".")[0] for name in names} == {"unet", "text_encoder"}
    drawn = ("generate", "sks mug", "--model", tiny_base, "--seed", "1", "--device", "cpu", "-o", "with.png")
    assert here(*drawn, "--lora", "mug")[0] == 0
    status, _, err = taught(here, tiny_base, mug, "--text-encoders", "--method", "inversion")
    assert status == 2
    assert "inversion leaves the networks as they are" in err


def test_a_picture_that_is_much_enlarged_is_warned_of(here, mug, tiny_base):
    Image.new("RGB", (10, 10), "red").save(mug / "tiny.png")
    status, _, err = taught(here, tiny_base, mug)
    assert status == 0
    assert "tiny.png (10×10): enlarged more than 2 times" in err


def test_a_broken_picture_is_named_and_the_others_are_learned_from(here, mug, tiny_base, tmp_path):
    (mug / "9.png").write_bytes(b"no picture at all")
    Image.new("RGBA", (300, 20), (255, 0, 0, 0)).save(mug / "8.png")
    status, _, err = taught(here, tiny_base, mug, "--seconds", "0.001")
    assert status == 0
    assert "1 broken picture is left out: 9.png" in err
    assert "common words" not in err
    assert len(json.loads((tmp_path / "runs/mug/index.json").read_text())["pictures"]) == 4
