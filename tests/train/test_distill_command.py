"""`sfumato distill` as one uses it: to its end or in slices, what becomes of it, and what it says no to."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from commandline import Here

from sfumato.cli import console
from sfumato.image import Image
from sfumato.train.recipe import LORA, MODEL

RECIPE = """
base = "{base}"
run = "{run}"
steps = 3
batch_size = 2
ema_decays = [0.9]
precision = "float32"
log_every = 1
objective.name = "{objective}"
data = {{ folder = "{data}", captions_per_picture = 1, tints_per_icon = 1 }}
optimizer = {{ warmup_steps = 1, decay_steps = 1 }}
{more}
"""
ALONE = "objective.guidance_embedding = false\nobjective.target_ema = 0.0\nadapter.rank = 2"
DRAWN = ("generate", "a red square", "--device", "cpu", "--seed", "1", "-o")


@pytest.fixture
def here(capfdbinary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "SILENCE", 600.0)  # a busy machine does not add to what is said
    return Here(capfdbinary)


@pytest.fixture
def write(tiny_data, tiny_base, tmp_path):
    """Writes a recipe, of a latent consistency model unless told otherwise."""

    def write(name="recipe.toml", objective="latent-consistency", run="run", more="", **other):
        said = {"data": tiny_data, "base": tiny_base, **other}
        (tmp_path / name).write_text(RECIPE.format(objective=objective, run=run, more=more, **said))
        return name

    return write


def distil(here, *arguments, command="distill"):
    return here(command, *arguments, "--device", "cpu")


def test_walks_are_told_of_and_not_made_again_for_a_recipe_that_is_refused(here, write, tmp_path):
    walks = "target_ema = 0.0\nobjective.discretization_steps = 2\nobjective.trajectories = 4"
    walks = f"objective.{walks}"
    status, _, err = distil(here, write(more=walks), "--seconds", "0.001")
    assert status == 0
    assert "run: sampling trajectories 0/4" in err
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").glob("trajectories-*")}
    assert len(kept) == 2
    status, _, err = distil(here, write(more=walks.replace("steps = 2", "steps = 4")))
    assert status != 0
    assert "another recipe: objective.discretization_steps was 2 and is 4" in err
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_lora_is_learned_in_slices_and_drawn_with(here, write, tiny_base, tmp_path):
    recipe = write(more=ALONE)
    status, out, err = distil(here, recipe, "--seconds", "0.001")
    assert status == 0
    assert "run: stopped at step 1 of 3, run again to go on" in out
    assert "step 1/3" in err
    assert (tmp_path / "run" / LORA).is_file()
    status, out, err = distil(here, recipe, "--json", "-q")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["step"], told["done"], told["run"]) == (3, True, "run")
    lora = ("--model", tiny_base, "--lora", f"run/{LORA}")
    few = ("--sampler", "lcm", "--steps", "4", "--guidance", "1")
    assert here(*DRAWN, "with.png", *lora, *few) == (0, "with.png\n", "")
    status, _, err = here(*DRAWN, "slowly.png", *lora)
    assert status == 0
    assert "is for few steps: it draws well only with sampler 'lcm', guidance 1\n" in err
    assert here(*DRAWN, "without.png", "--model", tiny_base, *few)[0] == 0
    with_it, without = (Image.open(tmp_path / name).record for name in ("with.png", "without.png"))
    assert with_it.pixels != without.pixels
    assert list(with_it.adapters) == [f"run/{LORA}"]


def test_a_whole_student_is_drawn_with_as_its_own_files_say(here, write, tmp_path):
    assert distil(here, write(), "-q")[0] == 0
    model = ("--model", f"run/{MODEL}")
    assert here(*DRAWN, "own.png", *model) == (0, "own.png\n", "")
    request = Image.open(tmp_path / "own.png").request
    assert (request.steps, request.sampler, request.spacing, request.guidance) == (4, "lcm", "lcm", 5)
    status, _, err = here(*DRAWN, "other.png", *model, "--steps", "30", "--guidance", "12.5")
    assert status == 0
    assert "steps 30 is not what this distilled model has learned (1 to 8)" in err
    assert "guidance 12.5 is not what this distilled model has learned (2 to 8)" in err
    status, out, err = here(*DRAWN, "fast.png", *model, "--fast")
    assert (status, out) == (2, "")
    assert "draws in few steps as it is: leave fast out" in err


def test_a_run_in_slices_ends_where_one_in_a_piece_does(here, write, tmp_path):
    """The average that the student is compared with, which the objective keeps, is part of what is kept."""
    assert distil(here, write("whole.toml", run="whole"), "-q")[0] == 0
    sliced = write("sliced.toml", run="sliced")
    for _ in range(3):
        assert distil(here, sliced, "-q", "--seconds", "0.001")[0] == 0
    assert "sliced: done" in distil(here, sliced, "-q")[1]
    file = Path(MODEL) / "unet" / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "sliced" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_train_carries_out_a_students_recipe_as_well(here, write):
    recipe = write(more=ALONE)
    assert "stopped at step 1 of 3" in distil(here, recipe, "--seconds", "0.001")[1]
    assert "run: done" in distil(here, recipe, command="train")[1]


def test_options_stand_before_what_the_recipe_says(here, write, tiny_base, tiny_data, tmp_path):
    recipe = write(base="nowhere", data="nothing", more=ALONE)
    changed = ("--base", tiny_base, "--data", tiny_data, "--run", "other", "--steps", "1")
    status, out, _ = distil(here, recipe, *changed)
    assert (status, out.splitlines()[0].split(";")[0]) == (0, "other: done")
    assert (tmp_path / "other" / LORA).is_file()


@pytest.mark.parametrize(
    ("recipe", "arguments", "status", "said"),
    [
        (dict(objective="denoiser"), (), 2, "'denoiser' trains no student of few steps; `sfumato train` ca"),
        (dict(objective="latent-consistancy"), (), 2, "did you mean 'latent-consistency'"),
        (dict(more="adapter.rnak = 4"), (), 2, "did you mean 'rank'"),
        (dict(more="adapter.rank = 4"), (), 2, "an adapter is its own target network"),
        (dict(data="nothing"), (), 2, "there is no folder nothing"),
        (dict(base="nowhere"), (), 2, "nowhere"),
        ({}, ("--seconds", "0"), 2, "--seconds 0 must be more than 0"),
        ({}, ("--steps", "0"), 2, "steps is 0: must be"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(here, write, recipe, arguments, status, said, tmp_path):
    ended, out, err = distil(here, write(**recipe), *arguments)
    assert (ended, out) == (status, "")
    assert said in err
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_there_is_told(here):
    assert distil(here, "no.toml") == (
        2,
        "",
        "error: cannot read the recipe no.toml: No such file or directory\n",
    )


def test_of_several_stages_the_one_that_makes_no_student_is_named(here, write, tmp_path):
    write("first.toml", objective="denoiser", run="first")
    write("second.toml", run="second")
    (tmp_path / "all.toml").write_text('stages = ["first.toml", "second.toml"]')
    status, out, err = distil(here, "all.toml")
    assert (status, out) == (2, "")
    assert "first.toml: objective 'denoiser' trains no student" in err


def test_a_model_that_cannot_draw_fast_says_so(here, tiny_base, tmp_path):
    status, out, err = here(*DRAWN, "fast.png", "--model", tiny_base, "--fast")
    assert (status, out) == (2, "")
    assert "has nothing to draw fast with: use a model that has, or learn it with `sfumato distill`" in err
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "fast.png").exists()
