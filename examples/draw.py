"""Draw one picture with the embedded model and save it.

python examples/draw.py "a red apple, 3d render" apple.png
"""

import argparse

import sfumato

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="a red apple, 3d render")
parser.add_argument("path", nargs="?", default="apple.png")
options = parser.parse_args()

image = sfumato.load().generate(options.prompt, seed=7)
print(image.save(options.path), "is drawn again by", image.request)
