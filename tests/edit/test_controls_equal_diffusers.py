"""Drawings that pictures steer equal those of diffusers: ControlNet, alone and several."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import sfumato

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SIZE = (24, 16)
STEPS = 4


@pytest.fixture(autouse=True)
def most_likely_latents(monkeypatch):
    """diffusers draws the latent of a picture at random; ours is the most likely one."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)


def noise(seed, size=SIZE):
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def controlnet(unet, seed, **changes):
    """A small one that fits `unet`, all its weights random."""
    torch.manual_seed(seed)
    net = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 8), load_weights_from_unet=False, **changes
    ).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return net


@pytest.fixture(scope="session")
def controlled(peers, tmp_path_factory):
    """A family's pipeline and folder, and two ControlNets for it with their folders."""
    made = {}

    def get(family):
        if family not in made:
            pipe, folder = peers(family)
            nets = [controlnet(pipe.unet, seed) for seed in (1, 2)]
            folders = [tmp_path_factory.mktemp("controls") / f"{family}-{number}" for number in (1, 2)]
            for net, place in zip(nets, folders, strict=True):
                net.save_pretrained(place)
            made[family] = pipe, folder, nets, folders
        return made[family]

    return get


def theirs(family, kind, pipe, nets, **call):
    xl = "XL" if family == "sdxl" else ""
    kind = getattr(diffusers, f"StableDiffusion{xl}ControlNet{kind}Pipeline")
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    else:
        parts["add_watermarker"] = False
    pipe = kind(**parts, controlnet=nets)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    generator = torch.Generator().manual_seed(11)
    call |= {
        "num_inference_steps": STEPS,
        "guidance_scale": 5.0,
        "generator": generator,
        "output_type": "latent",
    }
    return pipe("a red apple", **call).images


def ours(folder, controls, **fields):
    """The latent that ours ends with."""
    studio = sfumato.load(folder, device="cpu", dtype="float32")
    (picture,) = studio.prepare(
        "a red apple", controls=controls, sampler="ddim", spacing="trailing", seed=11, width=SIZE[0],
        height=SIZE[1], guidance=5.0, steps=STEPS, **fields,
    )  # fmt: skip
    from sfumato.engine import Engine

    (*_, done) = Engine(studio.networks).run([studio.job(picture, 0)])
    return done.latent


def apart(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_controlnet_steers_as_in_diffusers(controlled, family):
    pipe, folder, nets, folders = controlled(family)
    edges = noise(3)
    known = theirs(family, "", pipe, nets[0], image=edges, controlnet_conditioning_scale=0.8)
    drawn = ours(folder, {"model": str(folders[0]), "image": edges, "weight": 0.8})
    assert apart(drawn, known) < 1e-3
    assert apart(drawn, ours(folder, ())) > 0.05


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_several_controlnets_each_with_its_weight_and_part_of_the_steps_steer_as_in_diffusers(
    controlled, family
):
    pipe, folder, nets, folders = controlled(family)
    pictures = [noise(3), noise(4, (30, 50))]
    weights, starts, ends = [0.8, 1.5], [0.0, 0.25], [0.5, 1.0]
    known = theirs(
        family, "", pipe, nets, image=pictures, controlnet_conditioning_scale=weights,
        control_guidance_start=starts, control_guidance_end=ends, width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    controls = [
        {"model": str(place), "image": picture, "weight": weight, "start": start, "end": end}
        for place, picture, weight, start, end in zip(folders, pictures, weights, starts, ends, strict=True)
    ]
    drawn = ours(folder, controls)
    assert apart(drawn, known) < 1e-3
    assert apart(drawn, ours(folder, [{**each, "start": 0.0, "end": 1.0} for each in controls])) > 0.01


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_controlnet_steers_a_drawing_from_a_picture_as_in_diffusers(controlled, family):
    pipe, folder, nets, folders = controlled(family)
    edges, picture = noise(3), noise(5)
    known = theirs(
        family, "Img2Img", pipe, nets[0], image=picture, control_image=edges, strength=0.75,
        controlnet_conditioning_scale=1.0, control_guidance_end=0.7,
    )  # fmt: skip
    control = {"model": str(folders[0]), "image": edges, "end": 0.7}
    assert apart(ours(folder, control, image=picture, strength=0.75), known) < 1e-3
