"""All combinations of a prompt template in several styles, on one sheet.

python examples/wardrobe.py "a {red|blue} {apple|car}" emoji-3d,emoji-flat sheet.png
"""

import sys

import PIL.Image

import sfumato

template, styles, path = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
studio = sfumato.load()
rows = [studio.generate_batch(template, templates="combinatorial", style=style, seed=7) for style in styles]

width, height = rows[0][0].size
sheet = PIL.Image.new("RGB", (width * len(rows[0]), height * len(rows)))
for row, pictures in enumerate(rows):
    for column, picture in enumerate(pictures):
        sheet.paste(picture.pil, (column * width, row * height))
        print(picture.request.prompt)
sheet.save(path)
