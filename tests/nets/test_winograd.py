"""Winograd's convolution, beside the direct one in float64."""

import pytest
import torch
from torch.nn import functional as F

from sfumato.nets import compiled, winograd
from sfumato.nets.inference import Conv, for_inference
from sfumato.nets.winograd import WinogradConv, winograd_conv, winograd_weight

pytestmark = pytest.mark.skipif(
    compiled.library() is None, reason="needs a C++ compiler when Sfumato is installed: apt-get install g++"
)
CPU = torch.device("cpu")


def picture(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def furthest(answer, expected):
    return ((answer.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("at_once", [1 << 17, 1])  # all tiles at once, and a few at a time
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (1, 0)])
@pytest.mark.parametrize(
    "shape", [(1, 16, 4, 4, 16), (2, 32, 9, 7, 48), (3, 16, 3, 11, 32), (5, 160, 9, 8, 96), (1, 64, 3, 3, 16)]
)
@torch.inference_mode()
def test_it_is_as_exact_as_float32_allows(shape, padding, at_once, monkeypatch):
    monkeypatch.setattr(winograd, "AT_ONCE", at_once)
    batch, read, height, width, written = shape
    x, weight = picture(batch, read, height, width), picture(written, read, 3, 3, seed=1)
    bias, rows = picture(1, written, seed=2), picture(batch, written, seed=3)
    direct = F.conv2d(x.double(), weight.double(), bias[0].double(), padding=padding)
    add = picture(*direct.shape, seed=4)
    points = winograd_weight(weight)
    answer = winograd_conv(x, points, bias, padding)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    assert furthest(answer, direct) <= 2.0**-19
    shifted = direct - bias[0].double().view(1, -1, 1, 1) + rows.double()[:, :, None, None]
    assert furthest(winograd_conv(x, points, rows, padding), shifted) <= 2.0**-19
    assert furthest(winograd_conv(x, points, bias, padding, add), direct + add) <= 2.0**-19
    assert furthest(winograd_conv(x, points, bias, padding, add, True), (direct + add).relu()) <= 2.0**-19


@torch.inference_mode()
def test_numbers_that_are_not_finite_show_in_the_answer():
    x, bias = picture(1, 16, 6, 6), torch.zeros(1, 16)
    x[0, 3, 2, 2] = torch.nan
    answer = winograd_conv(x, winograd_weight(picture(16, 16, 3, 3, seed=1)), bias, (1, 1), None, True)
    assert answer[0, :, 2, 2].isnan().all()


@torch.inference_mode()
def test_a_layer_takes_it_for_the_shapes_that_it_is_faster_for_and_keeps_its_weight_bit_for_bit():
    torch.manual_seed(0)
    conv = Conv(64, 64, 3, padding=1)
    weight = conv.weight.detach().clone()
    expected = {}
    sizes = [(1, 16, 16), (1, 4, 4), (2, 16, 12), (1, 4, 4), (1, 16, 16)]
    for size in set(sizes):
        expected[size] = conv(picture(size[0], 64, *size[1:])).double()
    for_inference(conv, CPU, torch.float32)
    for size in sizes:
        assert furthest(conv(picture(size[0], 64, *size[1:])), expected[size]) <= 2.0**-18
        assert conv.by_winograd == (size != (1, 4, 4))
        assert torch.equal(conv.state_dict()["weight"], weight)
    assert torch.equal(conv.plain_weight(), weight)
    conv.unpack()
    assert torch.equal(conv.weight, weight)


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (Conv(64, 64, 3, stride=2, padding=1), torch.float32),
        (Conv(64, 64, 1), torch.float32),
        (Conv(4, 64, 3, padding=1), torch.float32),
        (Conv(64, 64, 3, padding=1), torch.bfloat16),
    ],
)
@torch.inference_mode()
def test_other_layers_are_computed_directly(layer, dtype):
    x = picture(1, layer.in_channels, 16, 16).to(dtype)
    for_inference(layer, CPU, dtype)
    layer(x)
    assert not layer.by_winograd


