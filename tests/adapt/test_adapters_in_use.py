"""Adapters in use: folded in, put beside, taken out again; on plain, packed, offloaded, compiled networks."""

import copy

import pytest
import torch
from adapt_families import (
    SD1,
    ask_ours,
    assert_same_answers,
    assert_same_bits,
    differ,
    ours,
    pipeline,
    question,
)
from adapter_files import CONVOLUTIONS, TARGETS, TEXT, kohya, layers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from sfumato.adapt import Adapters, AdapterWeight, attach_new, live, save_lora
from sfumato.adapt.blocks import by_name
from sfumato.adapt.delta import Delta, LoRA
from sfumato.adapt.keys import LayerIndex
from sfumato.config import UNetConfig
from sfumato.errors import UsageError
from sfumato.nets.inference import Prepacked, for_inference, unpacked
from sfumato.nets.unet import UNet

CPU = torch.device("cpu")
ENDS = (*TARGETS, *CONVOLUTIONS, "time_emb_proj", *TEXT)


@pytest.fixture(scope="module")
def pipes():
    return {family: pipeline(family) for family in ("sd1", "sdxl")}


@pytest.fixture
def networks(pipes):
    return ours(pipes["sd1"])


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 3


def loha(layer):
    out, *inside = layer.weight.shape
    width = torch.Size(inside).numel()
    return {
        "hada_w1_a": randn(out, 2),
        "hada_w1_b": randn(2, width),
        "hada_w2_a": randn(out, 2),
        "hada_w2_b": randn(2, width, seed=1),
        "alpha": torch.tensor(3.0),
    }


def lokr(layer):
    out, inside, *kernel = layer.weight.shape
    return (
        {"lokr_w1": randn(2, 2), "lokr_w2": randn(out // 2, inside // 2, *kernel)} if inside % 2 == 0 else {}
    )


def dora(by_output):
    def make(layer):
        out, *inside = layer.weight.shape
        shape = (out, *[1] * len(inside)) if by_output else (1, inside[0], *[1] * (len(inside) - 1))
        parts = {
            "lora_down.weight": randn(2, *inside),
            "lora_up.weight": randn(out, 2, *[1] * (len(inside) - 1)),
        }
        return {**parts, "dora_scale": 1 + randn(*shape)}

    return make


def full(layer):
    bias = {} if layer.bias is None else {"diff_b": randn(*layer.bias.shape)}
    return {"diff": randn(*layer.weight.shape) / 3, **bias}


KINDS = {
    "loha": loha,
    "lokr": lokr,
    "dora by output": dora(True),
    "dora by input": dora(False),
    "full": full,
}


def written(kind, path, networks):
    """A file that changes every sort of layer in one of the published ways."""
    if kind in ("lora", "tucker"):
        kohya(path, networks, ENDS, tucker=kind == "tucker")
        return path
    tensors = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        for layer_path, layer in layers(networks[part], ENDS).items():
            stem = prefix + layer_path.replace(".", "_")
            tensors |= {f"{stem}.{role}": tensor for role, tensor in KINDS[kind](layer).items()}
    if kind == "full":
        norm = networks["unet"].conv_norm_out
        tensors |= {"lora_unet_conv_norm_out.w_norm": randn(len(norm.weight))}
        tensors |= {"lora_unet_conv_norm_out.b_norm": randn(len(norm.weight))}
    save_file(tensors, path)
    return path


def loaded(networks, path, name="it"):
    adapters = Adapters(networks)
    adapters.load(path, name)
    return adapters


def lora(networks, tmp_path, ends=ENDS):
    path = tmp_path / "lora.safetensors"
    if not path.exists():
        kohya(path, networks, ends)
    return loaded(networks, path)


def bits(networks):
    return [tensor.clone() for net in networks.values() for tensor in net.state_dict().values()]


@pytest.mark.parametrize("kind", ["lora", "tucker", *KINDS])
def test_folded_in_and_beside_are_the_same_and_leave_no_trace(kind, networks, tmp_path):
    before, state = ask_ours(networks, "sd1"), bits(networks)
    adapters = loaded(networks, written(kind, tmp_path / "it.safetensors", networks))
    assert adapters["it"].report.whole
    uses = [AdapterWeight("it", 0.8, 0.5)]
    assert adapters.set_adapters(uses)
    folded = ask_ours(networks, "sd1")
    assert differ(folded, before)
    assert adapters.set_adapters([])
    assert_same_bits(bits(networks), state)
    adapters.attach(uses)
    assert_same_answers(ask_ours(networks, "sd1"), folded, 1e-5)
    adapters.detach()
    assert_same_bits(bits(networks), state)
    assert_same_bits(ask_ours(networks, "sd1"), before)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "full"])
