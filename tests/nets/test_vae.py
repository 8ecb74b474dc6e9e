"""The autoencoders against diffusers, live, and in tiles against whole."""

from itertools import pairwise

import diffusers
import pytest
import torch
from nets_families import NARROW_VAES, PUBLISHED_VAES, assert_close, norms, published, shapes, stirred

from sfumato.config import TinyVAEConfig, VAEConfig
from sfumato.nets.inference import for_inference
from sfumato.nets.tiling import spans, tiled
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL

TINY = {
    "encoder_block_out_channels": [8] * 4,
    "decoder_block_out_channels": [12] * 4,
    "num_encoder_blocks": [1, 2, 1, 2],
    "num_decoder_blocks": [2, 1, 2, 1],
}


def pair(family):
    torch.manual_seed(0)
    theirs = stirred(diffusers.AutoencoderKL(**NARROW_VAES[family]))
    ours = AutoencoderKL(VAEConfig.from_dict(NARROW_VAES[family], family)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tiny_pair(config=TINY):
    torch.manual_seed(0)
    theirs = stirred(diffusers.AutoencoderTiny(**config))
    ours = AutoencoderTiny(TinyVAEConfig.from_dict(config, "tiny")).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", PUBLISHED_VAES)
def test_published_vae_has_the_keys_and_shapes_of_diffusers(family):
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKL(**PUBLISHED_VAES[family])
        ours = AutoencoderKL(VAEConfig.from_dict(PUBLISHED_VAES[family], family))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


@pytest.mark.parametrize("size", [(16, 16), (25, 35)])
@pytest.mark.parametrize("family", NARROW_VAES)
def test_encoding_equals_diffusers(family, size):
    ours, theirs = pair(family)
    x = randn(2, 3, *size)
    with torch.no_grad():
        mine, other = ours.encode(x), theirs.encode(x).latent_dist
    assert_close(mine.mean, other.mean)
    assert_close(mine.logvar, other.logvar)
    noise = randn(*mine.mean.shape)
    assert_close(mine.sample(noise), other.mean + other.std * noise)


def test_the_log_variance_stays_within_minus_30_and_20_as_in_diffusers():
    ours, theirs = pair("SD")
    with torch.no_grad():
        for vae in (ours, theirs):
            vae.quant_conv.weight.zero_()
            vae.quant_conv.bias.copy_(torch.tensor([0.0, 0, 0, 0, -1000, -29, 19, 1000]))
        x = randn(1, 3, 16, 16)
        mine, other = ours.encode(x), theirs.encode(x).latent_dist
    assert mine.logvar[0, :, 0, 0].tolist() == [-30, -29, 19, 20]
    assert_close(mine.logvar, other.logvar)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize("family", NARROW_VAES)
def test_decoding_equals_diffusers(family, size):
    ours, theirs = pair(family)
    z = randn(2, ours.config.latent_channels, *size)
    with torch.no_grad():
        assert_close(ours.decode(z), theirs.decode(z).sample)


@pytest.mark.parametrize("family", NARROW_VAES)
def test_saved_configuration_rebuilds_the_autoencoder_in_diffusers(family):
    ours, theirs = pair(family)
    again = diffusers.AutoencoderKL.from_config(ours.config.to_dict())
    assert shapes(again) == shapes(theirs)
    assert published(again.config) == published(theirs.config)


def test_latents_are_scaled_as_their_configuration_says():
    def vae(**values):
        return AutoencoderKL(VAEConfig(block_out_channels=(32,), **values))

    z = randn(1, 4, 2, 2)
    assert_close(vae(scaling_factor=0.5).scale(z), 0.5 * z)
    assert_close(vae(scaling_factor=0.5, shift_factor=2.0).scale(z), 0.5 * (z - 2))
    normed = vae(scaling_factor=0.5, latents_mean=(1.0, 2.0, 3.0, 4.0), latents_std=(2.0,) * 4)
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    assert_close(normed.scale(z), (z - mean) * 0.5 / 2)
    for model in (vae(), vae(shift_factor=2.0), normed):
        assert_close(model.unscale(model.scale(z)), z)


def test_every_parameter_of_the_autoencoder_learns():
    ours, _ = pair("SD")
    latents = ours.encode(randn(1, 3, 16, 16))
    ours.decode(latents.sample(randn(*latents.mean.shape))).square().mean().backward()
    still = {name for name, parameter in ours.named_parameters() if not parameter.grad.abs().max() > 0}
    assert still == set()


def test_autoencoder_runs_in_bfloat16_close_to_float32():
    ours, _ = pair("SD")
    z = randn(2, 4, 4, 4)
    with torch.no_grad():
        exact = ours.decode(z)
        rough = ours.to(torch.bfloat16).decode(z.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert_close(rough.float(), exact, 0.1)


@pytest.mark.parametrize("config", [{}, TINY], ids=["as published", "narrow"])
def test_tiny_autoencoder_equals_diffusers(config):
    ours, theirs = tiny_pair(config)
    assert shapes(ours) == shapes(theirs)
    x, z = randn(2, 3, 19, 33), 4 * randn(2, 4, 3, 5)
    with torch.no_grad():
        mine = ours.encode(x)
        assert_close(mine.mean, theirs.encode(x).latents)
        assert_close(ours.decode(z), theirs.decode(z).sample)
    assert mine.sample(randn(*mine.mean.shape)).equal(mine.mean)
    assert ours.unscale(ours.scale(z)).equal(z)
    again = diffusers.AutoencoderTiny.from_config(ours.config.to_dict())
    assert shapes(again) == shapes(theirs)


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 1, 1, 0)])
def test_tiny_autoencoder_made_ready_to_draw_equals_diffusers(blocks):
    ours, theirs = tiny_pair({**TINY, "num_decoder_blocks": blocks})
    for_inference(ours, torch.device("cpu"), torch.float32)
    x, z = randn(2, 3, 24, 32), randn(2, 4, 3, 5)
    with torch.no_grad():
        assert_close(ours.encode(x).mean, theirs.encode(x).latents)
        assert_close(ours.decode(z), theirs.decode(z).sample)
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())


