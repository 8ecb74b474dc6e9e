"""One prompt with several seeds, side by side on one sheet.

python examples/variations.py "a blue apple, 3d render" 6 sheet.png
"""

import sys

import PIL.Image

import sfumato

prompt, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
pictures = sfumato.load().generate_batch(prompt, count=count, seed=1)

width, height = pictures[0].size
sheet = PIL.Image.new("RGB", (width * count, height))
for column, picture in enumerate(pictures):
    sheet.paste(picture.pil, (column * width, 0))
sheet.save(path)
