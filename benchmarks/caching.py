"""What feature caching, token merging and int8 gain and cost, beside diffusers.

    python benchmarks/caching.py [MODE]... [--rounds N] [--threads N] [--clock cpu] [--write PAGE]

DeepCache and tomesd change diffusers' pipeline; beside int8 it stays as it is. All take turns in one process,
caching and merging in bfloat16, int8 beside both dtypes. Every row is printed when it is measured, with the
machine's load.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import tomesd
import torch
from DeepCache import DeepCacheSDHelper
from measuring import LOAD, Table, load, machine
from speed import DTYPES, GUIDANCE, PROMPT, SD15, STEPS, Bench, Run, own_unet, peer_unet, pipeline
from torch import Tensor

import sfumato
from sfumato.diffusion.sampling import SeededNoise

DTYPE = torch.bfloat16
PROMPTS = (
    PROMPT, "a cat, flat emoji", "a lighthouse, noto style", "a blue car, 3d render", "a tree, flat emoji",
)  # fmt: skip
INTERVALS, RATIOS = (2, 3, 5), (0.3, 0.5)


def row(what: str, seconds: dict[str, float], apart: str) -> str:
    """A row of the table, from the medians of "ours", "without" and "theirs"."""
    ours, without, theirs = (seconds[name] for name in ("ours", "without", "theirs"))
    gains = f"{without / ours:.2f}× | {theirs:.3f} | **{theirs / ours:.2f}×**"
    return f"| {what} | {ours:.3f} | {gains} | {apart} | {load()} |"


def caching(bench: Bench) -> Iterator[str]:
    """Pictures of the embedded model, text to pixels, 20 guided steps of DDIM at 256²."""
    studio, pipe = sfumato.load(device="cpu", dtype=DTYPE), pipeline(DTYPE, "cpu")
    latents = SeededNoise([7])(torch.empty(1, 4, 32, 32)).to(DTYPE)
    fresh = itertools.count()
    """A new prompt every time, so that its text is encoded every time."""

    def ours(prompt: str, interval: int) -> Any:
        given = {"seed": 7, "steps": STEPS, "guidance": GUIDANCE, "sampler": "ddim"}
        return studio.generate(prompt, cache_interval=interval, **given).pixels

    def theirs(interval: int) -> Any:
        helper = DeepCacheSDHelper(pipe=pipe)
        helper.set_params(cache_interval=interval, cache_branch_id=0)
        helper.enable()
        prompt = f"{PROMPT} {next(fresh)}"
        drawn = pipe(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=latents).images
        helper.disable()
        return drawn

    plain = [ours(prompt, 1).astype(int) for prompt in PROMPTS]
    for interval in INTERVALS:
        pairs = zip(PROMPTS, plain, strict=True)
        gaps = [np.abs(ours(prompt, interval) - other).mean() for prompt, other in pairs]
        apart = f"{np.mean(gaps):.1f}/255 on average"

        runs = {
            "ours": lambda n=interval: ours(f"{PROMPT} {next(fresh)}", n),
            "without": lambda: ours(f"{PROMPT} {next(fresh)}", 1),
            "theirs": lambda n=interval: theirs(n),
        }
        what = f"embedded model, {STEPS} guided steps, `cache_interval={interval}`"
        yield row(what, bench.medians(runs), apart)


def merging(bench: Bench) -> Iterator[str]:
    """A guided pass of a UNet of SD 1.5's size over 64×64 latents, with random weights."""
    peer = peer_unet(DTYPE, SD15)
    unet = own_unet(peer, bench)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DTYPE)

    x, states, t = random(1, 4, 64, 64), random(2, 77, 768), torch.tensor([500.0])
    rows = torch.zeros(2, dtype=torch.long)
    with torch.inference_mode():
        asked = x, unet.embed_time(t), unet.context(states), rows
        plain = unet.denoise(*asked).float()
        for ratio in RATIOS:
            tomesd.apply_patch(peer, ratio=ratio, use_rand=False)
            gap = (unet.denoise(*asked, token_merging=ratio).float() - plain).abs().mean()
            runs = {
                "ours": lambda ratio=ratio: unet.denoise(*asked, token_merging=ratio),
                "without": lambda: unet.denoise(*asked),
                "theirs": lambda: peer(torch.cat([x, x]), t, states),
            }
            what = f"UNet of SD 1.5's size, one guided pass at 64×64, `token_merging={ratio}`"
            yield row(what, bench.medians(runs), f"{gap / plain.abs().mean():.1%} of the answer on average")


