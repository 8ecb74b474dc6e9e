"""Adapters as people have them: folders, half-converted DoRAs, words in the same file."""

import json

import pytest
import torch
from adapt_families import ask_ours, ask_theirs, assert_same_answers, differ, ours, pipeline, theirs
from adapter_files import TARGETS, TEXT, kohya, layers
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, OFTConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from sfumato import folders, load
from sfumato.adapt import Adapters, AdapterWeight
from sfumato.adapt.embedding import read as read_embedding
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError

ENDS = (*TARGETS, "conv1", "conv_in")


def randomise(net, seed=3):
    """Numbers for every part of an adapter that PEFT has just made, those that begin as zeros too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_magnitude" in name:
                parameter *= 1 + 0.2 * torch.randn(parameter.shape, generator=generator)
            elif "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)


def saved_by_peft(net, folder, ends=ENDS, **options):
    """The network within PEFT's, which has saved an adapter of it into `folder`."""
    config = LoraConfig(**{"r": 3, "lora_alpha": 2, "target_modules": sorted(layers(net, ends)), **options})
    model = get_peft_model(net, config)
    randomise(model)
    model.save_pretrained(folder)
    return model.base_model.model


def using(path, networks, **options):
    adapters = Adapters(networks)
    adapters.load(path, "it", **options)
    adapters.set_adapters([AdapterWeight("it")])
    return adapters


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "fan_in_fan_out": True},
        {"use_dora": True},
        {
            "rank_pattern": {r"down_blocks\.0\..*to_q": 2, "^conv_in": 1},
            "alpha_pattern": {"(attn1|attn2).to_k": 7, r"resnets\.[01]\.conv1": 5},
        },
    ],
    ids=lambda options: "-".join(options) or "plain",
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_a_folder_that_peft_wrote_is_the_adapter_in_it(options, tmp_path):
    pipe = pipeline("sd1")
    networks = ours(pipe)
    before = ask_ours(networks, "sd1")
    pipe.unet = saved_by_peft(pipe.unet, tmp_path / "my style", **options)
    adapters = Adapters(networks)
    adapter = adapters.load(tmp_path / "my style")
    assert (adapter.name, adapter.path) == ("my style", tmp_path / "my style")
    adapters.set_adapters([AdapterWeight("my style")])
    after = ask_ours(networks, "sd1")
    assert_same_answers(after, ask_theirs(pipe, "sd1"))
    assert differ(after[:1], before[:1])


def test_a_folder_with_a_network_in_each_of_its_folders_is_one_adapter(tmp_path):
    pipe = pipeline("sd1")
    networks = ours(pipe)
    pipe.unet = saved_by_peft(pipe.unet, tmp_path / "unet")
    pipe.text_encoder = saved_by_peft(pipe.text_encoder, tmp_path / "text_encoder", TEXT, lora_alpha=5)
    adapters = using(tmp_path, networks)
    assert adapters["it"].parts == ("unet", "text_encoder")
    assert_same_answers(ask_ours(networks, "sd1"), ask_theirs(pipe, "sd1"))


def test_a_folder_that_diffusers_wrote_is_the_adapter_in_it(tmp_path):
    pipe = pipeline("sdxl")
    networks = ours(pipe)
    for net in theirs(pipe).values():
        net.add_adapter(LoraConfig(r=3, lora_alpha=2, target_modules=["to_k", "q_proj"], use_dora=True))
        randomise(net)
    states = {f"{part}_lora_layers": get_peft_model_state_dict(net) for part, net in theirs(pipe).items()}
    pipe.save_lora_weights(tmp_path, **states, **_collate_lora_metadata(theirs(pipe)))
    using(tmp_path, networks)
    assert_same_answers(ask_ours(networks, "sdxl"), ask_theirs(pipe, "sdxl"))