def test_a_scalar_multiplies_the_change_and_a_scale_stands_for_alpha_over_rank(kind, networks, tmp_path):
    path = written(kind, tmp_path / "plain.safetensors", networks)
    tensors = load_file(path)
    stem = next(key for key in tensors if key.startswith("lora_unet_")).partition(".")[0]
    plain = {key: part for key, part in tensors.items() if key.startswith(f"{stem}.")}
    save_file(plain | {f"{stem}.scalar": torch.tensor([0.5])}, tmp_path / "scalar.safetensors")
    save_file(
        plain | {f"{stem}.scale": torch.tensor(3.0), f"{stem}.scalar": torch.tensor(-2.0)},
        tmp_path / "scale.safetensors",
    )
    adapters = Adapters(networks)
    scales = {}
    for name in ("plain", "scalar", "scale"):
        adapters.load(tmp_path / f"{name}.safetensors", name)
        assert adapters[name].report.whole
        scales[name] = next(iter(adapters[name].deltas.values())).scale
    assert scales["scalar"] == pytest.approx(0.5 * scales["plain"])
    assert scales["scale"] == pytest.approx(-6)


def test_tuckers_form_is_three_convolutions_one_after_another(networks, tmp_path):
    net = networks["unet"]
    made = kohya(tmp_path / "it.safetensors", networks, ("conv1",), tucker=True, rank=4, alpha=2.0)
    adapters = loaded(networks, tmp_path / "it.safetensors")
    layer = net.mid_block.resnets[0].conv1
    parts = made["unet", "mid_block.resnets.0.conv1"]
    x = randn(2, layer.in_channels, 6, 6)
    h = F.conv2d(F.conv2d(x, parts["down"]), parts["mid"], padding=1)
    expected = layer(x) + 0.5 * F.conv2d(h, parts["up"])
    adapters.set_adapters([AdapterWeight("it")])
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_magnitudes_set_the_length_of_every_row_or_every_column(axis, flat, networks, tmp_path):
    kind = ("dora by output", "dora by input")[axis]
    layer = networks["unet"].conv_in
    parts = KINDS[kind](layer)
    magnitude = parts["dora_scale"]
    if flat:
        parts["dora_scale"] = magnitude.flatten()
    save_file(
        {f"lora_unet_conv_in.{role}": part for role, part in parts.items()}, tmp_path / "it.safetensors"
    )
    adapters = loaded(networks, tmp_path / "it.safetensors")
    adapters.set_adapters([AdapterWeight("it")])
    others = [dim for dim in range(4) if dim != axis]
    lengths = torch.linalg.vector_norm(layer.weight, dim=others)
    torch.testing.assert_close(lengths, magnitude.flatten().abs(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_take_adapters_and_give_back_the_same_bits(dtype, networks, tmp_path):
    plain_ones = copy.deepcopy(networks)
    on_plain = lora(plain_ones, tmp_path)
    for net in networks.values():
        for_inference(net, CPU, dtype)
    net = networks["unet"]
    asked = [tensor if tensor is None else tensor.to(dtype) for tensor in question("sd1")]
    with torch.inference_mode():
        before = net(*asked)
        adapters = lora(networks, tmp_path)
        packed = [layer for layer in net.modules() if isinstance(layer, Prepacked) and layer.packed]
        assert packed
        original = [layer.plain_weight().clone() for layer in packed]
        on_plain.set_adapters([AdapterWeight("it", 0.5)])
        expected = plain_ones["unet"](*question("sd1"))
        for form in ("set_adapters", "attach"):
            getattr(adapters, form)([AdapterWeight("it", 0.5)])
            tolerance = 1e-5 if dtype == torch.float32 else 3e-2
            assert_same_answers([net(*asked).float()], [expected], tolerance)
            adapters.set_adapters([]) if form == "set_adapters" else adapters.detach()
            assert all(layer.packed for layer in packed)
            assert_same_bits([layer.plain_weight() for layer in packed], original)
            assert_same_answers([net(*asked)], [before], tolerance)


def test_a_change_is_computed_in_float32_and_rounded_once(networks, tmp_path):
    net = networks["unet"].to(torch.bfloat16)
    layer = net.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    original = layer.weight.float().clone()
    made = kohya(tmp_path / "it.safetensors", {"unet": net.float()}, ("to_q",), rank=4, alpha=2.0)
    net.to(torch.bfloat16)
    adapters = loaded({"unet": net}, tmp_path / "it.safetensors")
    adapters.load(tmp_path / "it.safetensors", "again")
    parts = made["unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    change = 0.5 * parts["up"] @ parts["down"]
    adapters.set_adapters([AdapterWeight("it", 0.3), AdapterWeight("again", 0.4)])
    assert torch.equal(layer.weight, (original + 0.3 * change + 0.4 * change).bfloat16())


def test_a_precision_taken_up_while_an_adapter_is_in_use_ends_in_the_plain_weights(networks, tmp_path):
    adapters = lora(networks, tmp_path)
    expected = {key: tensor.bfloat16() for key, tensor in networks["unet"].state_dict().items()}
    adapters.set_adapters([AdapterWeight("it")])
    for_inference(networks["unet"], CPU, torch.bfloat16)
    adapters.set_adapters([])
    state = networks["unet"].state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())


def test_offloaded_weights_change_where_they_are_at_home(networks, tmp_path):
    net = networks["unet"]
    for_inference(net, torch.device("meta"), torch.float32, offload=True)
    adapters, state = lora(networks, tmp_path), bits(networks)
    adapters.set_adapters([AdapterWeight("it")])
    assert not torch.equal(net.conv_in.weight, state[list(net.state_dict()).index("conv_in.weight")])
    assert net.conv_in.weight.device.type == "cpu"
    adapters.attach([AdapterWeight("it")])
    x, t, states, _ = (tensor if tensor is None else tensor.to("meta") for tensor in question("sd1"))
    assert net(x, t, states).shape == (2, 4, 8, 8)
    adapters.detach()
    adapters.set_adapters([])
    assert_same_bits(bits(networks), state)


def test_a_compiled_network_sees_new_weights_without_being_compiled_again(tmp_path, monkeypatch):
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    really = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: really(f, backend=backend, fullgraph=True))
    x, t, states, _ = question("sd1")
    small = {
        "block_out_channels": [8],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "mid_block_type": None,
        "up_block_types": ["CrossAttnUpBlock2D"],
        "layers_per_block": 1,
    }
    networks = {"unet": UNet(UNetConfig.from_dict(SD1 | small, "unet"))}
    net, same = networks["unet"], copy.deepcopy(networks)
    for_inference(net, CPU, torch.float32, compiled=True)
    adapters, on_plain = (lora(each, tmp_path, ("to_q", "conv_in")) for each in (networks, same))
    with torch.inference_mode():
        before = net(x, t, states)
        assert len(graphs) == 1
        for weight in (0.5, -0.7):
            adapters.set_adapters([AdapterWeight("it", weight)])
            on_plain.set_adapters([AdapterWeight("it", weight)])
            assert_same_answers([net(x, t, states)], [same["unet"](x, t, states)], 1e-5)
        adapters.set_adapters([])
        assert torch.equal(net(x, t, states), before)
        assert len(graphs) == 1
        adapters.attach([AdapterWeight("it", -0.7)])
        assert_same_answers([net(x, t, states)], [same["unet"](x, t, states)], 1e-5)
        adapters.detach()
        assert torch.equal(net(x, t, states), before)
    assert len(graphs) == 2


def test_a_fault_in_the_middle_brings_everything_back(networks, tmp_path, monkeypatch):
    adapters, state = lora(networks, tmp_path), bits(networks)
    adapters.set_adapters([AdapterWeight("it", 0.4)])
    calls = []
    change = LoRA.change

    def failing(delta, weight):
        calls.append(delta)
        if len(calls) == 20:
            raise MemoryError
        return change(delta, weight)

    monkeypatch.setattr(Delta, "change", failing)
    with pytest.raises(MemoryError):
        adapters.set_adapters([AdapterWeight("it")])
    assert adapters.active == ()
    assert_same_bits(bits(networks), state)


def test_the_same_uses_again_change_nothing_and_weight_zero_is_no_use(networks, tmp_path):
    adapters, state = lora(networks, tmp_path), bits(networks)
    assert not adapters.set_adapters([])
    assert adapters.set_adapters([AdapterWeight("it", 0)])
    assert_same_bits(bits(networks), state)
    assert adapters.set_adapters([AdapterWeight("it")])
    assert not adapters.set_adapters([AdapterWeight("it")])


def test_an_adapter_without_biases_after_one_with_them_gives_the_biases_back(networks, tmp_path):
    adapters = loaded(networks, written("full", tmp_path / "full.safetensors", networks), "with")
    adapters.load(written("lora", tmp_path / "lora.safetensors", networks), "without")
    plain = {key: tensor.clone() for key, tensor in networks["unet"].state_dict().items()}
    adapters.set_adapters([AdapterWeight("with")])
    now = networks["unet"].state_dict()
    biases = [key for key in plain if key.endswith("bias") and not torch.equal(now[key], plain[key])]
    assert len(biases) > 20
    adapters.set_adapters([AdapterWeight("without")])
    now = networks["unet"].state_dict()
    assert_same_bits([now[key] for key in biases], [plain[key] for key in biases])


@pytest.mark.parametrize("form", ["folded in", "beside"])
def test_a_weight_of_0_for_the_text_changes_nothing_in_the_text_encoder(form, networks, tmp_path):
    adapters = lora(networks, tmp_path)
    unet, text = ask_ours(networks, "sd1")
    (adapters.set_adapters if form == "folded in" else adapters.attach)([AdapterWeight("it", 1.0, 0.0)])
    unet_with, text_with = ask_ours(networks, "sd1")
    assert differ([unet_with], [unet])
    assert torch.equal(text_with, text)


def test_what_is_folded_for_good_stays(networks, tmp_path):
    adapters = lora(networks, tmp_path)
    adapters.set_adapters([AdapterWeight("it", 0.5)])
    expected = ask_ours(networks, "sd1")
    adapters.fuse([AdapterWeight("it", 0.5)])
    adapters.set_adapters([])
    assert_same_bits(ask_ours(networks, "sd1"), expected)
    adapters.remove("it")
    assert adapters.names == ()


@pytest.mark.parametrize(
    ("uses", "match"),
    [
        ([AdapterWeight("detial")], "no adapter 'detial'; did you mean 'detail'"),
        ([AdapterWeight("detail", float("nan"))], "weight of 'detail' is nan"),
        ([AdapterWeight("detail", 1, 1e9)], "must be in ±1000"),
        ([AdapterWeight("detail", blocks={"down.7": 1})], "no block 'down.7' in this model; did you mean"),
        ([AdapterWeight("detail", blocks={"mid": "high"})], "weight of block 'mid' is 'high'"),
        ([AdapterWeight("detail", blocks=[1, 2, 3])], "3 block weights were given: this model takes 7 or 14"),
    ],
)
def test_a_wrong_use_is_refused_before_anything_is_touched(uses, match, networks, tmp_path):
    kohya(tmp_path / "detail.safetensors", networks, ENDS)
    adapters, state = Adapters(networks), bits(networks)
    adapters.load(tmp_path / "detail.safetensors")
    for form in (adapters.set_adapters, adapters.attach):
        with pytest.raises(UsageError, match=match):
            form([AdapterWeight("detail"), *uses])
    assert_same_bits(bits(networks), state)


def test_what_is_in_use_is_neither_forgotten_nor_replaced(networks, tmp_path):
    adapters = lora(networks, tmp_path)
    for begin, end in (
        (adapters.set_adapters, lambda: adapters.set_adapters([])),
        (adapters.attach, adapters.detach),
    ):
        begin([AdapterWeight("it")])
        for refused in (lambda: adapters.remove("it"), lambda: adapters.add(adapters["it"])):
            with pytest.raises(UsageError, match="'it' is in use"):
                refused()
        end()
    with pytest.raises(UsageError, match="no adapter 'other'"):
        adapters.remove("other")


def test_block_weights_count_in_their_block_only(networks, tmp_path):
    adapters, state = lora(networks, tmp_path), networks["unet"].state_dict()
    state = {key: tensor.clone() for key, tensor in state.items()}
    adapters.set_adapters([AdapterWeight("it")])
    whole = {key: tensor - state[key] for key, tensor in networks["unet"].state_dict().items()}
    for blocks, factors in (
        ({"down": 0, "down.0.1": 0.5, "mid": 2}, {"down_blocks.0.resnets.1": 0.5, "down_": 0, "mid_": 2}),
        ({"down.0.2": 3, "up.0.2": 0}, {"down_blocks.0.downsamplers": 3, "up_blocks.0.upsamplers": 0}),
        ({"in": 0, "time": 0, "out": 0}, {"conv_in": 0, "conv_out": 0, "time_": 0}),
    ):
        adapters.set_adapters([AdapterWeight("it", blocks=blocks)])
        now = networks["unet"].state_dict()
        for key, change in whole.items():
            if key.startswith(("up_blocks.0.resnets.2", "down_blocks.0.attentions.1")):
                continue
            factor = next((f for start, f in factors.items() if key.startswith(start)), 1)
            torch.testing.assert_close(now[key], state[key] + factor * change, rtol=1e-5, atol=1e-5)
    adapters.set_adapters([AdapterWeight("it", blocks={"text": 0})])
    assert torch.equal(
        networks["text_encoder"].encoder.layers[0].mlp.fc1.weight,
        ours(pipeline("sd1"))["text_encoder"].encoder.layers[0].mlp.fc1.weight,
    )


@pytest.mark.parametrize(
    ("family", "count", "place", "block"),
    [
        ("SD 1.x", 26, 1, "in"),
        ("SD 1.x", 26, 4, "down.0.2"),
        ("SD 1.x", 26, 13, "mid"),
        ("SD 1.x", 26, 25, "up.3.2"),
        ("SD 1.x", 17, 1, "down.0.0"),
        ("SD 1.x", 17, 6, "down.2.1"),
        ("SD 1.x", 17, 7, "mid"),
        ("SD 1.x", 17, 8, "up.1.0"),
        ("SDXL", 20, 9, "down.2.1"),
        ("SDXL", 12, 1, "down.1.0"),
        ("SDXL", 12, 6, "up.0.0"),
        ("SDXL", 12, 0, "text"),
    ],
)
def test_lists_of_block_weights_mean_what_they_mean_in_a1111(family, count, place, block):
    levels = {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]}
    if family == "SDXL":
        levels = {
            "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
            "block_out_channels": [320, 640, 1280],
        }
    with torch.device("meta"):
        unet = LayerIndex(UNet(UNetConfig.from_dict({"cross_attention_dim": 768, **levels}, "unet")))
    values = [0.0] * count
    values[place] = 1.0
    found = by_name(values, {"unet": unet})
    assert found[block] == 1
    assert sum(found.values()) == 1


