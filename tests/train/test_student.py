"""Students of a whole model: what comes of each method loads here and in diffusers, and draws the same."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import torch
from making import made

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint.layout import FAST
from sfumato.errors import SfumatoWarning, UsageError
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.recipe import LORA, MODEL
from sfumato.weights import read

CPU = torch.device("cpu")
LCM, CD, CT, PD = "latent-consistency", "consistency", "consistency-training", "progressive"
COMMON = dict(
    steps=3, batch_size=4, warmup_steps=1, decay_steps=1, learning_rate=1e-3, ema_decays=(0.9,),
    captions_per_picture=2, tints_per_icon=1, log_every=1, precision="float32", prompts=("a red square",),
)  # fmt: skip
METHODS = {
    "latent-consistency": (LCM, {}),
    "dpmpp-2s": (LCM, dict(solver="dpmpp-2s", guidance_embedding=False, discretization_steps=20)),
    "lora": (LCM, dict(guidance_embedding=False, target_ema=0.0, rank=2)),
    "trajectories": (LCM, dict(target_ema=0.0, trajectories=6, discretization_steps=4)),
    "consistency": (CD, {}),
    "training": (CT, dict(initial_discretization_steps=2, final_discretization_steps=8)),
    "unguided": (PD, dict(student_steps=4)),
    "progressive": (PD, dict(student_steps=4, guidance_range=(2.0, 6.0), guidance_embedding=True)),
    "progressive lora": (PD, dict(student_steps=4, rank=2)),
    "training lora": (CT, dict(final_discretization_steps=10, rank=2)),
}
LORAS = ("lora", "progressive lora", "training lora")


@pytest.fixture(scope="module")
def students(tiny_data, tiny_base, tmp_path_factory):
    """Makes the run of a method, once."""
    runs = {}

    def student(name):
        if name not in runs:
            kind, keys = METHODS[name]
            run = tmp_path_factory.mktemp("students") / name
            recipe = made(kind, folder=str(tiny_data), base=str(tiny_base), run=str(run), **COMMON, **keys)
            runs[name] = recipe, train(task(recipe, CPU), recipe, CPU), run
        return runs[name]

    return student


@pytest.mark.parametrize("name", METHODS)
def test_a_student_is_trained_and_shown(students, name):
    _, outcome, run = students(name)
    assert outcome.done
    assert (run / "samples" / "last.webp").is_file()
    assert (run / (LORA if name in LORAS else MODEL)).exists()


def test_at_first_a_student_answers_as_its_teacher_does(tiny_data, tiny_base, tmp_path):
    recipe = made(LCM, folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **COMMON)
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
    run = str(tmp_path / "run")
    recipe = made(kind, folder=str(tiny_data), base=str(base), run=run, **COMMON, **keys)
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
    recipe = made(
        PD, folder=str(tiny_data), base=str(run / MODEL), run=str(tmp_path), **COMMON,
        student_steps=2, guidance_range=(2.0, 6.0), guidance_embedding=True,
    )  # fmt: skip
    assert train(task(recipe, CPU), recipe, CPU).done
    model = checkpoint.load(str(tmp_path / MODEL))
    assert (model.defaults.steps, model.defaults.sampler) == (2, "ddim")
    assert model.unet.config.time_cond_proj_dim == 256


@pytest.mark.parametrize(
    ("teacher", "kind", "keys", "message"),
    [
        ("latent-consistency", CD, {}, "of 1 to 8 steps and teaches none"),
        ("consistency", LCM, {}, "of 1 to 8 steps and teaches none"),
        ("latent-consistency", PD, dict(student_steps=4), "of 1 to 8 steps and teaches none"),
        ("progressive", CD, {}, "of 4 steps and teaches none"),
        ("progressive", PD, dict(student_steps=4), "of 4 steps, of which student_steps = 4 is not half"),
        ("progressive", PD, dict(student_steps=2),
         "guidance_embedding = true, guidance_range within 2 to 6"),
        ("progressive", PD, dict(student_steps=2, guidance_range=(2.0, 8.0), guidance_embedding=True),
         "has learned guidance 2 to 6, not 2 to 8$"),
        ("unguided", PD, dict(student_steps=2, guidance_range=(3.0, 3.0)),
         "has learned guidance 1, not 3; leave guidance_range out"),
        ("base", CD, dict(discretization_steps=30), "30 does not divide the 1000 times .* try 25"),
    ],
)  # fmt: skip
def test_a_teacher_of_other_steps_or_guidance_is_refused(
    students, tiny_base, tiny_data, tmp_path, teacher, kind, keys, message
):
    base = tiny_base if teacher == "base" else students(teacher)[2] / MODEL
    recipe = made(kind, folder=str(tiny_data), base=str(base), run=str(tmp_path), **COMMON, **keys)
    with pytest.raises(UsageError, match=message):
        task(recipe, CPU)


def test_trajectories_are_sampled_anew_for_another_scale_and_not_for_other_samples(
    tiny_data, tiny_base, tmp_path
):
    def sampled(**other):
        keys = {**METHODS["trajectories"][1], **COMMON, **other}
        task(made(LCM, folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **keys), CPU)
        file = tmp_path / "trajectories-00000.safetensors"
        return file.stat().st_mtime_ns, read(file)["scale"]

    first, scales = sampled()
    assert len(scales.unique()) == 4
    assert sampled(guidance_scale=9.0, prompts=("a blue square",))[0] == first
    again, scales = sampled(guidance_embedding=False)
    assert again != first
    assert scales.tolist() == [5.0] * 4


def test_a_student_knows_the_size_that_it_has_learned_at(tiny_data, tiny_base, tmp_path):
    keys = {**COMMON, "resolution": 64}
    recipe = made(CD, folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **keys)
    assert task(recipe, CPU).net.config.sample_size == 16


def test_a_student_of_a_flow_is_asked_where_it_has_learned(tiny_data, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(flow))
    keys = {**COMMON, "discretization_steps": 5}
    recipe = made(CD, folder=str(tiny_data), base=str(base), run=str(tmp_path / "run"), **keys)
    prepared = task(recipe, CPU)
    assert train(prepared, recipe, CPU).done
    model = checkpoint.load(str(tmp_path / "run" / MODEL))
    learned = set(prepared.loss.discretization(0).levels.t.tolist())
    for steps in (1, 4):
        asked = [level.t for level in model.levels(model.defaults.spacing, steps)[:-1]]
        assert all(any(abs(t - at) < 1e-3 for at in learned) for t in asked)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (CD, dict(solver="dim"), "solver is 'dim': not supported; did you mean 'ddim'"),
        (CD, dict(rank=4), "an adapter is its own target network: objective.target_ema = 0"),
        (LCM, dict(rank=4, target_ema=0.0), "an adapter reads no guidance scale"),
        (PD, dict(student_steps=4, rank=4, guidance_range=(2.0, 3.0), guidance_embedding=True),
         "an adapter reads no guidance scale"),
        (CD, dict(rank=4, target_ema=0.0, target_modules=()), r"target_modules is \(\): must have at"),
        (CD, dict(guidance_embedding=True), "guidance_embedding needs guidance_range"),
        (LCM, dict(guidance_range=()), r"guidance_range is \(\)"),
        (LCM, dict(guidance_range=(8.0, 2.0)), r"must be \[lowest, highest\]"),
        (CT, dict(initial_discretization_steps=1), "initial_discretization_steps is 1: must be .*at least 2"),
        (CT, dict(final_discretization_steps=9), "must be at most final_discretization_steps = 9"),
        (CT, dict(trajectories=8), "unknown key 'trajectories'"),
        (CT, dict(guidance_range=(1.0, 2.0)), "unknown key 'guidance_range'"),
        (CD, dict(trajectories=8), "trajectories have their endpoints as targets: target_ema = 0"),
        (CD, dict(trajectories=-1, target_ema=0.0), "trajectories is -1: must be .*at least 0"),
        (PD, {}, "student_steps must be 1 to 500"),
        (PD, dict(student_steps=4, weighting="snr"), "weighting is 'snr': not supported"),
        (CD, dict(start="scratch"), "start is 'scratch': must be 'base' for the objective 'consistency'"),
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(kind, keys, message):
    with pytest.raises(UsageError, match=message):
        made(kind, folder="d", run="r", **keys)
