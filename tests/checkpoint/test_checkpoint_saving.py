import errno
import os

import diffusers
import pytest
import torch
from checkpoint_families import FAMILIES

from sfumato import checkpoint, files, weights
from sfumato.errors import CheckpointError, OutputError, UsageError


def states(pipe):
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {name: getattr(pipe, name).state_dict() for name in names if getattr(pipe, name, None) is not None}


def draw(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    side = {} if "image" in options else {"height": 16, "width": 16}
    return pipe(
        "a red apple", num_inference_steps=2, generator=generator, output_type="pt", **side, **options
    ).images


def extra_inputs(family):
    picture, mask = torch.full((1, 3, 16, 16), 0.5), torch.ones(1, 1, 16, 16)
    return {
        "inpaint": {"image": picture, "mask_image": mask, "height": 16, "width": 16},
        "instruct": {"image": picture},
        "refiner": {"image": picture, "strength": 1.0},
    }.get(family, {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_the_very_weights_that_we_save_and_draws_the_same(pipelines, saved, tmp_path, family):
    pipe, model = pipelines(family), checkpoint.load(saved(family))
    checkpoint.save(model, tmp_path / "ours")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again) is type(pipe)
    assert type(again.scheduler) is type(pipe.scheduler)
    config = {key: value for key, value in again.scheduler.config.items() if not key.startswith("_")}
    assert config.items() <= pipe.scheduler.config.items()
    before, after = states(pipe), states(again)
    assert before.keys() == after.keys()
    for name, state in before.items():
        assert state.keys() == after[name].keys()
        assert all(torch.equal(state[key], after[name][key]) for key in state)
    inputs = extra_inputs(family)
    if "image" in inputs and family == "inpaint":
        inputs |= {"height": 16, "width": 16}
    torch.testing.assert_close(draw(pipe, **inputs), draw(again, **inputs), rtol=0, atol=1e-4)


def test_diffusers_draws_the_embedded_model_the_same_after_we_saved_it(tmp_path):
    checkpoint.save(checkpoint.load("embedded"), tmp_path / "copy")
    pictures, weights_of = [], []
    for folder in (checkpoint.embedded(), tmp_path / "copy"):
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        options = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "pt"}
        pictures.append(pipe("a red apple", generator=generator, **options).images)
        weights_of.append(states(pipe))
    torch.testing.assert_close(*weights_of, rtol=0, atol=0)
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-4)
    assert checkpoint.load(tmp_path / "copy").defaults == checkpoint.load("embedded").defaults


@pytest.mark.parametrize("family", ["sd1", "sdxl", "refiner"])
def test_what_is_saved_is_loaded_back_the_same(saved, tmp_path, family):
    model = checkpoint.load(saved(family))
    checkpoint.save(model, tmp_path / "m")
    again = checkpoint.load(tmp_path / "m")
    for name, network in model.networks.items():
        theirs = again.networks[name].state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in network.state_dict().items())
        assert again.networks[name].config == network.config
    assert (again.schedule, again.kind, again.zero_negative) == (
        model.schedule,
        model.kind,
        model.zero_negative,
    )
    assert again.tokenizers[-1].pad == model.tokenizers[-1].pad
    torch.testing.assert_close(again.encode("a red apple!").states, model.encode("a red apple!").states)


@pytest.mark.filterwarnings("ignore")
def test_a_variant_is_named_and_converted(saved, tmp_path):
    checkpoint.save(checkpoint.load(saved("sd1")), tmp_path / "m", dtype=torch.float16, variant="fp16")
    header = weights.header(tmp_path / "m" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert {info.dtype for info in header.tensors.values()} == {"F16"}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "m", variant="fp16")
    assert pipe.unet.conv_in.weight.shape == (8, 4, 3, 3)
    for variant in ("../x", "", "fp-16"):
        with pytest.raises(UsageError, match="one word"):
            checkpoint.save(checkpoint.load(saved("sd1")), tmp_path / "n", variant=variant)


def test_a_changed_schedule_is_saved_changed(saved, tmp_path):
    model = checkpoint.load(saved("sd1"))
    changed = {**model.schedule.to_dict(), "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    model.schedule = type(model.schedule).from_dict(changed, "test")
    checkpoint.save(model, tmp_path / "m")
    again = checkpoint.load(tmp_path / "m")
    assert again.prediction == "v"
    assert again.path().level(again.path().last).a == 0


def test_a_model_may_be_saved_over_itself_only_when_asked(folder):
    model = checkpoint.load(folder)
    with pytest.raises(OutputError, match="a model is there already"):
        checkpoint.save(model, folder)
    checkpoint.save(model, folder, overwrite=True)
    again = checkpoint.load(folder)
    assert torch.equal(again.unet.conv_in.weight, model.unet.conv_in.weight)


def test_networks_with_foreign_parameters_are_not_saved(saved, tmp_path):
    model = checkpoint.load(saved("sd1"))
    model.unet.conv_in.lora_down = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"unet: 'conv_in\.lora_down\.weight', .* are unknown"):
        checkpoint.save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_disk_that_fills_up_leaves_no_half_model(saved, tmp_path, monkeypatch, number, after):
    model, fsync, calls = checkpoint.load(saved("sd1")), os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", failing)
    with pytest.raises(OutputError, match="cannot write"):
        checkpoint.save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(saved):
    with pytest.raises(OutputError, match="cannot write /proc/m"):
        checkpoint.save(checkpoint.load(saved("sd1")), "/proc/m")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "variant"), [("sd1", None), ("sdxl", None), ("sd1", "fp16")])
def test_diffusers_loads_the_shards_and_a_conversion_joins_them(pipelines, saved, tmp_path, family, variant):
    model = checkpoint.load(saved(family))
    checkpoint.save(model, tmp_path / "m", variant=variant, shard_bytes=20_000)
    shards = sorted((tmp_path / "m" / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        assert shard.stat().st_size < 40_000 or len(weights.header(shard).tensors) == 1
    checkpoint.convert(tmp_path / "m", tmp_path / "whole")
    assert not list((tmp_path / "whole").rglob("*-of-*"))
    before = states(pipelines(family))
    for folder, asked in (("m", variant), ("whole", None)):
        pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / folder, variant=asked)
        for name, state in states(pipe).items():
            assert state.keys() == before[name].keys()
            assert all(torch.equal(state[key], before[name][key]) for key in state)


def test_a_model_that_fits_one_file_is_not_cut(saved, tmp_path):
    checkpoint.save(checkpoint.load(saved("sd1")), tmp_path / "m", shard_bytes=1 << 30)
    assert not list((tmp_path / "m").rglob("*.safetensors.index*"))
    assert (tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
