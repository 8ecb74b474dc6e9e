"""The files of ControlNets: folders and single files in both layouts, and what does not fit the model."""

import json

import diffusers
import pytest
import torch
from checkpoint_families import pipeline
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import save_file

import sfumato
from sfumato.checkpoint import ldm_keys
from sfumato.checkpoint.control import load_control
from sfumato.config import ControlNetConfig, UNetConfig
from sfumato.errors import CheckpointError, UsageError


def net_of(family, **changes):
    """A small ControlNet for a family's UNet, all its weights random, and that UNet's configuration."""
    unet = pipeline(family).unet
    torch.manual_seed(1)
    net = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 6, 8, 10), **changes
    )
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return net, UNetConfig.from_dict(dict(unet.config), "unet")


def same(loaded, net):
    state = net.state_dict()
    assert loaded.network.state_dict().keys() == state.keys()
    assert all(torch.equal(weight, state[name]) for name, weight in loaded.network.state_dict().items())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_folder_and_a_file_of_the_same_weights_are_the_same_controlnet(tmp_path, family):
    net, unet = net_of(family)
    net.save_pretrained(tmp_path / "net")
    loaded = load_control(str(tmp_path / "net"), unet)
    same(loaded, net)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    single = load_control(str(tmp_path / "net.safetensors"), unet)
    same(single, net)
    x, states = torch.randn(1, 4, 6, 4), torch.randn(1, 7, unet.context[-1])
    picture, size = torch.rand(1, 3, 48, 32), None
    if unet.addition_embed_type:
        from sfumato.nets.inputs import SizeConditioning

        size = SizeConditioning(torch.randn(1, 20), torch.tensor([[24, 16, 0, 0, 24, 16]]))
    for one, other in zip(
        loaded.network(x, torch.tensor([300.0]), states, picture, size).skips,
        single.network(x, torch.tensor([300.0]), states, picture, size).skips,
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_a_file_in_the_first_layout_is_read_as_diffusers_reads_it(tmp_path, family, prefix):
    net, unet = net_of(family)
    config = ControlNetConfig.from_dict(dict(net.config), "net")
    table = ldm_keys.table_of(config, prefix, False, net.state_dict())
    held = {name: tensor.contiguous() for name, tensor in ldm_keys.to_file(table, net.state_dict()).items()}
    known = convert_controlnet_checkpoint(dict(held), dict(net.config))
    assert known.keys() == net.state_dict().keys()
    assert all(torch.equal(known[name], tensor) for name, tensor in net.state_dict().items())
    extra = {"model.diffusion_model.out.2.bias": torch.zeros(4)} if prefix else {}
    save_file(held | extra, tmp_path / "net.safetensors")
    same(load_control(str(tmp_path / "net.safetensors"), unet), net)


def test_a_controlnet_for_another_model_is_refused_and_both_are_named(tmp_path):
    net, _ = net_of("sd1")
    net.save_pretrained(tmp_path / "net")
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    pipeline("sdxl").save_pretrained(tmp_path / "xl")
    studio = sfumato.load(tmp_path / "xl", device="cpu")
    for name in ("net", "net.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"the ControlNet .*net.* is for .*text of 24.*; xl is .*text of 24|24"
        ):
            studio.prepare("x", controls={"model": str(tmp_path / name), "image": bytes_of_a_picture()})


def bytes_of_a_picture():
    import io

    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no config.json"),
        (
            {"config.json": {"_class_name": "UNet2DConditionModel"}},
            "a network of class 'UNet2DConditionModel'",
        ),
        ({"config.json": {"_class_name": "FluxControlNetModel"}}, "Flux is no control"),
        ({"config.json": {"_class_name": "ControlNetModel", "global_pool_conditions": True}}, "global_pool"),
        ({"config.json": {"_class_name": "ControlNetModel"}}, "holds no weights"),
    ],
)
def test_what_is_no_control_is_said_to_be_none(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_control(str(tmp_path), UNetConfig())


def test_a_file_of_something_else_is_named(tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "look.safetensors")
    with pytest.raises(CheckpointError, match="is a LoRA: use it with --lora"):
        load_control(str(tmp_path / "look.safetensors"), UNetConfig())


def test_a_name_is_one_in_the_users_folder_or_that_the_model_brings(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    net, unet = net_of("sd1")
    net.save_pretrained(tmp_path / "controls" / "mine")
    same(load_control("mine", unet), net)
    net.save_pretrained(tmp_path / "model" / "own")
    same(load_control("own", unet, own={"own": tmp_path / "model" / "own"}), net)
    with pytest.raises(CheckpointError, match="there is no control 'mine2'; did you mean 'mine'"):
        load_control("mine2", unet)
    with pytest.raises(CheckpointError, match="the model brings own") as raised:
        load_control("other", unet, own={"own": tmp_path / "model" / "own"})
    assert raised.value.exit_status == UsageError.exit_status
