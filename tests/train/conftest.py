import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline
from running import tiny_model

from sfumato.data import pack
from sfumato.data.pack import Drawing
from sfumato.data.render import render

SIZE = 32
COLOURS = {"red": "#f00", "green": "#0f0", "blue": "#00f", "yellow": "#ff0"}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Coloured squares and one-colour ones, named by their colour, some held out; rendered."""
    folder = tmp_path_factory.mktemp("squares")
    held = next(f"thing {n}" for n in range(999) if Drawing("noto", f"thing {n}", (), 1.0).held_out)
    box = (0, 0, 16, 16)
    svg = '<path fill="{}" d="M3 3h10v10H3z"/>'
    drawings = [Drawing("noto", f"{name} square", (), 1.0, box, svg.format(c)) for name, c in COLOURS.items()]
    drawings.append(Drawing("noto", held, (), 1.0, box, svg.format("#888")))
    parts = {
        "part-00.jsonl.xz": drawings,
        "part-01.jsonl.xz": [Drawing("mdi", "square", (), 1.0, box, svg.format("currentColor"))],
    }
    for name, own in parts.items():
        pack._write_xz(folder / name, [json.dumps(asdict(one)) for one in own])
    (folder / "pack.json").write_text(json.dumps({"parts": list(parts)}))
    render(folder, folder / "rendered", SIZE)
    return folder / "rendered"


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A model folder with the embedded text encoder, and a tiny UNet and autoencoder."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "base", SIZE)


@pytest.fixture(scope="session")
def own_pictures(tmp_path_factory):
    """A folder of 22 pictures in three shapes, each with captions beside it, two of them for tests."""
    folder = tmp_path_factory.mktemp("own")
    shapes = {"square": (40, 40), "wide": (60, 38), "tall": (38, 60)}
    for number in range(22):
        shape, size = list(shapes.items())[number % 3]
        colour = list(COLOURS)[number % 4]
        path = folder / ("test" if number > 19 else "train") / f"{number:02}-{shape}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, COLOURS[colour]).save(path)
        path.with_suffix(".txt").write_text(f"a {colour} wall, {shape}\n{colour}, flat\n")
    return folder


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of a small random model of each published family."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("families") / name
            pipeline(name).save_pretrained(made[name])
        return made[name]

    return get
