"""Save the preview of every step, and the finished picture last.

python examples/watch.py "sunflower, soft gradient emoji" frames/ 10
"""

import sys
from pathlib import Path

import sfumato

prompt, folder, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)

for step in sfumato.load().stream(prompt, seed=5, steps=steps):
    picture = step.image or step.preview()
    picture.save(folder / f"{step.index:03}.png")
    print(f"{step.index} of {step.total}, σ = {step.sigma:.3g}")
