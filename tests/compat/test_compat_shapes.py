"""Shap-E's pipelines under diffusers' names: programs draw the same with both libraries."""

from functools import partial

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from both import apart, run
from shap_e_models import LATENT, set_cases, shap_e

from sfumato import compat
from sfumato.compat import shapes
from sfumato.errors import CheckpointError, UsageError
from sfumato.space import hierarchical, implicit

PICTURES = [
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    for seed in (0, 1)
]
PIPELINE = {"text": "ShapEPipeline", "image": "ShapEImg2ImgPipeline"}
GIVEN = {"text": '"a red apple"', "image": "PICTURE"}
PROGRAM = """
import torch
from diffusers import {pipeline}
pipe = {pipeline}.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
{lines}
result = pipe({given}, output_type="latent", {call}).images
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shap-e")
    for task in PIPELINE:
        shap_e(task == "image").save_pretrained(made / task)
    return made


def program(task, call, lines="", given=None):
    return PROGRAM.format(pipeline=PIPELINE[task], given=given or GIVEN[task], call=call, lines=lines)


ONE = "generator=torch.Generator().manual_seed(3), num_inference_steps=4"
SEVERAL = "generator=[torch.Generator().manual_seed(each) for each in range({})], num_inference_steps=3"


@pytest.mark.parametrize("task", PIPELINE)
@pytest.mark.parametrize(
    ("call", "lines"),
    [
        (ONE, ""),
        (ONE + ", guidance_scale=1.0", ""),
        (SEVERAL.format(2) + ", num_images_per_prompt=2", ""),
        (ONE + ", num_images_per_prompt=3", ""),
        (ONE + ", latents=torch.randn(1, 1024, generator=torch.Generator().manual_seed(5))", ""),
        (
            ONE,
            "from diffusers import EulerDiscreteScheduler as Other\n"
            "pipe.scheduler = Other.from_config(pipe.scheduler.config, beta_schedule='squaredcos_cap_v2')",
        ),
        (ONE, "pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, clip_sample=False)"),
    ],
)
def test_latents_are_those_of_diffusers(task, call, lines, folder):
    assert apart(program(task, call, lines), folder / task, PICTURE=PICTURES[0]) < 1e-4


def test_several_prompts_and_tensors_are_drawn_as_by_diffusers(folder):
    texts = program("text", SEVERAL.format(2), given='["a red apple", "a green car"]')
    assert apart(texts, folder / "text") < 1e-4
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    several = program("image", SEVERAL.format(2), given="PIXELS")
    assert apart(several, folder / "image", PIXELS=pixels) < 1e-4
    # of a list of PIL images diffusers reads the first alone, and ends in an error
    pipe = compat.ShapEImg2ImgPipeline.from_pretrained(folder / "image")
    both = run(program("image", ONE, given="PICTURE"), folder / "image", "sfumato.compat", PICTURE=PICTURES)
    assert both.shape == (2, 32, 32)
    assert (both[0] - both[1]).abs().max() > 1e-3
    assert pipe.device.type == "cpu"


@pytest.fixture
def pair(folder, monkeypatch):
    """diffusers' pipeline and ours, both of which draw the latent whose surface is known."""
    theirs = diffusers.ShapEPipeline.from_pretrained(folder / "text")
    ours = compat.ShapEPipeline.from_pretrained(folder / "text")
    renderer, rays, grid = theirs.shap_e_renderer, 320, 20
    set_cases(renderer)
    renderer.decode_to_image = partial(renderer.decode_to_image, ray_batch_size=rays)
    renderer.decode_to_mesh = partial(renderer.decode_to_mesh, grid_size=grid)
    monkeypatch.setattr(hierarchical, "RAYS", rays)
    monkeypatch.setattr(implicit, "GRID", grid)
    monkeypatch.setattr(shapes, "draw", lambda *given: LATENT[None, None])
    theirs.scheduler.step = lambda *given, **named: diffusers.utils.BaseOutput(prev_sample=LATENT[None])
    for pipe in (theirs, ours):
        pipe.set_progress_bar_config(disable=True)
    return theirs, ours


