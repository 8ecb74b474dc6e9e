"""Programs for diffusers with IP-Adapters draw its latents here, with one line changed."""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from both import apart
from checkpoint_families import pipeline

import sfumato.compat
from sfumato import weights
from sfumato.errors import CheckpointError, UsageError

sys.path.append(str(Path(__file__).parents[1] / "nets"))

from ip_adapter_states import flat, states

pytestmark = pytest.mark.filterwarnings(
    "ignore::sfumato.errors.SfumatoWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
CLOSE = 1e-4


def picture(seed, size):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


FIRST, SECOND, THIRD = picture(1, (50, 37)), picture(2, (20, 20)), picture(3, (30, 64))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Of a family, a folder with IP-Adapters and their image encoder, laid out as they were published."""
    made = {}

    def get(family):
        if family not in made:
            top = tmp_path_factory.mktemp("published") / family
            torch.manual_seed(3)
            config = transformers.CLIPVisionConfig(
                hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=3,
                image_size=20, patch_size=5, projection_dim=12, hidden_act="gelu",
            )  # fmt: skip
            encoder = transformers.CLIPVisionModelWithProjection(config).eval()
            for weight in encoder.parameters():
                torch.nn.init.normal_(weight, std=0.3)
            encoder.save_pretrained(top / "models" / "image_encoder")
            net = pipeline(family).unet
            for seed, (kind, width) in enumerate([("base", 12), ("plus", 16)]):
                path = top / "models" / f"{kind}.safetensors"
                weights.write(path, flat(states(net, kind, width, seed)))
            made[family] = top
        return made[family]

    return get


START = """
import torch
from diffusers import {pipeline}
pipe = {pipeline}.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(0)
call = dict(num_inference_steps=3, generator=generator, output_type="latent")
"""
LOAD = """
pipe.load_ip_adapter(TOP, subfolder="models", weight_name="base.safetensors")
pipe.set_ip_adapter_scale(0.6)
"""
PROGRAMS = {
    "one, of two pictures of each prompt": (
        ("sd1", "StableDiffusionPipeline"),
        LOAD + 'result = pipe(["a", "b"], ip_adapter_image=FIRST, num_images_per_prompt=2, **call).images',
    ),
    "without guidance": (
        ("sdxl", "StableDiffusionXLPipeline"),
        LOAD + 'result = pipe("a", ip_adapter_image=FIRST, guidance_scale=1.0, **call).images',
    ),
    "several, with several pictures and scales": (
        ("sdxl", "StableDiffusionXLPipeline"),
        """
pipe.load_ip_adapter(TOP, "models", weight_name=["base.safetensors", "plus.safetensors"])
pipe.set_ip_adapter_scale([0.7, {"up": {"block_0": [0.0, 0.8]}, "mid": 0.5}])
result = pipe("a", ip_adapter_image=[FIRST, [SECOND, THIRD]], **call).images
""",
    ),
    "embeddings made before, and a scale that a callback changes": (
        ("sd1", "StableDiffusionPipeline"),
        LOAD
        + """
embeds = pipe.prepare_ip_adapter_image_embeds(FIRST, None, torch.device("cpu"), 1, True)
def quieter(pipe, step, timestep, values):
    pipe.set_ip_adapter_scale(0.1)
    return values
result = pipe("a", ip_adapter_image_embeds=embeds, callback_on_step_end=quieter, **call).images
""",
    ),
    "image to image, with an encoder that was loaded alone": (
        ("sd1", "StableDiffusionImg2ImgPipeline"),
        """
from transformers import CLIPVisionModelWithProjection
encoder = CLIPVisionModelWithProjection.from_pretrained(TOP, subfolder="models/image_encoder")
pipe = {pipeline}.from_pretrained(MODEL, image_encoder=encoder)
pipe.set_progress_bar_config(disable=True)
pipe.load_ip_adapter(TOP, subfolder="models", weight_name="plus.safetensors", image_encoder_folder=None)
result = pipe("a", image=SECOND, strength=0.7, ip_adapter_image=FIRST, **call).images
""",
    ),
    "unloaded": (
        ("sd1", "StableDiffusionPipeline"),
        LOAD + 'pipe.unload_ip_adapter()\nresult = pipe("a", **call).images',
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_with_ip_adapters_draws_as_in_diffusers(name, model, published):
    (family, kind), program = PROGRAMS[name]
    names = {"FIRST": FIRST, "SECOND": SECOND, "THIRD": THIRD, "TOP": str(published(family))}
    program = (START + program).replace("{pipeline}", kind)
    assert apart(program, model(family), **names) < CLOSE


def test_what_an_ip_adapter_cannot_do_is_said(model, tmp_path):
    pipe = sfumato.compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    with pytest.raises(UsageError, match="none is loaded: see load_ip_adapter"):
        pipe("a", ip_adapter_image=FIRST, num_inference_steps=1)
    tables = states(pipeline("sd1").unet, "base", 12)
    with pytest.raises(UsageError, match="has no image encoder beside it"):
        pipe.load_ip_adapter(tables, subfolder="", weight_name="")
    pipe.load_ip_adapter(tables, subfolder="", weight_name="", image_encoder_folder=None)
    with pytest.raises(UsageError, match="no image_encoder: give ip_adapter_image_embeds"):
        pipe("a", ip_adapter_image=FIRST, num_inference_steps=1)
    with pytest.raises(UsageError, match="2 scales were given for 1 IP-Adapters"):
        pipe.set_ip_adapter_scale([1.0, 0.5])
    with pytest.raises(UsageError, match="there is no 'upp'; known: down, mid, up"):
        pipe.set_ip_adapter_scale({"upp": 1.0})
    with pytest.raises(UsageError, match="has 2 entries for 1 IP-Adapters"):
        pipe("a", ip_adapter_image=[FIRST, SECOND], num_inference_steps=1)
    wide = pipeline("sd1").unet
    wide.config.cross_attention_dim = 32
    other = tmp_path / "models" / "base.safetensors"
    other.parent.mkdir()
    weights.write(other, flat(states(wide, "base", 12)))
    with pytest.raises(CheckpointError, match=r"is for another kind of model .*text of 32.*; sd1 is"):
        pipe.load_ip_adapter(str(other.parents[1]), "models", "base.safetensors")
