"""The forms in which single files go round: precisions, marks, parts, and what only looks like one."""

import diffusers
import pytest
import torch
from single_files import autoencoder, diffusers_keys, original_vae, write

from sfumato import checkpoint, weights
from sfumato.checkpoint import grouping, single
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.vocabulary import clip_tokenizer
from sfumato.errors import CheckpointError, UsageError
from sfumato.nets.tiny_vae import AutoencoderTiny


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refusal(path, **options):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, **options)
    told = checkpoint.inspect(path, **options).problems
    assert str(caught.value) in told
    return str(caught.value)


def equal(network, real):
    ours = network.state_dict()
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in real.state_dict().items()}
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_as_stored_and_converted_on_demand(stored, published, path):
    pipe, tensors = published("sd1")
    write({name: tensor.to(stored) for name, tensor in tensors.items()}, path)
    assert {p.dtype for p in checkpoint.load(path).unet.parameters()} == {stored}
    model = checkpoint.load(path, dtype=torch.float32)
    real = pipe.unet.state_dict()
    for name, parameter in model.unet.state_dict().items():
        assert torch.equal(parameter, real[name].to(stored).float())


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("norms", [None, torch.bfloat16, torch.float32])
def test_eight_bits_become_what_holds_them_exactly(stored, norms, published, path):
    _, tensors = published("sd1")
    kept = {
        name: tensor.to(norms if norms and tensor.ndim == 1 else stored) for name, tensor in tensors.items()
    }
    write(kept, path)
    model = checkpoint.load(path)
    assert {p.dtype for p in model.unet.parameters()} == {norms or torch.float16}
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(model.unet.conv_in.weight.float(), kept[name].float())
    assert checkpoint.load(path, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_beside_float16_and_float32_become_float32(stored, published, path):
    _, tensors = published("sd1")
    first = "model.diffusion_model.input_blocks.0.0."
    kept = {
        name: tensor.to(torch.float16 if tensor.ndim == 1 else stored) for name, tensor in tensors.items()
    }
    kept[f"{first}bias"] = tensors[f"{first}bias"]
    write(kept, path)
    model = checkpoint.load(path)
    assert {p.dtype for p in model.unet.parameters()} == {torch.float32}
    assert torch.equal(model.unet.conv_in.bias, tensors[f"{first}bias"])
    assert torch.equal(model.unet.conv_in.weight, kept[f"{first}weight"].float())


def test_different_precisions_in_one_part_stay_as_they_are(published, path):
    _, tensors = published("sd1")
    clip = "cond_stage_model.transformer.text_model."
    mixed = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    write(mixed | {f"{clip}embeddings.position_ids": torch.arange(77)[None]}, path)
    encoder = checkpoint.load(path).text_encoders[0]
    assert encoder.embeddings.token_embedding.weight.dtype == torch.float16
    assert encoder.final_layer_norm.weight.dtype == torch.float32


def test_a_moving_average_in_the_file_is_left_out_and_named(published, path):
    pipe, tensors = published("sd1")
    prefix = "model.diffusion_model."
    copy = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): torch.zeros_like(tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    more = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(9)}
    write(tensors | copy | more | {"alphas_cumprod": torch.rand(1000), "logvar": torch.rand(10)}, path)
    model = checkpoint.load(path)
    assert equal(model.unet, pipe.unet)
    assert model.report.value("moving average") == f"{len(copy) + 2} tensors left out"
    assert model.report.value("not read") == "alphas_cumprod, logvar"


def test_constants_and_unread_projections_are_passed_over(published, path):
    _, tensors = published("sd1")
    clip = "cond_stage_model.transformer."
    more = {
        f"{clip}text_model.embeddings.position_ids": torch.arange(77)[None],
        f"{clip}text_projection.weight": torch.eye(64),
        "cond_stage_model.logit_scale": torch.tensor(4.6),
        "cond_stage_model.text_projection": torch.eye(64),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "first_stage_model.model_ema.decay": torch.tensor(0.9),
    }
    write(tensors | more, path)
    assert checkpoint.load(path).networks.keys() == {"unet", "vae", "text_encoder"}


def test_text_encoders_without_the_inner_prefix_are_read(published, path):
    pipe, tensors = published("sd1")
    write({name.replace(".text_model.", "."): tensor for name, tensor in tensors.items()}, path)
    assert equal(checkpoint.load(path).text_encoders[0], pipe.text_encoder)