def quantizing(bench: Bench) -> Iterator[str]:
    """Pictures of the embedded model, and a guided pass of a UNet of SD 1.5's size, with random weights."""
    for name, dtype in DTYPES.items():
        yield quantized_pictures(bench, name, dtype)
    for name, dtype in DTYPES.items():
        yield quantized_pass(bench, name, dtype)


def quantized_pictures(bench: Bench, name: str, dtype: torch.dtype) -> str:
    """The row of pictures of the embedded model."""
    studio, pipe = sfumato.load(device="cpu", dtype=dtype), pipeline(dtype, "cpu")
    int8 = sfumato.load(device="cpu", dtype=dtype, quantization="int8")
    fresh = itertools.count()

    def ours(which: sfumato.Studio, prompt: str) -> Any:
        return which.generate(prompt, seed=7, steps=STEPS, guidance=GUIDANCE, sampler="ddim").pixels

    pairs = [(ours(int8, prompt), ours(studio, prompt).astype(int)) for prompt in PROMPTS]
    apart = f"{np.mean([np.abs(one - other).mean() for one, other in pairs]):.1f}/255 on average"
    runs: dict[str, Run] = {
        "ours": lambda: ours(int8, f"{PROMPT} {next(fresh)}"),
        "without": lambda: ours(studio, f"{PROMPT} {next(fresh)}"),
        "theirs": lambda: pipe(f"{PROMPT} {next(fresh)}", num_inference_steps=STEPS, guidance_scale=GUIDANCE),
    }
    what = f"embedded model, {STEPS} guided steps, `quantization=int8` beside {name}"
    return row(what, bench.medians(runs), apart)


def quantized_pass(bench: Bench, name: str, dtype: torch.dtype) -> str:
    """The row of a UNet of SD 1.5's size."""
    peer = peer_unet(dtype, SD15)
    plain, quantized = (own_unet(peer, bench, quantized=each) for each in (False, True))
    peer = peer.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 64, 64, generator=generator).to(dtype)
    states, t = torch.randn(2, 77, 768, generator=generator).to(dtype), torch.tensor([500.0])
    with torch.inference_mode():
        asked = x, plain.embed_time(t), plain.context(states), torch.zeros(2, dtype=torch.long)
        answer = plain.denoise(*asked).float()
        gap = (quantized.denoise(*asked).float() - answer).abs().mean() / answer.abs().mean()
        runs: dict[str, Run] = {
            "ours": lambda: quantized.denoise(*asked),
            "without": lambda: plain.denoise(*asked),
            "theirs": lambda: peer(torch.cat([x, x]), t, states),
        }
        what = f"UNet of SD 1.5's size, one guided pass at 64×64, `quantization=int8` beside {name}"
        return row(what, bench.medians(runs), f"{gap:.1%} of the answer on average")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modes", nargs="*", default=[*MODES], metavar="MODE", help=f"of {', '.join(MODES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    diffusers.logging.set_verbosity_error()
    bench = Bench("cpu", options.rounds, options.clock, compile=False)
    kind = "processor seconds" if bench.clock == "cpu" else "seconds"
    columns = (
        f"| what | {kind} | to ours without | diffusers (with DeepCache, tomesd) | ratio | difference from "
    )
    head = [f"{machine('cpu')}.", "", f"{columns}ours without | {LOAD} |", "|---|---|---|---|---|---|---|"]
    table = Table("caching", head, options.write)
    for each in itertools.chain(*(mode(bench) for name, mode in MODES.items() if name in options.modes)):
        table.add(each)


MODES = {"caching": caching, "merging": merging, "int8": quantizing}

if __name__ == "__main__":
    main()
