"""How fast a denoiser learns beside diffusers: the same weights and examples, in turns, in one process.

    python benchmarks/training.py [SIZE]... [--batch 8] [--write docs/performance.md]
    python benchmarks/training.py embedded sd15 --device cuda --batch 32 --compile

A step of ours is the loop's own. The same step around diffusers' `UNet2DConditionModel`: noise by their
scheduler, the network in the same precision, the loss on v, gradients clipped, AdamW, one average of the
weights.
Memory is the most that three steps take above what is held before them, each in a process of its own.
Needs the `test` extra, and a machine that does nothing else: ratios of medians are what to trust.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from loading import resident
from measuring import LOAD, Table, load, machine, medians, say
from speed import BETAS, SD15
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.config import UNetConfig
from sfumato.devices import DTYPES
from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.predict import prediction_named
from sfumato.nets.layers import enable_checkpointing
from sfumato.nets.unet import UNet
from sfumato.train.examples import CaptionedData, LatentBatch
from sfumato.train.log import Log
from sfumato.train.loop import advance
from sfumato.train.objectives.denoiser import Denoising, DenoisingLoss
from sfumato.train.recipe import Optimizer, Recipe
from sfumato.train.state import begin
from sfumato.train.task import Task

EMBEDDED = json.loads((checkpoint.embedded() / "unet" / "config.json").read_text())
SIZES = {"embedded": {key: value for key, value in EMBEDDED.items() if key[0] != "_"}, "sd15": SD15}
OPTIMIZER = Optimizer(lr_schedule="constant", warmup_steps=0, learning_rate=1e-5)
RECIPE = Recipe(Denoising(), CaptionedData(folder="-"), OPTIMIZER, run="-", steps=10**6, ema_decays=(0.999,))
Step = Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """What is to be measured."""

    size: str
    batch: int
    device: str
    rounds: int
    compile: bool
    precision: str

    def examples(self) -> LatentBatch:
        """The batch that every step learns from."""
        config, generator = SIZES[self.size], torch.Generator().manual_seed(1)
        x0 = torch.randn(self.batch, 4, config["sample_size"], config["sample_size"], generator=generator)
        states = torch.randn(self.batch, 77, config["cross_attention_dim"], generator=generator)
        place = torch.device(self.device)
        return LatentBatch(x0.to(place, memory_format=torch.channels_last), states.to(place))

    def peer(self) -> Any:
        """diffusers' network, with random weights that are the same every time."""
        torch.manual_seed(0)
        return UNet2DConditionModel(**SIZES[self.size]).to(self.device).train()


def ours(bench: Bench, folder: Path, **changes: Any) -> Step:
    """The loop's step."""
    recipe = replace(RECIPE, batch_size=bench.batch, precision=bench.precision, **changes)
    place, examples = torch.device(bench.device), bench.examples()
    net = UNet(UNetConfig.from_dict(SIZES[bench.size], bench.size))
    net.load_state_dict(bench.peer().state_dict())
    net.to(place, memory_format=torch.channels_last).train()
    if recipe.gradient_checkpointing:
        enable_checkpointing(net)
    if bench.compile:
        net.compile()
    path = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
    objective = DenoisingLoss(net, path, prediction_named("v"), "plain", place)
    task = Task(net, lambda context, count: examples, objective, lambda *_: None, lambda *_: {})
    state, log = begin(net, recipe, place), Log(folder, place, 0, board=False)
    generator = torch.Generator(place)
    return lambda: advance(task, recipe, state, generator, log)


