"""The compiled normalisations, beside the exact ones in float64 and torch's own."""

import pytest
import torch
from torch.nn import functional as F

from sfumato.nets import compiled, inference
from sfumato.nets.inference import LayerNorm, Norm, NormSiLU
from sfumato.nets.normalisation import (
    GroupNorm,
    group_norm,
    group_norm_learns,
    group_norm_suits,
    layer_norm,
    layer_norm_suits,
)

needs_kernels = pytest.mark.skipif(
    compiled.library() is None, reason="needs a C++ compiler when Sfumato is installed: apt-get install g++"
)
DTYPES = [torch.float32, torch.bfloat16]
# batch, channels, height, width, groups: of one part and of many, groups narrower and wider than a register
SHAPES = [(1, 32, 1, 3, 2), (2, 224, 16, 16, 32), (1, 64, 5, 3, 2), (3, 96, 70, 40, 1), (1, 1280, 8, 8, 32)]


def picture(shape, dtype, spread=3.0):
    torch.manual_seed(0)
    batch, channels, height, width, _ = shape
    x = spread * torch.randn(batch, channels, height, width) + 5 * torch.randn(channels)[None, :, None, None]
    weight, bias = torch.randn(channels).to(dtype), torch.randn(channels).to(dtype)
    return x.to(dtype).contiguous(memory_format=torch.channels_last), weight, bias


def furthest(answer, expected):
    return (answer.double() - expected).abs().max().item()


@needs_kernels
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_groups_are_normalised_as_exactly_as_the_rounding_of_the_answer_allows(shape, dtype, silu):
    x, weight, bias = picture(shape, dtype)
    assert group_norm_suits(x, weight, bias)
    expected = F.group_norm(x.double(), shape[4], weight.double(), bias.double(), 1e-5)
    expected = F.silu(expected) if silu else expected
    answer = group_norm(x, shape[4], weight, bias, 1e-5, silu=silu)
    assert (answer.dtype, answer.shape) == (x.dtype, x.shape)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    size = expected.abs().max().item()
    assert furthest(answer, expected) <= size * (2.0**-20 if dtype == torch.float32 else 2.0**-8)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [32, 224, 1280])
@torch.inference_mode()
def test_rows_are_normalised_as_exactly_as_the_rounding_of_the_answer_allows(channels, dtype):
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape).to(dtype) for shape in ((2, 300, channels), (channels,), (channels,))
    )
    x[:, :, 0] += 100.0  # as some channels of transformers do
    assert layer_norm_suits(x, weight, bias)
    expected = F.layer_norm(x.double(), (channels,), weight.double(), bias.double())
    size = expected.abs().max().item()
    error = furthest(layer_norm(x, weight, bias, 1e-5), expected)
    assert error <= size * (2.0**-20 if dtype == torch.float32 else 2.0**-8)


@needs_kernels
@torch.inference_mode()
def test_silu_of_large_numbers_is_the_number_or_nothing():
    x = torch.linspace(-1, 1, 64).reshape(1, 64, 1, 1).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.full((64,), 300.0), torch.zeros(64)
    expected = F.silu(F.group_norm(x.double(), 1, weight.double(), bias.double()))
    answer = group_norm(x, 1, weight, bias, 1e-5, silu=True)
    assert furthest(answer, expected) < 1e-4
    assert answer[0, 0].item() == pytest.approx(0, abs=1e-15)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_the_number_of_threads_and_the_rest_of_the_batch_change_no_bit(dtype):
    x, weight, bias = picture((3, 224, 16, 16, 32), dtype)
    rows = x.permute(0, 2, 3, 1).reshape(3, 256, 224)
    together, before = group_norm(x, 32, weight, bias, 1e-5), torch.get_num_threads()
    by_rows = layer_norm(rows, weight, bias, 1e-5)
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(group_norm(x, 32, weight, bias, 1e-5), together)
        assert torch.equal(layer_norm(rows, weight, bias, 1e-5), by_rows)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(group_norm(x[1:2], 32, weight, bias, 1e-5), together[1:2])


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_what_is_no_number_is_not_hidden(dtype):
    """The engine draws again in float32 where an answer is not finite."""
    x, weight, bias = picture((1, 64, 4, 4, 2), dtype)
    x[0, 40, 2, 2] = torch.nan
    answer = group_norm(x, 2, weight, bias, 1e-5, silu=True)
    assert answer[:, 32:].isnan().all()
    assert not answer[:, :32].isnan().any()
    rows = torch.full((2, 64), torch.nan, dtype=dtype)
    assert layer_norm(rows, weight, bias, 1e-5).isnan().all()


