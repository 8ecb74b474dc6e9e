"""How much memory Sfumato takes beside diffusers: the peak of a process of its own for each, on the CPU.

    python benchmarks/memory.py [TASK]... [--write docs/performance.md]

Needs the `test` extra. The peak is that of the resident set over the whole life of a process: imports,
loading, and the work. A busy machine does not change it. Every peak is printed as it is measured.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sfumato import checkpoint

PROMPT = "a red apple, 3d render"
SD15_UNET = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "sample_size": 64,
}
SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
TASKS = {
    "embedded": "embedded model, text to pixels, 20 guided steps at 256², bfloat16",
    "unet": "UNet of SD 1.5's size, loading and one guided pass at 64×64, bfloat16",
    "decode": "autoencoder of SD's size, loading and decoding to 512², float32",
    "decode-tiled": "the same, decoded in tiles",
}


def ours(task: str, folder: Path) -> None:
    """Do `task` with Sfumato; `folder` holds the random networks."""
    import sfumato
    from sfumato import weights
    from sfumato.config import UNetConfig, VAEConfig
    from sfumato.nets.inference import for_inference
    from sfumato.nets.unet import UNet
    from sfumato.nets.vae import AutoencoderKL

    if task == "embedded":
        studio = sfumato.load(dtype="bfloat16")
        studio.generate(PROMPT, steps=20, guidance=4.0, sampler="ddim", seed=7)
        return
    with torch.device("meta"):
        if task == "unet":
            net: UNet | AutoencoderKL = UNet(UNetConfig.from_dict(SD15_UNET, "SD15_UNET"))
        else:
            net = AutoencoderKL(VAEConfig.from_dict(SD_VAE, "SD_VAE"))
    net.load_state_dict(weights.read(folder / task / "diffusion_pytorch_model.safetensors"), assign=True)
    for_inference(net, torch.device("cpu"), torch.bfloat16 if task == "unet" else torch.float32)
    with torch.inference_mode():
        if isinstance(net, UNet):
            text = net.context(torch.randn(2, 77, 768, dtype=net.dtype))
            time = net.embed_time(torch.tensor([500.0]))
            net.denoise(torch.randn(1, 4, 64, 64, dtype=net.dtype), time, text, rows=torch.zeros(2).long())
        elif task == "decode":
            net.decode(torch.randn(1, 4, 64, 64))
        else:
            net.decode_tiled(torch.randn(1, 4, 64, 64), 32, 8)


def theirs(task: str, folder: Path) -> None:
    """Do `task` with diffusers."""
    import diffusers

    if task == "embedded":
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(
            checkpoint.embedded(), dtype=torch.bfloat16, safety_checker=None
        )
        pipe(PROMPT, num_inference_steps=20, guidance_scale=4.0)
        return
    with torch.inference_mode():
        if task == "unet":
            net: Any = diffusers.UNet2DConditionModel.from_pretrained(folder / task, dtype=torch.bfloat16)
            states = torch.randn(2, 77, 768, dtype=net.dtype)
            net(torch.randn(2, 4, 64, 64, dtype=net.dtype), torch.tensor([500.0]), states)
            return
        net = diffusers.AutoencoderKL.from_pretrained(folder / task)
        if task == "decode-tiled":
            net.enable_tiling()
            net.tile_sample_min_size, net.tile_latent_min_size = 256, 32
        net.decode(torch.randn(1, 4, 64, 64))


def peak(side: Callable[[str, Path], None], task: str, folder: Path) -> float:
    """MiB at most, of a process that does nothing else."""
    return float(process(side.__name__, task, folder).splitlines()[-1])


def process(side: str, task: str, folder: Path) -> str:
    """What one of `SIDES` prints in a process of its own."""
    words = [sys.executable, __file__, "--child", side, task, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def random_networks(task: str, folder: Path) -> None:
    """Save networks of Stable Diffusion's sizes with random weights, for all tasks."""
    import diffusers

    diffusers.UNet2DConditionModel(**SD15_UNET).to(torch.bfloat16).save_pretrained(folder / "unet")
    vae = diffusers.AutoencoderKL(**SD_VAE)
    for task in ("decode", "decode-tiled"):
        vae.save_pretrained(folder / task)


SIDES = {side.__name__: side for side in (ours, theirs, random_networks)}


def child(side: str, task: str, folder: str) -> None:
    """The process that is measured; what its parent held when it began counts too."""
    SIDES[side](task, Path(folder))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(used / (2**20 if sys.platform == "darwin" else 2**10))


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    from measuring import LOAD, Table, load, machine, say

    lines = [
        f"{machine('cpu')}.",
        "",
        f"| what | Sfumato, MiB | diffusers, MiB | ratio | {LOAD} |",
        "|---|---|---|---|---|",
    ]
    table = Table("memory", lines, options.write)
    with tempfile.TemporaryDirectory() as folder:
        process("random_networks", "all", Path(folder))
        for task in options.tasks or TASKS:
            peaks = []
            for side in (ours, theirs):
                peaks.append(peak(side, task, Path(folder)))
                say(f"  {task}, {side.__name__}: {peaks[-1]:.0f} MiB")
            own, other = peaks
            table.add(f"| {TASKS[task]} | {own:.0f} | {other:.0f} | {own / other:.2f} | {load()} |")


if __name__ == "__main__":
    main()