@pytest.mark.parametrize(
    ("family", "marks", "metadata", "prediction", "reason"),
    [
        ("sd1", {}, {}, "epsilon", "sd1 models do"),
        ("sd1", {"v_pred": torch.empty(0)}, {}, "v", "marked by a tensor 'v_pred'"),
        ("sd1", {}, {"modelspec.prediction_type": "v"}, "v", "the header says so"),
        ("sd1", {}, {"modelspec.predict_key": "v"}, "v", "the header says so"),
        ("sd2-v", {}, {}, "v", "Stable Diffusion 2 does"),
        ("sd2-v", {}, {"modelspec.predict_key": "epsilon"}, "epsilon", "the header says so"),
        ("sd2-v", {"global_step": torch.tensor(875000)}, {}, "epsilon", "global_step is 875,000"),
        ("sd2-v", {"global_step": torch.tensor(110000)}, {}, "v", "global_step is 110,000"),
        ("sd2-v", {"global_step": torch.tensor(110000)}, {"modelspec.prediction_type": "epsilon"}, "epsilon",
         "the header says so"),
    ],
)  # fmt: skip
def test_the_prediction_is_told_by_marks(family, marks, metadata, prediction, reason, published, path):
    _, tensors = published(family)
    write(tensors | marks, path, **metadata)
    model = checkpoint.load(path)
    assert model.prediction == prediction
    assert reason in next(found.reason for found in model.report.inferences if found.what == "prediction")


@pytest.mark.parametrize("marks", [{}, {"global_step": torch.tensor(885_000)}], ids=["alone", "trained on"])
@pytest.mark.parametrize(("spread", "prediction"), [(0.2, "v"), (0.03, "epsilon")])
def test_the_spread_of_a_bias_tells_the_second_kind_apart(spread, prediction, marks, path):
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    first = "model.diffusion_model.input_blocks.0.0.weight"
    bias = spread * torch.tensor([1.0, -1.0]).repeat(160)
    write({name: bias, first: torch.zeros(32, 4, 3, 3), **marks}, path)
    checked = weights.header(path)
    place = grouping.PLACES[0]
    tensors = {key.removeprefix(place.prefix): info for key, info in checked.tensors.items()}
    told, reason = single._prediction(path, checked, grouping.Group(place, tensors), FAMILIES["sd2"])
    assert told == {"v": "v_prediction"}.get(prediction, prediction)
    assert f"spreads by {spread:.3f}" in reason


def test_a_prediction_that_is_asked_for_outdoes_every_mark(published, path, saved):
    _, tensors = published("sd2-v")
    write(tensors, path)
    model = checkpoint.load(path, prediction="epsilon")
    assert (model.prediction, model.schedule.prediction_type) == ("epsilon", "epsilon")
    assert model.fingerprint != checkpoint.load(path).fingerprint
    assert checkpoint.load(saved("sd1"), prediction="v").prediction == "v"
    with pytest.raises(UsageError, match="unknown prediction 'eps'"):
        checkpoint.load(path, prediction="eps")


def test_a_mark_for_zero_terminal_signal_rescales_the_path(published, path):
    _, tensors = published("sdxl")
    write(tensors | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, path)
    model = checkpoint.load(path)
    assert model.prediction == "v"
    assert model.path().level(999).a == 0
    assert model.zero_negative


def test_a_renamed_copy_has_the_same_fingerprint_and_a_changed_one_another(published, path):
    _, tensors = published("sd1")
    write(tensors, path)
    copy = path.with_name("copy.safetensors")
    copy.write_bytes(path.read_bytes())
    assert checkpoint.load(copy).fingerprint == checkpoint.inspect(path).fingerprint
    write({name: 1.01 * tensor for name, tensor in tensors.items()}, copy)
    assert checkpoint.load(copy).fingerprint != checkpoint.load(path).fingerprint


def test_inspecting_a_file_gives_every_conclusion_with_its_reason(published, path):
    _, tensors = published("sdxl")
    write(tensors, path)
    report = checkpoint.inspect(path)
    told = {found.what: found for found in report.inferences}
    assert not report.problems
    assert told.keys() >= {
        *("layout", "family", "unet", "unet heads", "text_encoder", "text_encoder_2", "kind", "task"),
        *("prediction", "path", "native size", "latent scale", "defaults"),
    }
    assert all(found.value and found.reason for found in told.values())
    assert told["latent scale"].value == "× 0.13025"
    total = sum(tensor.numel() for name, tensor in tensors.items() if "logit_scale" not in name)
    assert report.parameters == total


# Parts from elsewhere.


