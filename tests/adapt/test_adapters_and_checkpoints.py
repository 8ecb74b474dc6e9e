"""Folding adapters into a model's files, and extracting one from two models: closed forms, every layout."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_files import CONVOLUTIONS, TARGETS, TEXT, kohya
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline

from sfumato import adapt, checkpoint, weights
from sfumato.adapt import Adapters, AdapterWeight
from sfumato.errors import CheckpointError, OutputError, SfumatoWarning, UsageError

LAYERS = (*TARGETS, *CONVOLUTIONS, *TEXT)
FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a family: its folder, its single file, and a LoRA "one" for both."""
    found = {}

    def get(family):
        if family not in found:
            top = tmp_path_factory.mktemp(family)
            pipe = pipeline(family)
            pipe.save_pretrained(top / "folder")
            checkpoint.convert(top / "folder", top / "file.safetensors")
            names = ("unet", "text_encoder", "text_encoder_2")
            nets = {name: net for name in names if (net := getattr(pipe, name, None)) is not None}
            kohya(top / "one.safetensors", nets, LAYERS, rank=2, alpha=1.0, seed=1)
            found[family] = top
        return found[family]

    return get


def state(model):
    """Every parameter of a model, by its place."""
    found = checkpoint.load(model).networks
    return {
        f"{part}.{name}": tensor for part, net in found.items() for name, tensor in net.state_dict().items()
    }


def in_memory(model, path, weight):
    """The same with the adapter merged in by the class that drawing uses."""
    loaded = checkpoint.load(model)
    adapters = Adapters(loaded.networks)
    adapters.load(path, "it")
    adapters.set_adapters([AdapterWeight("it", weight)])
    return {
        f"{part}.{name}": tensor
        for part, net in loaded.networks.items()
        for name, tensor in net.state_dict().items()
    }


@pytest.mark.parametrize("layout", ["folder", "file.safetensors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_model_is_the_one_that_drawing_makes_to_the_bit(family, layout, made, tmp_path):
    top = made(family)
    one, target = top / "one.safetensors", tmp_path / layout
    done = adapt.fold(top / layout, [AdapterWeight(str(one), 0.7)], target)
    assert done.layout == ("diffusers folder" if layout == "folder" else "single file")
    folded, expected, before = state(target), in_memory(top / layout, one, 0.7), state(top / layout)
    assert folded.keys() == expected.keys()
    assert all(torch.equal(folded[name], tensor) for name, tensor in expected.items())
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, folded[name])]
    assert len(changed) == sum(done.layers.values()) > 50


def test_diffusers_draws_with_a_folded_folder_as_with_the_lora(made, tmp_path):
    top, pipe = made("sd1"), pipeline("sd1")
    adapt.fold(top / "folder", [top / "one.safetensors"], tmp_path / "folded")
    folded = type(pipe).from_pretrained(tmp_path / "folded", local_files_only=True)
    pipe.load_lora_weights(top / "one.safetensors")
    drawn = []
    for each in (pipe, folded, pipeline("sd1")):
        each.set_progress_bar_config(disable=True)
        drawn += list(each(
            "a red apple", num_inference_steps=2, width=24, height=16, output_type="np",
            generator=torch.Generator().manual_seed(3),
          ).images)  # fmt: skip
    assert np.abs(drawn[0] - drawn[1]).max() < 1e-4
    assert np.abs(drawn[0] - drawn[2]).max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_folded_in_is_extracted_again_across_layouts(family, made, tmp_path):
    top = made(family)
    tuned, found = tmp_path / "tuned.safetensors", tmp_path / "found.safetensors"
    adapt.fold(top / "file.safetensors", [top / "one.safetensors"], tuned)
    done = adapt.extract(top / "folder", tuned, found, rank=2)
    assert done.kept > 0.99999
    again, folded = in_memory(top / "folder", found, 1.0), state(tuned)
    before = state(top / "folder")
    for name, tensor in folded.items():
        change = tensor - before[name]
        assert (again[name] - tensor).norm() <= 1e-4 * change.norm(), name


