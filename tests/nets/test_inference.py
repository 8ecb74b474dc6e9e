"""The fast layers: the same numbers as the plain ones, and the plain weights for whoever asks."""

import copy
from dataclasses import replace

import pytest
import torch
from nets_families import NARROW_UNETS
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.config import UNetConfig
from sfumato.nets import inference
from sfumato.nets.attention import Attention, attend
from sfumato.nets.inference import (
    Conv,
    GEGLULinear,
    Linear,
    Norm,
    NormSiLU,
    UpsampleConv,
    for_inference,
    unpacked,
)
from sfumato.nets.inputs import TextKV
from sfumato.nets.unet import UNet

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
PICTURE, PLACES = (2, 24, 6, 10), (2, 7, 24)
LAYERS = [
    (lambda: Conv(24, 40, 3, padding=1), PICTURE),
    (lambda: Conv(24, 40, 3, stride=2), PICTURE),
    (lambda: Conv(24, 3, 1), PICTURE),
    (lambda: UpsampleConv(24, 40, 3, padding=1), PICTURE),
    (lambda: UpsampleConv(24, 40, 3, padding=1, bias=False), PICTURE),
    (lambda: Linear(24, 40), PLACES),
    (lambda: Linear(24, 40, bias=False), PLACES),
    (lambda: GEGLULinear(24, 80), PLACES),
]


def close(a, b, dtype):
    assert a.shape == b.shape
    torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=TOLERANCE[dtype] * b.abs().max().item())


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def unet(name="SD 1.5"):
    return UNet(UNetConfig.from_dict(NARROW_UNETS[name], name))


def question(net, dtype=torch.float32, rows=2):
    x = torch.randn(1, net.config.in_channels, 16, 16).to(dtype)
    states = torch.randn(rows, 9, net.config.cross_attention_dim).to(dtype)
    return (
        x,
        net.embed_time(torch.tensor([500.0])),
        net.context(states),
        torch.zeros(rows, dtype=torch.long),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("make", "shape"), LAYERS)
@torch.no_grad()
def test_a_packed_layer_answers_as_the_plain_one(make, shape, dtype):
    layer, x = make().to(dtype), torch.randn(shape).to(dtype)
    expected = copy.deepcopy(layer).float()(x.float())
    layer.pack()
    assert layer.packed
    close(layer(x), expected, dtype)


@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_what_is_added_on_the_way_is_added(packed):
    conv, linear = Conv(8, 8, 3, padding=1), Linear(8, 8)
    x, h = torch.randn(2, 8, 5, 5), torch.randn(2, 5, 8)
    alone, alone_h = conv(x), linear(h)
    if packed:
        conv.pack()
        linear.pack()
    for shift in (torch.randn(1, 8), torch.randn(2, 8)):
        close(conv(x, shift=shift), alone + shift[:, :, None, None], torch.float32)
        close(conv(x, add=x, shift=shift), alone + x + shift[:, :, None, None], torch.float32)
    close(conv(x, add=x), alone + x, torch.float32)
    close(linear(h, add=h), alone_h + h, torch.float32)


@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_what_is_cut_off_below_zero_is_the_sum_of_all_that_is_added(packed):
    conv, x, shift = Conv(8, 8, 3, padding=1), torch.randn(2, 8, 5, 5), torch.randn(2, 8)
    alone = conv(x)
    if packed:
        conv.pack()
    close(conv(x, relu=True), alone.relu(), torch.float32)
    close(conv(x, add=x, relu=True), (alone + x).relu(), torch.float32)
    close(conv(x, shift=shift, relu=True), (alone + shift[:, :, None, None]).relu(), torch.float32)
    both = alone + x + shift[:, :, None, None]
    close(conv(x, add=x, shift=shift, relu=True), both.relu(), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [lambda: Conv(384, 384, 3, padding=1), lambda: UpsampleConv(384, 384, 3)])
