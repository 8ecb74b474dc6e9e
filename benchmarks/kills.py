"""Kill a training run again and again, at random moments, and see that it ends as if nothing had happened.

    python benchmarks/kills.py 50 [--steps 3000] [--seed 0]

Every run is the real `sfumato train` in a process of its own, ended by SIGKILL: one in five while it is still
starting, the others up to a second after they have told of a step. The last one goes on to the end. What is
left is compared with an unbroken run: every bit of weights, averages and moments, and the steps of the log.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import LOAD, load, machine, say
from PIL import Image
from running import tiny_model

from sfumato import weights
from sfumato.train.log import LINES
from sfumato.train.state import FILE

SIZE = 32
RECIPE = """
base = "{folder}/base"
run = "{run}"
batch_size = 4
gradient_accumulation = 2
steps = {steps}
ema_decays = [0.9, 0.999]
precision = "float32"
checkpoint_every = 3
log_every = 1
objective.name = "denoiser"
data.folder = "{folder}/data"
optimizer.decay_steps = {decay}
samples = {{ prompts = ["red"], every = 100 }}
"""


def prepare(folder: Path) -> None:
    """Eight pictures of one colour each, and a model that takes milliseconds a step."""
    for split, count in (("train", 8), ("test", 2)):
        (folder / "data" / split).mkdir(parents=True)
        for number in range(count):
            path = folder / "data" / split / f"{number}.png"
            Image.new("RGB", (SIZE, SIZE), (30 * number, 255 - 30 * number, 90)).save(path)
            path.with_suffix(".txt").write_text(f"colour {number}")
    tiny_model(folder / "base", SIZE)


def start(recipe: Path) -> subprocess.Popen[str]:
    """The command, its lines about steps in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "sfumato", "train", str(recipe), "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until_a_step(running: subprocess.Popen[str]) -> bool:
    """Wait for a line about a step; false if there will be none."""
    assert running.stderr is not None
    return any(line.startswith("step ") for line in running.stderr)


def finish(recipe: Path) -> None:
    """Go on to the end."""
    running = start(recipe)
    _, err = running.communicate()
    if running.returncode:
        raise SystemExit(f"the run failed: {err[-2000:]}")


def killed(recipe: Path, wait: Callable[[], float], at_start: bool) -> str:
    """Start, kill, and say in which phase that was, or that the run was done before."""
    running = start(recipe)
    stepping = not at_start and until_a_step(running)
    time.sleep(wait())
    running.kill()
    running.communicate()
    if running.returncode == 0:
        return "done"
    return "stepping" if stepping else "starting"


def left(run: Path) -> tuple[str, list[int], list[str]]:
    """The digest of the state, the steps of the log, and files that should not be there."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.read(run / FILE).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    steps = [json.loads(line)["step"] for line in (run / LINES).read_text().splitlines()]
    return digest.hexdigest(), steps, [path.name for path in run.rglob(".*")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    say(f"{machine('cpu')}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        recipes = {}
        for run in ("unbroken", "killed"):
            recipes[run] = folder / f"{run}.toml"
            recipes[run].write_text(
                RECIPE.format(folder=folder, run=folder / run, steps=options.steps, decay=options.steps // 4)
            )
        began = time.monotonic()
        running = start(recipes["unbroken"])
        until_a_step(running)
        starting = time.monotonic() - began
        running.communicate()
        phases = {"starting": 0, "stepping": 0, "done": 0}
        while phases["starting"] + phases["stepping"] < options.kills and not phases["done"]:
            at_start = chance.random() < 0.2
            phase = killed(
                recipes["killed"],
                lambda at_start=at_start: chance.uniform(0, starting if at_start else 1),
                at_start,
            )
            phases[phase] += 1
            say(f"kill {sum(phases.values())} of {options.kills}: {phase}, {LOAD} {load()}")
        state = folder / "killed" / FILE
        reached = json.loads(weights.metadata(state)["progress"])["step"] if state.is_file() else 0
        finish(recipes["killed"])
        one, other = left(folder / "unbroken"), left(folder / "killed")
    kills = phases["starting"] + phases["stepping"]
    print(f"{kills} kills, {phases['starting']} in starting, {phases['stepping']} until step {reached:,}")
    print(f"unbroken {one[0]}")
    print(f"killed   {other[0]}")
    everything = one[1] == other[1] == list(range(1, options.steps + 1))
    print(f"log: {'every step once' if everything else 'NOT every step once'}")
    print(f"left over: {', '.join(other[2]) or 'nothing'}")
    if one[0] != other[0] or not everything or other[2] or kills < options.kills:
        raise SystemExit("FAILED")
    print("equal")


if __name__ == "__main__":
    main()