def test_a_new_lora_begins_as_nothing_and_learns(networks, tmp_path):
    net, (x, t, states, _) = networks["unet"], question("sd1")

    @torch.no_grad()
    def answer(net):
        return net(x, t, states)

    before = answer(net)
    made = attach_new(net, 4, generator=torch.Generator().manual_seed(0))
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in made)
    assert torch.equal(answer(net), before)
    optimizer = torch.optim.Adam(made, lr=0.02)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (net(x, t, states) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is None for name, parameter in net.named_parameters() if "adapters" not in name)
    copied = copy.deepcopy(net)
    live.detach(net)
    assert torch.equal(answer(net), before)
    assert not torch.equal(answer(copied), before)


def test_a_new_lora_begins_within_one_over_the_root_of_its_inputs(networks):
    attach_new(networks["unet"], 8, targets=("to_q", "conv1"), generator=torch.Generator().manual_seed(0))
    found = live.attached(networks["unet"])
    downs = [each.delta.parts["down"] for each in found.values()]
    assert {down.ndim for down in downs} == {2, 4}
    for down in downs:
        bound = down[0].numel() ** -0.5
        assert 0.9 * bound < down.abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_parameter_of_every_sort_of_layer(dtype, networks):
    net, (x, t, states, _) = networks["unet"].to(dtype), question("sd1")
    made = attach_new(net, 2, targets=("proj", "conv", "conv1", "proj_in", "linear_1", "to_v"))
    for parameter in made:
        torch.nn.init.normal_(parameter, std=0.1)
    net(x.to(dtype), t, states.to(dtype)).float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in made)