def only(tensors, *prefixes):
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("family", "missing"),
    [("sd1", "VAE and the text encoder"), ("sdxl", "VAE and the text encoder and the second text encoder")],
)
def test_a_unet_alone_says_what_is_missing_and_takes_it_from_a_base(
    family, missing, published, path, tmp_path
):
    pipe, tensors = published(family)
    prefix = "model.diffusion_model."
    write({name.removeprefix(prefix): t for name, t in only(tensors, prefix).items()}, path)
    told = refusal(path)
    assert f"is a UNet alone: the {missing} are missing" in told
    assert "--base MODEL" in told
    whole = write(tensors, tmp_path / "whole.safetensors")
    other = write(pipe.unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    for model in (checkpoint.load(path, base=whole), checkpoint.load(other, base=whole)):
        for name, network in model.networks.items():
            assert equal(network, getattr(pipe, name))
        assert model.report.value("borrowed") == ", ".join(name for name in model.networks if name != "unet")
        whole_model = checkpoint.load(whole)
        assert [t.pad for t in model.tokenizers] == [t.pad for t in whole_model.tokenizers]
        assert model.unet.config == whole_model.unet.config


def test_a_base_lends_only_what_is_missing(published, path, tmp_path):
    pipe, tensors = published("sd1")
    write(only(tensors, "model.", "cond_stage_model."), path)
    base = write(published("sdxl")[1], tmp_path / "base.safetensors")
    model = checkpoint.load(path, base=base)
    assert model.report.value("borrowed") == "vae"
    assert equal(model.text_encoders[0], pipe.text_encoder)
    assert len(model.text_encoders) == 1
    write(only(tensors, "model."), path)
    assert "the text encoder is missing; --base MODEL" in refusal(path, vae=base)


def test_a_model_without_an_autoencoder_asks_for_one(published, path, tmp_path):
    pipe, tensors = published("sdxl")
    write(only(tensors, "model.", "conditioner."), path)
    assert refusal(path).endswith("the VAE is missing; --vae FILE gives it")
    vae = write(only(tensors, "first_stage_model."), tmp_path / "vae.safetensors")
    model = checkpoint.load(path, vae=vae)
    assert equal(model.vae, pipe.vae)
    assert model.vae.config.scaling_factor == 0.13025


def test_half_of_an_xl_models_text_encoders_is_not_enough(published, path):
    _, tensors = published("sdxl")
    write(only(tensors, "model.", "first_stage_model.", "conditioner.embedders.0."), path)
    assert "the second text encoder is missing" in refusal(path)


@pytest.mark.parametrize("form", ["original", "in training", "prefixed", "diffusers", "folder"])
def test_an_autoencoder_of_its_own_replaces_the_models(form, published, path, tmp_path, saved):
    torch.manual_seed(5)
    other = autoencoder(0.5)
    _, tensors = published("sd1")
    write(tensors, path)
    vae = tmp_path / "other.safetensors"
    if form == "folder":
        vae = tmp_path / "other"
        other.save_pretrained(vae)
    elif form == "diffusers":
        write(other.state_dict(), vae)
    else:
        left = {"loss.logvar": torch.zeros(()), "model_ema.num_updates": torch.tensor(7)}
        own = original_vae(other, "first_stage_model." if form == "prefixed" else "")
        write(own | (left if form == "in training" else {}), vae)
    model = checkpoint.load(path, vae=vae)
    assert equal(model.vae, other)
    assert model.vae.config.scaling_factor == (0.5 if form == "folder" else 0.18215)
    assert model.report.value("vae") == vae.name
    assert model.fingerprint != checkpoint.load(path).fingerprint
    assert equal(checkpoint.load(saved("sd1"), vae=vae).vae, other)


@pytest.mark.parametrize("form", ["diffusers", "halves", "one file"])
def test_a_tiny_autoencoder_replaces_the_models(form, published, path, tmp_path):
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
    )  # fmt: skip
    state = tiny.state_dict()
    _, tensors = published("sd1")
    write(tensors, path)
    vae = tmp_path / "taesd_decoder.safetensors"
    if form == "diffusers":
        write(state, vae)
    else:
        halves = {"encoder": {}, "decoder": {}}
        for name, tensor in state.items():
            half, _, number, rest = name.split(".", 3)
            halves[half][f"{int(number) + (half == 'decoder')}.{rest}"] = tensor
        if form == "halves":
            write(halves["decoder"], vae)
            assert "its encoder" in refusal(path, vae=vae)
            write(halves["encoder"], tmp_path / "taesd_encoder.safetensors")
        else:
            write({f"taesd_{half}.{k}": t for half, part in halves.items() for k, t in part.items()}, vae)
    model = checkpoint.load(path, vae=vae)
    assert isinstance(model.vae, AutoencoderTiny)
    assert equal(model.vae, tiny)
    latents = torch.randn(1, 4, 6, 4)
    assert torch.allclose(model.vae.decode(latents), tiny.decode(latents).sample, atol=1e-5)


