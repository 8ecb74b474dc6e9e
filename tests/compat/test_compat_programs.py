"""The usual programs for diffusers draw its latents here, with one line changed."""

import pytest
from both import apart

CLOSE = 1e-4
LOAD = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None)
pipe = pipe.to("cpu")
pipe.set_progress_bar_config(disable=True)
"""

PROGRAMS = {
    "stable diffusion 2 with a negative prompt under autocast": (
        "sd2",
        """
import torch
from torch import autocast
from diffusers import StableDiffusionPipeline, EulerDiscreteScheduler

scheduler = EulerDiscreteScheduler.from_pretrained(MODEL, subfolder="scheduler")
pipe = StableDiffusionPipeline.from_pretrained(
    MODEL, scheduler=scheduler, torch_dtype=torch.float32, safety_checker=None, use_safetensors=True
)
pipe = pipe.to("cpu")
pipe.enable_attention_slicing()
pipe.set_progress_bar_config(disable=True)
with autocast("cuda"):
    result = pipe(
        "a photo of an astronaut riding a horse on mars",
        negative_prompt="blurry, low quality",
        num_inference_steps=30,
        guidance_scale=9,
        width=24,
        height=16,
        generator=torch.Generator("cpu").manual_seed(42),
        output_type="latent",
    ).images
""",
    ),
    "a latent consistency model in four steps": (
        "lcm",
        """
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(MODEL, revision="main")
pipe.to("cpu", torch.float32)
pipe.set_progress_bar_config(disable=True)
result = pipe(
    prompt="Self-portrait oil painting, a beautiful cyborg",
    num_inference_steps=4,
    guidance_scale=1.5,
    original_inference_steps=50,
    generator=torch.Generator().manual_seed(7),
    num_images_per_prompt=2,
    output_type="latent",
).images
""",
    ),
    "dpm-solver++ with karras sigmas in twenty steps": (
        "sd1",
        """
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

pipe = DiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(
    pipe.scheduler.config, algorithm_type="dpmsolver++", use_karras_sigmas=True
)
pipe.set_progress_bar_config(disable=True)
result = pipe(
    ["a cat", "a dog"],
    generator=[torch.Generator().manual_seed(i) for i in range(4)],
    num_images_per_prompt=2,
    num_inference_steps=20,
    output_type="latent",
).images
""",
    ),
    "sdxl with a prompt for each encoder and sizes of its own": (
        "sdxl",
        """
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, use_safetensors=True)
pipe.set_progress_bar_config(disable=True)
result = pipe(
    prompt="a cat",
    prompt_2="in the style of monet",
    negative_prompt="ugly",
    num_inference_steps=6,
    original_size=(32, 40),
    target_size=(16, 24),
    crops_coords_top_left=(2, 3),
    negative_original_size=(8, 8),
    negative_target_size=(16, 24),
    height=16,
    width=24,
    generator=torch.Generator().manual_seed(1),
    output_type="latent",
)[0]
""",
    ),
    "sdxl in a batch": (
        "sdxl",
        """
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, use_safetensors=True)
pipe.set_progress_bar_config(disable=True)
result = pipe(
    prompt=["a cat", "a dog"], negative_prompt=["ugly", ""], num_images_per_prompt=2, num_inference_steps=4,
    height=16, width=24, generator=torch.Generator().manual_seed(1), output_type="latent",
)[0]
""",
    ),
    "sdxl without a negative prompt": (
        "sdxl",
        """
