"""A sampler of your own, in five lines, on the real network.

A sampler is a coroutine: it yields the point it wants evaluated and is sent the clean estimate. This one is
DDIM, written from its equation; it draws the same picture as the one that comes with the package.

    python examples/own_sampler.py
"""

import argparse
from itertools import pairwise

import torch

import sfumato
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Point, SeededNoise, run
from sfumato.diffusion.spacing import spacing_named

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.parse_args()


def mine(x, levels):
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        eps = (x - here.a * x0) / here.s
        x = there.a * x0 + there.s * eps
    return x


studio = sfumato.load(dtype="float32")
levels = spacing_named("trailing").levels(studio.model.path(), 6)
denoise = studio.denoiser("a red apple", guidance=4, steps=6, seed=7)
noise = SeededNoise([7])
x = noise(torch.empty(1, 4, 32, 32))

ours = run(mine(x, levels), denoise)
theirs = run(sampler_named("ddim").sample(x, levels, noise), denoise)
apart = float((ours - theirs).abs().max())
print(f"my sampler and the package's differ by {apart:.1e}")
assert apart < 1e-4
