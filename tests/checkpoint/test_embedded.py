import re
import subprocess
import sys

import PIL.Image
import torch
from PIL import ImageChops, ImageDraw

import sfumato
from sfumato import checkpoint
from sfumato.names import sampler_name, spacing_name


def test_the_embedded_model_is_found_from_any_folder_and_needs_no_file_of_the_user(tmp_path):
    script = "from sfumato import checkpoint; m = checkpoint.load('embedded'); print(m.kind, m.native_size)"
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout == "latent-diffusion (256, 256)\n", done.stderr


def test_loading_the_embedded_model_imports_neither_its_peers_nor_torchs_compiler(tmp_path):
    script = (
        "import sys; from sfumato import checkpoint; checkpoint.load('embedded');"
        "print([name for name in ('diffusers', 'transformers', 'torch._dynamo', 'huggingface_hub', 'sympy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_its_defaults_are_names_that_exist_and_a_size_it_can_draw():
    model = checkpoint.load("embedded")
    assert model.native_size == (256, 256)
    assert sampler_name(model.defaults.sampler) == model.defaults.sampler
    assert spacing_name(model.defaults.spacing) == model.defaults.spacing
    assert (model.prediction, model.task, model.factor) == ("v", "text", 8)
    assert model.path().level(model.path().last).a == 0


def test_its_card_counts_its_parameters_and_names_every_licence():
    folder = checkpoint.embedded()
    card = (folder / "README.md").read_text()
    for part in checkpoint.inspect("embedded").components:
        assert f"{part.parameters:,}" in card
    attribution = (folder / "ATTRIBUTION.md").read_text()
    licences = set(re.findall(r"\| (Apache-2\.0|MIT|CC-BY-[\d.]+|WordNet licence) \|", attribution))
    assert licences == {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-3.0", "WordNet licence"}


def test_its_decoder_leaves_the_border_and_the_corners_of_white_pictures_white():
    """In bytes."""
    model = checkpoint.load("embedded", dtype=torch.float32)
    white = torch.ones(1, 3, 256, 256)
    with torch.no_grad():
        z = model.vae.encode(white).mean
        drawn = model.vae.decode(z)
    off = 127.5 * (white - drawn.clamp(-1, 1))[0]
    corners = off[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    sides = torch.cat([off[:, 0], off[:, -1], off[..., 0], off[..., -1]], dim=1)
    assert corners.max() < 6
    assert sides.mean() < 2


def test_a_drawing_on_white_is_filled_and_trimmed_from_its_corners():
    drawn = sfumato.load().generate("a red apple, 3d render", seed=7, steps=8).pil
    for corner in ((0, 0), (255, 0), (0, 255), (255, 255)):
        filled = drawn.copy()
        ImageDraw.floodfill(filled, corner, (0, 0, 255), thresh=16)
        others = [filled.getpixel(each) for each in ((0, 0), (255, 0), (0, 255), (255, 255), (128, 3))]
        assert others == [(0, 0, 255)] * 5
    apart = ImageChops.difference(drawn, PIL.Image.new("RGB", drawn.size, "white"))
    left, top, right, bottom = apart.convert("L").point(lambda value: 255 * (value > 8)).getbbox()
    assert min(left, top, 256 - right, 256 - bottom) > 4
