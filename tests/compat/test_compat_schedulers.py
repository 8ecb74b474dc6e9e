"""Every scheduler by name, with the settings that programs give it, draws the latents of diffusers."""

import math
import re
import shutil

import diffusers
import pytest
import torch

from sfumato import checkpoint, compat
from sfumato.compat.schedulers import SCHEDULERS
from sfumato.errors import SfumatoWarning, UsageError

KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL, BETA = {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}
TRAILING = {"timestep_spacing": "trailing"}
LINSPACE = {"timestep_spacing": "linspace"}
BEFORE_THE_END = {"final_sigmas_type": "sigma_min"}

SETTINGS = {
    "DDIMInverseScheduler": [{}, {"set_alpha_to_one": True}],
    "DDIMParallelScheduler": [{}],
    "DDIMScheduler": [
        {},
        {"set_alpha_to_one": True},
        {"clip_sample": True},
        LINSPACE,
        {"thresholding": True},
    ],
    "DDPMParallelScheduler": [{}],
    "DDPMScheduler": [{}, TRAILING, {**LINSPACE, "variance_type": "fixed_large"}, {"clip_sample": True}],
    "PNDMScheduler": [{"skip_prk_steps": True}, {"set_alpha_to_one": True, "skip_prk_steps": True}],
    "LCMScheduler": [{}, {"original_inference_steps": 20, "clip_sample": True}],
    "TCDScheduler": [{}],
    "EulerDiscreteScheduler": [{}, KARRAS, EXPONENTIAL, BETA, TRAILING, LINSPACE, BEFORE_THE_END],
    "EulerAncestralDiscreteScheduler": [{}, TRAILING, LINSPACE],
    "HeunDiscreteScheduler": [{}, KARRAS, {**LINSPACE, "clip_sample": True}],
    "KDPM2DiscreteScheduler": [{}, KARRAS],
    "KDPM2AncestralDiscreteScheduler": [{}, KARRAS],
    "LMSDiscreteScheduler": [{}, KARRAS, LINSPACE],
    "UniPCMultistepScheduler": [
        {},
        KARRAS,
        {"solver_order": 3, **TRAILING},
        BEFORE_THE_END,
        {**KARRAS, **BEFORE_THE_END},
        {"predict_x0": False, **BEFORE_THE_END},
        {"disable_corrector": [0, 1]},
    ],
    "DEISMultistepScheduler": [{}, KARRAS, {"solver_order": 3, "lower_order_final": False}],
    "DPMSolverMultistepScheduler": [
        {},
        KARRAS,
        {**TRAILING, "solver_type": "heun"},
        {"solver_order": 3},
        {"solver_order": 3, "lower_order_final": False, **LINSPACE},
        {"algorithm_type": "sde-dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 1, **KARRAS},
        {"algorithm_type": "dpmsolver", **BEFORE_THE_END},
        BEFORE_THE_END,
        {"use_lu_lambdas": True},
        {"euler_at_final": True, **BEFORE_THE_END},
        {"algorithm_type": "sde-dpmsolver", **BEFORE_THE_END},
        {"thresholding": True},
    ],
    "DPMSolverSinglestepScheduler": [
        {},
        KARRAS,
        {"solver_order": 3},
        {"algorithm_type": "dpmsolver", **BEFORE_THE_END},
        {"algorithm_type": "sde-dpmsolver++"},
    ],
    "EDMEulerScheduler": [{}, {"sigma_schedule": "exponential", **BEFORE_THE_END}],
    "EDMDPMSolverMultistepScheduler": [{}, {"algorithm_type": "sde-dpmsolver++"}],
    "SASolverScheduler": [{}, KARRAS, {"algorithm_type": "noise_prediction"}],
}
CASES = [(name, settings) for name, many in SETTINGS.items() for settings in many]
NOT_OURS = {"DPMSolverSDEScheduler"}  # its noise does not come from the caller's generator


@pytest.fixture(scope="module")
def pipes(model):
    """One pipeline of diffusers and one of ours."""
    made = [lib.StableDiffusionPipeline.from_pretrained(model("sd1")) for lib in (diffusers, compat)]
    for pipe in made:
        pipe.set_progress_bar_config(disable=True)
    return [(pipe, pipe.scheduler.config) for pipe in made]


def drawn(library, pipe, config, name, settings, steps):
    """The latents of two batches from one generator, so that what the first draws is counted too."""
    pipe.scheduler = getattr(library, name).from_config(config, **settings)
    generator = torch.Generator().manual_seed(4)
    call = {"generator": generator, "output_type": "latent", "width": 8, "height": 8}
    call |= {"guidance_scale": 3.0, "eta": 0.5 if name == "DDIMScheduler" else 0.0}
    first = pipe("a cat", num_images_per_prompt=2, num_inference_steps=steps, **call).images
    return torch.cat([first, pipe("a dog", num_inference_steps=3, **call).images])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_the_scheduler_draws_the_latents_of_diffusers(name, settings, pipes):
    for steps in (5, 15) if settings.get("solver_order") == 3 else (5,):
        theirs, ours = (
            drawn(library, *pipe, name, settings, steps)
            for library, pipe in zip((diffusers, compat), pipes, strict=True)
        )
        assert torch.isfinite(ours).all()
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_every_scheduler_is_held_against_diffusers():
    assert {*SETTINGS, *NOT_OURS} == set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_settings_and_their_values_are_those_of_diffusers(name):
    theirs = getattr(diffusers, name)
    config = {k: v for k, v in theirs().config.items() if not k.startswith("_")}
    assert SCHEDULERS[name].defaults() == config


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        (name, spacing)
        for name in SCHEDULERS
        for spacing in ("leading", "linspace", "trailing")
        if (name, spacing) != ("DDIMInverseScheduler", "linspace")
    ],
)
def test_the_times_are_those_of_diffusers(name, spacing):
    settings = {"steps_offset": 1, "timestep_spacing": spacing, "skip_prk_steps": True}
    settings |= {"set_alpha_to_one": True}
    settings = {key: value for key, value in settings.items() if key in SCHEDULERS[name].defaults()}
    for steps in (2, 7, 30):
        theirs = getattr(diffusers, name)(**settings)
        theirs.set_timesteps(steps)
        plan = SCHEDULERS[name](**settings).plan(compat.plan.SampleArgs(steps))
        times = [level.t for level in plan.evaluated]
        assert times == pytest.approx(theirs.timesteps.tolist(), abs=2e-3)
        assert plan.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-4)