def theirs(bench: Bench, folder: Path, channels_last: bool = True) -> Step:
    """The same around diffusers' network."""
    net, examples = bench.peer(), bench.examples()
    if channels_last:
        net.to(memory_format=torch.channels_last)
    if bench.compile:
        net.compile()
    dtype = DTYPES[bench.precision]
    scheduler = DDPMScheduler(**BETAS, prediction_type="v_prediction")
    weights = list(net.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(
        weights, lr=OPTIMIZER.learning_rate, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        weight_decay=OPTIMIZER.weight_decay,
        fused=bench.device == "cuda",
    )  # fmt: skip

    def step() -> None:
        x0 = examples.x0
        eps = torch.randn_like(x0)
        times = torch.randint(1000, (len(x0),), device=x0.device)
        noisy = scheduler.add_noise(x0, eps, times)
        target = scheduler.get_velocity(x0, eps, times)
        with torch.autocast(bench.device, dtype, enabled=dtype != torch.float32):
            answer = net(noisy, times, examples.states).sample
        F.mse_loss(answer.float(), target).backward()
        torch.nn.utils.clip_grad_norm_(weights, OPTIMIZER.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - RECIPE.ema_decays[0])

    return step


SIDES: dict[str, Callable[[Bench, Path], Step]] = {
    "ours": ours,
    "ours, gradient checkpointing": lambda bench, folder: ours(bench, folder, gradient_checkpointing=True),
    "plain": lambda bench, folder: theirs(bench, folder, channels_last=False),
    "channels_last": theirs,
}


def seconds_of_a_step(bench: Bench) -> dict[str, float]:
    """Median seconds of a step of each side, all taking turns in every round."""
    after = torch.cuda.synchronize if bench.device == "cuda" else lambda: None
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: side(bench, Path(folder)) for name, side in SIDES.items()}
        return medians(steps, bench.rounds, warm_up=2, after=after)


def growth(bench: Bench, name: str) -> float:
    """The most bytes that three steps take above what is held before them."""
    with tempfile.TemporaryDirectory() as folder:
        step = SIDES[name](bench, Path(folder))
        if bench.device == "cuda":
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        for _ in range(3):
            step()
        if bench.device == "cuda":
            return torch.cuda.max_memory_allocated() - held
        return resident() - held


def apart(name: str, arguments: list[str]) -> float:
    """`growth` in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--growth", name]
    found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    say(f"  {name}: {found / 1e6:,.0f} MB")
    return found


def rows(bench: Bench, arguments: list[str]) -> Iterator[str]:
    """The table's rows for one size."""
    seconds = seconds_of_a_step(bench)
    best = min(seconds["plain"], seconds["channels_last"])
    least = min(apart(name, arguments) for name in ("plain", "channels_last"))
    for name in ("ours", "ours, gradient checkpointing"):
        memory, compiled = apart(name, arguments), ", compiled" if bench.compile else ""
        yield (
            f"| {bench.size}, batch {bench.batch}, {bench.precision}{compiled}: {name} "
            f"| {1 / seconds[name]:.2f} | {1 / best:.2f} | **{best / seconds[name]:.2f}×** "
            f"| {memory / 1e6:,.0f} | {least / 1e6:,.0f} | {load()} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), help="default: both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="compile the networks, ours and theirs")
    parser.add_argument("--growth", metavar="SIDE", help="only measure the memory of one side")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    diffusers.logging.set_verbosity_error()
    benches = [
        Bench(size, options.batch, options.device, options.rounds, options.compile, precision)
        for size in options.sizes or ["embedded"]
        for precision in ([options.precision] if options.precision else ["bfloat16", "float32"])
    ]
    if options.growth:
        print(growth(benches[0], options.growth))
        return
    head = (
        f"| what | steps a second | diffusers' fastest | ratio | MB of memory | diffusers' least | {LOAD} |"
    )
    lines = [f"{machine(options.device)}.", "", head, "|---|---|---|---|---|---|---|"]
    table = Table("training", lines, options.write, beside=True)
    for bench in benches:
        same = [bench.size, "--batch", str(options.batch), "--device", options.device]
        same += [
            "--precision",
            bench.precision,
            "--threads",
            str(torch.get_num_threads()),
            *(["--compile"] if options.compile else []),
        ]
        for row in rows(bench, same):
            table.add(row)


if __name__ == "__main__":
    main()
