"""Programs for diffusers that pictures steer draw its latents here, with one line changed."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from both import apart
from checkpoint_families import pipeline, unet

from sfumato import compat
from sfumato.errors import CheckpointError, UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore::sfumato.errors.SfumatoWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
CLOSE = 1e-4


def strong(net):
    """`net` with weights that matter."""
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return net.eval()


LEVELS = {
    "sd1": {
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
    "sdxl": {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 68,
        "use_linear_projection": True,
    },
}
"""UNets as deep as T2I-Adapters need them."""
ADAPTERS = {
    "sd1": {"channels": [8, 16, 16], "downscale_factor": 2},
    "sdxl": {"channels": [8, 16, 16, 16], "downscale_factor": 4, "adapter_type": "full_adapter_xl"},
}


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """The folders of a family whose UNet has three levels, and of networks for it, saved by diffusers."""
    top, made = tmp_path_factory.mktemp("controls"), {}

    def get(family):
        if family not in made:
            pipe, place = pipeline(family), top / family
            torch.manual_seed(7)
            if family in LEVELS:
                pipe.register_modules(unet=unet(block_out_channels=[8, 16, 16], **LEVELS[family]))
            pipe.save_pretrained(place / "model")
            found = {"MODEL": place / "model"}
            for number in (1, 2):
                torch.manual_seed(number)
                nets = {
                    "NET": diffusers.ControlNetModel.from_unet(
                        pipe.unet, conditioning_embedding_out_channels=(4, 8), load_weights_from_unet=False
                    )
                }
                if family == "inpaint":
                    nets["NET"] = diffusers.ControlNetModel.from_config(nets["NET"].config, in_channels=4)
                if family in ADAPTERS:
                    nets["ADAPTER"] = diffusers.T2IAdapter(**ADAPTERS[family])
                for name, each in nets.items():
                    found[f"{name}{number}"] = str(place / f"{name}{number}")
                    strong(each).save_pretrained(found[f"{name}{number}"])
            made[family] = found
        return dict(made[family])

    return get


def picture(seed, size=(24, 16)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def names():
    white = np.zeros((16, 24), np.uint8)
    white[3:11, 5:17] = 255
    return {
        "IMAGE": picture(5),
        "OTHER": picture(6),
        "EDGES": picture(7),
        "MASK": PIL.Image.fromarray(white),
    }


LOAD = """
import torch
from diffusers import ControlNetModel, KIND
controlnet = ControlNetModel.from_pretrained(NET1, torch_dtype=torch.float32)
pipe = KIND.from_pretrained(MODEL, controlnet=controlnet, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"num_inference_steps": 4, "output_type": "latent", "generator": generator}
"""
TWO = """
import torch
from diffusers import ControlNetModel, KIND
controlnets = [ControlNetModel.from_pretrained(each) for each in (NET1, NET2)]
pipe = KIND.from_pretrained(MODEL, controlnet=controlnets)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"num_inference_steps": 4, "output_type": "latent", "generator": generator}
"""
ADAPTED = """
import torch
from diffusers import KIND, T2IAdapter
adapter = T2IAdapter.from_pretrained(ADAPTER1)
pipe = KIND.from_pretrained(MODEL, adapter=adapter)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"num_inference_steps": 4, "output_type": "latent", "generator": generator}
"""
BODIES = {
    "one": (
        LOAD,
        "ControlNetPipeline",
        """result = pipe(
    "a cat", image=EDGES, negative_prompt="dark", controlnet_conditioning_scale=0.7, **call
)""",
    ),
    "of a batch, in part of the steps": (
        LOAD,
        "ControlNetPipeline",
        """result = pipe(
    ["a cat", "a dog"], image=[EDGES, OTHER], num_images_per_prompt=2, control_guidance_start=0.2,
    control_guidance_end=0.8, **call
)""",
    ),
    "guessing": (
        LOAD,
        "ControlNetPipeline",
        """result = pipe("", image=EDGES.resize((40, 24)), width=24, height=16, guess_mode=True, **call)""",
    ),
    "guessing without guidance": (
        LOAD,
        "ControlNetPipeline",
        """result = pipe("", image=EDGES, guidance_scale=1.0, guess_mode=True, **call)""",
    ),
    "two": (
        TWO,
        "ControlNetPipeline",
        """result = pipe(
    "a cat", image=[EDGES, OTHER], controlnet_conditioning_scale=[0.5, 1.2],
    control_guidance_start=[0.0, 0.3], control_guidance_end=[0.6, 1.0], **call
)""",
    ),
    "img2img": (
        LOAD,
        "ControlNetImg2ImgPipeline",
        """result = pipe(
    "a cat", image=IMAGE, control_image=EDGES, strength=0.7, control_guidance_end=0.7, **call
)""",
    ),
    "inpainting": (
        LOAD,
        "ControlNetInpaintPipeline",
        """result = pipe(
    ["a cat", "a dog"], image=IMAGE, mask_image=MASK, control_image=EDGES, strength=0.8, **call
)""",
    ),
    "by a second-order scheduler": (
        LOAD,
        "ControlNetPipeline",
        """from diffusers import HeunDiscreteScheduler
pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
result = pipe("a cat", image=EDGES, control_guidance_start=0.3, control_guidance_end=0.7, **call)""",
    ),
    "adapter": (
        ADAPTED,
        "AdapterPipeline",
        """result = pipe(
    "a cat", image=EDGES, negative_prompt="dark", adapter_conditioning_scale=0.8, num_images_per_prompt=2,
    **call
)""",
    ),
    "two adapters": (
        ADAPTED.replace("KIND, ", "KIND, MultiAdapter, ").replace(
            "adapter=adapter", "adapter=MultiAdapter([adapter, T2IAdapter.from_pretrained(ADAPTER2)])"
        ),
        "AdapterPipeline",
        """result = pipe("a cat", image=[EDGES, OTHER], adapter_conditioning_scale=[0.8, 0.4], **call)""",
    ),
}
CASES = [(name, family) for name in BODIES for family in ("sd1", "sdxl")]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_steered_program_draws_the_latents_of_diffusers(name, family, steered):
    load, kind, body = BODIES[name]
    kind = f"StableDiffusion{'XL' if family == 'sdxl' else ''}{kind}"
    program = load.replace("KIND", kind) + body + ".images\n"
    program += "result = torch.cat([result.flatten(), torch.rand(1, generator=generator)])\n"
    files = steered(family)
    assert apart(program, files.pop("MODEL"), **files, **names()) < CLOSE


OTHERS = {
    "an inpainting model": (
        "inpaint",
        "StableDiffusionControlNetInpaintPipeline",
        'result = pipe("a cat", image=IMAGE, mask_image=MASK, control_image=EDGES, **call).images',
    ),
    "a part of the steps of sdxl's adapter": (
        "sdxl",
        "StableDiffusionXLAdapterPipeline",
        'result = pipe("a cat", image=EDGES, adapter_conditioning_factor=0.5, **call).images',
    ),
    "chosen and changed by the task": (
        "sd1",
        "AutoPipelineForText2Image",
        """
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
over = AutoPipelineForImage2Image.from_pipe(pipe)
plain = AutoPipelineForInpainting.from_pipe(over, controlnet=None)
steered = AutoPipelineForInpainting.from_pipe(plain, controlnet=controlnet)
for each in (over, plain, steered):
    each.set_progress_bar_config(disable=True)
result = torch.cat([
    pipe("a cat", image=EDGES, **call).images,
    over("a cat", image=IMAGE, control_image=EDGES, **call).images,
    plain("a cat", image=IMAGE, mask_image=MASK, width=24, height=16, **call).images,
    steered("a cat", image=IMAGE, mask_image=MASK, control_image=EDGES, **call).images,
])
""",
    ),
    "a loop of one's own": (
        "sd1",
        "StableDiffusionControlNetPipeline",
        """
import numpy as np
edges = torch.from_numpy(np.asarray(EDGES, np.float32) / 255).permute(2, 0, 1)[None]
states, _ = pipe.encode_prompt("a cat", "cpu", 1, False)
latents = torch.randn(1, 4, 8, 12, generator=generator)
skips, middle = pipe.controlnet(
    latents, 500, encoder_hidden_states=states, controlnet_cond=edges, conditioning_scale=0.6,
    return_dict=False,
)
result = pipe.unet(
    latents, 500, encoder_hidden_states=states, down_block_additional_residuals=skips,
    mid_block_additional_residual=middle, return_dict=False,
)[0]
""",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_steered_program_gives_what_diffusers_gives(name, steered):
    family, kind, body = OTHERS[name]
    load = ADAPTED if "Adapter" in kind else LOAD
    files = steered(family)
    assert apart(load.replace("KIND", kind) + body, files.pop("MODEL"), **files, **names()) < CLOSE


def test_networks_of_diffusers_are_taken_and_those_that_do_not_fit_are_refused(steered):
    own = compat.ControlNetModel.from_pretrained(steered("sd1")["NET1"])
    theirs = diffusers.ControlNetModel.from_pretrained(steered("sd1")["NET1"])
    kind = compat.StableDiffusionControlNetPipeline
    call = {"image": picture(7), "num_inference_steps": 2, "output_type": "latent"}
    drawn = [
        kind.from_pretrained(steered("sd1")["MODEL"], controlnet=net)(
            "a cat", generator=torch.Generator().manual_seed(1), **call
        ).images
        for net in (own, theirs)
    ]
    assert torch.equal(*drawn)
    with pytest.raises(CheckpointError, match="number 1 is for"):
        kind.from_pretrained(steered("sd1")["MODEL"], controlnet=net_of(steered, "sdxl"))("a cat", **call)
    with pytest.raises(UsageError, match="controlnet must be a ControlNetModel"):
        kind.from_pretrained(steered("sd1")["MODEL"], controlnet=object())
    with pytest.raises(UsageError, match="needs controlnet"):
        kind.from_pretrained(steered("sd1")["MODEL"])
    with pytest.raises(UsageError, match="takes no controlnet"):
        compat.StableDiffusionPipeline.from_pretrained(steered("sd1")["MODEL"], controlnet=own)


def net_of(steered, family):
    return compat.ControlNetModel.from_pretrained(steered(family)["NET1"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"image": None}, "give image"),
        ({"control_guidance_start": 0.9, "control_guidance_end": 0.4}, "the first must be below the second"),
        ({"controlnet_conditioning_scale": []}, "0 numbers for 1 networks"),
        ({"prompt": ["a", "b"], "image": [picture(1), picture(2), picture(3)]}, "3 pictures steer 2 prompts"),
    ],
)
def test_what_cannot_be_steered_is_said(call, words, steered):
    pipe = compat.StableDiffusionControlNetPipeline.from_pretrained(
        steered("sd1")["MODEL"], controlnet=net_of(steered, "sd1")
    )
    with pytest.raises(UsageError, match=words):
        pipe(**{"prompt": "a cat", "image": picture(7), "num_inference_steps": 2, **call})
