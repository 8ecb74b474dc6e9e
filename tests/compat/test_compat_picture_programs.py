"""Programs for diffusers that begin with pictures draw its latents here, with one line changed."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from both import apart, run
from checkpoint_families import pipeline, unet

from sfumato.compat.schedulers import SCHEDULERS

pytestmark = pytest.mark.filterwarnings(
    "ignore::sfumato.errors.SfumatoWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
CLOSE = 1e-4
TAKEN = "result = torch.cat([result.flatten(), torch.rand(1, generator=generator)])\n"
"""How far the caller's generator has come is compared too."""
PARTS = {
    "inpaint-xl": ("StableDiffusionXLInpaintPipeline", 9),
    "instruct-xl": ("StableDiffusionXLInstructPix2PixPipeline", 8),
}


@pytest.fixture(scope="module")
def wider(model, tmp_path_factory):
    """The folders of SDXL models that read a picture beside the latents, and those of `model`."""
    made = {}

    def get(family):
        if family not in PARTS:
            return model(family)
        if family not in made:
            kind, channels = PARTS[family]
            parts = {
                name: part
                for name, part in pipeline("sdxl").components.items()
                if name not in ("image_encoder", "feature_extractor")
            }
            torch.manual_seed(7)
            settings = dict(parts["unet"].config) | {"in_channels": channels}
            known = {key: value for key, value in settings.items() if key[0] != "_"}
            parts["unet"] = unet(**known)
            made[family] = tmp_path_factory.mktemp("wider") / family
            getattr(diffusers, kind)(**parts, add_watermarker=False).save_pretrained(made[family])
        return made[family]

    return get


def picture(seed=5, size=(24, 16)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def mask(size=(24, 16)):
    """Not along the cells of the latent, and soft at one edge."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[3:11, 5:17] = 255
    pixels[11:13, 5:17] = 100
    return PIL.Image.fromarray(pixels)


def names():
    return {"IMAGE": picture(), "OTHER": picture(6), "MASK": mask()}


LOAD = """
import torch
from diffusers import KIND, SCHEDULER
pipe = KIND.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
pipe.scheduler = SCHEDULER.from_config(pipe.scheduler.config, **SETTINGS)
generator = torch.Generator().manual_seed(3)
result = pipe(
    "a cat", image=IMAGE, num_inference_steps=5, generator=generator, output_type="latent", CALL
).images
"""
INSIDE = "mask_image=MASK, width=24, height=16"
KINDS = {
    "img2img": ("sd1", "StableDiffusionImg2ImgPipeline", "strength=0.7"),
    "img2img with sdxl": ("sdxl", "StableDiffusionXLImg2ImgPipeline", "strength=0.7"),
    "inpainting": ("sd1", "StableDiffusionInpaintPipeline", INSIDE + ", strength=0.7"),
    "inpainting with sdxl": ("sdxl", "StableDiffusionXLInpaintPipeline", INSIDE),
}
OTHERWISE = {
    "LMSDiscreteScheduler": "begins with the rules of later steps in diffusers",
    "DPMSolverSDEScheduler": "noise of its own",
    "DDIMInverseScheduler": "adds no noise in diffusers",
}
SCHEDULED = [
    (name, kind)
    for index, name in enumerate(name for name in SCHEDULERS if name not in OTHERWISE)
    for kind in (list(KINDS)[index % 4], list(KINDS)[(index + 1) % 4])
    if (name, kind[:4]) != ("KDPM2DiscreteScheduler", "inpa") and not name.startswith("EDM")
]


@pytest.mark.parametrize(("name", "kind"), SCHEDULED)
def test_every_scheduler_draws_over_a_picture_as_in_diffusers(name, kind, wider):
    family, pipe, call = KINDS[kind]
    settings = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    program = LOAD.replace("KIND", pipe).replace("SCHEDULER", name).replace("CALL", call) + TAKEN
    assert apart(program, wider(family), SETTINGS=settings, **names()) < CLOSE


BEGIN = """
import torch
from diffusers import KIND
pipe = KIND.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"num_inference_steps": 5, "output_type": "latent", "generator": generator}
"""


def begun(kind):
    return BEGIN.replace("KIND", kind)


PROGRAMS = {
    "a picture for each of two prompts": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
result = pipe(["a cat", "a dog"], image=[IMAGE, OTHER], num_images_per_prompt=2, **call).images
""",
    ),
    "one picture for two prompts, with a generator for each": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
