"""Students of a whole model: what comes of each method loads here and in diffusers, and draws the same."""

import diffusers
import numpy as np
import pytest
import torch

import sfumato
from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.train.loop import train
from sfumato.train.recipe import (
    ConsistencyRecipe,
    ConsistencyTrainingRecipe,
    LatentConsistencyRecipe,
    ProgressiveRecipe,
)
from sfumato.train.tasks import task
from sfumato.train.tasks.common import MODEL
from sfumato.train.tasks.student import LORA

CPU = torch.device("cpu")
COMMON = dict(
    steps=3, batch=4, warmup=1, decay=1, rate=1e-3, ema=(0.9,), captions=2, tints=1, log_every=1,
    precision="float32", samples=("a red square",),
)  # fmt: skip
METHODS = {
    "latent-consistency": (LatentConsistencyRecipe, {}),
    "dpmpp-2s": (LatentConsistencyRecipe, dict(solver="dpmpp-2s", told=False)),
    "lora": (LatentConsistencyRecipe, dict(told=False, slow=0.0, rank=2)),
    "consistency": (ConsistencyRecipe, {}),
    "training": (ConsistencyTrainingRecipe, dict(first_intervals=2, last_intervals=8)),
    "progressive": (ProgressiveRecipe, dict(halves=4, guided=(2.0, 6.0), told=True)),
}


@pytest.fixture(scope="module")
def students(tiny_data, tiny_base, tmp_path_factory):
    """Makes the run of a method, once."""
    made = {}

    def student(name):
        if name not in made:
            kind, keys = METHODS[name]
            run = tmp_path_factory.mktemp("students") / name
            recipe = kind(
                objective=name, data=str(tiny_data), base=str(tiny_base), run=str(run), **COMMON, **keys
            )
            made[name] = recipe, train(task(recipe, CPU), recipe, CPU), run
        return made[name]

    return student


@pytest.mark.parametrize("name", METHODS)
def test_a_student_is_trained_and_shown(students, name):
    _, outcome, run = students(name)
    assert outcome.done
    assert (run / "samples" / "last.webp").is_file()
    assert (run / (LORA if name == "lora" else MODEL)).exists()


def test_at_first_a_student_answers_as_its_teacher_does(tiny_data, tiny_base, tmp_path):
    recipe = LatentConsistencyRecipe(
        objective="-", data=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **COMMON
    )
    student = task(recipe, CPU).net
    teacher = checkpoint.load(str(tiny_base)).unet
    x, t, states = torch.randn(2, 4, 8, 8), torch.tensor([999, 19]), torch.randn(2, 77, 256)
    with torch.no_grad():
        found = student(x, t, states, w=torch.tensor([1.0, 7.0]))
        torch.testing.assert_close(found, teacher(x, t, states), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["latent-consistency", "dpmpp-2s", "consistency", "training"])
def test_a_student_draws_here_what_the_real_pipeline_draws_of_it(students, name):
    _, _, run = students(name)
    told = name == "latent-consistency"
    folder = str(run / MODEL)
    kind = diffusers.LatentConsistencyModelPipeline if told else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32
    )
    assert type(pipeline.scheduler).__name__ == "LCMScheduler"
    studio = sfumato.load(folder, dtype="float32")
    assert studio.model.defaults.sampler == "lcm"
    assert studio.model.defaults.steps == 4
    guidance = 5.0 if told else 1.0
    assert studio.model.defaults.guidance == guidance
    theirs = pipeline(
        "a red square", num_inference_steps=2, guidance_scale=guidance, width=32, height=32,
        generator=torch.Generator().manual_seed(1),
    ).images[0]  # fmt: skip
    ours = studio.generate("a red square", seed=1, steps=2)
    off = np.asarray(ours.pixels, dtype=int) - np.asarray(theirs, dtype=int)
    assert abs(off).max() <= 1


def test_a_lora_of_few_steps_loads_here_and_in_diffusers(students, tiny_base):
    recipe, _, run = students("lora")
    studio = sfumato.load(recipe.base, dtype="float32")
    studio.load_adapter(str(run / LORA), "fast")
    image = studio.generate("a red square <lora:fast>", steps=2, guidance=1, sampler="lcm", seed=1)
    assert image.size == (32, 32)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        recipe.base, safety_checker=None, requires_safety_checker=False
    )
    pipeline.load_lora_weights(str(run), weight_name=LORA)
    assert pipeline.get_active_adapters()


def test_each_round_of_halving_begins_with_the_last_ones_student(students, tiny_data, tmp_path):
    _, _, run = students("progressive")
    recipe = ProgressiveRecipe(
        objective="progressive", data=str(tiny_data), base=str(run / MODEL), run=str(tmp_path), **COMMON,
        halves=2, guided=(2.0, 6.0), told=True,
    )  # fmt: skip
    assert train(task(recipe, CPU), recipe, CPU).done
    model = checkpoint.load(str(tmp_path / MODEL))
    assert (model.defaults.steps, model.defaults.sampler) == (2, "ddim")
    assert model.unet.config.time_cond_proj_dim == 256


def test_a_student_is_no_teacher_of_consistency(students, tiny_data, tmp_path):
    _, _, run = students("latent-consistency")
    recipe = ConsistencyRecipe(
        objective="-", data=str(tiny_data), base=str(run / MODEL), run=str(tmp_path), **COMMON
    )
    with pytest.raises(UsageError, match="a student, which is told the guidance"):
        task(recipe, CPU)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (ConsistencyRecipe, dict(solver="dim"), "solver 'dim' is not known; did you mean 'ddim'"),
        (ConsistencyRecipe, dict(rank=4), "a LoRA .* slow = 0.95"),
        (ConsistencyRecipe, dict(told=True), "told = true needs the scales"),
        (LatentConsistencyRecipe, dict(guided=(), told=False), "leaves nothing but objective = 'consistency'"),
        (LatentConsistencyRecipe, dict(guided=(8.0, 2.0)), r"must be \[lowest, highest\]"),
        (ConsistencyTrainingRecipe, dict(first_intervals=1), "must rise, from at least 2"),
        (ProgressiveRecipe, {}, "halves = 0 must be 1 to 512"),
        (ProgressiveRecipe, dict(halves=4, weighting="snr"), "weighting 'snr' is not known"),
        (ConsistencyRecipe, dict(start="nothing"), "a student begins as its teacher"),
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(kind, keys, message):
    with pytest.raises(UsageError, match=message):
        kind.from_dict({"objective": "-", "data": "d", "run": "r", **keys}, "recipe.toml")
