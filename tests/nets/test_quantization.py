"""Weights and activations in int8, beside the same sums of whole numbers taken exactly."""

import pytest
import torch
from torch.nn import functional as F

from sfumato import devices
from sfumato.nets import compiled, quantization
from sfumato.nets.inference import (
    Conv,
    GEGLULinear,
    Linear,
    Prepacked,
    UpsampleConv,
    for_inference,
    input_of,
    unpacked,
)
from sfumato.nets.quantization import int8_weight, quantized

CPU = torch.device("cpu")


needs_int8 = pytest.mark.skipif(not devices.cpu_has_int8(), reason="needs a CPU with VNNI or AMX")
DTYPES = [torch.float32, torch.bfloat16]
EXACT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""How far an answer may be from the exact sums, of the largest one."""


@pytest.fixture(params=["compiled", "torch"])
def either(request, monkeypatch):
    """Activations are made int8 by the compiled function, and without one."""
    if request.param == "torch":
        monkeypatch.setattr(quantization, "library", lambda: None)
    elif compiled.library() is None:
        pytest.skip("needs a C++ compiler when Sfumato is installed: apt-get install g++")


def picture(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([3.0**row for row in range(shape[0])]).view(-1, *[1] * (len(shape) - 1))
    x = (rows * (torch.randn(*shape, generator=generator) + 0.5)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def restored(x):
    """What the int8 activations of `x` stand for, in float64."""
    each = [-1, *[1] * (x.dim() - 1)]
    made = quantized(x)
    scales, zeros = (torch.tensor(one, dtype=torch.float64) for one in (made.scales, made.zero_points))
    return (made.values.double() - zeros.view(each)) * scales.view(each)


def exact_weight(layer):
    values, scales, _ = int8_weight(layer.weight.data)
    return values.double() * scales.double().view(-1, *[1] * (values.dim() - 1))


def packed(layer, dtype):
    layer = layer.to(dtype).requires_grad_(False)
    exact = exact_weight(layer)
    layer.quantized = True
    layer.pack()
    return layer, exact


def furthest(answer, expected):
    return ((answer.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (3, 64, 9, 7), (2, 320, 40, 40), (2, 50, 96), (2, 5, 3)])
def test_a_number_is_at_most_half_a_step_from_its_int8(shape, dtype, either):
    x = picture(*shape, dtype=dtype)
    made = quantized(x)
    steps = torch.tensor(made.scales).view(-1, *[1] * (x.dim() - 1))
    assert ((restored(x) - x.double()).abs() <= 0.5001 * steps).all()
    # the range is used whole
    for row in made.values.flatten(1):
        assert row.max() - row.min() >= 254 or len(row) < 1000


def test_zero_is_told_exactly_and_a_row_does_not_see_the_others(either):
    x = picture(2, 32, 6, 6)
    x[0] = x[0].abs() + 1  # all of one row is above 0, so that 0 is its lowest
    x[1, 0] = 0
    made = quantized(x)
    assert made.zero_points[0] == 0
    assert (restored(x)[1, 0] == 0).all()
    alone = quantized(x[1:])
    assert (alone.scales, alone.zero_points) == (made.scales[1:], made.zero_points[1:])
    assert torch.equal(alone.values, made.values[1:])


def test_a_row_of_zeros_stays_one(either):
    assert (restored(torch.zeros(1, 32, 4, 4)) == 0).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@needs_int8
def test_what_is_no_number_shows_in_the_answer_of_its_row_alone(wrong, either):
    conv, _ = packed(Conv(32, 32, 3, padding=1), torch.float32)
    x = picture(2, 32, 8, 8)
    x[1, 3, 2, 1] = wrong
    answer = conv(x)
    assert answer[0].isfinite().all()
    assert not answer[1].isfinite().any()


def test_a_weight_has_a_scale_for_each_channel_and_no_channel_is_rounded_by_more_than_half_of_it():
    weight = picture(5, 32, 3, 3, seed=2)
    weight[4] = 0
    values, scales, zeros = int8_weight(weight)
    assert values.abs().amax((1, 2, 3)).tolist() == [127, 127, 127, 127, 0]
    assert not zeros.any()
    each = scales.view(-1, 1, 1, 1)
    assert ((values * each - weight).abs() <= 0.5001 * each).all()


@needs_int8
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [(3, 1, 1, 64), (1, 1, 0, 96), (3, 2, 1, 32), (3, 2, 0, 32), (3, 1, 1, 320)],
)
@pytest.mark.parametrize(
    "more", [(), ("add",), ("shift",), ("shared",), ("add", "shift"), ("add", "relu"), ("relu",)]
)
@torch.inference_mode()
def test_a_convolution_sums_the_int8_numbers_exactly(kernel, stride, padding, channels, dtype, more):
    torch.manual_seed(1)
    conv, weight = packed(Conv(channels, 64, kernel, stride=stride, padding=padding), dtype)
    x = picture(2, channels, 9, 8, dtype=dtype)
    expected = F.conv2d(restored(x), weight, conv.bias.double(), stride, padding)
    given = {}
    if "add" in more:
        given["add"] = picture(*expected.shape, dtype=dtype, seed=3)
        expected = expected + given["add"]
    if "shift" in more or "shared" in more:
        given["shift"] = picture(2 if "shift" in more else 1, 64, dtype=dtype, seed=4)
        expected = expected + given["shift"][:, :, None, None]
    if "relu" in more:
        given["relu"], expected = True, expected.relu()
    answer = conv(x, **given)
    assert (answer.dtype, answer.shape) == (dtype, expected.shape)
    assert furthest(answer, expected) <= EXACT[dtype]


@needs_int8
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_a_matrix_sums_the_int8_numbers_exactly(dtype):
    torch.manual_seed(1)
    linear, weight = packed(Linear(64, 96), dtype)
    x, add = picture(2, 50, 64, dtype=dtype), picture(2, 50, 96, dtype=dtype, seed=3)
    expected = restored(x) @ weight.T + linear.bias.double()
    assert furthest(linear(x), expected) <= EXACT[dtype]
    assert furthest(linear(x, add), expected + add) <= EXACT[dtype]
    plain, weight = packed(Linear(64, 96, bias=False), dtype)
    assert furthest(plain(x), restored(x) @ weight.T) <= EXACT[dtype]


@needs_int8
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_a_gated_layer_sums_the_int8_numbers_exactly(dtype):
    torch.manual_seed(1)
    layer, weight = packed(GEGLULinear(64, 192), dtype)
    x = picture(2, 50, 64, dtype=dtype)
    value, gate = (restored(x) @ weight.T + layer.bias.double()).chunk(2, dim=-1)
    assert furthest(layer(x), value * F.gelu(gate)) <= EXACT[dtype]


@needs_int8
@torch.inference_mode()
def test_layers_that_read_the_same_share_its_int8_and_other_shapes_are_multiplied_as_they_are():
    torch.manual_seed(1)
    (one, _), (other, _) = (packed(Linear(64, 64), torch.float32) for _ in range(2))
    x = picture(2, 50, 64)
    shared = input_of(x, one, other)
    assert torch.equal(one(shared), one(x))
    other.unpack()
    assert input_of(x, one, other) is x
    # as of attention over time: a row of few places for each place of a picture
    short = picture(4, 3, 64)
    assert torch.allclose(one(short), F.linear(short, one.weight, one.bias), atol=1e-3)


@needs_int8
@torch.inference_mode()
def test_a_row_has_the_same_answer_whatever_else_is_in_the_batch():
    torch.manual_seed(1)
    conv, _ = packed(Conv(64, 64, 3, padding=1), torch.float32)
    x = picture(3, 64, 16, 16)
    assert torch.allclose(conv(x)[1:2], conv(x[1:2]), rtol=1e-6, atol=1e-6)


@needs_int8
@torch.inference_mode()
def test_a_size_met_later_and_padding_round_the_edges_change_nothing():
    torch.manual_seed(1)
    conv, weight = packed(Conv(64, 64, 3, padding=1), torch.float32)
    for height, width in ((16, 16), (8, 24), (16, 16)):
        x = picture(2, 64, height, width)
        expected = F.conv2d(restored(x), weight, conv.bias.double(), padding=1)
        assert furthest(conv(x), expected) <= EXACT[torch.float32]


@needs_int8
def test_the_plain_weights_are_kept_bit_for_bit():
    net = torch.nn.ModuleDict(
        {"conv": Conv(64, 64, 3, padding=1), "up": UpsampleConv(64, 64, 3), "gate": GEGLULinear(64, 128)}
    )
    weights = {name: weight.clone() for name, weight in net.state_dict().items()}
    for_inference(net, CPU, torch.float32, quantized=True)
    assert [layer.quantized for layer in net.values()] == [True, False, True]
    assert all(torch.equal(weight, weights[name]) for name, weight in net.state_dict().items())
    for_inference(net, CPU, torch.float32)
    assert not any(layer.quantized for layer in net.values())
    assert all(torch.equal(weight, weights[name]) for name, weight in unpacked(net).state_dict().items())


@needs_int8
def test_the_first_and_the_last_layer_and_the_texts_keys_are_not_made_int8(embedded_unet):
    for_inference(embedded_unet, CPU, torch.float32, quantized=True)
    made = {
        name: layer.quantized for name, layer in embedded_unet.named_modules() if isinstance(layer, Prepacked)
    }
    assert not made["conv_in"]
    assert not made["conv_out"]
    assert not any(it for name, it in made.items() if name.endswith(("attn2.to_k", "attn2.to_v")))
    assert made["mid_block.resnets.0.conv1"]
    assert made["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]


@pytest.fixture
def embedded_unet():
    from sfumato import checkpoint

    return checkpoint.load("embedded").unet
