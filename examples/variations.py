"""One prompt with several seeds, side by side on one sheet.

python examples/variations.py "a blue apple, 3d render" 6 sheet.png
"""

import argparse

import PIL.Image

import sfumato

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="a blue apple, 3d render")
parser.add_argument("count", nargs="?", type=int, default=6)
parser.add_argument("path", nargs="?", default="sheet.png")
options = parser.parse_args()

pictures = sfumato.load().generate_batch(options.prompt, count=options.count, seed=1)

width, height = pictures[0].size
sheet = PIL.Image.new("RGB", (width * len(pictures), height))
for column, picture in enumerate(pictures):
    sheet.paste(picture.pil, (column * width, 0))
sheet.save(options.path)
