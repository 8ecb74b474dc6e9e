"""Save the preview of every step, and the finished picture last.

python examples/watch.py "sunflower, soft gradient emoji" frames/ 10
"""

import argparse
from pathlib import Path

import sfumato

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="sunflower, soft gradient emoji")
parser.add_argument("folder", nargs="?", type=Path, default=Path("frames"))
parser.add_argument("steps", nargs="?", type=int, default=10)
options = parser.parse_args()

options.folder.mkdir(parents=True, exist_ok=True)
for step in sfumato.load().stream(options.prompt, seed=5, steps=options.steps):
    picture = step.image or step.preview()
    picture.save(options.folder / f"{step.index:03}.png")
    print(f"{step.index} of {step.total}, σ = {step.sigma:.3g}")