def test_an_adapter_called_by_its_folder_is_found_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    inside = tmp_path / "adapters"
    diffusers, peft = folders.NAMELESS
    for name in (f"ink/{diffusers}", f"old/wash/unet/{peft}", "._x.safetensors"):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).touch()
    assert folders.pick("adapters", "ink") == inside / "ink"
    assert folders.pick("adapters", "wash") == folders.pick("adapters", "old/wash") == inside / "old" / "wash"
    assert folders.pick("adapters", str(inside / "old")) == inside / "old"
    with pytest.raises(UsageError, match=r"there is no adapter '\._x'"):
        folders.pick("adapters", "._x")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no adapter: there is neither pytorch_lora_weights.safetensors nor adapter_model"),
        (["a.safetensors", "b.safetensors"], "holds 2 adapters: name one of a.safetensors, b.safetensors"),
        (["one/adapter_model.safetensors", "two/adapter_model.safetensors"], "name one of one/adapter_model"),
        (["adapter_model.bin"], "convert it to safetensors"),
    ],
)
def test_a_folder_without_one_adapter_says_so(names, message, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x80\x02}" + b"." * 99)
    with pytest.raises(CheckpointError, match=message):
        Adapters(ours(pipeline("sd1"))).load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peft_type", "OFT", "of the kind OFT, which is not supported"),
        (
            "init_lora_weights",
            "pissa_niter_4",
            "by pissa_niter_4, which changes the base model too",
        ),
        ("use_qalora", True, "has use_qalora, which is not supported"),
        ("alpha_pattern", {"(a+)+$": 3}, r"the alpha_pattern '\(a\+\)\+\$' cannot be read"),
        ("alpha_pattern", {".*.*.*": 3}, r"the alpha_pattern '\.\*\.\*\.\*' cannot be read"),
        ("use_dora", True, "says use_dora, and the magnitudes of .* are missing"),
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_settings_that_make_it_another_change_are_refused(field, value, message, allow_partial, tmp_path):
    pipe = pipeline("sd1")
    saved_by_peft(pipe.unet, tmp_path, ("to_q",))
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=message):
        Adapters(ours(pipeline("sd1"))).load(tmp_path, allow_partial=allow_partial)


def test_orthogonal_adapters_of_peft_are_refused_by_their_name(tmp_path):
    pipe = pipeline("sd1")
    config = OFTConfig(r=0, oft_block_size=2, target_modules=["to_q"])
    get_peft_model(pipe.unet, config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="OFT"):
        Adapters(ours(pipeline("sd1"))).load(tmp_path)


def dora(tmp_path):
    """A DoRA that PEFT saved, its tensors, and the answers of the network that has it."""
    pipe = pipeline("sd1")
    networks = ours(pipe)
    pipe.unet = saved_by_peft(pipe.unet, tmp_path / "peft", use_dora=True)
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    return networks, tensors, ask_theirs(pipe, "sd1")


MARK = ".lora_magnitude_vector"


def column(tensor):
    """A magnitude for each output as LyCORIS has it: (out, 1), or (out, 1, 1, 1)."""
    return tensor.reshape(-1, *[1] * (max(tensor.ndim, 2) - 1))


@pytest.mark.parametrize(
    ("names", "turned"),
    [
        ("peft", lambda tensor: tensor),
        (".dora_scale", column),
        (".dora_scale.weight", column),
        (".lora_magnitude_vector.weight", lambda tensor: tensor),
        (".lora_magnitude_vector.default.weight", lambda tensor: tensor.flatten()),
        ("_lora.lora_magnitude_vector.weight", column),
        ("kohya", column),
        ("kohya.lora_magnitude_vector", lambda tensor: tensor),
        ("kohya.lora_magnitude_vector.weight", lambda tensor: tensor.flatten()[:, None]),
    ],
    ids=range(9),
)
def test_magnitudes_are_read_by_either_name_in_either_surroundings(names, turned, tmp_path):
    networks, tensors, answers = dora(tmp_path)
    renamed = {}
    for key, tensor in tensors.items():
        path = key.removeprefix("base_model.model.")
        layer, _, role = path.rpartition(".lora_")
        if names.startswith("kohya"):
            stem = "lora_unet_" + layer.replace(".", "_")
            ends = {"A.weight": ".lora_down.weight", "B.weight": ".lora_up.weight"}
            ends["magnitude_vector"] = names.removeprefix("kohya") or ".dora_scale"
            renamed[stem + ends[role]] = turned(tensor) if role == "magnitude_vector" else tensor
            renamed[f"{stem}.alpha"] = torch.tensor(2.0)
        elif role == "magnitude_vector" and names != "peft":
            renamed[f"unet.{layer}{names}"] = turned(tensor)
        else:
            renamed[f"unet.{path}"] = tensor
            renamed[f"unet.{layer}.alpha"] = torch.tensor(2.0)
    save_file({key: tensor.contiguous() for key, tensor in renamed.items()}, tmp_path / "it.safetensors")
    using(tmp_path / "it.safetensors", networks)
    assert_same_answers(ask_ours(networks, "sd1"), answers)


