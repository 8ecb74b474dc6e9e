"""Which decoder makes the pixels: of a picture, of a preview, and of a picture drawn again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sfumato
from sfumato import checkpoint
from sfumato.cli import outcome
from sfumato.config import TinyVAEConfig
from sfumato.decoders import Decoders
from sfumato.errors import NumericsError, UsageError
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.options import DeviceOptions
from sfumato.studio import Studio

CPU = torch.device("cpu")
FAST = {"steps": 2, "width": 64, "height": 64, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


def tiny():
    torch.manual_seed(0)
    narrow = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (16,) * 4}
    config = TinyVAEConfig(**narrow, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1, 1, 1, 0))
    return AutoencoderTiny(config).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def model():
    """The embedded model with a tiny autoencoder, which has learned nothing."""
    return replace(checkpoint.load("embedded", dtype=torch.float32), tiny=tiny())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("decoders") / "model"
    checkpoint.save(model, place)
    return place


@pytest.fixture(scope="module")
def studio(folder):
    return sfumato.load(folder, device="cpu", dtype="float32")


def without(model, **options):
    return Studio(replace(model, tiny=None), device_options=DeviceOptions("cpu", "float32", **options))


def test_a_picture_is_decoded_by_the_full_decoder_unless_the_request_says_otherwise(studio, model):
    plain = studio.generate("a star", **FAST)
    assert plain.request.decoder == "full"
    assert plain.differs(without(model).generate("a star", **FAST)) is None


def test_a_request_for_the_tiny_decoder_gets_what_that_makes_of_the_same_latent(studio):
    *_, last = studio.stream("a star", decoder="tiny", **FAST)
    assert last.image.request.decoder == "tiny"
    with torch.inference_mode():
        pixels = tiny().decode(last._estimate)
    expected = (pixels[0] / 2 + 0.5).clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy().astype(int)
    assert np.abs(last.image.pixels.astype(int) - expected).max() <= 1
    assert last.image.differs(studio.generate("a star", **FAST))
    assert last.image.differs(studio.generate(last.image.request)) is None


def test_a_preview_is_decoded_by_the_tiny_decoder_where_there_is_one(studio, model):
    *_, last = studio.stream("a star", **FAST)
    assert last.preview().request.decoder == "tiny"
    assert last.preview().differs(last.preview(decoder="tiny")) is None
    assert last.preview(decoder="full").differs(last.image) is None
    assert last.preview(quick=True).size == (8, 8)
    *_, alone = without(model).stream("a star", **FAST)
    assert alone.preview().differs(alone.image) is None


def test_a_tiny_decoder_that_is_not_there_is_an_error_that_says_how_to_have_one(model):
    alone = without(model)
    for draw in (
        lambda: alone.generate("a star", decoder="tiny", **FAST),
        lambda: next(alone.stream("a star", **FAST)).preview(decoder="tiny"),
    ):
        with pytest.raises(UsageError, match=r"embedded has no tiny decoder.*tiny=PATH.*--tiny PATH"):
            draw()


def test_an_unknown_decoder_is_an_error_that_names_those_there_are(studio):
    with pytest.raises(UsageError, match="decoder is 'small': must be 'full' or 'tiny'"):
        studio.generate("a star", decoder="small", **FAST)


def test_one_given_with_the_model_is_recorded_where_it_was_used(folder):
    given = sfumato.load(device="cpu", dtype="float32", tiny=folder)
    assert given.generate("a star", decoder="tiny", **FAST).request.tiny == str(folder)
    assert given.generate("a star", **FAST).request.tiny is None


def test_tiles_hold_for_the_tiny_decoder_too(model):
    latent = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    whole, tiled = (Decoders(model, CPU, torch.float32, DeviceOptions(tile=tile)) for tile in (None, 16))
    with torch.inference_mode():
        expected = model.tiny.decode_tiled(latent, 16, 4)
        torch.testing.assert_close(tiled.decode(latent, "tiny"), expected, atol=1e-5, rtol=0)
        assert not torch.equal(whole.decode(latent, "tiny"), expected)


@torch.inference_mode()
def test_a_tiny_decoder_that_overflows_is_asked_again_in_float32(model):
    wild = replace(model, tiny=tiny())
    wild.tiny.decoder.layers[0].weight.mul_(3e5)
    decoders = Decoders(wild, CPU, torch.float16)
    assert decoders.decode(torch.ones(1, 4, 2, 2), "tiny").dtype == torch.float32
    wild.tiny.decoder.layers[-1].bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match=r"not finite, in torch\.float16 and in float32"):
        decoders.decode(torch.ones(1, 4, 2, 2), "tiny")


def test_a_picture_of_the_tiny_decoder_replays_as_identical(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    size = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "7", "-q")
    for name, more in (
        ("own.png", ("--model", folder, "--decoder", "tiny")),
        ("given.png", ("--tiny", folder, "--decoder", "tiny")),
    ):
        words = ["generate", "a star", "-o", name, *size, *map(str, more)]
        assert outcome.run(words) == 0
        assert outcome.run(["replay", name]) == 0
        assert capfd.readouterr().out == f"{name}\nidentical: {name}\n"
