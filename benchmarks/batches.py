"""How far pictures that share batches are from the same pictures drawn alone.

    python benchmarks/batches.py [--steps N] [--dtype NAME]...

Four prompts, of different guidance, are drawn by one engine, alone and together. It prints by how many of the
256 values a pixel differs, at most and on average. It measures no time, so a busy machine changes nothing.
"""

import argparse
import math

import numpy as np
from measuring import machine, say

import sfumato

PICTURES = {"a red apple, 3d render": 4.0, "a cat, flat emoji": 7.5, "a lighthouse, noto style": 2.0,
            "a blue car": 1.0}  # fmt: skip


def main() -> None:
    """Draw both ways in each precision, and say how they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    say(machine("cpu"))
    for dtype in options.dtype:
        studio = sfumato.load(device="cpu", dtype=dtype)
        requests = [
            sfumato.Request(prompt=prompt, guidance=guidance, steps=options.steps, seed=seed)
            for seed, (prompt, guidance) in enumerate(PICTURES.items())
        ]
        alone = [studio.generate(each).pixels.astype(int) for each in requests]
        studio.budget = studio.decode_budget = math.inf
        together = [each.pixels for each in studio.generate_batch(requests)]
        apart = np.abs(np.stack(alone) - np.stack(together))
        means = apart.mean((1, 2, 3))
        say(f"{dtype}: at most {apart.max()}, on average {means.min():.2f} to {means.max():.2f} of 255")


if __name__ == "__main__":
    main()
