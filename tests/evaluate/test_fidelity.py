"""What an autoencoder loses, in closed form and as training's own figure has it."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sfumato.evaluate.fidelity import fidelity
from sfumato.train.objectives.autoencoder import psnr

PICTURES = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.mark.parametrize("levels", [1, 4, 20])
def test_an_error_of_so_many_levels_everywhere_gives_its_decibels(levels):
    pixels = ((PICTURES + 1) * 127.5).round() / 127.5 - 1
    found = fidelity([(pixels, pixels + levels / 127.5)])
    assert found.psnr == pytest.approx(20 * math.log10(255 / levels), abs=1e-3)
    assert 0 < found.ssim <= 1


def test_what_comes_back_as_it_was_is_as_good_as_rounding_lets_it_be():
    found = fidelity([(PICTURES, PICTURES)])
    assert found.psnr == pytest.approx(10 * math.log10(255**2 * 12), abs=1e-3)
    assert found.ssim == pytest.approx(1)


@pytest.mark.parametrize(("noise", "size"), [(0.02, 24), (0.5, 24), (0.2, 8)])
def test_both_are_those_of_torchmetrics(noise, size):
    x = PICTURES[..., :size]
    y = (x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    bytes_x, bytes_y = (((each + 1) * 127.5).round() for each in (x, y))
    found = fidelity([(x, y)])
    ratios = peak_signal_noise_ratio(bytes_y, bytes_x, data_range=255.0, dim=(1, 2, 3), reduction="none")
    assert found.psnr == pytest.approx(float(ratios.mean()), abs=1e-4)
    ssim = structural_similarity_index_measure(bytes_y, bytes_x, data_range=255.0)
    assert found.ssim == pytest.approx(float(ssim), abs=1e-5)


def test_it_does_not_matter_how_pictures_are_batched():
    back = PICTURES * 0.9
    whole = fidelity([(PICTURES, back)])
    parts = fidelity(zip(PICTURES.split(2), back.split(2), strict=True))
    assert parts.psnr == pytest.approx(whole.psnr, abs=1e-4)
    assert parts.ssim == pytest.approx(whole.ssim, abs=1e-5)


def test_it_is_the_figure_that_training_reports():
    class Fading:
        def encode(self, x):
            return type("Latent", (), {"mean": x})

        def decode(self, z):
            return z * 0.9

    assert fidelity([(PICTURES, PICTURES * 0.9)]).psnr == pytest.approx(psnr(Fading(), PICTURES), abs=1e-4)