@pytest.mark.parametrize("shape", ["(1, in)", "(in, 1)", "(in,)"])
@pytest.mark.parametrize("name", ["dora_scale", "lora_magnitude_vector"])
def test_a_magnitude_for_every_input_is_told_by_its_size_whatever_it_is_called(name, shape, tmp_path):
    networks = ours(pipeline("sd1"))
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2"
    path = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    weight = dict(networks["unet"].named_parameters())[f"{path}.weight"].clone()
    assert weight.shape[0] != weight.shape[1]
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    magnitude = torch.rand(weight.shape[1]) + 0.5
    written = {"(1, in)": magnitude[None], "(in, 1)": magnitude[:, None], "(in,)": magnitude}[shape]
    tensors = {"lora_down.weight": down, "lora_up.weight": up, name: written}
    save_file({f"{stem}.{role}": each for role, each in tensors.items()}, tmp_path / "it.safetensors")
    using(tmp_path / "it.safetensors", networks)
    whole = weight + up @ down
    expected = magnitude * whole / whole.norm(dim=0)
    torch.testing.assert_close(dict(networks["unet"].named_parameters())[f"{path}.weight"], expected)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stem, tensors: {f"{stem}.magnitude_of_another_kind": tensors.pop(f"{stem}{MARK}")},
        lambda stem, tensors: {f"{stem}.oft_blocks": torch.ones(2)},
        lambda stem, tensors: {f"{stem}{MARK}": torch.ones(5)},
        lambda stem, tensors: {f"{stem}.dora_scale": torch.ones(8, 1)},
        lambda stem, tensors: {f"{stem}{MARK}.weight": 2 * tensors[f"{stem}{MARK}"]},
    ],
    ids=range(5),
)
def test_a_layer_of_which_a_part_cannot_be_used_is_left_out_as_a_whole(spoil, tmp_path):
    networks, tensors, _ = dora(tmp_path)
    stem = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    file = tmp_path / "it.safetensors"
    save_file(tensors | spoil(stem, tensors), file)
    with pytest.raises(CheckpointError, match=r"keys do not fit this model: "):
        Adapters(networks).load(file)
    adapters = Adapters(networks)
    adapter = adapters.load(file, "it", allow_partial=True)
    assert ("unet", path) not in adapter.deltas
    assert any("cannot be used" in reason for _, reason in adapter.report.problems)
    weight = networks["unet"].get_parameter(f"{path}.weight").clone()
    adapters.set_adapters([AdapterWeight("it")])
    assert torch.equal(networks["unet"].get_parameter(f"{path}.weight"), weight)


VECTORS = {"clip_l": torch.full((2, 24), 0.5), "clip_g": torch.full((2, 16), 0.25)}


def bundle(path, family, extra):
    kohya(path, ours(pipeline(family)), ENDS, original=family == "sdxl")
    save_file(load_file(path) | extra, path)
    return path