@torch.inference_mode()
def test_a_packed_convolution_has_the_order_of_the_shape_that_it_meets(make, dtype):
    """In the order that is packed without a shape, one of these took 50 times as long with AVX-512."""
    layer = make().to(dtype)
    plain, weight = copy.deepcopy(layer), layer.weight.clone()
    layer.pack()
    for shape in [(2, 384, 8, 8), (1, 384, 16, 16), (2, 384, 8, 8), (8, 384, 4, 6)]:
        x = torch.randn(shape, dtype=dtype)
        close(layer(x), plain(x).float(), dtype)
        fresh = copy.deepcopy(plain)
        fresh.shape = layer.shape
        fresh.pack()
        assert layer._order() == fresh._order()
        assert torch.equal(layer.plain_weight(), weight)
    assert not layer.packed[0].is_inference()


@pytest.mark.parametrize("size", [(11, 19), (12, 20), (11, 20), None])
@torch.no_grad()
def test_a_doubling_convolution_enlarges_to_any_size(size):
    layer, x = UpsampleConv(8, 8, 3, padding=1), torch.randn(1, 8, 6, 10)
    expected = layer(x, size)
    layer.pack()
    close(layer(x, size), expected, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_packing_is_undone_bit_for_bit_by_whatever_needs_the_weights(make, shape, dtype):
    layer = make().to(dtype)
    weights = {name: weight.clone() for name, weight in layer.state_dict().items()}

    def same(state):
        assert list(state) == list(weights)
        assert all(torch.equal(state[name], weights[name]) for name in weights)

    layer.pack()
    same(layer.state_dict())
    same(copy.deepcopy(layer).state_dict())
    assert layer.packed
    same(layer.to(torch.float64).to(dtype).state_dict())
    assert not layer.packed
    layer.pack()
    layer.load_state_dict(weights)
    assert not layer.packed
    layer.pack()
    same({name: weight.data for name, weight in unpacked(layer).named_parameters()})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["SD 1.5", "SD 2.1"])
@torch.inference_mode()
def test_a_prepared_unet_answers_as_the_plain_one(name, dtype):
    net = unet(name)
    x, time, text, rows = question(net)
    expected = net.denoise(x, time, text, rows=rows)
    for_inference(net, CPU, dtype)
    assert any(isinstance(layer, Conv) and layer.packed for layer in net.modules()) == inference.packs(dtype)
    x, time = x.to(dtype), time.to(dtype)
    text = replace(text, pairs=tuple((k.to(dtype), v.to(dtype)) for k, v in text.pairs))
    close(net.denoise(x, time, text, rows=rows), expected, dtype)


@torch.inference_mode()
def test_preparing_twice_changes_nothing_and_preparing_anew_starts_from_the_plain_weights():
    net = for_inference(unet(), CPU, torch.float32)
    asked = question(net)
    first = net.denoise(*asked)
    assert torch.equal(for_inference(net, CPU, torch.float32).denoise(*asked), first)
    for_inference(net, CPU, torch.bfloat16)
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in net.parameters())


@torch.inference_mode()
def test_where_packing_is_not_to_be_had_networks_stay_plain(monkeypatch):
    class Without:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(inference, "onednn", Without())
    inference.packs.cache_clear()
    try:
        net = for_inference(unet(), CPU, torch.float32)
    finally:
        inference.packs.cache_clear()
    assert not any(getattr(layer, "packed", ()) for layer in net.modules())
    assert net.denoise(*question(net)).shape == (2, 4, 16, 16)


def test_half_precision_of_fp16_is_not_packed_on_a_cpu():
    assert not inference.packs(torch.float16)


@pytest.mark.parametrize("channels", [32, 56, 128])
@pytest.mark.parametrize("side", [8, 32])
@torch.no_grad()
def test_norms_in_half_precision_are_as_exact_as_half_precision_is(channels, side):
    x = torch.randn(2, channels, side, side).bfloat16().contiguous(memory_format=torch.channels_last)
    for kind in (Norm, NormSiLU):
        norm = kind(8, channels)
        expected = norm(x.float())
        answer = norm.to(torch.bfloat16)(x)
        assert answer.dtype == torch.bfloat16
        assert answer.is_contiguous(memory_format=torch.channels_last)
        close(answer, expected, torch.bfloat16)


