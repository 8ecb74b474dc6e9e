"""Adapters of every published form against diffusers and PEFT, which read or made the same files."""

import json

import pytest
import torch
from adapt_families import (
    FAMILIES,
    ask_ours,
    ask_theirs,
    assert_same_answers,
    assert_same_bits,
    differ,
    ours,
    pipeline,
    theirs,
)
from adapter_files import CONVOLUTIONS, TARGETS, TEXT, TIMES, kohya, layers, old_diffusers
from diffusers.training_utils import _collate_lora_metadata
from peft import (
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
)
from safetensors.torch import save_file

from sfumato.adapt import Adapters, AdapterWeight, attach_new, save_lora

ENDS = (*TARGETS, *CONVOLUTIONS)


def randomise(net, seed=3):
    """Numbers for every part of an adapter that a peer has just made, those that begin as zeros too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_magnitude" in name:
                parameter *= 1 + 0.2 * torch.randn(parameter.shape, generator=generator)
            elif any(mark in name for mark in ("lora_", "hada_", "lokr_")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)


def made_by_diffusers(pipe, folder, *, seed=3, ends=ENDS, **options):
    """A LoRA on every network, saved by diffusers; the pipeline keeps it."""
    nets = theirs(pipe)
    for part, net in nets.items():
        found = layers(net, ends if part == "unet" else TEXT)
        targets = [at for at in found if found[at].bias is not None or not options.get("lora_bias")]
        net.add_adapter(LoraConfig(r=3, target_modules=targets, **{"lora_alpha": 2, **options}))
        randomise(net, seed)
    pipe.save_lora_weights(
        folder,
        **{f"{part}_lora_layers": get_peft_model_state_dict(net) for part, net in nets.items()},
        **_collate_lora_metadata(nets),
    )
    return folder / "pytorch_lora_weights.safetensors"


def using(path, networks, **options):
    adapters = Adapters(networks)
    adapter = adapters.load(path, "it", **options)
    assert adapter.report.whole
    adapters.set_adapters([AdapterWeight("it")])
    return adapters


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_that_diffusers_saved_answers_as_there_and_leaves_no_trace(family, tmp_path):
    pipe = pipeline(family)
    networks = ours(pipe)
    before = ask_ours(networks, family)
    path = made_by_diffusers(pipe, tmp_path)
    adapters = using(path, networks)
    after = ask_ours(networks, family)
    assert_same_answers(after, ask_theirs(pipe, family))
    assert differ(after, before)
    adapters.set_adapters([])
    assert_same_bits(ask_ours(networks, family), before)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_q": 5, "attn2.to_k": 1}},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_peft_can_do_besides_is_done(options, tmp_path):
    pipe = pipeline("sd2")
    networks = ours(pipe)
    using(made_by_diffusers(pipe, tmp_path, **options), networks)
    assert_same_answers(ask_ours(networks, "sd2"), ask_theirs(pipe, "sd2"))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_several_at_once_with_weights_add_up_as_in_diffusers(family, tmp_path):
    paths = {}
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        paths[name] = made_by_diffusers(pipeline(family), tmp_path / name, seed=seed, ends=("to_q", "conv2"))
    pipe = pipeline(family)
    networks = ours(pipe)
    adapters = Adapters(networks)
    for name, path in paths.items():
        pipe.load_lora_weights(path, adapter_name=name)
        adapters.load(path, name)
    for weights in ((0.7, -0.4), (1.5, 0.25)):
        pipe.set_adapters(list(paths), list(weights))
        adapters.set_adapters(
            [AdapterWeight(name, weight) for name, weight in zip(paths, weights, strict=True)]
        )
        assert_same_answers(ask_ours(networks, family), ask_theirs(pipe, family))


def test_a_weight_of_its_own_for_the_text_is_the_text_encoders(tmp_path):
    pipe = pipeline("sd1")
    networks = ours(pipe)
    path = made_by_diffusers(pipeline("sd1"), tmp_path)
    pipe.load_lora_weights(path, adapter_name="it")
    pipe.set_adapters("it", {"unet": 0.5, "text_encoder": 0.2})
    adapters = using(path, networks)
    adapters.set_adapters([AdapterWeight("it", 0.5, 0.2)])
    assert_same_answers(ask_ours(networks, "sd1"), ask_theirs(pipe, "sd1"))


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_files_of_diffusers_before_peft_are_read(family, tmp_path):
    pipe = pipeline(family)
    networks = ours(pipe)
    old_diffusers(tmp_path / "old.safetensors", theirs(pipe))
    using(tmp_path / "old.safetensors", networks)
    pipe.load_lora_weights(tmp_path / "old.safetensors")
    assert_same_answers(ask_ours(networks, family), ask_theirs(pipe, family))


@pytest.mark.parametrize(
    ("family", "original", "ends"),
    [
        ("sd1", False, (*ENDS, *TEXT, "time_emb_proj")),
        ("sd2", False, ("proj_in", "to_k", "ff.net.2", *TEXT)),
        ("sdxl", False, ("proj_in", "to_k", "ff.net.2", *TEXT)),
        ("sdxl", True, (*ENDS, *TIMES, *TEXT)),
    ],
)
def test_kohyas_files_answer_as_in_diffusers(family, original, ends, tmp_path):
    pipe = pipeline(family)
    networks = ours(pipe)
    path = tmp_path / "kohya.safetensors"
    kohya(path, theirs(pipe), ends, original=original)
    using(path, networks)
    pipe.load_lora_weights(path)
    assert_same_answers(ask_ours(networks, family), ask_theirs(pipe, family))


@pytest.mark.parametrize(
    "config",
    [
        LoHaConfig(r=2, alpha=3, target_modules=[], use_effective_conv2d=False),
        LoHaConfig(r=2, alpha=3, target_modules=[], use_effective_conv2d=True),
        LoKrConfig(r=2, alpha=3, target_modules=[], use_effective_conv2d=True),
        LoKrConfig(r=1, alpha=3, target_modules=[], decompose_both=True, decompose_factor=2),
        LoKrConfig(r=16, alpha=3, target_modules=[], rank_pattern={"to_q": 1}, alpha_pattern={"to_q": 5}),
        LoraConfig(r=2, lora_alpha=3, target_modules=[], use_dora=True),
    ],
    ids=["loha", "loha-tucker", "lokr-tucker", "lokr-both", "lokr-whole", "dora"],
)
def test_what_peft_itself_saves_is_read_with_the_settings_beside_it(config, tmp_path):
    pipe = pipeline("sd1")
    networks = ours(pipe)
    config.target_modules = set(layers(pipe.unet, ENDS))
    inject_adapter_in_model(config, pipe.unet)
    randomise(pipe.unet)
    pipe.unet.peft_config = {"default": config}
    state = get_peft_model_state_dict(pipe.unet)
    save_file(
        {f"base_model.model.{key}": tensor.contiguous() for key, tensor in state.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config.save_pretrained(tmp_path)
    using(tmp_path / "adapter_model.safetensors", networks)
    assert_same_answers(ask_ours(networks, "sd1"), ask_theirs(pipe, "sd1"))


@pytest.mark.parametrize("layout", ["peft", "kohya"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_what_is_trained_here_is_read_by_diffusers_and_here(family, layout, tmp_path):
    pipe = pipeline(family)
    networks = ours(pipe)
    for number, (part, net) in enumerate(networks.items()):
        ends = ("to_q", "to_out.0", "conv1") if part == "unet" else TEXT
        made = attach_new(net, 3 + number, alpha=2, targets=ends)
        for place, parameter in enumerate(made):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(place))
    trained = ask_ours(networks, family)
    path = tmp_path / "mine.safetensors"
    save_lora(path, networks, layout=layout, metadata={"modelspec.trigger_phrase": "sks"})
    pipe.load_lora_weights(path)
    assert_same_answers(trained, ask_theirs(pipe, family))
    again = ours(pipeline(family))
    assert using(path, again)["it"].triggers == ("sks",)
    assert_same_answers(ask_ours(again, family), trained, 1e-5)


def test_the_headers_settings_are_those_that_peft_takes(tmp_path):
    pipe = pipeline("sd1")
    networks = ours(pipe)
    attach_new(networks["unet"], 4, alpha=2, targets=["to_q"])
    save_lora(tmp_path / "mine.safetensors", networks)
    with open(tmp_path / "mine.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    settings = json.loads(header["__metadata__"]["lora_adapter_metadata"])
    config = LoraConfig(**{key.removeprefix("unet."): value for key, value in settings.items()})
    assert (config.r, config.lora_alpha) == (4, 2)
