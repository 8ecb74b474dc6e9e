"""What is taught, beside training loops of diffusers' and peft's own classes: how like it is, and how fast.

    python benchmarks/teach.py --folder runs/teach [--subjects mug,robot] [--styles mosaic] [--methods lora]
    python benchmarks/teach.py --folder runs/teach --write docs/teaching.md
    python benchmarks/teach.py --folder runs/teach --speed lora

Ten subjects (`benchmarks/subjects.py`) and three styles, drawn by these scripts: no training has seen them.
Ours is `sfumato teach`. The peer is the loop of diffusers' scripts for LoRA, DreamBooth and textual inversion
on the same weights: peft's layers of the same rank at the same places, its scheduler's noise and velocity,
bfloat16 by autocast, gradients clipped, AdamW with the same rates, the same number of steps. Latents and
texts are kept, so that a step of it is a step of the UNet; scripts that keep nothing encode both each time,
which `--speed` measures too, and float32. Pivotal tuning has no peer.

Each training is a process of its own; its peak memory is told. What is there is not done again. `--speed`
measures steps of all in turns in one process. The metrics are those of `sfumato evaluate --adapter`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import peft
import safetensors.torch
import subjects
import torch
from diffusers.optimization import get_scheduler
from loading import resident
from measuring import LOAD, Table, load, machine, medians, say
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.evaluate import personalization
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.scorer import Scorer
from sfumato.options import ModelOptions
from sfumato.request import Request
from sfumato.studio import open_studio
from sfumato.train import stages, teach
from sfumato.train.log import Log
from sfumato.train.loop import advance
from sfumato.train.objectives import task
from sfumato.train.recipe import AdapterSection, Optimizer, Recipe, Samples
from sfumato.train.state import begin

CPU = torch.device("cpu")
SIDES = ("ours", "peer")
PEERS = ("lora", "dreambooth", "inversion")
WORD = "sks"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Step = Callable[[], Any]


def mosaic(picture: Image.Image) -> Image.Image:
    """Coarse tiles."""
    return picture.resize((24, 24), Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


def blueprint(picture: Image.Image) -> Image.Image:
    """White lines on blue."""
    lines = picture.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(3))
    return ImageOps.colorize(lines, "#1e3a8a", "#f8fafc", blackpoint=10, whitepoint=90)


def duotone(picture: Image.Image) -> Image.Image:
    """Two colours and what lies between them."""
    return ImageOps.colorize(ImageOps.autocontrast(picture.convert("L")), "#4c1d95", "#fde68a")


STYLES = {"mosaic": mosaic, "blueprint": blueprint, "duotone": duotone}


@dataclass(frozen=True)
class Case:
    """One thing to teach by one method."""

    thing: str
    method: str
    folder: Path
    steps: int | None = None

    @property
    def pictures(self) -> Path:
        """The folder of its pictures, drawn if need be."""
        folder = self.folder / "pictures" / self.thing
        if not folder.is_dir():
            folder.mkdir(parents=True)
            if self.thing in STYLES:
                shown = [subjects.drawn(each, 0) for each in subjects.SUBJECTS]
                drawn = [STYLES[self.thing](each) for each in shown]
            else:
                drawn = [subjects.drawn(self.thing, view) for view in range(len(subjects.VIEWS))]
            for number, picture in enumerate(drawn):
                picture.save(folder / f"{number}.png")
        return folder

    @property
    def run(self) -> Path:
        """The folder of our run."""
        return self.folder / "ours" / f"{self.thing}-{self.method}"

    @property
    def teaching(self) -> teach.Teaching:
        """What `sfumato teach` is asked for."""
        return teach.Teaching(
            (self.pictures,), f"{WORD} {self.thing}", self.thing, self.method, run=self.run, steps=self.steps
        )

    def plan(self) -> stages.Plan:
        """Our recipes, without the samples that the peer does not draw."""
        plan = teach.prepare(self.teaching)
        plain = [replace(each, recipe=replace(each.recipe, samples=Samples())) for each in plan.stages]
        return replace(plan, stages=tuple(plain))

    def place(self, side: str) -> Path:
        """Where what is known of a side is kept, as JSON."""
        return self.folder / f"{self.thing}-{self.method}-{side}.json"


def ours(case: Case) -> tuple[Path, int]:
    """Teach it; the result, and the steps of all stages."""
    plan = case.plan()
    stages.carry_out(plan, CPU)
    recipe = plan.stages[-1].recipe
    return recipe.objective.result(recipe), sum(each.recipe.steps for each in plan.stages)


class PeerLoop:
    """The loop of diffusers' scripts."""

    def __init__(
        self, case: Case, recipe: Recipe, *, keeps: bool = True, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        """`keeps`: latents and texts, and does not encode them each time."""
        torch.manual_seed(0)
        self.case, self.recipe, self.keeps, self.dtype = case, recipe, keeps, dtype
        self.pipe: Any = diffusers.StableDiffusionPipeline.from_pretrained(
            checkpoint.embedded(), dtype=torch.float32, safety_checker=None
        )
        self.unet = self.pipe.unet.requires_grad_(False)
        self.pipe.text_encoder.requires_grad_(False)
        self.noise = diffusers.DDPMScheduler.from_config(self.pipe.scheduler.config)
        self.prior = case.method == "dreambooth"
        if self.prior:
            self.class_latents = self._latents(case.run / "class")
        self.latents = self._latents(case.pictures)
        self.rows = slice(0, 0)
        if case.method == "inversion":
            self._new_word()
            self.trained = [self.pipe.text_encoder.get_input_embeddings().weight.requires_grad_(True)]
            self.unet.to(self.dtype)
        else:
            self._lora()
            self.trained = [each for each in self.unet.parameters() if each.requires_grad]
            self.states = self._states([f"{WORD} {case.thing}", case.thing])
        chosen: Optimizer = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=chosen.learning_rate, betas=(chosen.beta1, chosen.beta2),
            weight_decay=0.0 if case.method == "inversion" else chosen.weight_decay,
        )  # fmt: skip
        self.rates = get_scheduler(
            "cosine", self.optimizer, num_warmup_steps=chosen.warmup_steps, num_training_steps=recipe.steps
        )
        self.unet.train()

    def _latents(self, folder: Path) -> torch.Tensor:
        """The pictures in `folder` as latents (N, C, h, w)."""
        paths = sorted(folder.glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.cat([self._encode(each) for each in self.pixels.split(1)])

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = self.pipe.vae.encode(pixels).latent_dist.mean
        return latents * self.pipe.vae.config.scaling_factor

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> torch.Tensor:
        return self._encoded(texts)

    def _encoded(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.pipe.tokenizer(
            list(texts), padding="max_length", max_length=self.pipe.tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        states: torch.Tensor = self.pipe.text_encoder(tokens.input_ids)[0]
        return states

    def _lora(self) -> None:
        adapter = self.recipe.adapter or AdapterSection()
        config = peft.LoraConfig(
            r=adapter.rank, lora_alpha=adapter.rank, init_lora_weights="gaussian",
            target_modules=list(adapter.target_modules),
        )  # fmt: skip
        # as the scripts do: what is frozen in half precision, what is trained in float32
        self.unet.to(self.dtype)
        self.unet.add_adapter(config)
        for each in self.unet.parameters():
            if each.requires_grad:
                each.data = each.data.float()

    def _new_word(self) -> None:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        words = [WORD, *(f"{WORD}_{number}" for number in range(1, teach.VECTORS))]
        self.words = [f"<{each}>" for each in words]
        tokenizer.add_tokens(self.words)
        encoder.resize_token_embeddings(len(tokenizer))
        table = encoder.get_input_embeddings().weight.data
        (first, *_) = tokenizer.encode(self.case.thing, add_special_tokens=False)
        self.rows = slice(len(table) - teach.VECTORS, len(table))
        table[self.rows] = table[first]
        self.kept = table.clone()

    def step(self) -> None:
        """One step."""
        size = self.recipe.batch_size // (2 if self.prior else 1)
        chosen = torch.randint(len(self.latents), (size,))
        x0 = self.latents[chosen] if self.keeps else self._encode(self.pixels[chosen])
        if self.prior:
            x0 = torch.cat([x0, self.class_latents[torch.randint(len(self.class_latents), (size,))]])
        if self.case.method == "inversion":
            states = self._encoded([" ".join([*self.words, self.case.thing])]).expand(len(x0), -1, -1)
        else:
            kinds = (f"{WORD} {self.case.thing}", self.case.thing)[: 2 if self.prior else 1]
            if self.keeps:
                states = self.states[: len(kinds)].repeat_interleave(size, 0)
            else:
                states = self._states([text for text in kinds for _ in range(size)])
        eps = torch.randn_like(x0)
        times = torch.randint(self.noise.config.num_train_timesteps, (len(x0),))
        noisy = self.noise.add_noise(x0, eps, times)
        kind = self.noise.config.prediction_type
        target = self.noise.get_velocity(x0, eps, times) if kind == "v_prediction" else eps
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            answer = self.unet(noisy.to(self.dtype), times, states.to(self.dtype)).sample
        F.mse_loss(answer.float(), target).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.optimizer.max_grad_norm)
        self.optimizer.step()
        self.rates.step()
        self.optimizer.zero_grad()
        if self.case.method == "inversion":
            table = self.pipe.text_encoder.get_input_embeddings().weight.data
            table[: self.rows.start] = self.kept[: self.rows.start]

    def save(self, folder: Path) -> Path:
        """Write the result as the scripts do; its file."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.case.method == "inversion":
            path = folder / f"{WORD}.safetensors"
            rows = self.pipe.text_encoder.get_input_embeddings().weight.data[self.rows].clone()
            safetensors.torch.save_file({WORD: rows}, path)
            return path
        state = peft.get_peft_model_state_dict(self.unet)
        diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state)
        return folder / "pytorch_lora_weights.safetensors"


def peer(case: Case) -> tuple[Path, int]:
    """Teach it by the peer's loop; the result, and its steps."""
    recipe = case.plan().stages[0].recipe
    loop = PeerLoop(case, recipe)
    for number in range(recipe.steps):
        loop.step()
        if number % 25 == 0:
            say(f"    step {number + 1} of {recipe.steps}")
    return loop.save(case.folder / "peer" / f"{case.thing}-{case.method}"), recipe.steps


def train(case: Case, side: str) -> None:
    """Teach it, in this process, and keep what is known of it."""
    began = time.monotonic()
    result, steps = {"ours": ours, "peer": peer}[side](case)
    seconds = time.monotonic() - began
    known = {"result": str(result), "steps": steps, "seconds": seconds, "bytes": resident(), "load": load()}
    case.place(side).write_text(json.dumps(known))


def known(case: Case, side: str, seeds: int, arguments: Sequence[str]) -> dict[str, Any]:
    """What is known of a side: taught and measured, as far as that was not done."""
    place = case.place(side)
    if not place.is_file():
        say(f"{case.thing}, {case.method}, {side}: teaching")
        command = [sys.executable, __file__, *arguments, "--child", case.thing, case.method, side]
        subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(place.read_text())
    if "rows" not in found:
        say(f"{case.thing}, {case.method}, {side}: measuring")
        found["rows"] = measured(case, Path(found["result"]), seeds)
        place.write_text(json.dumps(found))
    return found


def measured(case: Case, result: Path, seeds: int) -> list[dict[str, Any]]:
    """The rows of `sfumato evaluate --adapter`."""
    studio = open_studio(ModelOptions())
    scorer = Scorer.load(None, CPU)
    settings = SamplingSettings.of(studio, Request.build(prompt="", width=256, height=256))
    plan = personalization.PersonalizationPlan(f"{WORD} {case.thing}", case.thing, seeds)
    cache = case.folder / "cache"
    real = personalization.taught_pictures(case.pictures, 256)
    adapted = Candidate.adapted(studio, result)
    report = personalization.evaluate(
        Candidate.of(studio), adapted, settings, real, plan, cache, scorer.features, scorer, CPU
    )
    return list(report.to_dict()["rows"])


def speed(case: Case, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of a step of each side by `clock`, in turns."""
    recipe = case.plan().stages[0].recipe
    prepared = task(recipe, CPU)
    state, log = begin(prepared.net, recipe, CPU), Log(case.run, CPU, 0, board=False)
    prepared.net.train()
    generator = torch.Generator()
    steps: dict[str, Step] = {
        "ours": lambda: advance(prepared, recipe, state, generator, log),
        "peer": PeerLoop(case, recipe).step,
        "peer that keeps nothing": PeerLoop(case, recipe, keeps=False).step,
        "peer in float32": PeerLoop(case, recipe, dtype=torch.float32).step,
    }
    return medians(steps, rounds, clock=clock, warm_up=2)


def rows(
    cases: dict[str, list[Case]], seeds: int, arguments: Sequence[str]
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Of each method and side what is known of all its cases."""
    for method, own in cases.items():
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
        for case in own:
            for side in SIDES if method in PEERS else SIDES[:1]:
                found[side].append(known(case, side, seeds, arguments))
        yield from ((method, side, each) for side, each in found.items() if each)


def row(method: str, side: str, found: list[dict[str, Any]]) -> str:
    """A line of the table: means over what was taught."""
    metrics = [each["rows"][-1] for each in found]
    base = [each["rows"][-2] for each in found]

    def mean(name: str, among: list[dict[str, Any]]) -> str:
        values = [each.get(name) for each in among]
        return f"{statistics.fmean(values):.3f}" if None not in values else ""

    pace = statistics.geometric_mean(each["steps"] / each["seconds"] for each in found)
    memory = max(each["bytes"] for each in found)
    return (
        f"| {method}, {side} | {len(found)} | {mean('fidelity', metrics)} ({mean('fidelity', base)}) "
        f"| {mean('faithfulness', metrics)} ({mean('faithfulness', base)}) | {mean('kept', metrics)} "
        f"| {mean('diversity', metrics)} | {found[0]['steps']} | {pace:.2f} "
        f"| {memory / 1e6:,.0f} | {found[-1]['load']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--subjects", default=",".join(subjects.SUBJECTS), help="'' for none")
    parser.add_argument("--styles", default=",".join(STYLES), help="'' for none")
    parser.add_argument("--methods", default=",".join(teach.METHODS))
    parser.add_argument("--steps", type=int, help="of each recipe; the method's own unless given")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--speed", metavar="METHOD", help="only measure steps in turns")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of this process, for a busy machine"
    )
    parser.add_argument("--child", nargs=3, metavar=("THING", "METHOD", "SIDE"), help="teach one thing")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    diffusers.logging.set_verbosity_error()
    if options.child:
        thing, method, side = options.child
        train(Case(thing, method, options.folder, options.steps), side)
        return
    things = [each for each in (*options.subjects.split(","), *options.styles.split(",")) if each]
    if options.speed:
        say(machine("cpu"))
        seconds = speed(
            Case(things[0], options.speed, options.folder / "speed"), options.rounds, CLOCKS[options.clock]
        )
        for name, each in seconds.items():
            ratio = f", {each / seconds['ours']:.2f} of the time of ours" if name != "ours" else ""
            say(f"{options.speed}, {name}: {1 / each:.2f} steps a second{ratio}")
        say(f"{LOAD} {load()}")
        return
    same = ["--folder", str(options.folder), "--threads", str(torch.get_num_threads())]
    same += ["--steps", str(options.steps)] if options.steps else []
    cases = {
        method: [Case(thing, method, options.folder, options.steps) for thing in things]
        for method in options.methods.split(",")
    }
    head = [
        f"{machine('cpu')}. {', '.join(things)}.",
        "",
        "| method, side | taught | fidelity (without) | faithfulness (without) | kept | diversity | steps "
        f"| steps a second, with all else | MB at most | {LOAD} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    table = Table("teach", head, options.write)
    for found in rows(cases, options.seeds, same):
        table.add(row(*found))


if __name__ == "__main__":
    main()