def test_what_an_extracted_lora_lacks_is_the_tail_of_the_singular_values(made, tmp_path):
    top = made("sd1")
    tuned = tmp_path / "tuned.safetensors"
    adapt.fold(top / "file.safetensors", [top / "one.safetensors"], tuned)
    done = adapt.extract(top / "folder", tuned, tmp_path / "found.safetensors", rank=1, layout="peft")
    before, after = state(top / "folder"), state(tuned)
    again = in_memory(top / "folder", tmp_path / "found.safetensors", 1.0)
    total = tail = 0.0
    for name, tensor in after.items():
        if torch.equal(tensor, before[name]):
            continue
        values = torch.linalg.svdvals((tensor - before[name]).flatten(1))
        assert (tensor - again[name]).norm() == pytest.approx(values[1:].norm().item(), rel=1e-2)
        total, tail = total + float(values.square().sum()), tail + float(values[1:].square().sum())
    assert done.kept == pytest.approx((1 - tail / total) ** 0.5, abs=1e-3)


def test_rounding_to_half_precision_is_no_difference(made, tmp_path):
    top = made("sd1")
    checkpoint.convert(top / "folder", tmp_path / "half.safetensors", dtype=torch.float16)
    with pytest.raises(UsageError, match="have the same weights: there is nothing to extract"):
        adapt.extract(top / "folder", tmp_path / "half.safetensors", tmp_path / "it.safetensors", rank=2)
    adapt.fold(tmp_path / "half.safetensors", [top / "one.safetensors"], tmp_path / "tuned.safetensors")
    adapt.extract(
        tmp_path / "half.safetensors", tmp_path / "tuned.safetensors", tmp_path / "a.safetensors", rank=2
    )
    assert {info.dtype for info in weights.header(tmp_path / "a.safetensors").tensors.values()} == {"F16"}


def test_changes_that_a_lora_has_no_place_for_are_told(made, tmp_path):
    top = made("sd1")
    tensors = load_file(top / "file.safetensors")
    key = next(key for key in tensors if key.endswith("input_blocks.1.0.in_layers.0.weight"))
    linear = next(key for key in tensors if key.endswith("attn2.to_k.weight"))
    changed = {key: tensors[key] + 1, linear: tensors[linear] + 1}
    save_file(
        {**tensors, **changed}, tmp_path / "tuned.safetensors", weights.metadata(top / "file.safetensors")
    )
    with pytest.warns(SfumatoWarning, match="1 norms, biases and tables differ too, such as down_blocks"):
        done = adapt.extract(
            top / "folder",
            tmp_path / "tuned.safetensors",
            tmp_path / "it.safetensors",
            dynamic="sv_ratio",
            value=9,
        )
    assert (sum(done.layers.values()), list(done.ranks)) == (1, [1])


def test_a_folders_other_files_go_along_and_weights_that_nothing_reads_do_not(made, tmp_path):
    top = made("sd1")
    folder, target = tmp_path / "folder", tmp_path / "folded"
    shutil.copytree(top / "folder", folder)
    (folder / "README.md").write_text("mine")
    (folder / "whole.ckpt").write_bytes(b"0")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"0")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_bytes(b"0")
    adapt.fold(folder, [top / "one.safetensors"], target)
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    own = {
        path.relative_to(top / "folder").as_posix() for path in (top / "folder").rglob("*") if path.is_file()
    }
    assert names == own | {"README.md"}


def test_shards_stay_shards(made, tmp_path):
    top = made("sd1")
    checkpoint.save(checkpoint.load(top / "folder"), tmp_path / "shards", shard_bytes=50_000)
    adapt.fold(tmp_path / "shards", [top / "one.safetensors"], tmp_path / "folded")
    shards = sorted(path.name for path in (tmp_path / "shards" / "unet").iterdir())
    assert len(shards) > 3
    assert sorted(path.name for path in (tmp_path / "folded" / "unet").iterdir()) == shards
    folded, expected = state(tmp_path / "folded"), in_memory(top / "folder", top / "one.safetensors", 1.0)
    assert all(torch.equal(folded[name], tensor) for name, tensor in expected.items())