def test_gradients_other_orders_and_precisions_are_torchs_affair():
    x, weight, bias = picture((1, 64, 4, 4, 2), torch.float32)
    assert not group_norm_suits(x.contiguous(), weight, bias)
    assert not group_norm_suits(x.half(), weight.half(), bias.half())
    assert not group_norm_suits(x.bfloat16(), weight, bias)
    assert not group_norm_suits(
        x[:, :33].contiguous(memory_format=torch.channels_last), weight[:33], bias[:33]
    )
    assert not group_norm_suits(x.clone().requires_grad_(), weight, bias)
    layer, asked = NormSiLU(2, 64), x.clone().requires_grad_()
    layer(asked).sum().backward()
    assert asked.grad is not None
    assert layer.weight.grad is not None


@needs_kernels
@pytest.mark.parametrize("kind", [Norm, NormSiLU])
@torch.inference_mode()
def test_layers_answer_as_they_do_without_the_kernels(kind, monkeypatch):
    x, weight, bias = picture((2, 64, 9, 7, 4), torch.float32)
    layer, rows = kind(4, 64), LayerNorm(64)
    for each in (layer, rows):
        each.load_state_dict({"weight": weight, "bias": bias})
    answers = layer(x), rows(x.permute(0, 2, 3, 1))
    monkeypatch.setattr("sfumato.nets.normalisation.library", lambda: None)
    torch.testing.assert_close(answers, (layer(x), rows(x.permute(0, 2, 3, 1))), rtol=1e-5, atol=1e-5)


def learned(function, given, gradient):
    """The answer and the gradients of what is `given`."""
    own = [each.detach().clone(memory_format=torch.preserve_format).requires_grad_() for each in given]
    answer = function(*own)
    answer.backward(gradient)
    return [answer.detach(), *[each.grad for each in own]]


@needs_kernels
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradients_of_groups_are_as_exact_as_float32_allows(shape, silu):
    given, groups = picture(shape, torch.float32), shape[4]

    def exact(x, weight, bias):
        y = F.group_norm(x, groups, weight, bias, 1e-5)
        return F.silu(y) if silu else y

    def compiled(x, weight, bias):
        assert group_norm_learns(x, weight, bias)
        return GroupNorm.apply(x, groups, weight, bias, 1e-5, silu)

    gradient = torch.randn_like(given[0]).contiguous()  # not channels last, as some layers give it
    own = learned(compiled, given, gradient)
    expected = learned(exact, [each.double() for each in given], gradient.double())
    for mine, right in zip(own, expected, strict=True):
        assert furthest(mine, right) <= right.abs().max().item() * 2.0**-18


@needs_kernels
@pytest.mark.parametrize("learns", ["x", "weight", "bias", "all"])
@pytest.mark.parametrize("layer", [Norm, NormSiLU])
def test_a_norm_that_learns_has_the_gradients_of_torchs(layer, learns, monkeypatch):
    norm, (x, weight, bias) = layer(32, 64), picture((2, 64, 6, 5, 32), torch.float32)
    norm.load_state_dict({"weight": weight, "bias": bias})
    for name, each in (("x", x), *norm.named_parameters()):
        each.requires_grad_(learns in (name, "all"))

    def gradients():
        for each in (x, *norm.parameters()):
            each.grad = None
        norm(x).square().sum().backward()
        return [each.grad for each in (x, *norm.parameters())]

    own, kept = gradients(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.shape), lambda each: each):
        norm(x)
    assert kept.count(x.shape) == 1
    monkeypatch.setattr(inference, "group_norm_learns", lambda *_: False)
    expected = gradients()
    assert [each is None for each in own] == [each is None for each in expected]
    for mine, right in zip(own, expected, strict=True):
        assert right is None or furthest(mine, right.double()) <= right.abs().max().item() * 2.0**-17


@needs_kernels
def test_where_bfloat16_is_cast_a_norm_that_learns_is_taken_in_float32():
    norm, (x, _, _) = NormSiLU(2, 64), picture((1, 64, 4, 4, 2), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        answer = norm(x)
    assert answer.dtype == torch.float32
    assert furthest(answer.detach(), norm(x.float()).detach().double()) == 0
