"""The embedded model's own weights: our networks against diffusers and transformers."""

import json
from importlib import resources

import diffusers
import pytest
import torch
import transformers
from nets_families import assert_close
from safetensors.torch import load_file

from sfumato.config import TextConfig, UNetConfig, VAEConfig
from sfumato.nets.text import CLIPText
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL

FOLDER = resources.files("sfumato") / "models" / "icons"
PARTS = {
    "unet": (UNet, UNetConfig, diffusers.UNet2DConditionModel, "diffusion_pytorch_model"),
    "vae": (AutoencoderKL, VAEConfig, diffusers.AutoencoderKL, "diffusion_pytorch_model"),
    "text_encoder": (CLIPText, TextConfig, transformers.CLIPTextModel, "model"),
}


def pair(part):
    network, config, theirs, name = PARTS[part]
    folder = FOLDER / part
    ours = network(config.from_dict(json.loads((folder / "config.json").read_text()), part))
    weights = load_file(folder / f"{name}.safetensors")
    ours.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    return ours.eval(), theirs.from_pretrained(folder).float().eval()


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def picture():
    """(1, 3, 256, 256): two soft discs on a gradient, the sort of thing that the autoencoder has seen."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")

    def disc(cx, cy, radius):
        return torch.sigmoid(40 * (radius - torch.hypot(x - cx, y - cy)))

    red, blue = disc(-0.2, 0.1, 0.5), disc(0.4, -0.3, 0.25)
    return torch.stack([x / 4 + red, y / 4 + blue, 0.5 - red])[None].clamp(-1, 1)


def test_embedded_text_encoder_equals_transformers():
    ours, theirs = pair("text_encoder")
    ids = torch.full((2, 77), ours.config.eos_token_id)
    ids[:, 0] = ours.config.bos_token_id
    ids[0, 1:5], ids[1, 1:60] = torch.tensor([11, 500, 32, 6000]), torch.arange(100, 159)
    with torch.no_grad():
        answer, expected = ours(ids), theirs(ids)
    assert_close(answer.states, expected.last_hidden_state)
    assert_close(answer.pooled, expected.pooler_output)


@pytest.mark.parametrize("size", [(32, 32), (18, 27)])
def test_embedded_unet_equals_diffusers(size):
    ours, theirs = pair("unet")
    x, t, states = randn(2, 4, *size), torch.tensor([951.0, 20.5]), randn(2, 77, 256)
    with torch.no_grad():
        assert_close(ours(x, t, states), theirs(x, t, states).sample)


def test_embedded_vae_equals_diffusers_and_in_tiles_nearly_itself():
    ours, theirs = pair("vae")
    x = picture()
    with torch.no_grad():
        latents, expected = ours.encode(x), theirs.encode(x).latent_dist
        assert_close(latents.mean, expected.mean)
        assert_close(latents.logvar, expected.logvar)
        z = latents.mean
        whole = ours.decode(z)
        assert_close(whole, theirs.decode(z).sample)
        # a tile's normalisations see less than the whole picture: a mean error in [−1, 1] is what remains
        assert (ours.decode_tiled(z, tile=24, overlap=8) - whole).abs().mean() < 0.02
        assert (ours.encode_tiled(x, tile=24, overlap=8).mean - z).abs().mean() < 0.05 * z.std()
