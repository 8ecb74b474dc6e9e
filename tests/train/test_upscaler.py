"""The upscaler's objective: the pairs that it learns from, its loss, and the file that a recipe leaves."""

import pytest
import torch
from making import made

from sfumato.errors import UsageError
from sfumato.nets import upscaler
from sfumato.nets.upscaler import Upscaler, UpscalerConfig
from sfumato.studio.enlarging import EMBEDDED_UPSCALER
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.autoencoder import reconstruction_loss
from sfumato.train.objectives.upscaler import (
    RESULT,
    UpscalerLoss,
    degraded,
    enlarging_psnr,
    reduced,
)

CPU = torch.device("cpu")


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pictures():
    return torch.rand(4, 3, 24, 32, generator=generator()) * 2 - 1


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_what_is_reduced_keeps_its_mean(pictures, mode):
    flat = pictures.mean((2, 3), keepdim=True).expand_as(pictures)
    assert torch.allclose(reduced(flat, 2, mode), flat[..., ::2, ::2], atol=1e-5)
    assert reduced(pictures, 2, mode).shape == (4, 3, 12, 16)


def test_a_degraded_picture_has_the_values_of_a_file_and_is_near_the_reduced_one(pictures):
    smooth = torch.nn.functional.avg_pool2d(pictures, 9, 1, 4)
    small = degraded(smooth, 2, generator())
    assert torch.allclose((small + 1) * 127.5, ((small + 1) * 127.5).round(), atol=1e-3)
    assert (small - reduced(smooth, 2)).abs().mean() < 0.05
    assert not torch.equal(small, degraded(smooth, 2, torch.Generator().manual_seed(1)))


def test_an_upscaler_that_adds_nothing_is_bicubic_and_has_its_loss(pictures):
    net = Upscaler(UpscalerConfig(width=8, blocks=1))
    for last in net.conv_out.parameters():
        torch.nn.init.zeros_(last)
    small = degraded(pictures, 2, generator())
    y = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic")
    assert torch.allclose(net(small), y)
    loss, metrics = UpscalerLoss(net)(pictures, generator())
    mse = ((y - pictures) ** 2).mean((1, 2, 3))
    assert torch.allclose(loss, reconstruction_loss(y, pictures, mse))
    assert metrics["mse"].item() == pytest.approx(mse.mean().item())


def test_a_recipe_leaves_an_upscaler_that_is_read_again(tiny_data, tmp_path):
    recipe = made(
        "upscaler", folder=str(tiny_data), run=str(tmp_path / "run"), start="scratch", steps=3, batch_size=4,
        warmup_steps=1, ema_decays=(0.5,), crop_size=16, precision="float32",
        network={"width": 8, "blocks": 1},
    )  # fmt: skip
    result = train(task(recipe, CPU), recipe, CPU)
    net = upscaler.load(tmp_path / "run" / RESULT)
    assert net.config == UpscalerConfig(width=8, blocks=1)
    assert {name.rsplit("_", 2)[1] for name in result.metrics} == {"network", "lanczos"}
    assert "3 steps of 4 crops of 16 pixels" in str(upscaler.weights.metadata(tmp_path / "run" / RESULT))
    assert recipe.objective.usage(recipe)[-1] == str(tmp_path / "run" / RESULT)


def test_its_recipe_starts_from_scratch():
    with pytest.raises(UsageError, match="start is 'base': must be 'scratch'"):
        made("upscaler", folder="-", run="-", start="base")


def test_the_shipped_upscaler_is_small_and_sharper_than_lanczos():
    assert EMBEDDED_UPSCALER.stat().st_size < 2 << 20
    net = upscaler.load(EMBEDDED_UPSCALER)
    assert net.config.scale == 2
    # discs of flat colours, which no training saw, with edges smoothed as a renderer would
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    discs = []
    for radius, colour in ((30, (1.0, -0.5, 0.2)), (70, (-0.8, 0.1, 0.9)), (100, (-1.0, -1.0, -1.0))):
        inside = ((radius + 0.5 - ((x - 120) ** 2 + (y - 131) ** 2).sqrt()).clamp(0, 1))[None, None]
        discs.append(1 + inside * (torch.tensor(colour).view(1, 3, 1, 1) - 1))
    found = enlarging_psnr(net, torch.cat(discs))
    assert found["network_area"] > found["lanczos_area"] + 3
    assert found["network_bicubic"] > found["lanczos_bicubic"] + 3