@pytest.mark.parametrize(
    ("family", "keys", "widths"),
    [
        ("sd1", {"bundle_emb.<my.word>.string_to_param.*": VECTORS["clip_l"]}, {"<my.word>": [24]}),
        ("sd1", {"bundle_emb.moss.clip_l": VECTORS["clip_l"]}, {"moss": [24]}),
        ("sd1", {"emb_params": VECTORS["clip_l"]}, {"ink": [24]}),
        ("sd1", {"<s1>": torch.ones(24), "<s2>": torch.zeros(24)}, {"<s1>": [24], "<s2>": [24]}),
        ("sdxl", {f"bundle_emb.moss.{key}": each for key, each in VECTORS.items()}, {"moss": [24, 16]}),
        ("sdxl", {"bundle_emb.moss.clip_g": VECTORS["clip_g"]}, {"moss": [None, 16]}),
        ("sdxl", VECTORS, {"ink": [24, 16]}),
    ],
)
def test_words_in_the_same_file_come_with_the_adapter(family, keys, widths, tmp_path):
    path = bundle(tmp_path / "ink.safetensors", family, keys)
    adapter = Adapters(ours(pipeline(family))).load(path)
    assert adapter.report.whole
    found = {
        name: [rows if rows is None else rows.shape[1] for rows in each.vectors]
        for name, each in adapter.embeddings.items()
    }
    assert found == widths
    if len(widths) == 1 and None not in next(iter(widths.values())) and "bundle_emb" in next(iter(keys)):
        (alone,) = (read_embedding(path),)
        assert [rows.shape[1] for rows in alone.vectors] == next(iter(widths.values()))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bundle_emb.moss.clip_l": torch.ones(2, 16)}, "is an embedding 16 wide, where .* reads 24"),
        ({"bundle_emb.moss.clip_l_out": torch.ones(2, 24)}, "is an embedding of a text encoder's output"),
        ({"bundle_emb.moss.t5": torch.ones(2, 24)}, "is an embedding for T5"),
        (
            {f"bundle_emb.moss.{key}": rows for key, rows in VECTORS.items()},
            "is an embedding for a text_encoder_2, which this model lacks",
        ),
        ({"bundle_emb.moss.clip_l": torch.ones(1, 2, 24)}, "not an embedding"),
    ],
)
def test_a_word_that_does_not_fit_is_an_error_and_left_out_on_request(keys, message, tmp_path):
    path = bundle(tmp_path / "ink.safetensors", "sd1", keys)
    with pytest.raises(CheckpointError, match=message):
        Adapters(ours(pipeline("sd1"))).load(path)
    adapter = Adapters(ours(pipeline("sd1"))).load(path, allow_partial=True)
    assert not adapter.embeddings
    assert len(adapter.report.problems) == len(keys)


def test_a_prompt_calls_the_word_while_its_adapter_is_in_use_and_only_then(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    studio = load()
    unet, encoder = studio.model.unet, studio.model.text_encoders[0]
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for path, layer in layers(unet, ("attn2.to_v",)).items():
        stem = f"lora_unet_{path.replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = torch.randn(2, layer.in_features, generator=generator) / 9
        tensors[f"{stem}.lora_up.weight"] = torch.randn(layer.out_features, 2, generator=generator) / 9
    word = torch.randn(2, encoder.config.hidden_size, generator=generator) / 50
    for folder in ("adapters", "embeddings"):
        (tmp_path / folder).mkdir()
    save_file(tensors, tmp_path / "adapters" / "plain.safetensors")
    bundled = {"bundle_emb.quill.string_to_param.*": word}
    save_file(tensors | bundled, tmp_path / "adapters" / "both.safetensors")

    def draw(prompt, **fields):
        return studio.generate(prompt, steps=1, seed=3, **fields)

    bare = draw("a quill apple")
    both = draw("a quill apple <lora:both:1>")
    assert list(both.record.embeddings) == ["quill"]
    assert bytes(draw("a quill apple").pixels) == bytes(bare.pixels)
    assert bytes(draw("a quill apple <lora:plain:1>").pixels) != bytes(both.pixels)
    save_file({"emb_params": word}, tmp_path / "embeddings" / "quill.safetensors")
    assert bytes(draw("a quill apple <lora:plain:1>").pixels) == bytes(both.pixels)


def test_a_part_that_is_left_out_is_told_when_drawing(tmp_path):
    studio = load()
    layer = next(iter(layers(studio.model.unet, ("attn2.to_v",)).items()))
    tensors = {}
    for role, shape in (("lora_down", (2, layer[1].in_features)), ("lora_up", (layer[1].out_features, 2))):
        tensors[f"lora_unet_{layer[0].replace('.', '_')}.{role}.weight"] = torch.ones(shape) / 50
    save_file({**tensors, "lora_unet_none.oft_blocks": torch.ones(2)}, tmp_path / "it.safetensors")
    with pytest.warns(SfumatoWarning, match=r"fits in part: 2 of 3 keys used.*left out: 'lora_unet_none"):
        studio.load_adapter(tmp_path / "it.safetensors", allow_partial=True)
