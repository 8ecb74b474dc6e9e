"""LoRA in training: gradients through the low rank equal those that torch takes of the sum."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from sfumato.adapt import training
from sfumato.adapt.live import attach_new, attached
from sfumato.nets.inference import Conv, GEGLULinear, Linear, UpsampleConv

LAYERS = {
    "a matrix": lambda: (Linear(24, 40), (3, 20, 24)),
    "a gated matrix": lambda: (GEGLULinear(24, 80), (3, 20, 24)),
    "a small convolution": lambda: (Conv(16, 24, 1), (2, 16, 9, 7)),
    "a convolution": lambda: (Conv(16, 32, 3, padding=1), (2, 16, 9, 8)),
    "a convolution of many channels": lambda: (Conv(32, 48, 3, padding=1), (2, 32, 17, 14)),
    "a convolution without padding": lambda: (Conv(32, 16, 3), (3, 32, 13, 12)),
    "a convolution by halves": lambda: (Conv(8, 12, 3, stride=2, padding=1), (2, 8, 9, 7)),
    "a convolution of what is enlarged": lambda: (UpsampleConv(16, 16, 3, padding=1), (2, 16, 5, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_a_lora_are_those_of_the_sum_and_its_layer_stays_frozen(kind, monkeypatch):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]()
    net = torch.nn.ModuleDict({"it": layer}).requires_grad_(False)
    if len(shape) == 4:
        net.to(memory_format=torch.channels_last)
    attach_new(net, 4, 6.0, ["it"])
    parts = attached(net)["it"].delta.parts
    torch.nn.init.normal_(parts["up"])
    x = torch.randn(shape)
    x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x

    def learned():
        seen = x.clone().requires_grad_()
        answer = layer(seen)
        weights = torch.linspace(-1, 1, answer.numel()).view(answer.shape)
        gradients = torch.autograd.grad((weights * answer).sum(), (seen, parts["down"], parts["up"]))
        return answer, *gradients

    calls = []
    product = training.LoRAProduct.apply
    monkeypatch.setattr(training.LoRAProduct, "apply", lambda *given: calls.append(1) or product(*given))
    found = learned()
    assert calls
    whole = layer.weight.detach() + 1.5 * (parts["up"].flatten(1) @ parts["down"].flatten(1)).view(
        layer.weight.shape
    )
    with torch.no_grad():
        assert_close(found[0], plain(layer, whole, x), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("sfumato.adapt.live.lora_product_suits", lambda *_: False)
    for one, other in zip(found, learned(), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert layer.weight.grad is None


def plain(layer, weight, x):
    """What a layer with this weight answers."""
    alone = type(layer).__new__(type(layer))
    alone.__dict__.update({**layer.__dict__, "_parameters": {**layer._parameters}, "_modules": {}})
    alone.__dict__.pop("forward")
    alone._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
    return alone(x)


def test_half_precision_and_few_places_are_computed_beside_the_weight():
    x, weight = torch.randn(64, 32), torch.randn(32, 32)
    down, up = torch.randn(4, 32, requires_grad=True), torch.randn(32, 4, requires_grad=True)
    assert training.lora_product_suits(x, weight, None, down, up)
    assert not training.lora_product_suits(x[:2], weight, None, down, up)
    assert not training.lora_product_suits(x.bfloat16(), weight.bfloat16(), None, down, up)
    with torch.autocast("cpu", torch.bfloat16):
        assert not training.lora_product_suits(x, weight, None, down, up)
    with torch.no_grad():
        assert not training.lora_product_suits(x, weight, None, down, up)
    assert not training.lora_product_suits(x, weight.requires_grad_(), None, down, up)


def test_what_is_kept_for_the_way_back_is_the_input_alone():
    x = torch.randn(64, 32, requires_grad=True)
    weight, down, up = torch.randn(48, 32), torch.randn(4, 32), torch.randn(48, 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.data_ptr()) or each, F.relu):
        training.lora_product(x, weight, None, down.requires_grad_(), up.requires_grad_(), 2.0)
    assert set(kept) == {each.data_ptr() for each in (x, weight, down, up)}
