"""Students of a whole model: what comes of each method loads here and in diffusers, and draws the same."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import torch

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint.layout import FAST
from sfumato.errors import SfumatoWarning, UsageError
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
from sfumato.weights import read

CPU = torch.device("cpu")
COMMON = dict(
    steps=3, batch=4, warmup=1, decay=1, rate=1e-3, ema=(0.9,), captions=2, tints=1, log_every=1,
    precision="float32", samples=("a red square",),
)  # fmt: skip
METHODS = {
    "latent-consistency": (LatentConsistencyRecipe, {}),
    "dpmpp-2s": (LatentConsistencyRecipe, dict(solver="dpmpp-2s", told=False, intervals=20)),
    "lora": (LatentConsistencyRecipe, dict(told=False, slow=0.0, rank=2)),
    "walks": (LatentConsistencyRecipe, dict(slow=0.0, walks=6, intervals=4)),
    "consistency": (ConsistencyRecipe, {}),
    "training": (ConsistencyTrainingRecipe, dict(first_intervals=2, last_intervals=8)),
    "untold": (ProgressiveRecipe, dict(halves=4)),
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
        found = student(x, t, states, guidance=torch.tensor([2.0, 8.0]))
        torch.testing.assert_close(found, teacher(x, t, states), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["latent-consistency", "dpmpp-2s", "consistency", "training", "progressive"])
def test_a_student_draws_here_what_the_real_pipeline_draws_of_it(students, name):
    _, _, run = students(name)
    lcm, folder = name != "progressive", str(run / MODEL)
    guidance = {"latent-consistency": 5.0, "progressive": 4.0}.get(name, 1.0)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    told = name == "latent-consistency"
    kind = diffusers.LatentConsistencyModelPipeline if told else diffusers.StableDiffusionPipeline
    assert type(pipeline) is kind
    assert type(pipeline.scheduler).__name__ == ("LCMScheduler" if lcm else "DDIMScheduler")
    if lcm:
        assert pipeline.scheduler.config.original_inference_steps == (20 if name == "dpmpp-2s" else 50)
    studio = sfumato.load(folder, dtype="float32")
    defaults = studio.model.defaults
    assert (defaults.sampler, defaults.steps, defaults.guidance) == ("lcm" if lcm else "ddim", 4, guidance)
    steps = 2 if lcm else 4
    theirs = pipeline(
        "a red square", num_inference_steps=steps, guidance_scale=guidance, width=32, height=32,
        generator=torch.Generator().manual_seed(1),
    ).images[0]  # fmt: skip
    ours = studio.generate("a red square", seed=1, steps=steps)
    off = np.asarray(ours.pixels, dtype=int) - np.asarray(theirs, dtype=int)
    assert abs(off).max() <= 1


@pytest.mark.parametrize("name", ["progressive", "consistency"])
def test_the_schedule_of_a_student_is_its_own_and_not_its_teachers(tiny_data, tiny_base, tmp_path, name):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    file = base / "scheduler" / "scheduler_config.json"
    other = {"timestep_spacing": "leading", "set_alpha_to_one": False, "clip_sample": True}
    file.write_text(json.dumps({**json.loads(file.read_text()), **other}))
    kind, keys = METHODS[name]
    recipe = kind(
        objective=name, data=str(tiny_data), base=str(base), run=str(tmp_path / "run"), **COMMON, **keys
    )
    assert train(task(recipe, CPU), recipe, CPU).done
    folder = str(tmp_path / "run" / MODEL)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    studio = sfumato.load(folder, dtype="float32")
    theirs = pipeline(
        "a red square", num_inference_steps=4, guidance_scale=studio.model.defaults.guidance,
        width=32, height=32, generator=torch.Generator().manual_seed(1),
    ).images[0]  # fmt: skip
    ours = studio.generate("a red square", seed=1)
    assert abs(np.asarray(ours.pixels, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_a_lora_of_few_steps_loads_here_and_in_diffusers(students, tiny_base):
    recipe, _, run = students("lora")
    studio = sfumato.load(recipe.base, dtype="float32")
    studio.load_adapter(str(run / LORA), "fast")
    image = studio.generate("a red square <lora:fast>", steps=2, guidance=1, sampler="lcm", seed=1)
    assert image.size == (32, 32)
    only = "draws well only with sampler 'lcm', 1 to 8 steps, guidance 1$"
    with pytest.warns(SfumatoWarning, match=only):
        studio.generate("a red square <lora:fast>", steps=10, guidance=2, seed=1)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        recipe.base, safety_checker=None, requires_safety_checker=False
    )
    pipeline.load_lora_weights(str(run), weight_name=LORA)
    pipeline.scheduler = diffusers.LCMScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        "a red square", num_inference_steps=2, guidance_scale=1.0, width=32, height=32,
        generator=torch.Generator().manual_seed(1),
    ).images[0]  # fmt: skip
    assert abs(np.asarray(image.pixels, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.fixture(scope="module")
def fast(students, tiny_base, tmp_path_factory):
    """The folder of a model with a LoRA of its own to draw fast with."""
    _, _, run = students("lora")
    folder = tmp_path_factory.mktemp("fast") / "model"
    shutil.copytree(tiny_base, folder)
    shutil.copyfile(run / LORA, folder / FAST)
    return folder


def test_fast_is_the_models_own_lora_in_four_steps_without_guidance(fast, students):
    _, _, run = students("lora")
    quick = sfumato.load(fast, dtype="float32")
    image = quick.generate("a red square", seed=1, fast=True)
    request = image.request
    assert (request.steps, request.guidance, request.sampler, request.spacing) == (4, 1, "lcm", "lcm")
    assert len(image.record.adapters) == 1
    plain = sfumato.load(fast, dtype="float32")
    plain.load_adapter(run / LORA, "mine")
    same = plain.generate("a red square <lora:mine>", seed=1, steps=4, guidance=1, sampler="lcm")
    assert np.array_equal(image.pixels, same.pixels)
    assert np.array_equal(quick.generate(image.request).pixels, image.pixels)


def test_without_fast_the_model_draws_as_ever(fast, tiny_base):
    studio = sfumato.load(fast, dtype="float32")
    before = studio.generate("a red square", seed=1)
    studio.generate("a red square", seed=1, fast=True)
    assert np.array_equal(studio.generate("a red square", seed=1).pixels, before.pixels)
    assert np.array_equal(sfumato.load(tiny_base, dtype="float32").generate("a red square", seed=1).pixels,
                          before.pixels)  # fmt: skip


def test_saving_a_model_keeps_what_it_draws_fast_with(fast, tmp_path):
    checkpoint.save(checkpoint.load(fast), tmp_path / "copy")
    assert (tmp_path / "copy" / FAST).read_bytes() == (fast / FAST).read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(steps=9), "steps is 9: fast draws in 1 to 8"),
        (dict(guidance=4), "guidance is 4: fast has learned one guidance"),
        (dict(sampler="euler"), "sampler is 'euler': fast draws with 'lcm'"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_fast_is_refused(fast, fields, message):
    with pytest.raises(UsageError, match=message):
        sfumato.load(fast).generate("a red square", fast=True, **fields)


def test_a_model_without_a_lora_of_its_own_says_what_would_make_one(tiny_base):
    with pytest.raises(UsageError, match=r"nothing to draw fast with: .* `sfumato distill`"):
        sfumato.load(tiny_base).generate("a red square", fast=True)


def test_a_student_says_that_it_needs_no_other(students):
    _, _, run = students("latent-consistency")
    with pytest.raises(UsageError, match="draws in few steps as it is"):
        sfumato.load(run / MODEL).generate("a red square", fast=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(steps=30), r"steps 30 is not what this distilled model has learned \(1 to 8\).* try 4"),
        (dict(guidance=12.5), r"guidance 12.5 is not what .* \(2 to 8\).* try 5"),
    ],
)  # fmt: skip
def test_asking_a_student_for_what_it_has_not_learned_is_warned_of(students, fields, message):
    _, _, run = students("latent-consistency")
    with pytest.warns(SfumatoWarning, match=message):
        sfumato.load(run / MODEL).generate("a red square", seed=1, **fields)


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


@pytest.mark.parametrize(
    ("teacher", "kind", "keys", "message"),
    [
        ("latent-consistency", ConsistencyRecipe, {}, "of 1 to 8 steps and teaches none"),
        ("consistency", LatentConsistencyRecipe, {}, "of 1 to 8 steps and teaches none"),
        ("latent-consistency", ProgressiveRecipe, dict(halves=4), "of 1 to 8 steps and teaches none"),
        ("progressive", ConsistencyRecipe, {}, "of 4 steps and teaches none"),
        ("progressive", ProgressiveRecipe, dict(halves=4), "of 4 steps, of which halves = 4 is not half"),
        ("progressive", ProgressiveRecipe, dict(halves=2), "told = true, guided within 2 to 6"),
        ("progressive", ProgressiveRecipe, dict(halves=2, guided=(2.0, 8.0), told=True),
         "has learned guidance 2 to 6, not 2 to 8$"),
        ("untold", ProgressiveRecipe, dict(halves=2, guided=(3.0, 3.0)),
         "has learned guidance 1, not 3; leave guided out"),
        ("base", ConsistencyRecipe, dict(intervals=30), "30 does not divide the 1000 times .* try 25"),
    ],
)  # fmt: skip
def test_a_teacher_of_other_steps_or_guidance_is_refused(
    students, tiny_base, tiny_data, tmp_path, teacher, kind, keys, message
):
    base = tiny_base if teacher == "base" else students(teacher)[2] / MODEL
    recipe = kind(objective="-", data=str(tiny_data), base=str(base), run=str(tmp_path), **COMMON, **keys)
    with pytest.raises(UsageError, match=message):
        task(recipe, CPU)


def test_walks_are_made_anew_for_another_scale_and_not_for_other_samples(tiny_data, tiny_base, tmp_path):
    def walks(**other):
        keys = {**METHODS["walks"][1], **COMMON, **other}
        recipe = LatentConsistencyRecipe(
            objective="-", data=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **keys
        )
        task(recipe, CPU)
        file = tmp_path / "walks-00000.safetensors"
        return file.stat().st_mtime_ns, read(file)["scale"]

    made, scales = walks()
    assert len(scales.unique()) == 4
    assert walks(guidance=9.0, samples=("a blue square",))[0] == made
    remade, scales = walks(told=False)
    assert remade != made
    assert scales.tolist() == [5.0] * 4


def test_a_student_knows_the_size_that_it_has_learned_at(tiny_data, tiny_base, tmp_path):
    recipe = ConsistencyRecipe(
        objective="-", data=str(tiny_data), base=str(tiny_base), run=str(tmp_path), size=64, **COMMON
    )
    assert task(recipe, CPU).net.config.sample_size == 16


def test_a_student_of_a_flow_is_asked_where_it_has_learned(tiny_data, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(flow))
    recipe = ConsistencyRecipe(
        objective="-", data=str(tiny_data), base=str(base), run=str(tmp_path / "run"), intervals=5, **COMMON
    )
    prepared = task(recipe, CPU)
    assert train(prepared, recipe, CPU).done
    model = checkpoint.load(str(tmp_path / "run" / MODEL))
    learned = set(prepared.objective.course(0).grid.t.tolist())
    for steps in (1, 4):
        asked = [level.t for level in model.levels(model.defaults.spacing, steps)[:-1]]
        assert all(any(abs(t - at) < 1e-3 for at in learned) for t in asked)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (ConsistencyRecipe, dict(solver="dim"), "solver 'dim' is not known; did you mean 'ddim'"),
        (ConsistencyRecipe, dict(rank=4), "a LoRA .* slow = 0.95"),
        (ConsistencyRecipe, dict(rank=4, slow=0.0, layers=()), "layers = .* nothing to change"),
        (ConsistencyRecipe, dict(told=True), "told = true needs the scales"),
        (LatentConsistencyRecipe, dict(guided=(), told=False), "leaves nothing but objective"),
        (LatentConsistencyRecipe, dict(guided=(8.0, 2.0)), r"must be \[lowest, highest\]"),
        (ConsistencyTrainingRecipe, dict(first_intervals=1), "must rise, from at least 2"),
        (ConsistencyTrainingRecipe, dict(walks=8), "walks need somebody to walk"),
        (ConsistencyRecipe, dict(walks=8), "walks are compared with their ends: no slow = 0.95"),
        (ConsistencyRecipe, dict(walks=-1, slow=0.0), "walks = -1 must not be negative"),
        (ProgressiveRecipe, {}, "halves = 0 must be 1 to 500"),
        (ProgressiveRecipe, dict(halves=4, weighting="snr"), "weighting 'snr' is not known"),
        (ConsistencyRecipe, dict(start="nothing"), "a student begins as its teacher"),
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(kind, keys, message):
    with pytest.raises(UsageError, match=message):
        kind.from_dict({"objective": "-", "data": "d", "run": "r", **keys}, "recipe.toml")
