"""Circular convolutions: a network of a rolled picture gives its rolled answer."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets_families import ours_of

from sfumato.config import TinyVAEConfig, VAEConfig
from sfumato.nets.circular import circular, circular_axes, continued, padded, padded_behind
from sfumato.nets.inference import Conv, UpsampleConv, for_inference
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL

CPU = torch.device("cpu")


def rolled(x, axes, places):
    dims = [dim for axis, dim in (("y", 2), ("x", 3)) if axis in axes]
    return torch.roll(x, [places] * len(dims), dims)


def autoencoder():
    config = VAEConfig(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return AutoencoderKL(config)


def tiny_autoencoder():
    narrow = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(TinyVAEConfig(**narrow, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize("make", [autoencoder, tiny_autoencoder])
def test_autoencoders_of_a_rolled_picture_give_the_rolled_answer(make, axes, packed):
    torch.manual_seed(0)
    net = make().eval().requires_grad_(False)
    if packed:
        for_inference(net, CPU, torch.float32)
    x, z = torch.randn(1, 3, 16, 24), torch.randn(1, 4, 8, 12)
    with circular(axes):
        assert torch.allclose(net.decode(rolled(z, axes, 3)), rolled(net.decode(z), axes, 6), atol=1e-4)
        mean = net.encode(x).mean
        assert torch.allclose(net.encode(rolled(x, axes, 4)).mean, rolled(mean, axes, 2), atol=1e-4)
    assert not torch.allclose(net.decode(rolled(z, axes, 3)), rolled(net.decode(z), axes, 6), atol=1e-2)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_a_unet_of_a_rolled_latent_gives_the_rolled_answer(axes, packed):
    torch.manual_seed(0)
    net = ours_of("SD 1.5").eval().requires_grad_(False)
    if packed:
        for_inference(net, CPU, torch.float32)
    x, states = torch.randn(1, 4, 16, 24), torch.randn(1, 5, 24)
    t = torch.tensor([500.0])
    with circular(axes), torch.no_grad():
        whole = net(x, t, states)
        assert torch.allclose(net(rolled(x, axes, 8), t, states), rolled(whole, axes, 8), atol=1e-4)
    assert not torch.allclose(
        net(rolled(x, axes, 8), t, states), rolled(net(x, t, states), axes, 8), atol=1e-3
    )


@pytest.mark.parametrize("size", [None, (11, 14)])
def test_an_enlarging_convolution_is_that_of_the_enlarged_picture_padded_circularly(size):
    torch.manual_seed(0)
    layer, x = UpsampleConv(8, 8, 3, padding=1).requires_grad_(False), torch.randn(1, 8, 6, 7)
    large = torch.nn.functional.interpolate(x, size=size or (12, 14), mode="nearest")
    around = torch.nn.functional.pad(large, (1, 1, 1, 1), mode="circular")
    expected = torch.nn.functional.conv2d(around, layer.weight, layer.bias)
    for _ in range(2):
        with circular("xy"):
            assert torch.allclose(layer(x, size), expected, atol=1e-5)
        for_inference(layer, CPU, torch.float32)


def test_what_one_thread_says_another_does_not_hear():
    with circular("xy"), ThreadPoolExecutor(1) as pool:
        assert (circular_axes(), pool.submit(circular_axes).result()) == ("xy", "")
    assert circular_axes() == ""


def test_layers_without_padding_stay_as_they_are():
    layer, x = Conv(4, 4, 1), torch.randn(1, 4, 5, 5)
    with circular("xy"):
        assert torch.equal(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias))


def test_padding_is_that_of_the_opposite_edge_along_its_axes_alone():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    with circular("x"):
        found, left = padded(x, (1, 1))
        assert left == (1, 0)
        assert found[0, 0, 0].tolist() == [3, 0, 1, 2, 3, 0]
        assert padded_behind(x)[0, 0].tolist() == [
            [0, 1, 2, 3, 0],
            [4, 5, 6, 7, 4],
            [8, 9, 10, 11, 8],
            [0] * 5,
        ]
    assert continued(x, 1, "y")[0, 0, :, 0].tolist() == [8, 0, 4, 8, 0]