def test_settings_go_from_one_class_to_the_next_and_back():
    pndm = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "skip_prk_steps": True,
    }
    mine = compat.PNDMScheduler.from_config(pndm)
    theirs = diffusers.PNDMScheduler.from_config(pndm)
    for name in ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler"):
        mine = getattr(compat, name).from_config(mine.config)
        theirs = getattr(diffusers, name).from_config(theirs.config)
        for key in getattr(compat, name).defaults():
            assert mine.config[key] == theirs.config[key], (name, key)
    assert mine.config.skip_prk_steps is True
    assert mine.config.get("nothing") is None


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("UniPCMultistepScheduler", {"solver_p": 1}, "solver_p = 1 is not supported, only None"),
        ("DDIMScheduler", {"use_karras": True}, "no setting 'use_karras'"),
        ("UniPCMultistepScheduler", {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ("EulerDiscreteScheduler", {"interpolation_type": "cubic"}, "interpolation_type"),
        ("EulerDiscreteScheduler", {"prediction_type": "score"}, "prediction_type"),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_max"}, "final_sigmas_type"),
        ("DDPMScheduler", {"variance_type": "learned"}, "variance_type"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": "yes"}, "is 'yes': must be True or False"),
        ("EulerDiscreteScheduler", {"steps_offset": 1.5}, "steps_offset is 1.5: must be a whole number"),
        ("EulerDiscreteScheduler", {"beta_end": "x"}, "beta_end is 'x': must be a number"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(name, settings, words):
    with pytest.raises(UsageError, match=words):
        getattr(compat, name)(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "final_sigmas_type = 'sigma_min'"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver"},
            "final_sigmas_type = 'sigma_min'",
        ),
        ("DPMSolverMultistepScheduler", {"solver_order": 4}, "solver_order = 4"),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver"}, "algorithm_type"),
        ("SASolverScheduler", {"predictor_order": 5}, "predictor_order = 5"),
        ("EulerDiscreteScheduler", {"prediction_type": "flow_prediction"}, "needs use_flow_sigmas = True"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.0}, "sigma_min is 0.0"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 999.0}, "above sigma_max"),
        ("EulerDiscreteScheduler", {"steps_offset": 10**9}, "steps_offset is 1000000000: must be 0 to 999"),
        ("DDIMScheduler", {"steps_offset": -1}, "steps_offset is -1: must be 0 to 999"),
        (
            "DDIMScheduler",
            {"thresholding": True, "dynamic_thresholding_ratio": 2.0},
            "ratio is 2.0: must be at most 1",
        ),
        ("DDIMScheduler", {"thresholding": True, "sample_max_value": 0.0}, "sample_max_value is 0.0"),
        ("DDIMScheduler", {"clip_sample_range": -1.0}, "clip_sample_range is -1.0: must be positive"),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": 9.0}, "no training times are left"),
        ("DDIMInverseScheduler", {"timestep_spacing": "linspace"}, "timestep_spacing = 'linspace'"),
        ("EulerDiscreteScheduler", {"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of"),
        ("HeunDiscreteScheduler", {"timestep_spacing": "loose"}, "timestep_spacing is 'loose'"),
    ],
)
def test_what_the_settings_cannot_draw_is_said_before_drawing(name, settings, words):
    with pytest.raises(UsageError, match=words):
        getattr(compat, name)(**settings).plan(compat.plan.SampleArgs(10))


def test_a_setting_of_another_class_is_left_out_with_a_warning_as_in_diffusers():
    with pytest.warns(
        SfumatoWarning, match="EulerAncestralDiscreteScheduler has no setting 'use_karras_sigmas'"
    ):
        compat.EulerAncestralDiscreteScheduler.from_config({}, use_karras_sigmas=True)


def test_a_scheduler_goes_through_a_folder_in_both_directions(tmp_path):
    changes = {"use_karras_sigmas": True, "solver_order": 3}
    for library, other in ((diffusers, compat), (compat, diffusers)):
        library.DPMSolverMultistepScheduler(**changes).save_pretrained(tmp_path)
        read = other.DPMSolverMultistepScheduler.from_pretrained(tmp_path)
        assert (read.config.use_karras_sigmas, read.config.solver_order) == (True, 3)
        assert read.config.lambda_min_clipped == -math.inf
    assert compat.EulerDiscreteScheduler.from_pretrained(tmp_path, beta_start=0.01).config.beta_start == 0.01
    assert compat.DDIMScheduler.load_config(tmp_path)["solver_order"] == 3


def test_a_model_that_diffusers_saved_with_dpm_solver_is_drawn(tmp_path, model):
    shutil.copytree(model("sd1"), tmp_path / "model")
    diffusers.DPMSolverMultistepScheduler().save_pretrained(tmp_path / "model" / "scheduler")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(re.sub(r'"\w+Scheduler"', '"DPMSolverMultistepScheduler"', index.read_text()))
    pipe = compat.StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert isinstance(pipe.scheduler, compat.DPMSolverMultistepScheduler)
    assert checkpoint.load(tmp_path / "model").schedule.class_name == "DPMSolverMultistepScheduler"


def test_settings_can_be_changed_and_none_is_the_default():
    scheduler = compat.EulerDiscreteScheduler(steps_offset=None)
    assert scheduler.config.steps_offset == 0
    scheduler.register_to_config(timestep_spacing="trailing")
    assert scheduler.config.timestep_spacing == "trailing"
    with pytest.raises(UsageError, match="EulerDiscreteScheduler: steps_offset is 'x': must be a number"):
        scheduler.register_to_config(steps_offset="x")
