"""The autoencoder's objective: what it measures, and that folding statistics in changes no picture."""

from dataclasses import replace

import pytest
import torch

from sfumato.config import VAEConfig
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.objectives.autoencoder import (
    LOG_VARIANCE_OFFSET,
    AutoencoderLoss,
    border_loss,
    latent_statistics,
    normalise_latents,
    psnr,
    reduce_initial_variance,
)

CONFIG = VAEConfig(
    block_out_channels=(8, 8),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
    mid_block_add_attention=False,
)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(CONFIG).requires_grad_(False).eval()


@pytest.fixture
def pictures():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_folded_latents_are_centred_and_of_unit_deviation(vae, pictures):
    normalise_latents(vae, *latent_statistics(vae, pictures))
    mean, std = latent_statistics(vae, pictures)
    torch.testing.assert_close(mean, torch.zeros(4).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(4).double(), atol=1e-5, rtol=0)


def test_folding_changes_neither_the_picture_nor_what_the_latent_distribution_is(vae, pictures):
    before, picture = vae.encode(pictures), vae.decode(vae.encode(pictures).mean)
    mean, std = latent_statistics(vae, pictures)
    normalise_latents(vae, mean, std)
    after = vae.encode(pictures)
    torch.testing.assert_close(vae.decode(after.mean), picture, atol=1e-4, rtol=0)
    spread = torch.exp(0.5 * before.logvar) / std.float().view(1, -1, 1, 1)
    torch.testing.assert_close(torch.exp(0.5 * after.logvar), spread, atol=1e-5, rtol=1e-4)


def test_an_autoencoder_without_a_place_for_the_shift_is_refused():
    vae = AutoencoderKL(
        VAEConfig(
            block_out_channels=(8,), norm_num_groups=4, mid_block_add_attention=False, use_quant_conv=False
        )
    )
    with pytest.raises(ValueError, match="nowhere to put a shift"):
        normalise_latents(vae, torch.zeros(4), torch.ones(4))


def test_a_picture_off_by_one_byte_everywhere_has_the_psnr_of_the_closed_form(pictures):
    class Off:
        def encode(self, x):
            return type("Latent", (), {"mean": x})

        def decode(self, z):
            return z + 2 / 255

    whole = torch.full((3, 3, 8, 8), -0.5)
    assert psnr(Off(), whole) == pytest.approx(48.1308, abs=1e-3)


def test_with_only_the_decoder_trained_the_encoder_gets_no_gradient(vae, pictures):
    vae.requires_grad_(True)
    losses, _ = AutoencoderLoss(vae, kl_weight=0.1, decoder_only=True)(pictures, torch.Generator())
    losses.sum().backward()
    assert all(weight.grad is None for weight in vae.encoder.parameters())
    assert all(weight.grad is not None for weight in vae.decoder.parameters())


def test_the_divergence_is_that_of_the_closed_form(vae, pictures):
    latent = vae.encode(pictures)
    normal = torch.distributions.Normal(latent.mean, torch.exp(0.5 * latent.logvar))
    known = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    _, metrics = AutoencoderLoss(vae, kl_weight=1.0)(pictures, torch.Generator().manual_seed(0))
    torch.testing.assert_close(metrics["kl"], known, rtol=1e-4, atol=1e-5)


def test_an_autoencoder_that_knows_nothing_puts_little_noise_into_its_latents(pictures):
    for with_last_layer in (True, False):
        vae = AutoencoderKL(replace(CONFIG, use_quant_conv=with_last_layer)).requires_grad_(False)
        before = vae.encode(pictures)
        reduce_initial_variance(vae)
        after = vae.encode(pictures)
        assert torch.equal(after.mean, before.mean)
        assert torch.allclose(after.logvar, before.logvar - LOG_VARIANCE_OFFSET, atol=1e-5)


@pytest.mark.parametrize("width", [1, 4])
def test_the_border_loss_is_that_of_the_outermost_pixels_of_two_widths_and_of_the_corners_once_more(width):
    """A term is the share of its pixels that are 1 off."""
    x = torch.zeros(1, 3, 32, 24)
    y = x.clone()
    y[..., 4:-4, 4:-4] = 5
    assert border_loss(y, x) == 0
    y = x.clone()
    y[..., :width, :] = 1
    due = 0.0
    for counted in (4, 1):
        rows = corners = min(width / counted, 1) / 2
        due += rows + width / 32 + corners
    assert float(border_loss(y, x)) == pytest.approx(due)
    y = x.clone()
    y[..., 0, 0] = 1
    of_four = 1 / (8 * 24) + 1 / (32 * 8) + 1 / 64
    assert float(border_loss(y, x)) == pytest.approx(of_four + 1 / (2 * 24) + 1 / (32 * 2) + 1 / 4)


def test_the_border_weighs_in_the_loss_as_much_as_it_is_told(vae, pictures):
    plain, _ = AutoencoderLoss(vae, kl_weight=0, decoder_only=True)(pictures, torch.Generator())
    more, _ = AutoencoderLoss(vae, kl_weight=0, decoder_only=True, border_weight=2)(
        pictures, torch.Generator()
    )
    y = vae.decode(vae.encode(pictures).mean)
    torch.testing.assert_close(more - plain, 2 * border_loss(y, pictures))