call["generator"] = [torch.Generator().manual_seed(i) for i in range(2)]
result = pipe(["a cat", "a dog"], image=IMAGE, strength=0.5, **call).images
""",
    ),
    "a tensor and an array as pictures": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
import numpy as np
array = np.asarray(IMAGE, dtype=np.float32) / 255
tensor = torch.from_numpy(array).permute(2, 0, 1)
result = torch.cat([pipe("a cat", image=each, **call).images for each in (array[None], tensor)])
""",
    ),
    "latents as a picture": (
        "sdxl",
        begun("StableDiffusionXLImg2ImgPipeline")
        + """
latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
result = pipe("a cat", image=latents, strength=0.6, negative_prompt="dark", **call).images
""",
    ),
    "a picture whose sides are no multiples": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
result = pipe("a cat", image=IMAGE.resize((27, 19)), **call).images
""",
    ),
    "guidance one, and eta": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
result = torch.cat([
    pipe("a cat", image=IMAGE, guidance_scale=scale, eta=0.7, **call).images for scale in (1.0, 5.0)
])
""",
    ),
    "times of one's own": (
        "sd1",
        begun("StableDiffusionImg2ImgPipeline")
        + """
from diffusers import DPMSolverMultistepScheduler
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
del call["num_inference_steps"]
result = pipe("a cat", image=IMAGE, timesteps=[900, 700, 400, 100], strength=0.8, **call).images
""",
    ),
    "sigmas of one's own": (
        "sdxl",
        begun("StableDiffusionXLImg2ImgPipeline")
        + """
from diffusers import EulerDiscreteScheduler
pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
del call["num_inference_steps"]
result = pipe("a cat", image=IMAGE, sigmas=[9.0, 5.0, 2.0, 1.0, 0.4, 0.0], strength=0.8, **call).images
""",
    ),
    "the base model and its refiner": (
        "sdxl",
        """
import torch
from diffusers import DiffusionPipeline

base = DiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, use_safetensors=True)
refiner = DiffusionPipeline.from_pretrained(
    REFINER, text_encoder_2=base.text_encoder_2, vae=base.vae, torch_dtype=torch.float32,
    use_safetensors=True,
)
for pipe in (base, refiner):
    pipe.to("cpu")
    pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
prompt = "A majestic lion jumping from a big stone at night"
image = base(
    prompt=prompt, num_inference_steps=10, denoising_end=0.8, output_type="latent", width=24, height=16,
    generator=generator,
).images
result = refiner(
    prompt=prompt, num_inference_steps=10, denoising_start=0.8, image=image, output_type="latent",
    generator=generator,
).images
result = torch.cat([image, result])
""",
    ),
    "the refiner over a finished picture, with scores": (
        "refiner",
        begun("StableDiffusionXLImg2ImgPipeline")
        + """
result = pipe(
    "a lion", image=IMAGE, negative_prompt="blurry", aesthetic_score=7.0, negative_aesthetic_score=1.5,
    original_size=(40, 30), negative_original_size=(20, 10), negative_crops_coords_top_left=(1, 2), **call
).images
""",
    ),
    "an ensemble for inpainting, of a second-order scheduler": (
        "sdxl",
        """
import torch
from diffusers import HeunDiscreteScheduler, StableDiffusionXLInpaintPipeline

base = StableDiffusionXLInpaintPipeline.from_pretrained(MODEL)
refiner = StableDiffusionXLInpaintPipeline.from_pretrained(
    REFINER, text_encoder_2=base.text_encoder_2, vae=base.vae
)
for pipe in (base, refiner):
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"mask_image": MASK, "num_inference_steps": 7, "output_type": "latent", "width": 24, "height": 16}
image = base("a tiger", image=IMAGE, denoising_end=0.7, generator=generator, **call).images
result = refiner("a tiger", image=image, denoising_start=0.7, generator=generator, **call).images
result = torch.cat([image, result])
""",
    ),
    "sizes beside a picture with sdxl": (
        "sdxl",
        begun("StableDiffusionXLImg2ImgPipeline")
        + """
result = pipe(
    "a cat", image=IMAGE, negative_prompt="dark", original_size=(40, 30), target_size=(16, 20),
    crops_coords_top_left=(3, 1), negative_original_size=(8, 8), negative_crops_coords_top_left=(5, 6),
    negative_target_size=(16, 16), guidance_rescale=0.5, **call
).images
""",
    ),
    "from one pipeline to the others": (
        "sd1",
        """
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image

text2image = AutoPipelineForText2Image.from_pretrained(MODEL, torch_dtype=torch.float32)
image2image = AutoPipelineForImage2Image.from_pipe(text2image)
inpainting = AutoPipelineForInpainting.from_pipe(image2image)
again = AutoPipelineForText2Image.from_pipe(inpainting)
for pipe in (text2image, image2image, inpainting, again):
    pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
call = {"num_inference_steps": 4, "output_type": "latent", "generator": generator}
result = torch.cat([
    text2image("a cat", width=24, height=16, **call).images,
    image2image("a cat", image=IMAGE, strength=0.5, **call).images,
    inpainting("a cat", image=IMAGE, mask_image=MASK, width=24, height=16, **call).images,
    again("a cat", width=24, height=16, **call).images,
])
""",
    ),
    "an inpainting model": (
        "inpaint",
        begun("AutoPipelineForInpainting")
        + """
result = pipe(
    ["a cat", "a dog"], image=IMAGE, mask_image=MASK, width=24, height=16, strength=0.8, **call
).images
""",
    ),
    "an inpainting model from pure noise, with masked latents of one's own": (
        "inpaint",
        begun("StableDiffusionInpaintPipeline")
        + """
own = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
result = pipe(
    "a cat", image=IMAGE, mask_image=MASK, masked_image_latents=own, width=24, height=16, guidance_scale=1.0,
    **call
).images
""",
    ),
    "an inpainting model of sdxl": (
        "inpaint-xl",
        begun("StableDiffusionXLInpaintPipeline")
        + """
result = torch.cat([
    pipe("a cat", image=IMAGE, mask_image=MASK, width=24, height=16, strength=strength, **call).images
    for strength in (0.99, 1.0)
])
""",
    ),
    "inpainting at the model's own size, with a picture and a mask of others": (
        "sd1",
        begun("StableDiffusionInpaintPipeline")
        + """
result = pipe("a cat", image=OTHER.resize((40, 30)), mask_image=MASK, **call).images
""",
    ),
    "inpainting with noise of one's own and a list of masks": (
        "sd1",
        begun("StableDiffusionInpaintPipeline")
        + """
latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
result = pipe(
    "a cat", image=[IMAGE, OTHER], mask_image=[MASK, MASK.transpose(0)], num_images_per_prompt=2, width=24,
    height=16, latents=latents, **call
).images
""",
    ),
    "inpainting with a generator for each picture": (
        "sd1",
        begun("StableDiffusionInpaintPipeline")
        + """
call["generator"] = [torch.Generator().manual_seed(i) for i in range(2)]
result = pipe(
    ["a cat", "a dog"], image=IMAGE, mask_image=MASK, width=24, height=16, strength=0.6, **call
).images
""",
    ),
    "a mask as a tensor and as an array": (
        "sd1",
        begun("StableDiffusionInpaintPipeline")
        + """
import numpy as np
array = np.asarray(MASK, dtype=np.float32) / 255
result = torch.cat([
    pipe("a cat", image=IMAGE, mask_image=each, width=24, height=16, **call).images
    for each in (array, array[None], torch.from_numpy(array), torch.from_numpy(array)[None, None])
])
""",
    ),
    "latents as the picture to inpaint with sdxl": (
        "sdxl",
        begun("StableDiffusionXLInpaintPipeline")
        + """
latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
result = pipe("a cat", image=latents, mask_image=MASK, width=24, height=16, strength=0.6, **call).images
""",
    ),
    "a callback that changes the mask and the latents": (
        "sd1",
        begun("StableDiffusionInpaintPipeline")
        + """
seen = []
def turn(pipe, step, time, tensors):
    seen.append(torch.cat([value.flatten() for value in tensors.values()]))
    if step == 1:
        tensors["mask"] = 1 - tensors["mask"]
    tensors["latents"] = tensors["latents"] * 0.9
    return tensors
result = pipe(
    "a cat", image=IMAGE, mask_image=MASK, width=24, height=16, callback_on_step_end=turn,
    callback_on_step_end_tensor_inputs=["latents", "mask", "masked_image_latents"], **call
).images
result = torch.cat([result.flatten(), *seen])
""",
    ),
    "a callback that changes what an inpainting model is shown": (
        "inpaint",
        begun("StableDiffusionInpaintPipeline")
        + """
def turn(pipe, step, time, tensors):
    if step == 1:
        tensors["mask"] = 1 - tensors["mask"]
        tensors["masked_image_latents"] = tensors["masked_image_latents"] * 0.5
    return tensors
result = pipe(
    ["a cat", "a dog"], image=IMAGE, mask_image=MASK, width=24, height=16, callback_on_step_end=turn,
    callback_on_step_end_tensor_inputs=["mask", "masked_image_latents"], **call
).images
""",
    ),
    "editing by instruction": (
        "instruct",
        begun("StableDiffusionInstructPix2PixPipeline")
        + """
result = torch.cat([
    pipe("make it blue", image=IMAGE, image_guidance_scale=1.7, **call).images,
    pipe(["make it blue", "be a dog"], image=[IMAGE, OTHER], negative_prompt=["dark", "red"], **call).images,
    pipe("make it blue", image=IMAGE, image_guidance_scale=0.5, **call).images,
])
""",
    ),
    "editing by instruction, with a callback": (
        "instruct",
        begun("DiffusionPipeline")
        + """
seen = []
def turn(pipe, step, time, tensors):
    seen.append(tensors["image_latents"].flatten())
    tensors["image_latents"] = tensors["image_latents"] * 0.9
    return tensors
result = pipe(
    "make it blue", image=IMAGE, num_images_per_prompt=2, callback_on_step_end=turn,
    callback_on_step_end_tensor_inputs=["image_latents"], **call
).images
result = torch.cat([result.flatten(), *seen])
""",
    ),
    "editing by instruction with sdxl": (
        "instruct-xl",
        begun("StableDiffusionXLInstructPix2PixPipeline")
        + """
result = pipe(
    ["make it blue", "as a dog"], image=IMAGE, height=16, width=24, guidance_rescale=0.6, denoising_end=0.7,
    **call
).images
""",
    ),
    "editing by instruction with a model like cosxl": (
        "instruct-xl",
        begun("StableDiffusionXLInstructPix2PixPipeline").replace("(MODEL)", "(MODEL, is_cosxl_edit=True)")
        + """
from diffusers import EDMEulerScheduler
pipe.scheduler = EDMEulerScheduler(
    sigma_min=0.002, sigma_max=120.0, sigma_data=1.0, prediction_type="v_prediction",
    sigma_schedule="exponential",
)
result = pipe("make it blue", image=IMAGE, height=16, width=24, **call).images
""",
    ),
    "a latent consistency model from a picture": (
        "lcm",
        begun("AutoPipelineForImage2Image")
        + """
result = torch.cat([
    pipe("a cat", image=IMAGE, strength=strength, original_inference_steps=steps, **call).images
    for strength, steps in ((0.8, None), (0.3, None), (0.65, 30), (1.0, 50))
])
""",
    ),
    "a latent consistency model at times of one's own": (
        "lcm",
        begun("LatentConsistencyModelImg2ImgPipeline")
        + """
result = pipe("a cat", image=IMAGE, strength=0.8, timesteps=[799, 599, 399, 199, 99], **call).images
""",
    ),
    "few steps of an lcm scheduler in the usual pipeline": (
        "sd1",
        begun("AutoPipelineForImage2Image")
        + """
from diffusers import LCMScheduler
pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
result = pipe("a cat", image=IMAGE, strength=0.6, guidance_scale=1, **call).images
""",
    ),
}