def test_adapters_beside_one_layer_are_told_apart_by_name(networks, tmp_path):
    net, (x, t, states, _) = networks["unet"], question("sd1")
    for name in ("one", "two"):
        for parameter in attach_new(net, 2, name=name):
            torch.nn.init.normal_(parameter, std=0.2)
    both = net(x, t, states)
    save_lora(tmp_path / "two.safetensors", networks, name="two")
    live.detach(net, "two")
    one = net(x, t, states)
    assert not torch.equal(one, both)
    assert live.attached(net, "two") == {}
    adapters = loaded(networks, tmp_path / "two.safetensors")
    adapters.set_adapters([AdapterWeight("it")])
    assert_same_answers([net(x, t, states)], [both], 1e-5)
    with pytest.raises(UsageError, match="no adapter 'two' is attached"):
        save_lora(tmp_path / "two.safetensors", networks, name="two")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2, "targets": ["to_q", "to_qq"]}, "no layer ends in 'to_qq'; did you mean 'to_q'"),
    ],
)
def test_a_new_lora_that_cannot_be_is_refused(arguments, match, networks):
    with pytest.raises(UsageError, match=match):
        attach_new(networks["unet"], **arguments)
    assert not live.attached(networks["unet"])


def test_an_unknown_layout_is_refused(networks, tmp_path):
    attach_new(networks["unet"], 1)
    with pytest.raises(UsageError, match="unknown layout 'kohia'; did you mean 'kohya'"):
        save_lora(tmp_path / "it.safetensors", networks, layout="kohia")


def test_half_precision_is_saved_on_request(networks, tmp_path):
    attach_new(networks["unet"], 1)
    save_lora(tmp_path / "it.safetensors", networks, dtype=torch.float16)
    adapters = loaded(plain_networks(networks), tmp_path / "it.safetensors")
    parts = next(iter(adapters["it"].deltas.values())).parts
    assert parts["down"].dtype == torch.float16


def plain_networks(networks):
    for net in networks.values():
        live.detach(unpacked(net))
    return networks
