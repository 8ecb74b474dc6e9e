"""Whole drawings, from prompt to pixels, equal those of diffusers' own pipelines for the same seed."""

import copy
import json
import shutil

import diffusers
import numpy as np
import pytest
import torch

import sfumato
from sfumato.checkpoint import embedded

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


def peers_drawing(pipe, seed, size, **call):
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    generator = torch.Generator().manual_seed(seed)
    return pipe(generator=generator, width=size[0], height=size[1], output_type="np", **call).images[0]


def ours(folder, seed, size, **fields):
    studio = sfumato.load(folder, device="cpu", dtype="float32")
    image = studio.generate(
        **fields, sampler="ddim", spacing="trailing", seed=seed, width=size[0], height=size[1]
    )
    return image.pixels


@pytest.mark.parametrize("negative", ["", "blurred, dark"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_drawing_of_every_family_equals_diffusers(family, negative, pipelines, saved):
    size = (24, 16)
    theirs = peers_drawing(
        pipelines(family), 11, size, prompt="a red apple", negative_prompt=negative or None,
        num_inference_steps=4, guidance_scale=5.0,
    )  # fmt: skip
    drawn = ours(saved(family), 11, size, request="a red apple", negative=negative, steps=4, guidance=5.0)
    assert np.abs(drawn - 255 * theirs).max() <= 0.6
    assert theirs.std() > 0.01


@pytest.mark.parametrize(
    ("sampler", "peer"),
    [("ddim", diffusers.DDIMScheduler), ("dpmpp-2m", diffusers.DPMSolverMultistepScheduler)],
)
def test_a_model_with_dynamic_thresholding_is_drawn_with_it(sampler, peer, pipelines, saved, tmp_path):
    folder, path = (
        shutil.copytree(saved("sd1"), tmp_path / "m"),
        tmp_path / "m/scheduler/scheduler_config.json",
    )
    thresholds = {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.2}
    path.write_text(json.dumps(json.loads(path.read_text()) | thresholds))
    pipe = copy.copy(pipelines("sd1"))
    pipe.set_progress_bar_config(disable=True)
    own = {"set_alpha_to_one": True, "clip_sample": False} if sampler == "ddim" else {}
    call = {"num_inference_steps": 4, "guidance_scale": 5.0, "width": 24, "height": 16, "output_type": "np"}
    theirs = {}
    for name, config in (("with", thresholds), ("without", {})):
        pipe.scheduler = peer.from_config(
            pipe.scheduler.config, timestep_spacing="trailing", **{"thresholding": False, **config}, **own
        )
        generator = torch.Generator().manual_seed(11)
        theirs[name] = 255 * pipe("a red apple", generator=generator, **call).images[0]
    drawn = sfumato.load(folder, device="cpu", dtype="float32").generate(
        "a red apple",
        sampler=sampler,
        spacing="trailing",
        seed=11,
        width=24,
        height=16,
        steps=4,
        guidance=5.0,
    )
    assert np.abs(drawn.pixels - theirs["with"]).max() <= 0.6
    assert np.abs(theirs["without"] - theirs["with"]).max() > 5


def test_the_embedded_models_drawing_equals_diffusers():
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        embedded(), safety_checker=None, torch_dtype=torch.float32
    )
    theirs = peers_drawing(
        pipe, 7, (256, 256), prompt="a red apple, 3d render", num_inference_steps=5, guidance_scale=4.0
    )
    drawn = ours("embedded", 7, (256, 256), request="a red apple, 3d render", steps=5, guidance=4.0)
    assert np.abs(drawn - 255 * theirs).max() <= 0.7