UNSEEN = {"a latent consistency model at times of one's own"}
"""Where diffusers draws noise after the last step, which nobody sees."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_draws_the_latents_of_diffusers(name, wider):
    family, program = PROGRAMS[name]
    program = program if name in UNSEEN else program + TAKEN
    assert apart(program, wider(family), REFINER=str(wider("refiner")), **names()) < CLOSE


PICTURES = {
    "img2img": ("sd1", "StableDiffusionImg2ImgPipeline", ""),
    "a crop around the mask": (
        "sd1",
        "StableDiffusionInpaintPipeline",
        "mask_image=MASK, width=16, height=16, padding_mask_crop=2",
    ),
    "a crop around the mask with sdxl": (
        "sdxl",
        "StableDiffusionXLInpaintPipeline",
        "mask_image=MASK, width=24, height=8, padding_mask_crop=1",
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_those_of_diffusers(name, wider):
    family, kind, more = PICTURES[name]
    program = begun(kind) + f'result = pipe("a cat", image=IMAGE, {more}, **call).images[0]'.replace(" ,", "")
    program = program.replace('"latent"', '"pil"')
    ours, theirs = (run(program, wider(family), each, **names()) for each in ("sfumato.compat", "diffusers"))
    assert ours.size == theirs.size == (24, 16)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_the_old_callback_and_the_number_of_steps_are_those_of_diffusers(wider):
    program = (
        begun("StableDiffusionXLImg2ImgPipeline")
        + """
from diffusers import HeunDiscreteScheduler
pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
result = []
note = lambda step, time, latents: result.append((step, round(float(time)), pipe.num_timesteps))
for more in ({"strength": 0.7}, {"denoising_start": 0.3, "denoising_end": 0.8}):
    pipe("a cat", image=IMAGE, callback=note, callback_steps=1, **more, **call)
"""
    )
    ours, theirs = (run(program, wider("sdxl"), each, **names()) for each in ("sfumato.compat", "diffusers"))
    assert ours == theirs
    assert len(ours) > 4
