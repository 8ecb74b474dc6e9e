"""Drawings from pictures equal those of diffusers: img2img, inpainting in both ways, instructions."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import sfumato

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SIZE = (24, 16)


@pytest.fixture(autouse=True)
def most_likely_latents(monkeypatch):
    """diffusers draws the latent of a picture at random; ours is the most likely one."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)


@pytest.fixture
def picture():
    rng = np.random.default_rng(5)
    return PIL.Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


@pytest.fixture
def mask():
    """Along the cells of the latent: diffusers reduces masks by another rule than ours."""
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    pixels[4:12, 8:20] = 255
    return PIL.Image.fromarray(pixels)


def theirs(kind, pipe, **call):
    parts = dict(pipe.components)
    if kind is not type(pipe):
        pipe = kind(
            **{name: part for name, part in parts.items() if name != "image_encoder"}
            | ({"requires_safety_checker": False} if "safety_checker" in parts else {})
        )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    generator = torch.Generator().manual_seed(11)
    return 255 * pipe(prompt="a red apple", generator=generator, output_type="np", **call).images[0]


def ours(folder, picture, **fields):
    studio = sfumato.load(folder, device="cpu", dtype="float32")
    drawn = studio.generate(
        "a red apple", image=picture, sampler="ddim", spacing="trailing", seed=11, width=SIZE[0],
        height=SIZE[1], guidance=5.0, **fields,
    )  # fmt: skip
    return drawn.pixels


def kinds(family, task):
    xl = "XL" if family == "sdxl" else ""
    return getattr(diffusers, f"StableDiffusion{xl}{task}Pipeline")


@pytest.mark.parametrize("strength", [0.5, 0.8])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_drawing_from_a_picture_equals_diffusers(peers, picture, family, strength):
    pipe, folder = peers(family)
    call = {"num_inference_steps": 5, "guidance_scale": 5.0, "strength": strength}
    known = theirs(kinds(family, "Img2Img"), pipe, image=picture, **call)
    drawn = ours(folder, picture, steps=5, strength=strength)
    assert np.abs(drawn - known).max() <= 0.6
    assert np.abs(known - np.asarray(picture)).mean() > 5


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_inpainting_with_any_model_equals_diffusers_in_the_mask_and_keeps_the_rest(
    peers, picture, mask, family, strength
):
    pipe, folder = peers(family)
    known = theirs(
        kinds(family, "Inpaint"), pipe, image=picture, mask_image=mask, strength=strength,
        num_inference_steps=5, guidance_scale=5.0, width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    drawn = ours(folder, picture, mask=mask, steps=5, strength=strength)
    inside = np.asarray(mask) > 0
    assert np.abs(drawn - known)[inside].max() <= 0.6
    assert np.array_equal(drawn[~inside], np.asarray(picture)[~inside])


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_an_inpainting_model_equals_diffusers_in_the_mask_and_keeps_the_rest(peers, picture, mask, strength):
    pipe, folder = peers("inpaint")
    known = theirs(
        type(pipe), pipe, image=picture, mask_image=mask, strength=strength, num_inference_steps=5,
        guidance_scale=5.0, width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    drawn = ours(folder, picture, mask=mask, steps=5, strength=strength)
    inside = np.asarray(mask) > 0
    assert np.abs(drawn - known)[inside].max() <= 0.6
    assert np.array_equal(drawn[~inside], np.asarray(picture)[~inside])


@pytest.mark.parametrize("image_guidance", [1.0, 1.5, 3.0])
def test_editing_by_instruction_equals_diffusers(peers, picture, image_guidance):
    pipe, folder = peers("instruct")
    known = theirs(
        type(pipe), pipe, image=picture, num_inference_steps=5, guidance_scale=5.0,
        image_guidance_scale=image_guidance,
    )  # fmt: skip
    drawn = ours(folder, picture, steps=5, image_guidance=image_guidance)
    assert np.abs(drawn - known).max() <= 0.6
