"""Converting: a folder into one file and back, the same to the bit, and read by diffusers as well."""

import json
import shutil

import diffusers
import pytest
import torch
from checkpoint_families import FAMILIES
from single_files import autoencoder, write

from sfumato import checkpoint, weights
from sfumato.checkpoint import convert
from sfumato.cli.convert import convert as command
from sfumato.errors import CheckpointError, OutputError, UsageError


def content(folder):
    """Every file of a folder by its place."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def folders(published, tmp_path_factory):
    """A family's pipeline with CLIP's own vocabulary, and the folder that diffusers made of it."""
    made = {}

    def get(family):
        if family not in made:
            pipe, _ = published(family)
            made[family] = pipe, tmp_path_factory.mktemp("folders") / family
            pipe.save_pretrained(made[family][1])
        return made[family]

    return get


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_becomes_a_file_and_that_the_same_folder_again(family, saved, tmp_path):
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / f"{family}.safetensors"
    convert(saved(family), first)
    done = convert(first, file)
    convert(file, second)
    assert content(second) == content(first)
    assert (done.layout, done.bytes) == ("single file", file.stat().st_size)
    model, again = checkpoint.load(saved(family)), checkpoint.load(file)
    assert (again.kind, again.task, again.prediction) == (model.kind, model.task, model.prediction)
    for name, network in model.networks.items():
        state = again.networks[name].state_dict()
        assert again.networks[name].config == network.config
        assert all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items())
    for tokenizer, other in zip(model.tokenizers, again.tokenizers, strict=True):
        assert (tokenizer.vocab, tokenizer.merges) == (other.vocab, other.merges)
        assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (other.bos, other.eos, other.pad)


def test_a_file_from_elsewhere_comes_back_the_same_to_the_bit(published, tmp_path):
    _, tensors = published("sdxl")
    tensors = {name: tensor for name, tensor in tensors.items() if "logit_scale" not in name}
    first = write(tensors, tmp_path / "first.safetensors")
    convert(first, tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "second.safetensors")
    found = weights.read(tmp_path / "second.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd1", diffusers.StableDiffusionPipeline),
        ("sd2-v", diffusers.StableDiffusionPipeline),
        ("sdxl", diffusers.StableDiffusionXLPipeline),
    ],
)
def test_diffusers_reads_a_converted_file_as_what_it_was(family, kind, folders, tmp_path):
    pipe, folder = folders(family)
    convert(folder, tmp_path / "model.safetensors")
    theirs = kind.from_single_file(tmp_path / "model.safetensors", config=str(folder), local_files_only=True)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipe, name, None) is None:
            continue
        state, real = getattr(theirs, name).state_dict(), getattr(pipe, name).state_dict()
        assert state.keys() == real.keys()
        assert all(torch.equal(state[key], real[key]) for key in real), name


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_the_folder_that_a_file_became(family, published, tmp_path):
    pipe, tensors = published(family)
    file = write(tensors, tmp_path / "model.safetensors")
    convert(file, tmp_path / "folder", variant="fp16", dtype=torch.float16)
    theirs = type(pipe).from_pretrained(tmp_path / "folder", variant="fp16", local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):
        state = getattr(theirs, name).state_dict()
        assert all(
            torch.equal(state[key].float(), tensor.half().float())
            for key, tensor in getattr(pipe, name).state_dict().items()
        )
    assert theirs.scheduler.config.prediction_type == "epsilon"
    assert theirs.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_are_converted_on_the_way(dtype, saved, tmp_path):
    file = tmp_path / "half.safetensors"
    convert(saved("sd1"), file, dtype=dtype)
    model = checkpoint.load(saved("sd1"))
    half = checkpoint.load(file)
    for name, tensor in model.unet.state_dict().items():
        assert torch.equal(half.unet.state_dict()[name], tensor.to(dtype))


def test_a_header_says_what_the_file_is(folders, tmp_path):
    _, folder = folders("sdxl")
    convert(folder, tmp_path / "model.safetensors")
    told = weights.metadata(tmp_path / "model.safetensors")
    assert told["modelspec.sai_model_spec"] == "1.0.0"
    assert told["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert told["modelspec.prediction_type"] == "epsilon"
    assert told["modelspec.resolution"] == "256x256"
    stated = json.loads(told["sfumato.model"])
    assert stated["networks"].keys() == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert stated["tokenizers"]["tokenizer"]["vocab"] is None
    report = checkpoint.inspect(tmp_path / "model.safetensors")
    assert report.value("configuration") == "stated"


def test_models_that_predict_v_are_marked_for_other_programs(saved, tmp_path):
    convert("embedded", tmp_path / "model.safetensors")
    written = weights.header(tmp_path / "model.safetensors").tensors
    assert written["v_pred"].shape == written["ztsnr"].shape == (0,)
    model = checkpoint.load(tmp_path / "model.safetensors")
    assert model.path().level(999).a == 0
    assert model.native_size == (256, 256)
    assert model.defaults == checkpoint.load("embedded").defaults
    convert(saved("sd1"), tmp_path / "plain.safetensors")
    assert not {"v_pred", "ztsnr"} & weights.header(tmp_path / "plain.safetensors").tensors.keys()


def test_another_autoencoder_and_prediction_go_into_what_is_written(folders, tmp_path):
    _, folder = folders("sd1")
    torch.manual_seed(9)
    other = autoencoder()
    other.save_pretrained(tmp_path / "vae")
    convert(folder, tmp_path / "model.safetensors", vae=tmp_path / "vae", prediction="v")
    model = checkpoint.load(tmp_path / "model.safetensors")
    assert model.prediction == "v"
    assert torch.equal(model.vae.decoder.conv_in.weight, other.decoder.conv_in.weight)


def test_a_tiny_autoencoder_is_carried_in_a_file(folders, tmp_path):
    _, folder = folders("sd1")
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    tiny.save_pretrained(tmp_path / "tiny")
    convert(folder, tmp_path / "model.safetensors", vae=tmp_path / "tiny")
    assert (
        "first_stage_model.taesd_decoder.1.weight" in weights.header(tmp_path / "model.safetensors").tensors
    )
    model = checkpoint.load(tmp_path / "model.safetensors")
    assert all(torch.equal(model.vae.state_dict()[key], t) for key, t in tiny.state_dict().items())


def test_what_is_there_is_replaced_only_on_demand_and_survives_a_failure(saved, folder, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"precious")
    with pytest.raises(OutputError, match="will not replace"):
        convert(saved("sd1"), file)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        convert(folder, file, overwrite=True)
    assert file.read_bytes() == b"precious"
    convert(saved("sd1"), file, overwrite=True)
    assert checkpoint.load(file).kind == "latent-diffusion"
    convert(file, file, overwrite=True, dtype=torch.float16)
    assert checkpoint.load(file).unet.dtype == torch.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.safetensors"]


@pytest.mark.parametrize("name", ["a.ckpt", "a.PT", "a.gguf"])
def test_the_name_of_another_kind_of_file_is_no_folders(name, tmp_path):
    with pytest.raises(UsageError, match=r"a single file is named \.safetensors, anything else is a folder"):
        convert("embedded", tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_a_variant_is_for_folders(saved, tmp_path):
    with pytest.raises(UsageError, match="a variant names the weights of a folder"):
        convert(saved("sd1"), tmp_path / "model.safetensors", variant="fp16")


@pytest.fixture(scope="module")
def converted(saved, tmp_path_factory):
    """The tensors and the header's text of a converted file."""
    file = tmp_path_factory.mktemp("converted") / "model.safetensors"
    convert(saved("sd1"), file)
    return weights.read(file), weights.metadata(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stated: stated.pop("scheduler"), "must have index, scheduler, own, networks, tokenizers"),
        (lambda stated: stated["networks"].pop("vae"), "speaks of unet, text_encoder; the file holds"),
        (lambda stated: stated["networks"]["unet"].update(in_chanels=4), "unknown key 'in_chanels'"),
        (lambda stated: stated["networks"]["unet"].update(_class_name="Other"), "of class 'Other' is not"),
        (lambda stated: stated["networks"]["vae"].update(layers_per_block=3), "and 61 more are missing"),
        (lambda stated: stated["tokenizers"].clear(), "is no tokenizer"),
        (lambda stated: stated["tokenizers"]["tokenizer"].update(limit="x"), "is no tokenizer"),
        (lambda stated: stated["tokenizers"]["tokenizer"].update(vocab={"a": 1}), "is no tokenizer"),
        (lambda stated: stated["tokenizers"]["tokenizer"].update(merges=[1]), "is no tokenizer"),
        (
            lambda stated: stated["scheduler"].update(beta_start="x"),
            "beta_start is 'x': must be a valid number",
        ),
        (lambda stated: stated["own"].update(steps=0), "steps is 0: must be at least 1"),
    ],
)
def test_a_header_that_says_nonsense_is_refused(change, told, converted, tmp_path):
    file = tmp_path / "model.safetensors"
    tensors, metadata = converted
    stated = json.loads(metadata["sfumato.model"])
    change(stated)
    weights.write(file, tensors, metadata | {"sfumato.model": json.dumps(stated)})
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(file)
    assert told in str(caught.value)


def test_the_command_says_what_it_wrote_and_concluded(saved, tmp_path, capfd):
    target = tmp_path / "model.safetensors"
    command(str(saved("sd1")), target, {}, dtype="fp16")
    told = capfd.readouterr().out
    assert f"{target}: single file, " in told
    assert "prediction: epsilon (" in told
    command(str(target), tmp_path / "folder", {}, variant="fp16", as_json=True)
    line = json.loads(capfd.readouterr().out)
    assert line["layout"] == "diffusers folder"
    assert line["bytes"] == sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*.safetensors"))
    assert line["source"]["kind"] == "latent-diffusion"


def test_the_command_refuses_at_once_what_cannot_be(saved, tmp_path):
    with pytest.raises(UsageError, match="unknown dtype 'fp17'; did you mean 'fp16'"):
        command("embedded", tmp_path / "new", {}, dtype="fp17")
    with pytest.raises(UsageError, match="prediction is 'epsilom': must be 'epsilon', 'v', 'x0' or 'flow'"):
        command("embedded", tmp_path / "new", {"prediction": "epsilom"})
    shutil.copytree(saved("sd1"), tmp_path / "there")
    with pytest.raises(OutputError, match="--overwrite replaces it"):
        command("embedded", tmp_path / "there", {})