def test_a_files_header_stays_and_says_what_was_folded_in(made, tmp_path):
    top = made("sd1")
    path = tmp_path / "model.safetensors"
    tensors = load_file(top / "file.safetensors")
    told = {**weights.metadata(top / "file.safetensors"), "modelspec.hash_sha256": "0x1"}
    save_file({**tensors, "model_ema.decay": torch.ones(())}, path, told)
    with pytest.warns(SfumatoWarning, match="without the 1 tensors of model_ema"):
        adapt.fold(path, [AdapterWeight(str(top / "one.safetensors"), 0.5)], tmp_path / "folded.safetensors")
    found = weights.metadata(tmp_path / "folded.safetensors")
    assert found.keys() == (told.keys() - {"modelspec.hash_sha256"}) | {"sfumato.sources"}
    (source,) = json.loads(found["sfumato.sources"])
    assert (source["name"], source["weight"]) == ("one", 0.5)


def test_a_dora_is_folded_in(made, tmp_path):
    """What a merge of files cannot do: with the model's weights its change is known."""
    top = made("sd1")
    tensors = load_file(top / "one.safetensors")
    for key in [key for key in tensors if key.endswith("lora_up.weight")]:
        up = tensors[key]
        tensors[key.replace("lora_up.weight", "dora_scale")] = 1 + torch.rand(len(up), *[1] * (up.ndim - 1))
    save_file(tensors, tmp_path / "dora.safetensors")
    adapt.fold(top / "folder", [AdapterWeight(str(tmp_path / "dora.safetensors"), 0.5)], tmp_path / "folded")
    expected = in_memory(top / "folder", tmp_path / "dora.safetensors", 0.5)
    folded = state(tmp_path / "folded")
    assert all(torch.equal(folded[name], tensor) for name, tensor in expected.items())


def test_what_cannot_be_done_is_an_error_and_leaves_everything_as_it_was(made, tmp_path):
    top, other = made("sd1"), made("sdxl")
    one, file, folder = top / "one.safetensors", top / "file.safetensors", top / "folder"
    before = file.read_bytes()
    with pytest.raises(UsageError, match="is what is read: it is not replaced"):
        adapt.fold(file, [one], file, overwrite=True)
    with pytest.raises(UsageError, match="is what is read: it is not replaced"):
        adapt.fold(folder, [one], folder / "inside")
    with pytest.raises(UsageError, match=r"is a \.safetensors file: the target must be one"):
        adapt.fold(file, [one], tmp_path / "folder")
    with pytest.raises(UsageError, match="is a folder: the target must be one"):
        adapt.fold(folder, [one], tmp_path / "it.safetensors")
    with pytest.raises(UsageError, match="fold takes one adapter or more"):
        adapt.fold(folder, [], tmp_path / "it")
    with pytest.raises(CheckpointError, match="108 of 327 keys do not fit this model"):
        adapt.fold(folder, [other / "one.safetensors"], tmp_path / "it")
    with pytest.raises(
        UsageError,
        match=r"has another embeddings\.token_embedding\.weight in its|is Stable Diffusion XL|has another",
    ):
        adapt.extract(folder, other / "folder", tmp_path / "it.safetensors", rank=2)
    with pytest.raises(UsageError, match="extract takes a rank"):
        adapt.extract(folder, file, tmp_path / "it.safetensors")
    with pytest.raises(UsageError, match="have the same weights"):
        adapt.extract(folder, file, tmp_path / "it.safetensors", rank=2)
    (tmp_path / "there.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="will not replace"):
        adapt.fold(file, [one], tmp_path / "there.safetensors")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["there.safetensors"]


def test_numbers_of_8_bits_are_not_folded_into(made, tmp_path):
    top = made("sd1")
    checkpoint.convert(top / "folder", tmp_path / "wide.safetensors")
    tensors = load_file(tmp_path / "wide.safetensors")
    small = {
        key: each.to(torch.float8_e4m3fn) if "model.diffusion_model" in key and each.ndim > 1 else each
        for key, each in tensors.items()
    }
    save_file(small, tmp_path / "small.safetensors", weights.metadata(tmp_path / "wide.safetensors"))
    with pytest.raises(UsageError, match="holds numbers of 8 bits"):
        adapt.fold(tmp_path / "small.safetensors", [top / "one.safetensors"], tmp_path / "it.safetensors")
    assert not (tmp_path / "it.safetensors").exists()
