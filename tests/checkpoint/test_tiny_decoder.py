"""A tiny autoencoder beside a model's full one: in its folder, or from wherever it was published."""

from dataclasses import replace

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from single_files import autoencoder

from sfumato import checkpoint, weights
from sfumato.checkpoint import convert
from sfumato.errors import CheckpointError

LEVELS = 2
"""Of the small families' autoencoder."""


def published(**changes):
    """A TAESD for the small families, as diffusers makes it."""
    torch.manual_seed(3)
    widths = {"encoder_block_out_channels": (8,) * LEVELS, "decoder_block_out_channels": (8,) * LEVELS}
    blocks = {"num_encoder_blocks": (1,) * LEVELS, "num_decoder_blocks": (1, 0)}
    return diffusers.AutoencoderTiny(**{**widths, **blocks, **changes})


def equal(ours, theirs):
    state = theirs.state_dict()
    return ours.state_dict().keys() == state.keys() and all(
        torch.equal(ours.state_dict()[name], weight) for name, weight in state.items()
    )


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def whole(saved, theirs, tmp_path_factory):
    """A model's folder with the tiny one in it."""
    place = tmp_path_factory.mktemp("whole")
    theirs.save_pretrained(place / "taesd")
    checkpoint.save(checkpoint.load(saved("sd1"), tiny=place / "taesd"), place / "model")
    return place / "model"


def test_a_folder_without_one_has_none(saved):
    assert checkpoint.load(saved("sd1")).tiny is None


def test_it_is_kept_in_the_models_folder_and_read_from_there(whole, theirs, saved, tmp_path):
    model = checkpoint.load(whole)
    assert equal(model.tiny, theirs)
    assert model.fingerprint != checkpoint.load(saved("sd1")).fingerprint
    assert "tiny_vae" in [part.name for part in checkpoint.inspect(whole).components]
    checkpoint.save(model, tmp_path / "again")
    assert checkpoint.load(tmp_path / "again").fingerprint == model.fingerprint


def test_diffusers_reads_the_folder_as_if_it_were_not_there(whole, theirs):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(whole, safety_checker=None)
    assert "tiny_vae" not in pipe.components
    assert equal(diffusers.AutoencoderTiny.from_pretrained(whole / "tiny_vae"), theirs)


@pytest.mark.parametrize("form", ["folder", "model", "file", "halves"])
def test_it_is_read_from_wherever_it_was_published(form, whole, theirs, saved, tmp_path):
    place = tmp_path / "taesd_decoder.safetensors"
    if form == "folder":
        place = tmp_path / "taesd"
        theirs.save_pretrained(place)
    elif form == "model":
        place = whole
    elif form == "file":
        save_file(theirs.state_dict(), place)
    else:
        halves = {"encoder": {}, "decoder": {}}
        for name, tensor in theirs.state_dict().items():
            half, _, number, rest = name.split(".", 3)
            halves[half][f"{int(number) + (half == 'decoder')}.{rest}"] = tensor
        for half, tensors in halves.items():
            save_file(tensors, tmp_path / f"taesd_{half}.safetensors")
    model = checkpoint.load(saved("sd1"), tiny=place)
    assert equal(model.tiny, theirs)
    assert type(model.vae).__name__ == "AutoencoderKL"


def test_it_changes_the_fingerprint_by_its_weights(saved, theirs, tmp_path):
    other = published()
    with torch.no_grad():
        other.decoder.layers[0].bias += 1
    found = set()
    for name, net in (("one", theirs), ("other", other)):
        net.save_pretrained(tmp_path / name)
        found.add(checkpoint.load(saved("sd1"), tiny=tmp_path / name).fingerprint)
    assert len(found) == 2


def test_one_that_is_given_goes_before_the_folders_own(whole, tmp_path):
    other = published(num_decoder_blocks=(2, 0))
    other.save_pretrained(tmp_path / "other")
    assert equal(checkpoint.load(whole, tiny=tmp_path / "other").tiny, other)


def test_converting_keeps_it_in_a_folder_and_leaves_it_out_of_a_file(whole, theirs, tmp_path):
    convert(whole, tmp_path / "folder", dtype=torch.float16)
    kept = checkpoint.load(tmp_path / "folder").tiny
    assert torch.equal(kept.decoder.layers[0].weight, theirs.decoder.layers[0].weight.half())
    convert(whole, tmp_path / "model.safetensors")
    assert not any("tiny" in name for name in weights.header(tmp_path / "model.safetensors").tensors)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_channels": 16}, "latents with 16 channels; the model's have 4"),
        (
            {
                "encoder_block_out_channels": (8, 8, 8),
                "decoder_block_out_channels": (8, 8, 8),
                "num_encoder_blocks": (1, 1, 1),
                "num_decoder_blocks": (1, 1, 1),
            },
            "latents with 4 pixels to a side; the model's have 2",
        ),
    ],
)
def test_one_for_other_latents_is_refused(saved, tmp_path, changes, said):
    published(**changes).save_pretrained(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(saved("sd1"), tiny=tmp_path / "tiny")


def test_what_is_no_tiny_autoencoder_is_refused_by_name(saved, tmp_path):
    save_file(autoencoder().state_dict(), tmp_path / "full.safetensors")
    (tmp_path / "empty").mkdir()
    for place, said in (
        (tmp_path / "full.safetensors", "holds a full autoencoder; a tiny one"),
        (saved("sd1") / "vae", "'AutoencoderKL' is not supported.*AutoencoderTiny"),
        (tmp_path / "absent", "there is no VAE"),
        (tmp_path / "empty", "config.json is missing"),
    ):
        with pytest.raises(CheckpointError, match=said):
            checkpoint.load(saved("sd1"), tiny=place)


def test_a_folder_whose_tiny_autoencoder_is_damaged_is_refused(saved, theirs, tmp_path):
    model = replace(checkpoint.load(saved("sd1")), tiny=None)
    checkpoint.save(model, tmp_path / "model")
    theirs.save_pretrained(tmp_path / "model" / "tiny_vae")
    (tmp_path / "model" / "tiny_vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="tiny_vae holds no weights"):
        checkpoint.load(tmp_path / "model")
    assert any("tiny_vae" in problem for problem in checkpoint.inspect(tmp_path / "model").problems)
