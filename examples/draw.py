"""Draw one picture with the embedded model and save it.

python examples/draw.py "a red apple, 3d render" apple.png
"""

import sys

import sfumato

prompt, path = [*sys.argv[1:], *("a red apple, 3d render", "apple.png")[len(sys.argv) - 1 :]]
image = sfumato.load().generate(prompt, seed=7)
print(image.save(path), "is drawn again by", image.request)
