"""All combinations of a prompt template in several styles, on one sheet.

python examples/wardrobe.py "a {red|blue} {apple|car}" emoji-3d,emoji-flat sheet.png
"""

import argparse

import PIL.Image

import sfumato

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("template", nargs="?", default="a {red|blue} {apple|car}")
parser.add_argument("styles", nargs="?", default="emoji-3d,emoji-flat", help="with commas between")
parser.add_argument("path", nargs="?", default="sheet.png")
options = parser.parse_args()

studio = sfumato.load()
rows = [
    studio.generate_batch(options.template, templates="combinatorial", style=style, seed=7)
    for style in options.styles.split(",")
]

width, height = rows[0][0].size
sheet = PIL.Image.new("RGB", (width * len(rows[0]), height * len(rows)))
for row, pictures in enumerate(rows):
    for column, picture in enumerate(pictures):
        sheet.paste(picture.pil, (column * width, row * height))
        print(picture.request.prompt)
sheet.save(options.path)
