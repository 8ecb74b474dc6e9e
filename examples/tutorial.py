"""A program from a diffusers tutorial; only its import line is changed.

python examples/tutorial.py moon.png
"""

import argparse

import torch

from sfumato.compat import DPMSolverMultistepScheduler, StableDiffusionPipeline

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("path", nargs="?", default="moon.png")
options = parser.parse_args()

pipe = StableDiffusionPipeline.from_pretrained("embedded", torch_dtype=torch.float32, safety_checker=None)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(
    pipe.scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
)
pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
pipe.enable_attention_slicing()

image = pipe(
    "a full moon face, 3d render",
    negative_prompt="dark",
    num_inference_steps=20,
    guidance_scale=4.0,
    generator=torch.Generator().manual_seed(7),
).images[0]
image.save(options.path)
