"""Steps of score distillation, beside the same loop around diffusers' networks, in turns.

    python benchmarks/distillation.py [--steps N] [--rounds N] [--quality NAME] [--threads N]

The field, its cameras and its rendering are the same code for both; what differs is who is asked for the
clean estimate: the studio, or diffusers' UNet, with classifier-free guidance by a batch of two, and its
scheduler. It prints the processor seconds of a step, which a busy machine changes little, and their ratio.
"""

import argparse
import time

import diffusers
import torch
from measuring import machine, medians, say

import sfumato
from sfumato import checkpoint
from sfumato.request import Request
from sfumato.space.distillation import VIEWS, FieldDistillation
from sfumato.studio.shaping import field_distillation

PROMPT = "a red apple, 3d render"


def peer(own: FieldDistillation, dtype: torch.dtype) -> FieldDistillation:
    """The same distillation, its clean estimates by diffusers."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        checkpoint.embedded(), dtype=dtype, safety_checker=None
    )
    unet, scheduler = pipe.unet, diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(1)

    def denoiser(view: str):
        with torch.no_grad():
            text, empty = pipe.encode_prompt(f"{PROMPT}, {view}", "cpu", 1, True)
        both = torch.cat([empty, text])

        def denoise(x, level):
            answer = unet(
                torch.cat([x, x]).to(dtype), int(level.t), encoder_hidden_states=both
            ).sample.float()
            without, given = answer.chunk(2)
            guided = without + own.settings.guidance * (given - without)
            return scheduler.step(guided, int(level.t), x).pred_original_sample

        return denoise

    height, width = own.size
    background = own.background.T.reshape(-1, height, width)
    denoisers = {view: denoiser(view) for view in VIEWS}
    return FieldDistillation(PROMPT, own.settings, denoisers, own.path, background)


def main() -> None:
    """Measure both, and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say(machine("cpu"))
    studio = sfumato.load(device="cpu", threads=options.threads)
    ours = field_distillation(studio, Request(prompt=PROMPT, seed=7), options.quality, "sds")
    theirs = peer(ours, studio.dtype)
    level = ours.path.level(500)
    x = torch.randn(1, 4, *ours.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = (ours.denoisers[VIEWS[0]](x, level) - theirs.denoisers[VIEWS[0]](x, level)).abs().max()
    say(f"one clean estimate of both differs by at most {apart:.3f}; {studio.dtype}")

    def steps(distillation: FieldDistillation) -> None:
        for _ in range(options.steps):
            distillation.step()

    runs = {"sfumato": lambda: steps(ours), "diffusers": lambda: steps(theirs)}
    found = medians(runs, options.rounds, clock=time.process_time)
    one = {name: seconds / options.steps for name, seconds in found.items()}
    say(
        f"a step of sfumato {one['sfumato']:.3f} s, with diffusers' networks {one['diffusers']:.3f} s: "
        f"{one['diffusers'] / one['sfumato']:.2f} times as long"
    )


if __name__ == "__main__":
    main()