# What only looks like a model.


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"lora_unet_mid_block_resnets_0_conv1.lora_down.weight": (4, 8)}, "is a LoRA: use it with --lora"),
        ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (4, 320)}, "is a LoRA"),
        ({"lora_unet_x.hada_w1_a": (4, 4)}, "is a LoRA"),
        ({"emb_params": (2, 768)}, "is a textual inversion embedding: put it into the embeddings folder"),
        ({"clip_l": (1, 768), "clip_g": (1, 1280)}, "is a textual inversion embedding"),
        ({"<cat-toy>": (768,)}, "is a textual inversion embedding"),
        ({"control_model.input_hint_block.0.weight": (1,)}, "is a ControlNet: give it beside a model"),
        ({"encoder.conv_in.weight": (32, 3, 3, 3), "decoder.conv_in.weight": (1,)}, "is a VAE alone"),
        ({"1.weight": (8, 4, 3, 3)}, "is a VAE alone: give it beside a model, with --vae"),
        ({"text_model.encoder.layers.0.mlp.fc1.bias": (8,)}, "is a text encoder alone"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "is Flux, which is not supported"),
        ({"something.else": (2,)}, "is no model that is known here: it holds 'something.else'"),
        ({}, "is no model that is known here: it holds nothing"),
    ],
)  # fmt: skip
def test_what_is_no_model_says_what_it_is_and_where_it_belongs(tensors, told, path):
    write({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    assert told in refusal(path)


def test_a_missing_and_an_unknown_key_are_named_as_the_file_names_them(published, path):
    _, tensors = published("sd1")
    name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    wrong = name.replace("to_q", "to_qq")
    changed = {wrong if key == name else key: tensor for key, tensor in tensors.items()}
    write(changed, path)
    told = refusal(path)
    assert f"{name!r} is missing" in told
    assert f"{wrong!r} is unknown (did you mean {name!r}?)" in told


def test_a_tensor_of_another_shape_is_named(published, path):
    _, tensors = published("sd1")
    name = "first_stage_model.decoder.mid.attn_1.q.weight"
    write(tensors | {name: torch.zeros(64, 32, 1, 1)}, path)
    assert f"{name!r} has shape [64, 32] where [64, 64] is due" in refusal(path)


def test_tensors_of_no_part_and_parts_twice_are_refused(published, path):
    pipe, tensors = published("sd1")
    write(tensors | {"extra.weight": torch.zeros(1)}, path)
    assert "holds 'extra.weight', which belong to no part of a model" in refusal(path)
    write(tensors | {"lora_unet_x.lora_down.weight": torch.zeros(1)}, path)
    assert "which is a LoRA" in refusal(path)
    write(tensors | only(diffusers_keys(pipe), "unet."), path)
    assert "holds two of the unet: as 'model.diffusion_model.' and as 'unet.'" in refusal(path)


def test_widths_that_published_models_do_not_have_are_refused_with_the_reason(path, pipelines):
    write(diffusers_keys(pipelines("sd1")), path)
    assert "cannot be split into CLIP's heads of 64" in refusal(path)


def test_a_smaller_vocabulary_cannot_come_without_its_pieces(published, path):
    _, tensors = published("sd1")
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    write(tensors | {name: tensors[name][:1000]}, path)
    assert "knows 1,000 pieces of text" in refusal(path)


def test_not_a_number_in_a_file_is_named(published, path):
    _, tensors = published("sd1")
    name = "model.diffusion_model.out.2.bias"
    write(tensors | {name: tensors[name] * float("nan")}, path)
    with pytest.raises(CheckpointError, match=rf"tensor '{name}' holds NaN"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight"], (1,)),
        (["unet.conv_in.weight", "unet.down_blocks.0.resnets.0.conv1.weight"], ()),
        (["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"], ()),
        (["model.diffusion_model.x.transformer_blocks.9999.a"], (1,)),
        (["first_stage_model.encoder.down.0.block.0.conv1.weight"], ()),
        (["first_stage_model.encoder.layers.999.weight", "first_stage_model.decoder.layers.1.bias"], ()),
        (["cond_stage_model.model.token_embedding.weight"], (49408,)),
        (["conditioner.embedders.1.model.text_projection"], ()),
        (["unet.conv_in.weight", "vae.encoder.conv_in.weight", "text_encoder.final_layer_norm.bias"], (3, 0)),
    ],
)  # fmt: skip
def test_fragments_of_a_model_are_refused_without_an_accident(names, shape, published, path):
    _, tensors = published("sd1")
    prefixes = tuple({".".join(name.split(".")[:2]) + "." for name in names})
    fragment = {name: torch.zeros(shape) for name in names}
    for rest in ({}, {name: t for name, t in tensors.items() if not name.startswith(prefixes)}):
        write(rest | fragment, path)
        refusal(path)


def test_clips_vocabulary_is_the_published_one():
    tokenizer = clip_tokenizer()
    assert (len(tokenizer.vocab), len(tokenizer.merges)) == (49_408, 48_894)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, clip_tokenizer("!").pad) == (49406, 49407, 49407, 0)
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert sorted(tokenizer.vocab.values()) == list(range(49_408))