@torch.inference_mode()
def test_without_a_bias_none_is_added():
    torch.manual_seed(0)
    conv = Conv(64, 64, 3, padding=1, bias=False)
    x = picture(1, 64, 16, 16)
    direct = F.conv2d(x.double(), conv.weight.double(), padding=1)
    for_inference(conv, CPU, torch.float32)
    assert furthest(conv(x), direct) <= 2.0**-19
    assert conv.by_winograd


PRECISIONS = torch.float32, torch.float64
GEOMETRIES = [((2, 64, 9, 7, 96), (1, 1)), ((3, 128, 8, 8, 64), (0, 0)), ((1, 64, 16, 12, 80), (1, 0))]


@pytest.mark.parametrize("at_once", [1 << 17, 1])
@pytest.mark.parametrize(("shape", "padding"), GEOMETRIES)
def test_its_gradients_are_as_exact_as_float32_allows(shape, padding, at_once, monkeypatch):
    monkeypatch.setattr(winograd, "AT_ONCE", at_once)
    batch, read, height, width, written = shape
    given = [picture(batch, read, height, width), picture(written, read, 3, 3, seed=1)]
    given.append(picture(1, written, seed=2)[0])
    own, exact = (
        [each.to(dtype).detach().clone().requires_grad_() for each in given] for dtype in PRECISIONS
    )
    direct = F.conv2d(*exact, padding=padding)
    wanted = picture(*direct.shape, seed=3)
    answer = WinogradConv.apply(*own, padding)
    assert furthest(answer.detach(), direct.detach()) <= 2.0**-19
    # also gradients that lie in memory otherwise
    answer.backward(wanted.contiguous())
    direct.backward(wanted.double())
    for mine, theirs in zip(own, exact, strict=True):
        assert furthest(mine.grad, theirs.grad) <= 2.0**-18


def gradients_of(conv, x):
    """Of its weight and bias, as far as they learn, and of the picture."""
    x = x.clone().requires_grad_()
    conv(x).square().sum().backward()
    return {name: each.grad for name, each in conv.named_parameters()} | {"x": x.grad}


@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("weight", "bias")])
def test_a_layer_that_learns_has_the_gradients_of_torchs(frozen, monkeypatch):
    torch.manual_seed(0)
    conv, x = Conv(64, 80, 3, padding=1), picture(2, 64, 12, 10)
    for name in frozen:
        getattr(conv, name).requires_grad_(False)
    applied, own = [], WinogradConv.apply
    monkeypatch.setattr(WinogradConv, "apply", lambda *given: applied.append(True) or own(*given))
    found = gradients_of(conv, x)
    assert applied == [True]
    conv.zero_grad()
    monkeypatch.setattr(WinogradConv, "applies", lambda *_: False)
    for name, expected in gradients_of(conv, x).items():
        assert (expected is None) == (found[name] is None) == (name in frozen)
        assert expected is None or furthest(found[name], expected.double()) <= 2.0**-17
    assert applied == [True]


def test_the_picture_is_not_kept_for_a_frozen_weight():
    kept = []
    conv, x = Conv(64, 64, 3, padding=1).requires_grad_(False), picture(1, 64, 12, 12).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.shape), lambda each: each):
        conv(x)
    assert kept == [conv.weight.shape]


@pytest.mark.parametrize("why", ["autocast", "no gradients", "few channels"])
def test_a_layer_that_learns_is_torchs_where_that_is_the_faster_or_the_only_way(why, monkeypatch):
    channels = 48 if why == "few channels" else 64
    conv, x = Conv(channels, 64, 3, padding=1), picture(1, channels, 12, 12)
    monkeypatch.setattr(WinogradConv, "apply", None)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        if why == "no gradients":
            conv.requires_grad_(False)
        assert conv(x).shape == (1, 64, 12, 12)
