"""The network that makes pictures larger: in tiles, at seams, and its files."""

import pytest
import torch
from torch.nn import functional as F

from sfumato import weights
from sfumato.errors import CheckpointError
from sfumato.nets.upscaler import Upscaler, UpscalerConfig, bordered, enlarged, load, save


@pytest.fixture(scope="module", params=[2, 3])
def net(request):
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig(scale=request.param, width=8, blocks=2)).eval().requires_grad_(False)


def picture(height=37, width=50, seed=1):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_adds_to_what_bicubic_interpolation_gives(net):
    x = picture()
    larger = F.interpolate(x, scale_factor=net.config.scale, mode="bicubic")
    assert net(x).shape == larger.shape
    assert not torch.allclose(net(x), larger, atol=1e-3)
    for parameter in (last := Upscaler(net.config)).conv_out.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(last(x), larger)


def test_a_place_depends_on_those_within_reach_and_on_no_other(net):
    x = picture(64, 64).requires_grad_()
    scale, middle = net.config.scale, 32
    net(x)[
        0, :, middle * scale : (middle + 1) * scale, middle * scale : (middle + 1) * scale
    ].sum().backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert (seen - middle).abs().max() == net.reach == 8


@pytest.mark.parametrize("tile", [16, 25, 256])
@pytest.mark.parametrize("seamless", ["", "x", "xy"])
def test_tiles_change_nothing(net, seamless, tile):
    x, reach, scale = picture(), net.reach, net.config.scale
    inner = slice(reach * scale, -reach * scale)
    whole = net(bordered(x, reach, seamless))[:, :, inner, inner]
    torch.testing.assert_close(enlarged(net, x, seamless, tile), whole, atol=1e-5, rtol=0)


def test_a_seamless_picture_that_is_rolled_is_enlarged_to_the_rolled_one(net):
    x, scale = picture(), net.config.scale
    rolled = enlarged(net, x.roll(11, 3), "x")
    torch.testing.assert_close(rolled, enlarged(net, x, "x").roll(11 * scale, 3), atol=1e-5, rtol=0)


def test_a_border_is_continued_or_read_at_the_opposite_edge():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert bordered(x, 1)[0, 0].tolist() == [
        [0, 0, 1, 2, 2],
        [0, 0, 1, 2, 2],
        [3, 3, 4, 5, 5],
        [3, 3, 4, 5, 5],
    ]
    assert bordered(x, 1, "x")[0, 0, 0].tolist() == [2, 0, 1, 2, 0]
    assert bordered(x, 1, "y")[0, 0, :, 1].tolist() == [3, 0, 3, 0]


def test_its_file_says_what_it_is_and_gives_it_back_in_half_precision(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save(net, path, trained_on="icons")
    assert weights.metadata(path)["trained_on"] == "icons"
    again = load(path)
    assert again.config == net.config
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float())
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_another_file_is_refused_with_the_way_to_make_one(net, tmp_path):
    path = tmp_path / "other.safetensors"
    for said in ({}, {"format": "sfumato.upscaler"}, {"format": "pt", "config": "{}"}):
        weights.write(path, net.state_dict(), said)
        with pytest.raises(CheckpointError, match=r"other.safetensors is no upscaler.*objective upscaler"):
            load(path)
