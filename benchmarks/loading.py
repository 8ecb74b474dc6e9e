"""How long loading takes beside reading the bytes, and how much memory beside the files' size, on the CPU.

    python benchmarks/loading.py [--rounds N] [--clock cpu] [--write docs/performance.md]

Needs the `test` extra, 3 GB of disk, 6 GB of memory, and a machine that does nothing else, or else `--clock
cpu`, which counts processor time and leaves out waiting for the disk. A folder of
Stable Diffusion 1.5's shapes in float16 (2.1 GB) with random weights is written and loaded: in turns with
reading its files whole, in one process, with the files in the system's cache and, on Linux, out of it. Peaks
are those of the resident set over the whole life of a process of its own, less what imports take.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import diffusers
import torch
import transformers
from measuring import LOAD, Table, load, machine, medians

from sfumato import checkpoint, weights
from sfumato.checkpoint.loading import empty_network
from sfumato.config import Config, TextConfig, UNetConfig, VAEConfig

UNET = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "sample_size": 64,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
NETWORKS: dict[str, tuple[dict[str, object], type[Config], str]] = {
    "unet": (UNET, UNetConfig, "diffusion_pytorch_model"),
    "vae": (VAE, VAEConfig, "diffusion_pytorch_model"),
    "text_encoder": (TEXT, TextConfig, "model"),
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}
MIB = 2**20


def random_model(folder: Path) -> None:
    """Write the model, its tokenizer and schedule those of the embedded one."""
    generator = torch.Generator().manual_seed(0)
    for name, (content, kind, stem) in NETWORKS.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(content))
        shapes = empty_network(kind.from_dict(content, name)).state_dict()
        state = {
            key: torch.rand(tensor.shape, generator=generator).half() - 0.5 for key, tensor in shapes.items()
        }
        weights.write(folder / name / f"{stem}.safetensors", state, {"format": "pt"})
    for name in ("tokenizer", "scheduler"):
        (folder / name).symlink_to(checkpoint.embedded() / name)
    (folder / "model_index.json").write_text(json.dumps(INDEX))


def files(folder: Path) -> list[Path]:
    """The weights."""
    return sorted(folder.rglob("*.safetensors"))


def reading(folder: Path) -> None:
    """Read every file whole into memory, one after another."""
    for path in files(folder):
        path.read_bytes()


def ours(folder: Path) -> None:
    """Load with Sfumato: strictly, each number looked at."""
    checkpoint.load(folder)


def theirs(folder: Path) -> None:
    """Load with diffusers, which maps the files: what is not used yet is not read, and nothing is checked."""
    diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16)


WAYS: dict[str, Callable[[Path], None]] = {"reading": reading, "Sfumato": ours, "diffusers": theirs}


def forget(folder: Path) -> None:
    """Put the files out of the system's cache."""
    for path in files(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(folder: Path, rounds: int, clock: Callable[[], float], cold: bool = False) -> dict[str, float]:
    """The median of each way, all taking turns in every round; the first round does not count."""
    runs = {name: partial(way, folder) for name, way in WAYS.items()}
    before = partial(forget, folder) if cold else lambda: None
    return medians(runs, rounds, clock=clock, before=before)


def resident() -> int:
    """Bytes that this process has had in memory at most; what its parent held is counted only off Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def child(way: str, folder: str) -> None:
    """The process whose memory is measured."""
    imported = resident()
    WAYS[way](Path(folder))
    print(resident() - imported)


def peak(way: str, folder: Path) -> int:
    """Bytes at most, of a process that does nothing else."""
    words = [sys.executable, __file__, "--child", way, str(folder)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--folder", type=Path, help="where to write the model, else where the system does")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        random_model(folder)
        size = sum(path.stat().st_size for path in files(folder))
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        cold = {"cached": False}
        if hasattr(os, "posix_fadvise") and options.clock == "wall":
            cold["not cached"] = True
        lines = [
            f"{machine('cpu')}. {size / 1e9:.2f} GB of float16.",
            "",
            f"| | {' | '.join(f'{name}, s | ratio' for name in cold)} | peak, MiB | of the size | {LOAD} |",
            f"|---{'|---|---' * (len(cold) + 1)}|---|",
        ]
        table = Table("loading", lines, options.write)
        times = [seconds(folder, options.rounds, clock, each) for each in cold.values()]
        for way in WAYS:
            cells = [f"{found[way]:.2f} | {found[way] / found['reading']:.2f}" for found in times]
            most = peak(way, folder)
            figures = [*cells, f"{most / MIB:.0f}", f"{most / size:.2f}", load()]
            table.add(f"| {way} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
