"""Edit a picture as an instruction says, with the embedded model, and lay both side by side.

python examples/edit.py apple.png "make it blue" sheet.png
"""

import argparse
from pathlib import Path

import PIL.Image

import sfumato
from sfumato.contact_sheet import contact_sheet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("picture", nargs="?", default="apple.png", help="drawn, if there is none")
parser.add_argument("instruction", nargs="?", default="make it blue")
parser.add_argument("sheet", nargs="?", default="sheet.png")
parser.add_argument("--steps", type=int)
options = parser.parse_args()

if not Path(options.picture).exists():
    sfumato.load().generate("a red apple, 3d render", seed=7).save(options.picture)
editor = sfumato.load("embedded-instruct")
edited = editor.edit(options.picture, options.instruction, seed=1, steps=options.steps)
page = contact_sheet([PIL.Image.open(options.picture), edited.pil], ["before", options.instruction])
page.save(options.sheet)
