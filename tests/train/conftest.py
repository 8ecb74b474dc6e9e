import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline

from sfumato import checkpoint
from sfumato.config import UNetConfig, VAEConfig
from sfumato.data import pack
from sfumato.data.pack import Drawing
from sfumato.data.render import render
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL

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
    model = checkpoint.load("embedded", dtype=torch.float32)
    torch.manual_seed(0)
    unet = UNetConfig(
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=256,
        attention_head_dim=2,
        use_linear_projection=True,
        sample_size=8,
    )
    vae = VAEConfig(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=0.3,
    )
    tiny = replace(
        model,
        unet=UNet(unet).requires_grad_(False).eval(),
        vae=AutoencoderKL(vae).requires_grad_(False).eval(),
        tiny=None,
        fast=None,
        own={"native_size": [SIZE, SIZE], "steps": 4, "guidance": 2.0},
    )
    folder = tmp_path_factory.mktemp("tiny") / "base"
    checkpoint.save(tiny, folder)
    return folder


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