@pytest.mark.parametrize("length", [1, 16, 77])
@pytest.mark.parametrize("slices", [None, 3])
@torch.no_grad()
def test_filling_up_the_keys_does_not_change_attention(length, slices):
    q, k, v = torch.randn(2, 10, 12), torch.randn(2, length, 12), torch.randn(2, length, 12)
    heads = [part.unflatten(2, (3, 4)).transpose(1, 2) for part in (q, k, v)]
    weights = (heads[0] @ heads[1].mT / 2).softmax(dim=-1)
    text = TextKV.of([(k, v)])
    (k, v), mask = text.pairs[0], text.mask
    assert (text.length, k.shape[1] % 16) == (length, 0)
    answer = attend(q, k, v, 3, slices, mask=mask)
    close(answer, (weights @ heads[2]).transpose(1, 2).flatten(2), torch.float32)


@pytest.mark.parametrize("slices", [None, 3])
@torch.no_grad()
def test_upcast_attention_takes_its_scores_in_float32_also_in_slices(slices, monkeypatch):
    product, dtypes = F.scaled_dot_product_attention, []

    def recording(q, *others, **options):
        dtypes.append(q.dtype)
        return product(q, *others, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording)
    for upcast, taken in ((True, torch.float32), (False, torch.float16)):
        dtypes.clear()
        q, k, v = torch.randn(3, 2, 10, 12).half()
        answer = Attention(12, 3, 12, upcast=upcast).attend(q, k, v, slices)
        assert answer.dtype == torch.float16
        assert set(dtypes) == {taken}
        assert len(dtypes) == (slices or 1)


def test_offloaded_weights_visit_the_device_and_come_home():
    net = unet()
    device = torch.device("meta")
    for _ in range(2):
        for_inference(net, device, torch.float32, offload=True)
    seen = []
    hook = (
        net.up_blocks[0]
        .resnets[0]
        .conv1.register_forward_hook(
            lambda layer, arguments, result: seen.append((layer.weight.device.type, result.device.type))
        )
    )
    hook_order = net.up_blocks[0].resnets[0].conv1._forward_hooks
    hook_order.move_to_end(hook.id, last=False)
    x = torch.randn(1, 4, 16, 16, device=device)
    states = torch.randn(1, 9, net.config.cross_attention_dim, device=device)
    answer = net(x, torch.tensor([500.0], device=device), states)
    assert (answer.shape, answer.device.type) == ((1, 4, 16, 16), "meta")
    assert seen == [("meta", "meta")]
    assert {weight.device.type for weight in net.parameters()} == {"cpu"}


def test_offloaded_weights_come_home_after_a_layer_fails():
    layer = for_inference(Linear(4, 4), torch.device("meta"), torch.float32, offload=True)
    with pytest.raises(RuntimeError, match="must have same reduction dim"):
        layer(torch.zeros(2, 5, device="meta"))
    assert {weight.device.type for weight in layer.parameters()} == {"cpu"}


def test_every_network_of_the_embedded_model_can_be_offloaded():
    model = checkpoint.load("embedded")
    device = torch.device("meta")
    for net in model.networks.values():
        for_inference(net, device, torch.float32, offload=True)
    states = model.encode("a red apple", device=device).states
    latent = model.unet(torch.zeros(1, 4, 32, 32, device=device), torch.zeros(1, device=device), states)
    assert model.vae.decode(latent).shape == (1, 3, 256, 256)
    assert all(weight.device.type == "cpu" for net in model.networks.values() for weight in net.parameters())


@torch.inference_mode()
def test_a_unet_can_be_compiled_without_a_break(monkeypatch):
    net = unet()
    asked = question(net)
    expected = net.denoise(*asked)
    really = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, mode, dynamic: really(function, backend="eager", fullgraph=True)
    )
    for_inference(net, CPU, torch.float32, compiled=True)
    close(net.denoise(*asked), expected, torch.float32)
