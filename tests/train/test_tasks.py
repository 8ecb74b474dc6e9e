"""Recipes carried out, from data to a model that draws."""

import diffusers
import numpy as np
import pytest
import torch
from making import changed, made
from PIL import Image

import sfumato
from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.recipe import LORA, MODEL, AdapterSection

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def autoencoder(tiny_data, tiny_base, tmp_path_factory):
    """A trained autoencoder's run, and what came of it."""
    run = tmp_path_factory.mktemp("runs") / "autoencoder"
    recipe = made(
        "autoencoder", folder=str(tiny_data), base=str(tiny_base), run=str(run), steps=60, batch_size=8,
        learning_rate=5e-3, warmup_steps=5, decay_steps=30, ema_decays=(0.9,), precision="float32",
        log_every=10,
    )  # fmt: skip
    return recipe, train(task(recipe, CPU), recipe, CPU)


@pytest.fixture(scope="module")
def denoiser(autoencoder, tmp_path_factory):
    recipe, _ = autoencoder
    run = tmp_path_factory.mktemp("runs") / "denoiser"
    denoiser = made(
        "denoiser", folder=recipe.data.folder, base=f"{recipe.run}/{MODEL}", run=str(run), steps=6,
        batch_size=8, warmup_steps=2, decay_steps=2, ema_decays=(0.9,), captions_per_picture=2,
        tints_per_icon=1, log_every=2, prompts=("a red square",),
    )  # fmt: skip
    return denoiser, train(task(denoiser, CPU), denoiser, CPU)


def test_the_autoencoder_learns(autoencoder, tiny_data, tiny_base, tmp_path):
    recipe, outcome = autoencoder
    untrained = changed(recipe, run=str(tmp_path), steps=1, decay_steps=0, learning_rate=1e-9)
    before = train(task(untrained, CPU), untrained, CPU)
    assert outcome.metrics["psnr_held_out"] > before.metrics["psnr_held_out"] + 5
    assert (tmp_path / "samples" / "last.webp").is_file()


@pytest.mark.parametrize("layer", ["use_quant_conv", "use_post_quant_conv"])
def test_an_autoencoder_whose_latents_cannot_be_scaled_is_refused_before_it_learns(autoencoder, layer):
    recipe = changed(autoencoder[0], start="scratch", network={layer: False})
    with pytest.raises(UsageError, match="nowhere to put the mean and deviation"):
        task(recipe, CPU)


def test_its_latents_need_no_scale(autoencoder):
    recipe, _ = autoencoder
    vae = checkpoint.load(f"{recipe.run}/{MODEL}", dtype=torch.float32).vae
    assert vae.config.scaling_factor == 1.0
    z = torch.randn(1, 4, 2, 2)
    assert torch.equal(vae.scale(z), z)


def test_the_denoiser_is_kept_as_a_whole_model_that_draws(denoiser, tmp_path):
    recipe, outcome = denoiser
    assert outcome.done
    image = sfumato.load(f"{recipe.run}/{MODEL}", device="cpu").generate("a red square", seed=1)
    image.save(tmp_path / "square.png")
    assert Image.open(tmp_path / "square.png").size == (32, 32)
    assert Image.open(f"{recipe.run}/samples/last.webp").size == (32, 32)


def test_diffusers_loads_what_was_trained(denoiser):
    recipe, _ = denoiser
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(f"{recipe.run}/{MODEL}")
    own = checkpoint.load(f"{recipe.run}/{MODEL}", dtype=torch.float32)
    for name, weight in pipeline.unet.state_dict().items():
        assert torch.equal(weight.float(), own.unet.state_dict()[name])


def test_cached_latents_are_used_again(denoiser, monkeypatch):
    recipe, _ = denoiser
    monkeypatch.setattr("sfumato.nets.vae.AutoencoderKL.encode", None)
    assert task(recipe, CPU).net is not None


def test_a_denoiser_from_scratch_may_have_another_shape(denoiser, tmp_path):
    recipe, _ = denoiser
    wider = changed(
        recipe, start="scratch", network={"block_out_channels": [8, 16]}, run=str(tmp_path), steps=1,
        decay_steps=0,
    )  # fmt: skip
    train(task(wider, CPU), wider, CPU)
    assert checkpoint.load(tmp_path / MODEL).unet.config.block_out_channels == (8, 16)


def test_a_denoisers_lora_is_kept_as_a_file_that_draws(denoiser, tmp_path):
    recipe, _ = denoiser
    adapted = changed(recipe, adapter=AdapterSection(rank=2), run=str(tmp_path), steps=2, decay_steps=0)
    learned = task(adapted, CPU)
    names = [name for name, weight in learned.net.named_parameters() if weight.requires_grad]
    assert names
    assert all("lora" in name.lower() or "adapter" in name.lower() or ".new." in name for name in names)
    assert train(learned, adapted, CPU).done
    assert not (tmp_path / MODEL).exists()
    studio = sfumato.load(recipe.base, device="cpu", dtype="float32")
    plain = studio.generate("a red square", seed=1, steps=2)
    studio.load_adapter(tmp_path / LORA, "mine")
    image = studio.generate("a red square <lora:mine>", seed=1, steps=2)
    assert not np.array_equal(image.pixels, plain.pixels)
