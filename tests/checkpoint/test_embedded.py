import re
import subprocess
import sys

import torch

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


def test_its_decoder_leaves_the_corners_of_white_pictures_white():
    """In bytes: the green of the last pixel is known to be darker."""
    vae = checkpoint.load("embedded", dtype=torch.float32).vae
    white = torch.ones(1, 3, 256, 256)
    with torch.no_grad():
        drawn = vae.decode(vae.encode(white).mean)
    off = 127.5 * (white - drawn).abs()[0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert off.mean() < 5
    off[1, 3] = 0
    assert off.max() < 6