@pytest.mark.parametrize("make", [lambda: pair("of two levels")[0], lambda: tiny_pair()[0]])
def test_one_tile_that_covers_all_is_the_whole(make):
    vae = make()
    factor = vae.config.factor
    x, z = randn(1, 3, 5 * factor, 8 * factor), randn(1, 4, 5, 8)
    with torch.no_grad():
        assert vae.decode_tiled(z, tile=8, overlap=2).equal(vae.decode(z))
        assert vae.encode_tiled(x, tile=8, overlap=2).mean.equal(vae.encode(x).mean)


def test_tiles_of_a_network_that_looks_no_further_than_they_overlap_equal_the_whole():
    narrow = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    config = TinyVAEConfig(**narrow, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    torch.manual_seed(0)
    ours = stirred(AutoencoderTiny(config))
    x, z = randn(2, 3, 2 * 60, 2 * 70), randn(2, 4, 60, 70)
    with torch.no_grad():
        # 28 / 4 latents at a tile's edge count for nothing, and the network looks 6.5 latents around
        assert_close(ours.decode_tiled(z, tile=40, overlap=28), ours.decode(z), 1e-5)
        assert_close(ours.encode_tiled(x, tile=40, overlap=28).mean, ours.encode(x).mean, 1e-5)


def test_tiles_of_a_pointwise_network_equal_the_whole_without_a_seam():
    x = randn(2, 3, 30, 17).double()
    assert_close(tiled(lambda part: 3 * part, x, 7, 3), 3 * x, 1e-6)
    grown = tiled(lambda part: part.repeat_interleave(2, 2).repeat_interleave(2, 3), x, 7, 3, grow=2)
    assert_close(grown, x.repeat_interleave(2, 2).repeat_interleave(2, 3), 1e-6)
    shrunk = tiled(lambda part: part[:, :, ::2, ::2], x[:, :, :, :16], 5, 2, shrink=2)
    assert_close(shrunk, x[:, :, ::2, :16:2], 1e-6)


@pytest.mark.parametrize("size", [9, 10, 11, 17, 64, 65, 300])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 7), (10, 3)])
def test_tiles_cover_a_side_with_at_least_the_overlap(size, tile, overlap):
    found = spans(size, tile, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == size
    assert all(end - start == min(tile, size) for start, end in found)
    for (_, end), (start, _) in pairwise(found):
        assert end - start >= overlap


def test_impossible_tiles_are_refused():
    ours, _ = pair("of two levels")
    with pytest.raises(ValueError, match="an overlap of 4 must be at least 0 and less than the tile's 4"):
        ours.decode_tiled(randn(1, 4, 8, 8), tile=4, overlap=4)
    with pytest.raises(ValueError, match="multiples of 2"):
        ours.encode_tiled(randn(1, 3, 9, 8), tile=2, overlap=1)
