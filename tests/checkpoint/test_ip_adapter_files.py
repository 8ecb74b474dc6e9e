"""Where the image encoders of IP-Adapters are found, on the disk and on the hub."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from checkpoint_families import unet

from sfumato import weights
from sfumato.checkpoint import source, unpickle
from sfumato.checkpoint.control import load_control
from sfumato.config import UNetConfig
from sfumato.errors import CheckpointError

sys.path.append(str(Path(__file__).parents[1] / "nets"))

from ip_adapter_states import flat, states


def encoder(place, width, projection):
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2, image_size=20,
        patch_size=5, projection_dim=projection,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(place)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two folders, each with an encoder, and in the second an adapter for the encoder of the first."""
    top, net = tmp_path_factory.mktemp("published"), unet()
    encoder(top / "models" / "image_encoder", 16, 12)
    encoder(top / "sdxl_models" / "image_encoder", 24, 20)
    for name, kind, width in (
        ("models/base", "base", 12),
        ("sdxl_models/base", "base", 20),
        ("sdxl_models/plus_vit-h", "plus", 16),
    ):
        weights.write(top / f"{name}.safetensors", flat(states(net, kind, width)))
    return top, UNetConfig.from_dict(dict(net.config), "unet")


FOUND = {
    "models/base": "models",
    "sdxl_models/base": "sdxl_models",
    "sdxl_models/plus_vit-h": "models",
}


@pytest.mark.parametrize("name", FOUND)
def test_the_encoder_is_the_nearest_one_that_is_as_wide_as_the_adapter_reads(published, name):
    top, config = published
    loaded = load_control(str(top / f"{name}.safetensors"), config)
    assert loaded.encoder.where == str(top / FOUND[name] / "image_encoder")


def test_an_encoder_that_the_model_brings_is_used_where_none_is_beside_the_file(published, tmp_path):
    top, config = published
    file, own = tmp_path / "a" / "base.safetensors", tmp_path / "model" / "image_encoder"
    file.parent.mkdir()
    shutil.copy(top / "models" / "base.safetensors", file)
    encoder(own, 16, 12)
    with pytest.raises(CheckpointError, match="needs the image encoder that it was trained with"):
        load_control(str(file), config)
    one = load_control(str(file), config, image_encoder=own)
    assert one.encoder.where == str(own)
    encoder(own, 16, 12)
    assert load_control(str(file), config, image_encoder=own).fingerprint != one.fingerprint


def test_a_file_on_the_hub_comes_with_the_encoder_that_it_needs_and_no_other(
    published, tmp_path, monkeypatch
):
    top, config = published
    monkeypatch.chdir(tmp_path)
    asked = []

    def hub_file(repository, name, *, revision, local_files_only):
        asked.append((repository, name, revision))
        if not (top / name).is_file():
            raise CheckpointError("not there")
        (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(top / name, tmp_path / "cache" / name)

    monkeypatch.setattr(source, "hub_file", hub_file)
    loaded = load_control("org/name@v1/sdxl_models/plus_vit-h.safetensors", config)
    assert loaded.encoder.where == str(tmp_path / "cache" / "models" / "image_encoder")
    assert {each for each in asked if each[1].endswith("model.safetensors")} == {
        ("org/name", "models/image_encoder/model.safetensors", "v1")
    }
    with pytest.raises(CheckpointError, match="not there"):
        load_control("org/name/models/other.safetensors", config)


def test_a_pickle_is_refused_and_what_it_is_converted_to_is_read(published, tmp_path):
    top, config = published
    tables = states(unet(), "base", 12)
    torch.save(tables, tmp_path / "base.bin")
    shutil.copytree(top / "models" / "image_encoder", tmp_path / "image_encoder")
    with pytest.raises(CheckpointError, match="convert it to safetensors by `sfumato convert --from-pickle`"):
        load_control(str(tmp_path / "base.bin"), config)
    unpickle.convert(tmp_path / "base.bin", tmp_path / "base.safetensors")
    network = load_control(str(tmp_path / "base.safetensors"), config).network
    assert torch.equal(network.image_proj.proj.weight, tables["image_proj"]["proj.weight"])
