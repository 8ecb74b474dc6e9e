import json
import os
import shutil

import pytest
import safetensors.torch
import torch

from sfumato import checkpoint, machine, weights
from sfumato.errors import CheckpointError

NETWORKS = ("unet", "vae", "text_encoder")


def refusal(folder):
    """The one line with which a folder is refused; `inspect` must name the same problem."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights_of(folder, name):
    return next((folder / name).glob("*.safetensors"))


def edit(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def test_a_missing_folder_is_answered_with_its_nearest_sibling(folder):
    assert "did you mean 'model'" in refusal(folder.parent / "modle")
    assert "there is no folder" in refusal(folder.parent / "nowhere" / "model")
    assert 'neither "embedded" nor a hub id' in refusal(str(folder / "unet" / "x"))


@pytest.mark.parametrize("name", [*NETWORKS, "tokenizer", "scheduler"])
def test_each_missing_component_is_named_by_load_and_by_inspect(folder, name):
    shutil.rmtree(folder / name)
    line = refusal(folder)
    assert f"the folder {name}/ is missing" in line
    assert line in checkpoint.inspect(folder).problems


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b'{"a": NaN}'])
def test_each_missing_or_broken_file_is_named(folder, file, content):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    assert file.split("/")[-1] in refusal(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_weights_are_told_from_pickled_ones(folder, name):
    path = weights_of(folder, name)
    path.unlink()
    assert f"{name} holds no weights" in refusal(folder)
    (path.parent / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    assert "only a pickled checkpoint (pytorch_model.bin); pickles can run code" in refusal(folder)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, state: {k: v for k, v in state.items() if k != name}, "is missing"),
        (lambda name, state: state | {name + "_": torch.ones(1)}, "is unknown"),
        (lambda name, state: state | {name: torch.ones(2, 3)}, "has shape [2, 3] where"),
        (lambda name, state: state | {name: torch.ones(state[name].shape).int()}, "is I32 where floating"),
    ],
)
def test_parameters_that_do_not_fit_are_named_by_load_and_by_inspect(folder, name, change, words):
    path = weights_of(folder, name)
    state = safetensors.torch.load_file(path)
    key = sorted(state)[3]
    safetensors.torch.save_file(change(key, state), path)
    line = refusal(folder)
    assert words in line
    assert key.removeprefix("text_model.") in line
    assert line in checkpoint.inspect(folder).problems


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(folder, name, number):
    path = weights_of(folder, name)
    state = safetensors.torch.load_file(path)
    key = sorted(state)[3]
    state[key].view(-1)[0] = number
    safetensors.torch.save_file(state, path)
    assert f"tensor {key!r} holds {'NaN' if number != number else 'infinite'}" in refusal(folder)


def test_truncated_weights_are_named(folder):
    path = weights_of(folder, "vae")
    path.write_bytes(path.read_bytes()[:-100])
    assert "vae/diffusion_pytorch_model.safetensors is truncated" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet/config.json", {"blok_out_channels": [8]}, "did you mean 'block_out_channels'"),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "names code to run (auto_map)"),
        ("vae/config.json", {"auto_map": {}}, "names code to run (auto_map)"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.y"}}, "names code to run"),
        (
            "unet/config.json",
            {"_class_name": "UNet1DModel"},
            "not supported, only UNet2DConditionModel or UNetSpatioTemporalConditionModel or",
        ),
        ("unet/config.json", {"_class_name": ["os", "system"]}, "is not supported"),
        ("vae/config.json", {"_class_name": "os.system"}, "a vae of class 'os.system' is not supported"),
        ("text_encoder/config.json", {"architectures": ["T5Model"]}, "class 'T5Model' is not supported"),
        (
            "model_index.json",
            {"scheduler": ["os", "subprocess.Popen"]},
            "'subprocess.Popen' is not supported",
        ),
        ("model_index.json", {"scheduler": ["os", 7]}, "the scheduler 7 is not supported"),
        ("model_index.json", {"transformer": ["diffusers", "X"]}, "a model with transformer ('X')"),
        ("model_index.json", {"unett": ["diffusers", "X"]}, "a model with unett ('X') is not supported"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "must be 'AutoencoderTiny'"),
        ("vae/config.json", {"in_channels": 6}, "an autoencoder of pictures with 6 channels (in_channels)"),
        ("unet/config.json", {"cross_attention_dim": 32}, "does not fit text states 24 wide"),
        ("unet/config.json", {"in_channels": 5}, "in_channels = 5 is not supported"),
        ("unet/config.json", {"out_channels": 8}, "must be the autoencoder's latent_channels"),
        ("unet/config.json", {"sample_size": 8192}, "a native size of"),
        ("unet/config.json", {"block_out_channels": [8, 32]}, "has shape"),
        ("text_encoder/config.json", {"vocab_size": 6000}, "and text_encoder only 6000"),
        ("text_encoder/config.json", {"max_position_embeddings": 50}, "text_encoder reads 50"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas and prediction_type"),
        (
            "scheduler/scheduler_config.json",
            {"trained_betas": [1e-20, 1e-20], "num_train_timesteps": 2},
            "the betas make no path",
        ),
    ],
)
def test_configurations_that_are_wrong_or_ask_for_code_are_refused(folder, file, changes, words):
    edit(folder / file, **changes)
    assert words in refusal(folder)


def test_an_sdxl_that_is_told_another_number_of_sizes_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved("sdxl"), tmp_path / "m")
    edit(folder / "unet" / "config.json", projection_class_embeddings_input_dim=76)
    assert "must be the pooled text's width 20 plus 6 × 8 (SDXL) or 5 × 8" in refusal(folder)


def test_no_class_that_a_folder_names_is_ever_imported(folder, monkeypatch):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    edit(folder / "model_index.json", _class_name="EvilPipeline", safety_checker=["evil", "Evil"])
    assert checkpoint.load(folder).kind == "latent-diffusion"
    edit(folder / "model_index.json", unet=["evil", "UNet2DConditionModel"])
    checkpoint.load(folder)
    edit(folder / "unet" / "config.json", _class_name=...)
    edit(folder / "model_index.json", unet=["evil", "Evil"])
    assert "a unet of class 'Evil' is not supported" in refusal(folder)


def test_an_index_of_shards_cannot_lead_elsewhere(folder):
    path = weights_of(folder, "unet")
    index = {"weight_map": dict.fromkeys(("conv_in.weight", "conv_in.bias"), "../../secret.safetensors")}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    path.rename(folder.parent / "secret.safetensors")
    assert "a shard is a .safetensors file beside it" in refusal(folder)


def test_a_single_file_is_told_by_its_content(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "pickles can run code" in refusal(tmp_path / "model.ckpt")
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert "is no model that is known here: it holds 'a'" in refusal(tmp_path / "model.safetensors")


def test_inspect_lists_every_problem_at_once(folder):
    shutil.rmtree(folder / "scheduler")
    (folder / "vae" / "config.json").unlink()
    edit(folder / "unet" / "config.json", auto_map={})
    problems = "\n".join(checkpoint.inspect(folder).problems)
    for words in ("scheduler/ is missing", "vae/config.json is missing", "auto_map", "cannot be told"):
        assert words in problems


EVERY_FILE = (
    "model_index.json",
    "sfumato.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "scheduler/scheduler_config.json",
)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("file", EVERY_FILE)
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_named_at_once(folder, file, kind):
    path = folder / file
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    told = refusal(folder)
    assert f"{path}: it is a " in told
    assert kind in told
    if file != "model_index.json":
        assert told in checkpoint.inspect(folder).problems


def test_what_no_loading_reads_may_be_anything(folder):
    (folder / "unet" / "notes.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "tokenizer" / "more.json")
    assert checkpoint.inspect(folder).problems == []
    assert checkpoint.load(folder).fingerprint


def test_a_pipe_or_a_device_named_as_a_model_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "it is a named pipe, not a file" in refusal(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    assert "it is a device, not a file" in refusal(tmp_path / "zero.safetensors")


def test_a_sparse_file_of_a_network_larger_than_the_memory_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: {"memory": 300_000})
    assert "takes 0.0 GB of memory, and this machine has 0.0 GB" in refusal(folder)
    monkeypatch.undo()
    entry = {"x": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    header = json.dumps(entry).encode()
    path = folder / "huge.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + (1 << 40))
    with pytest.raises(CheckpointError, match=r"huge.safetensors takes 1,099\.5 GB of memory"):
        weights.read(path)


def test_a_vocabulary_of_millions_of_merges_is_refused(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "tokenizer" / "merges.txt").write_text("a b\n" * 600_000)
    assert "merges.txt has 600,001 merges; at most 524,288 are read" in refusal(folder)