import torch
from diffusers import AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained(MODEL, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
torch.manual_seed(5)
(result,) = pipe("a cat", num_inference_steps=5, output_type="latent", return_dict=False)
""",
    ),
    "sdxl with an empty negative prompt": (
        "sdxl",
        """
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
result = pipe(
    "a cat", negative_prompt="", num_inference_steps=4,
    generator=torch.Generator().manual_seed(1), output_type="latent",
).images
""",
    ),
    "two batches from one generator of an ancestral scheduler": (
        "sd1",
        LOAD
        + """
from diffusers import EulerAncestralDiscreteScheduler
pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
generator = torch.Generator().manual_seed(2)
batches = [
    pipe(prompt, generator=generator, num_inference_steps=5, num_images_per_prompt=3, output_type="latent")
    for prompt in ("a cat", "a dog")
]
result = torch.cat([batch.images for batch in batches])
""",
    ),
    "latents and prompt embeddings of one's own": (
        "sd1",
        LOAD
        + """
latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
embeds, negative = pipe.encode_prompt("a cat", "cpu", 1, True, "a dog")
result = pipe(
    prompt_embeds=embeds, negative_prompt_embeds=negative, latents=latents, num_images_per_prompt=2,
    num_inference_steps=5, output_type="latent",
)[0]
""",
    ),
    "guidance rescaled": (
        "sd2",
        LOAD
        + """
result = pipe(
    ["a cat"] * 2, guidance_rescale=0.7, num_inference_steps=5, guidance_scale=12.0,
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "guidance one": (
        "sd1",
        LOAD
        + """
result = pipe(
    "a cat", negative_prompt="a dog", guidance_scale=1.0, num_inference_steps=5,
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "times of one's own": (
        "sd1",
        LOAD
        + """
from diffusers import DPMSolverMultistepScheduler
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
result = pipe(
    "a cat", timesteps=[999, 800, 500, 250, 100, 20],
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "sigmas of one's own": (
        "sd1",
        LOAD
        + """
from diffusers import EulerDiscreteScheduler
pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
result = pipe(
    "a cat", sigmas=[14.6, 6.0, 2.5, 1.0, 0.3, 0.0],
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "a callback that changes the latents": (
        "sd1",
        LOAD
        + """
from diffusers import EulerDiscreteScheduler
pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
def damp(pipe, step, time, tensors):
    tensors["latents"] = tensors["latents"] * (0.9 if step % 2 else 1.0)
    return tensors
result = pipe(
    ["a cat", "a dog"], num_inference_steps=6, callback_on_step_end=damp,
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "a callback that changes the latents in place between the stages of a step": (
        "sd1",
        LOAD
        + """
from diffusers import HeunDiscreteScheduler
pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
def damp(pipe, step, time, tensors):
    tensors["latents"].mul_(0.95)
    return tensors
result = pipe(
    "a cat", num_inference_steps=4, callback_on_step_end=damp,
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "a callback that interrupts": (
        "sd1",
        LOAD
        + """
def stop(pipe, step, time, tensors):
    pipe._interrupt = step == 2
    return tensors
result = pipe(
    "a cat", num_inference_steps=6, callback_on_step_end=stop,
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "a callback that ends the guidance": (
        "sd1",
        LOAD
        + """
def less(pipe, step, time, tensors):
    if step == int(pipe.num_timesteps * 0.4):
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        pipe._guidance_scale = 0.0
    return tensors
result = pipe(
    ["a cat", "a dog"], num_inference_steps=6, callback_on_step_end=less,
    callback_on_step_end_tensor_inputs=["prompt_embeds"],
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
    "a callback that changes the prompt": (
        "sd1",
        LOAD
        + """
other, none = pipe.encode_prompt("a blue dog", "cpu", 1, True, "")
def turn(pipe, step, time, tensors):
    if step == 2:
        tensors["prompt_embeds"] = torch.cat([none, other])
    return tensors
result = pipe(
    "a cat", num_inference_steps=6, callback_on_step_end=turn,
    callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    generator=torch.Generator().manual_seed(3), output_type="latent",
).images
""",
    ),
}


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_draws_the_latents_of_diffusers(name, model):
    family, program = PROGRAMS[name]
    assert apart(program, model(family)) < CLOSE


EMBEDDED = {
    "as it is": "",
    "dpm-solver++": """
from diffusers import DPMSolverMultistepScheduler
pipe.scheduler = DPMSolverMultistepScheduler.from_config(
    pipe.scheduler.config, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
)
""",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", EMBEDDED)
def test_programs_with_the_embedded_model_draw_the_latents_of_diffusers(name, model):
    program = (
        LOAD
        + EMBEDDED[name]
        + """
result = pipe(
    "a red apple, 3d render", negative_prompt="blue", num_inference_steps=4, guidance_scale=4.0,
    width=128, height=96, generator=torch.Generator().manual_seed(7), output_type="latent",
).images
"""
    )
    assert apart(program, model("embedded")) < 1e-3