def test_views_are_those_of_diffusers_from_the_same_twenty_cameras(pair):
    call = {"num_inference_steps": 1, "frame_size": 8}
    other, own = (pipe("a red apple", output_type="np", **call).images for pipe in pair)
    assert own.shape == other.shape == (1, 20, 8, 8, 3)
    assert np.abs(own - other).max() < 1e-3
    assert own.std() > 0.02
    assert np.abs(own[0, 0] - own[0, 10]).max() > 0.02
    (pictures,) = pair[1]("a red apple", return_dict=False, **call)
    assert len(pictures[0]) == 20
    assert np.abs(np.asarray(pictures[0][7]) - 255 * other[0, 7]).max() <= 1


def test_a_mesh_has_the_places_and_colours_of_diffusers(pair):
    call = {"num_inference_steps": 1, "output_type": "mesh"}
    (other,), (own,) = (pipe("a red apple", **call).images for pipe in pair)
    within = other.verts.abs().amax(1) < 19 / 21 - 1e-3
    assert within.sum() > 200
    away, nearest = torch.cdist(other.verts[within].double(), own.verts.double()).min(1)
    assert away.max() < 1e-4
    for name in "RGB":
        colours = other.vertex_channels[name][within]
        assert (colours - own.vertex_channels[name][nearest]).abs().max() < 1e-3
        assert colours.std() > 0.01
    assert own.faces.max() == len(own.verts) - 1


def test_the_pipeline_is_chosen_by_the_model_and_another_refuses_it(folder):
    for task, name in PIPELINE.items():
        chosen = compat.DiffusionPipeline.from_pretrained(folder / task, dtype=torch.bfloat16)
        assert type(chosen).__name__ == name
        assert chosen.dtype == torch.bfloat16
        assert chosen.to(torch.float32).dtype == chosen.shapes.model.prior.dtype == torch.float32
    with pytest.raises(UsageError, match="ShapEPipeline does not draw with image, a model of images"):
        compat.ShapEPipeline.from_pretrained(folder / "image")
    with pytest.raises(CheckpointError, match="a model of pictures, not Shap-E"):
        compat.ShapEPipeline.from_pretrained("embedded")
    with pytest.raises(CheckpointError, match="makes shapes and no pictures"):
        compat.StableDiffusionPipeline.from_pretrained(folder / "text")
    with pytest.raises(UsageError, match="prior is not supported"):
        compat.ShapEPipeline.from_pretrained(folder / "text", prior=object())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"output_type": "pt"}, "output_type = 'pt' is not supported; did you mean 'np'"),
        ({"frame_size": 1}, "frame_size is 1: must be 2 to 4096"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_inference_steps": "x"}, "num_inference_steps is 'x'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"guidance_scale": "x"}, "guidance_scale is 'x'"),
        ({"latents": torch.zeros(1, 3)}, r"latents have the shape \(1, 3\): this call's is \(1, 1024\)"),
        ({"generator": 3}, "generator is 3: must be a torch.Generator"),
    ],
)
def test_what_is_wrong_in_a_call_is_named(call, said, folder):
    pipe = compat.ShapEPipeline.from_pretrained(folder / "text")
    with pytest.raises(UsageError, match=said):
        pipe("a red apple", **call)


def test_what_is_no_prompt_picture_or_method_is_named(folder):
    pipe = compat.ShapEPipeline.from_pretrained(folder / "text")
    with pytest.raises(UsageError, match="prompt is 3: must be a text"):
        pipe(3)
    with pytest.raises(AttributeError, match="has no save_pretrained: copy the model's folder"):
        pipe.save_pretrained("x")
    pictures = compat.ShapEImg2ImgPipeline.from_pretrained(folder / "image")
    for wrong in ("apple.png", torch.zeros(1, 3, 8, 8), [PICTURES[0], None]):
        with pytest.raises(UsageError, match="must be a PIL image, or a tensor"):
            pictures(wrong)
